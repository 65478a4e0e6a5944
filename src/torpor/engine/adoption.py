"""Workloads of VMs that others made: taken in when a VM is marked, let go when it is not any more."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torpor.domain.adoption import Mark, Stranger
from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import Conflict, Invalid, NotFound, Refused, TorporError
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.naming import check_label, hostname_of
from torpor.domain.workload import Flavor, Workload, WorkloadState
from torpor.engine.parts import Parts
from torpor.engine.records import Records


class Adopter:
    """Makes the records follow the marks. The caller holds the records' lock for `follow`."""

    def __init__(self, parts: Parts, records: Records) -> None:
        self._parts = parts
        self._records = records
        self._told: dict[str, str] = {}
        self.requests = 0
        """How often marks were changed by request: a look at the VMs that began before the last one is out of date."""

    def follow(self, strangers: Sequence[Stranger], busy: Collection[WorkloadId]) -> None:
        """Take in, change and let go as the VMs' marks say. Workloads in `busy` wait for the next time."""
        marked: dict[str, list[Stranger]] = {}
        for stranger in strangers:
            obstacle = stranger.defect or (stranger.unfit if stranger.mark else "")
            if obstacle:
                self._tell(stranger.name, f"{stranger.name} is left alone: {obstacle}.")
            elif stranger.mark is not None:
                marked.setdefault(stranger.mark.workload, []).append(stranger)
        for workload in self._parts.inventory.workloads():
            if workload.adopted:
                members = marked.pop(workload.name, [])
                if workload.id not in busy:
                    self._follow(workload, members)
        for name, members in marked.items():
            self._take_in(name, members)

    def _follow(self, workload: Workload, members: Sequence[Stranger]) -> None:
        known = {i.id for i in self._records.instances(workload.id)}
        if known != {m.id for m in members}:
            self._let_go(workload)
            if members:
                self._take_in(workload.name, members, workload)
            return
        mark = agreed(members)
        told = (mark.priority, mark.preemptible, mark.protect)
        if told != (workload.priority, workload.preemptible, workload.protect):
            self._records.change(
                workload.id, priority=mark.priority, preemptible=mark.preemptible, protect=mark.protect
            )
            self._records.event(
                "workload-changed", workload.name,
                f"{workload.name}: priority {mark.priority}, {'' if mark.preemptible else 'not '}preemptible"
                f"{', protected' if mark.protect else ''}.",
            )  # fmt: skip

    def _take_in(self, name: str, members: Sequence[Stranger], before: Workload | None = None) -> None:
        try:
            workload, instances = self._drafted(name, members, before)
            self._parts.inventory.add(workload, instances)
        except TorporError as error:
            self._tell(name, f"VMs marked for {name} are left alone: {error}")
            return
        self._told.pop(name, None)
        vms = ", ".join(m.name for m in members)
        self._records.event("workload-adopted", name, f"{name} is looked after: {vms}.")

    def _drafted(
        self, name: str, members: Sequence[Stranger], before: Workload | None
    ) -> tuple[Workload, tuple[Instance, ...]]:
        """As done: what its VMs are doing is found out by whoever follows their owners."""
        mark = agreed(members)
        workload = Workload(
            id=before.id if before else WorkloadId(str(uuid.uuid4())),
            name=check_label(name, "workload name"),
            image="",
            flavor=common_flavor(members),
            count=len(members),
            priority=mark.priority,
            created_at=before.created_at if before else self._parts.clock.now(),
            preemptible=mark.preemptible,
            protect=mark.protect,
            state=WorkloadState.DONE,
            ran_for=before.ran(self._parts.clock.now()) if before else 0.0,
            reason="taken in",
            adopted=True,
        )
        host = self._parts.hypervisor.host().id
        instances = tuple(
            Instance(m.id, workload.id, hostname_of(m.name), index, "", m.mac, m.host or host, network=m.network)
            for index, m in enumerate(sorted(members, key=lambda m: m.name))
        )
        return workload, instances

    def _let_go(self, workload: Workload) -> None:
        instances = self._records.instances(workload.id)
        self._parts.names.withdraw([i.name for i in instances])
        if not self._parts.hypervisor.capabilities().shared_books:  # there, what they hold was theirs before
            self._parts.ledger.release([i.id for i in instances], list(ClaimKind))
        self._parts.inventory.remove(workload.id)
        self._records.event("workload-released", workload.name, f"{workload.name} is looked after no more.")

    def _tell(self, subject: str, message: str) -> None:
        if self._told.get(subject) != message:
            self._told[subject] = message
            self._records.event("adoption-refused", subject, message)


