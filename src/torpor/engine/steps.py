"""The acts of an operation, and how each is taken back.

Every act asks what is true before it changes anything (directly, or because the port's
call converges), so that it may be repeated after a crash. Acts return a clause for the record.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.errors import BackendFailed, NoCapacity, NotFound, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import AddressState, BackendState, Instance, StateStatus
from torpor.domain.naming import NameRecord
from torpor.domain.operation import Operation, OperationKind, Step, StepKind
from torpor.domain.plan import state_room_mb
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.gang_steps import GangSteps, paused_at
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records
from torpor.engine.scene import Done, Scene, spec_of
from torpor.engine.snapshot_steps import SnapshotSteps
from torpor.engine.state_claims import StateClaims
from torpor.ports import Progress

_MIB = 1 << 20
_FIRST = (OperationKind.RUN, OperationKind.CLONE)
"""The first operation of a workload: its instances get all that they have, or nothing is left of them."""


class Steps:
    """Does steps and undoes them."""

    def __init__(self, parts: Parts, records: Records, settings: Settings) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._claims = StateClaims(parts, settings)
        self.next_in_place_of: Callable[[Sequence[InstanceId]], Operation | None] = lambda _: None
        """Decides who runs next once these hold nothing, and begins that operation; given by whoever decides."""
        gang = self.gang = GangSteps(parts, records)
        snapshots = self._snapshots = SnapshotSteps(parts, records, settings)
        self._acts: dict[StepKind, Callable[[Scene], str | Done]] = {
            StepKind.CLAIM_COMPUTE: self._claim_compute,
            StepKind.PUBLISH_NAMES: self._publish_names,
            StepKind.CLAIM_STATE: self._claim_state,
            StepKind.TELL_BATCH_SYSTEM: self._tell_batch_system,
            StepKind.PAUSE: gang.pause,
            StepKind.RELEASE_COMPUTE: self._release_compute,
            StepKind.SETTLE_STATE: self._settle,
            StepKind.SPEND: self._spend,
            StepKind.RUN_ON: gang.run_on,
            StepKind.CONFIRM: gang.confirm,
            StepKind.WITHDRAW_NAMES: self._withdraw_names,
            StepKind.RELEASE_ALL: self._release_all,
            StepKind.PASS_ON: self._pass_on,
            StepKind.FORGET: self._forget,
            StepKind.RECORD: self._record,
            StepKind.CLAIM_SNAPSHOT: snapshots.claim,
            StepKind.TAKE_SNAPSHOT: snapshots.take,
            StepKind.SETTLE_SNAPSHOTS: snapshots.settle,
            StepKind.GIVE_UP: snapshots.give_up,
        }
        self._instance_acts: dict[StepKind, Callable[[Scene, Instance], str]] = {
            StepKind.BOOT: self._boot,
            StepKind.SAVE: self._save,
            StepKind.RELEASE_MEMORY: self._release_memory,
            StepKind.RESTORE: self._restore,
            StepKind.REVERT: self._revert,
            StepKind.STOP: self._stop,
            StepKind.ERASE: self._erase,
            StepKind.VERIFY_SNAPSHOT: snapshots.verify,
            StepKind.LAY_DOWN: snapshots.lay_down,
            StepKind.IDENTIFY: snapshots.identify,
            StepKind.REMOVE_SNAPSHOT: snapshots.remove,
        }
        self._undos: dict[StepKind, Callable[[Scene], str | Done]] = {
            StepKind.CLAIM_COMPUTE: self._unclaim_compute,
            StepKind.CLAIM_STATE: self._fit_state_claims,
            StepKind.TELL_BATCH_SYSTEM: self._tell_awake,
            StepKind.PAUSE: gang.let_run,
            StepKind.CLAIM_SNAPSHOT: snapshots.settle,
            StepKind.TAKE_SNAPSHOT: snapshots.remove_all,
        }
        self._instance_undos: dict[StepKind, Callable[[Scene, Instance], str]] = {
            StepKind.BOOT: self._erase,
            StepKind.SAVE: self._drop,
            StepKind.RESTORE: self._unrestore,
            StepKind.LAY_DOWN: self._erase,
        }

    def scene(self, operation: Operation, progress: Progress) -> Scene:
        """Raises NotFound when the workload is out of the records."""
        return Scene(
            operation,
            self._records.workload(operation.workload),
            self._records.instances(operation.workload),
            progress,
        )

    def do(self, step: Step, scene: Scene) -> Done:
        if step.instance is None:
            return _done(self._acts[step.kind](scene))
        return _done(self._instance_acts[step.kind](scene, self._find(scene, step.instance)))

    def undo(self, step: Step, scene: Scene) -> Done:
        """Take the step back; kinds that need no undoing are left as they are."""
        if step.instance is None:
            return _done(self._undos.get(step.kind, _nothing)(scene))
        undo = self._instance_undos.get(step.kind)
        return _done(undo(scene, self._find(scene, step.instance)) if undo else "")

    @staticmethod
    def _find(scene: Scene, id: InstanceId) -> Instance:
        for instance in scene.instances:
            if instance.id == id:
                return instance
        raise NotFound(f"instance {id} is not in the records")

    # --- books ---

    def _claim_compute(self, scene: Scene) -> str:
        claims, compute = self._compute_claims(scene), self._compute(scene.workload)
        flavor = scene.workload.flavor
        if scene.operation.kind in _FIRST:
            disk = Resources(disk_mb=flavor.disk_mb)
            claims += [Claim(i.id, ClaimKind.DISK, scene.host(i), disk) for i in scene.instances]
        if scene.operation.kind is OperationKind.CLONE:
            state = Resources(disk_mb=state_room_mb(flavor))
            states = [Claim(i.id, ClaimKind.STATE, scene.host(i), state) for i in scene.instances]
            self._claims.require_allowed(states)
            claims += states
        self._parts.ledger.claim(claims)
        return f"{len(scene.instances)} x {compute.vcpus} vCPUs and {compute.memory_mb} MiB"

    def _compute(self, workload: Workload) -> Resources:
        return workload.compute_claim(self._settings.policy.overhead_mb)

    def _compute_claims(self, scene: Scene) -> list[Claim]:
        compute = self._compute(scene.workload)
        return [Claim(i.id, ClaimKind.COMPUTE, scene.host(i), compute) for i in scene.instances]

    def _pass_on(self, scene: Scene) -> str:
        """What it held goes to whoever comes next, in one transaction; their operation finds it claimed already."""
        self._require_absent(scene.instances)
        if self._kept_by_owners(scene):
            return "its owner may start it again at any time, and keeps what it holds"
        operation = self.next_in_place_of(scene.ids)
        if operation is None:
            return "nobody waits for what it held"
        heir = self.scene(operation, scene.progress)
        try:
            self._parts.ledger.claim(self._compute_claims(heir), instead_of=scene.ids)
        except NoCapacity as error:
            return f"{heir.workload.name} could not take it over: {error.detail}"
        return f"{heir.workload.name} takes it over"

    def _unclaim_compute(self, scene: Scene) -> str:
        kinds = [ClaimKind.COMPUTE]
        if scene.operation.kind in _FIRST:
            kinds += [ClaimKind.DISK, ClaimKind.STATE]
        back = [i for i in scene.instances if self._has_no_process(i) or not self._left_its_state(scene, i)]
        self._require_absent(back)
        self._parts.ledger.release([i.id for i in back], kinds)
        return ""

    def _release_compute(self, scene: Scene) -> str:
        self._require_absent(scene.instances)
        if not self._kept_by_owners(scene):
            self._parts.ledger.release(scene.ids, [ClaimKind.COMPUTE])
        return ""

    def _kept_by_owners(self, scene: Scene) -> bool:
        """Where a scheduler asks nobody when a VM is started again, what is off must keep its room."""
        shared = self._parts.hypervisor.capabilities().shared_books
        return shared and scene.workload.adopted and scene.operation.kind is OperationKind.END

    def _has_no_process(self, instance: Instance) -> bool:
        seen = self._parts.hypervisor.observe().get(instance.id)
        return seen is None or seen.pid is None

    def _left_its_state(self, scene: Scene, instance: Instance) -> bool:
        """Whether somebody else has started it from its saved state, to which there is no way back."""
        if scene.operation.kind in _FIRST or self._parts.hypervisor.capabilities().revert:
            return False
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        return newest is not None and newest.status is StateStatus.SPENT

    def _require_absent(self, instances: Sequence[Instance]) -> None:
        """The books must not say that memory is free which a process still has."""
        observed = self._parts.hypervisor.observe()
        for instance in instances:
            seen = observed.get(instance.id)
            if seen is not None and seen.pid is not None:
                raise BackendFailed(
                    f"the books keep what {instance.name} holds",
                    detail=f"its process {seen.pid} is still there",
                    remedy="it is tried again by itself",
                )

    def _claim_state(self, scene: Scene) -> str:
        """Room for the state to come, beside what the instance's states take already."""
        return self._claims.claim_next([(i, scene.host(i)) for i in scene.instances], scene.workload.flavor)

    def _settle(self, scene: Scene) -> str:
        """Only the newest state stays."""
        for instance in scene.instances:
            self._parts.suspension.settle(instance.id)
        return self._fit_state_claims(scene)

    def _fit_state_claims(self, scene: Scene) -> str:
        """The claim becomes what the states really take."""
        return f"{self._claims.fit(scene.instances)} MiB on disk"

    def _release_all(self, scene: Scene) -> str:
        self._require_absent(scene.instances)
        self._parts.ledger.release(scene.ids, list(ClaimKind))
        return ""

    # --- names and batch system ---

    def _publish_names(self, scene: Scene) -> str:
        self._parts.names.publish([NameRecord(i.name, i.address) for i in scene.instances if i.address])
        return ""

    def _withdraw_names(self, scene: Scene) -> str:
        self._parts.names.withdraw([i.name for i in scene.instances])
        return ""

    def _tell_batch_system(self, scene: Scene) -> str:
        if scene.operation.kind is not OperationKind.SUSPEND:
            return self._tell_awake(scene)
        self._parts.batch_system.before_suspend([i.name for i in scene.instances])
        return ""

    def _tell_awake(self, scene: Scene) -> str:
        """Only of nodes that run: one that died meanwhile must get no jobs."""
        observed = self._parts.hypervisor.observe()
        awake = [i.name for i in scene.instances if i.id in observed and observed[i.id].state is BackendState.RUNNING]
        self._parts.batch_system.after_resume(awake)
        return ""

    # --- life of the VMs ---

    def _boot(self, scene: Scene, instance: Instance) -> str:
        self._parts.hypervisor.boot(spec_of(self._settings, scene.workload, instance))
        return ""

    def _stop(self, scene: Scene, instance: Instance) -> str:
        given_up = scene.operation.kind is OperationKind.RESTORE_SNAPSHOT
        self._parts.hypervisor.stop(instance.id, 0.0 if given_up else self._settings.stop_grace)
        return ""

    def _erase(self, scene: Scene, instance: Instance) -> str:
        self._parts.hypervisor.erase(instance.id)
        return ""

    # --- saved states ---

    def _save(self, scene: Scene, instance: Instance) -> str:
        state = self._parts.suspension.save(spec_of(self._settings, scene.workload, instance), scene.progress)
        return f"{state.stored_bytes // _MIB} MiB, generation {state.generation}, {state.mechanism}"

    def _drop(self, scene: Scene, instance: Instance) -> str:
        """A VM that has no process any more has nothing but this state: it is kept, or the VM brought back from it."""
        if not self._has_no_process(instance):
            self._parts.suspension.drop(instance.id)
            return ""
        if not self._parts.hypervisor.capabilities().gang_pause:
            return ""  # undoing the pause wakes it
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        if self._parts.hypervisor.capabilities().keeps_process or newest is None or newest.status is StateStatus.SPENT:
            return f"{instance.name} has no process any more; its state is kept"
        if not any(c.consumer == instance.id and c.kind is ClaimKind.COMPUTE for c in self._parts.ledger.claims()):
            return f"{instance.name} had no room in the books; its state is kept"
        self._parts.suspension.restore(spec_of(self._settings, scene.workload, instance), scene.progress)
        return f"{instance.name} was brought back from its state"

    def _release_memory(self, scene: Scene, instance: Instance) -> str:
        self._parts.suspension.release(instance.id)
        return ""

    def _restore(self, scene: Scene, instance: Instance) -> str:
        self._parts.suspension.restore(spec_of(self._settings, scene.workload, instance), scene.progress)
        return ""

    def _revert(self, scene: Scene, instance: Instance) -> str:
        self._parts.suspension.revert(instance.id)
        return ""

    def _unrestore(self, scene: Scene, instance: Instance) -> str:
        """A clone that did not come about leaves nothing; it is made anew from its snapshot."""
        if self._left_its_state(scene, instance):
            return f"{instance.name} is left as it is: somebody else has started it"
        return (self._erase if scene.operation.kind in _FIRST else self._revert)(scene, instance)

    def _spend(self, scene: Scene) -> str:
        for instance in scene.instances:
            self._parts.suspension.spend(instance.id)
        return ""

    # --- records ---

    def _forget(self, scene: Scene) -> str:
        with suppress(TorporError):  # what is left of them is collected one day
            self._parts.provisions.give_back(scene.workload, scene.instances)
        # Last: from then on the name, and the address with it, may be asked for again.
        self._parts.inventory.remove(scene.workload.id, remember=True)
        return ""

    def _record(self, scene: Scene) -> str:
        outcome = {
            OperationKind.RUN: self._record_running,
            OperationKind.RESUME: self._record_running,
            OperationKind.SUSPEND: self._record_suspended,
            OperationKind.END: self._record_done,
            OperationKind.GO_BACK: self._record_suspended,
            OperationKind.RESTORE_SNAPSHOT: self._record_laid_down,
            OperationKind.CLONE: self._record_running,
        }
        outcome[scene.operation.kind](scene)
        return ""

    def _record_running(self, scene: Scene) -> None:
        if self._parts.hypervisor.capabilities().shared_books and scene.operation.kind is OperationKind.RESUME:
            self._claims.fit(scene.instances)  # the room of what was used up is others' again
        for instance in scene.instances:
            self._records.change_instance(
                scene.workload.id, instance.id, address_state=AddressState.UNVERIFIED, address_detail="", problem=None
            )
        if scene.workload.state is WorkloadState.ACTIVE:
            return  # recorded before a crash
        self._records.change(
            scene.workload.id,
            state=WorkloadState.ACTIVE,
            running_since=self._parts.clock.now(),
            held=False,
            attempts=0,
            problem=None,
            reason="",
        )

    def _record_suspended(self, scene: Scene) -> None:
        if scene.workload.state is WorkloadState.SUSPENDED:
            return
        self._records.change(
            scene.workload.id,
            state=WorkloadState.SUSPENDED,
            running_since=None,
            ran_for=scene.workload.ran(paused_at(scene.operation, self._parts.clock.now())),
            attempts=0,
            problem=None,
        )
        for instance in scene.instances:
            self._records.change_instance(scene.workload.id, instance.id, problem=None)

    def _record_laid_down(self, scene: Scene) -> None:
        self._snapshots.forget_commands(scene)
        self._record_suspended(scene)
        self._records.change(scene.workload.id, held=False)  # a restored workload is one that is to run

    def _record_done(self, scene: Scene) -> None:
        if scene.workload.state is WorkloadState.DONE:
            return
        self._records.change(
            scene.workload.id,
            state=WorkloadState.DONE,
            running_since=None,
            ran_for=scene.workload.ran(scene.operation.created_at),
            problem=None,
        )


def _nothing(scene: Scene) -> str:
    return ""


def _done(told: str | Done) -> Done:
    return told if isinstance(told, Done) else Done(told)
