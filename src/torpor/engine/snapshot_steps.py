"""The acts on snapshots: take, verify, lay down, remove; and telling a clone who it is."""

from collections.abc import Sequence

from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.errors import NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance, Snapshot
from torpor.domain.operation import OperationKind
from torpor.domain.plan import snapshot_room_mb
from torpor.domain.workload import WorkloadState
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records
from torpor.engine.scene import Scene, spec_of

_MIB = 1 << 20


class SnapshotSteps:
    """Does them and undoes them; as `Steps`, which hands these out."""

    def __init__(self, parts: Parts, records: Records, settings: Settings) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings

    # --- books ---

    def claim(self, scene: Scene) -> str:
        """Room for the snapshot to come, beside what there is already."""
        new = snapshot_room_mb(scene.workload.flavor)
        self._parts.ledger.claim(
            [
                Claim(i.id, ClaimKind.SNAPSHOT, scene.host(i), Resources(disk_mb=self._stored_mb(i.id) + new))
                for i in scene.instances
            ]
        )
        return f"{new} MiB for each of {len(scene.instances)}"

    def settle(self, scene: Scene) -> str:
        """The claim becomes what the snapshots really take."""
        stored = {i.id: self._stored_mb(i.id) for i in scene.instances}
        self._parts.ledger.release([i for i, mb in stored.items() if not mb], [ClaimKind.SNAPSHOT])
        self._parts.ledger.claim(
            [
                Claim(i.id, ClaimKind.SNAPSHOT, scene.host(i), Resources(disk_mb=stored[i.id]))
                for i in scene.instances
                if stored[i.id]
            ]
        )
        return f"{sum(stored.values())} MiB on disk"

    def _stored_mb(self, instance: InstanceId) -> int:
        return -(-sum(s.stored_bytes for s in self._parts.snapshots.list(instance)) // _MIB)

    # --- a snapshot's life ---

    def take(self, scene: Scene) -> str:
        """One instant for the whole gang; one that was whole before a crash is not taken twice."""
        name = scene.operation.snapshot
        taken = [s for i in scene.instances for s in self._parts.snapshots.list(i.id) if s.name == name]
        if len(taken) < len(scene.instances):
            for instance in scene.instances:  # what a crash may have left: parts of it, and VMs that stand still
                self._parts.snapshots.remove(instance.id, name)
                self._parts.hypervisor.run_on(instance.id)
            specs = [spec_of(self._settings, scene.workload, i) for i in scene.instances]
            taken = list(self._parts.snapshots.take(specs, name, scene.progress))
        return _told(taken)

    def remove_all(self, scene: Scene) -> str:
        """Takes `take` back; nobody stands still for a snapshot that there will not be."""
        for instance in scene.instances:
            self._parts.snapshots.remove(instance.id, scene.operation.snapshot)
        return ""

    def remove(self, scene: Scene, instance: Instance) -> str:
        self._parts.snapshots.remove(instance.id, scene.operation.snapshot)
        return ""

    def verify(self, scene: Scene, instance: Instance) -> str:
        self._parts.snapshots.verify(instance.id, scene.operation.snapshot, scene.progress)
        return ""

    def lay_down(self, scene: Scene, instance: Instance) -> str:
        spec = spec_of(self._settings, scene.workload, instance)
        self._parts.snapshots.lay_down(spec, self._source(scene, instance), scene.operation.snapshot)
        return ""

    def _source(self, scene: Scene, instance: Instance) -> InstanceId:
        """The instance itself; for a clone the one in the same place of the workload that it is made of."""
        origin = scene.workload.origin
        if scene.operation.kind is not OperationKind.CLONE or origin is None:
            return instance.id
        for other in self._records.instances(origin.workload):
            if other.index == instance.index:
                return other.id
        raise NotFound(
            f"instance {instance.name} can't be made",
            detail="the workload that it is a clone of is gone",
            remedy=f"delete {scene.workload.name}",
        )

    # --- what becomes of the workload ---

    def give_up(self, scene: Scene) -> str:
        """It runs no more, whatever its processes still do."""
        workload = scene.workload
        if workload.state is WorkloadState.RESUMING:
            return ""
        self._records.change(
            workload.id,
            state=WorkloadState.RESUMING,
            reason=scene.operation.reason,
            running_since=None,
            ran_for=workload.ran(self._parts.clock.now()),
        )
        return ""

    def forget_commands(self, scene: Scene) -> None:
        """What a guest knows of its command is as old as the snapshot: it is asked anew."""
        for instance in scene.instances:
            self._records.change_instance(scene.workload.id, instance.id, command_pid=None, exit_code=None)

    def identify(self, scene: Scene, instance: Instance) -> str:
        """A guest that has just been restored from another's memory is told who it is."""
        if not self._parts.hypervisor.capabilities().clones:
            return ""
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        if newest is None or newest.origin is None:
            return ""
        network = self._settings.network(instance.address)
        self._parts.guest.take_identity(instance, network.prefix, network.gateway)
        return f"{instance.name} has {instance.address} and {instance.mac}"


def _told(taken: Sequence[Snapshot]) -> str:
    pause = max((s.pause_seconds for s in taken), default=0.0)
    text = f"{sum(s.stored_bytes for s in taken) // _MIB} MiB, stood still for {pause * 1000:.0f} ms"
    if len(taken) > 1:
        moments = [s.created_at for s in taken]
        text += f", all within {(max(moments) - min(moments)) * 1000:.0f} ms"
    return text