class AdoptionRequests:
    """What the API asks for. Takes the records' lock itself."""

    def __init__(self, parts: Parts, records: Records, adopter: Adopter) -> None:
        self._parts = parts
        self._records = records
        self._adopter = adopter

    def strangers(self) -> Sequence[Stranger]:
        """Every VM of the host that Torpor did not make, marked or not. Raises Refused where the host is not shared."""
        self._require_shared()
        return self._parts.adoption.strangers()

    def adopt(self, vms: Sequence[str], mark: Mark, busy: Collection[WorkloadId]) -> Workload:
        """Mark these VMs, named or by id, and take them in: all or none.

        Raises Refused, Invalid, NotFound, Conflict.
        """
        self._require_shared()
        check_label(mark.workload, "workload name")
        if mark.preemptible and mark.protect:
            raise Invalid("a workload can't be both preemptible and protected", remedy="choose one")
        with self._records.lock:
            strangers = self._parts.adoption.strangers()
            self._require_free(mark.workload)
            chosen = [_chosen(vm, strangers) for vm in dict.fromkeys(vms)]
            gang = [s for s in strangers if s.mark is not None and s.mark.workload == mark.workload]
            members = list({s.id: s for s in (*gang, *chosen)}.values())
            common_flavor(members)
            for member in members:
                hostname_of(member.name)
            try:
                self._mark_all(members, mark)
            finally:
                self._adopter.requests += 1
            self._adopter.follow(self._parts.adoption.strangers(), busy)
            return self._records.named(mark.workload)

    def release(self, workload: Workload) -> None:
        """Let go of it and remove its snapshots; its VMs stay as they are.

        Raises Refused for one that Torpor made, and for one that is suspended.
        """
        if not workload.adopted:
            raise Refused(
                f"workload {workload.name} was not let go",
                detail="Torpor made its VMs, and nobody else looks after them",
                remedy=f"`torpor delete {workload.name}` removes it",
            )
        if workload.state is WorkloadState.SUSPENDED:
            raise Refused(
                f"workload {workload.name} was not let go",
                detail="it is suspended, and its saved images carry its mark: it would be taken in again",
                remedy=f"`torpor resume {workload.name}` first",
            )
        for instance in self._records.instances(workload.id):  # while it is ours: their parts lie beside its disks
            for snapshot in self._parts.snapshots.list(instance.id):
                self._parts.snapshots.remove(instance.id, snapshot.name)
        with self._records.lock:
            for instance in self._records.instances(workload.id):
                self._parts.adoption.unmark(instance.id)
            self._adopter.requests += 1
            self._adopter.follow(self._parts.adoption.strangers(), ())

    def _require_shared(self) -> None:
        if not self._parts.hypervisor.capabilities().adoption:
            raise Refused(
                "VMs can't be adopted",
                detail="this backend has its VMs to itself",
                remedy='set backend = "libvirt" on a host whose VMs are under libvirt',
            )

    def _require_free(self, name: str) -> None:
        for workload in self._parts.inventory.workloads():
            if workload.name == name and not workload.adopted:
                raise Conflict(f"the name {name} is taken", detail="Torpor runs a workload of that name",
                               remedy="choose another name")  # fmt: skip

    def _mark_all(self, members: Sequence[Stranger], mark: Mark) -> None:
        before: dict[InstanceId, Mark | None] = {}
        try:
            for member in members:
                before[member.id] = member.mark
                self._parts.adoption.mark(member.id, mark)
        except TorporError:
            for id, old in before.items():
                self._parts.adoption.unmark(id) if old is None else self._parts.adoption.mark(id, old)
            raise


def agreed(members: Sequence[Stranger]) -> Mark:
    """One mark for a gang. Where its VMs' marks differ, what disturbs them least holds for all."""
    marks = [m.mark for m in members if m.mark is not None]
    return replace(
        marks[0],
        priority=max(m.priority for m in marks),
        preemptible=all(m.preemptible for m in marks) and not any(m.protect for m in marks),
        protect=any(m.protect for m in marks),
    )


def common_flavor(members: Sequence[Stranger]) -> Flavor:
    """The size that all VMs of a gang have. Raises Invalid where they differ: a workload has one size."""
    sizes: Mapping[tuple[int, int], str] = {(m.flavor.vcpus, m.flavor.memory_mb): m.name for m in members}
    if len(sizes) > 1:
        described = "; ".join(f"{name} has {vcpus} vCPUs and {memory} MiB" for (vcpus, memory), name in sizes.items())
        raise Invalid(
            "VMs of one workload must be of one size", detail=described, remedy="make a workload of each size"
        )
    ((vcpus, memory_mb),) = sizes
    return Flavor(vcpus, memory_mb)


def _chosen(vm: str, strangers: Sequence[Stranger]) -> Stranger:
    found = [s for s in strangers if vm in (s.name, s.id)]
    if not found:
        raise NotFound(f"there is no VM {vm!r} that could be adopted", remedy="`torpor adopt` lists them")
    if found[0].unfit:
        raise Conflict(f"VM {found[0].name} can't be adopted", detail=found[0].unfit)
    return found[0]
