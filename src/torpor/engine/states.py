"""Looking after saved states: what there is, whether it is whole, and what can go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import Conflict, NotFound, Problem, StateDamaged, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance, SavedState, StateStatus
from torpor.domain.wording import listed
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.execute import Executor
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records
from torpor.engine.state_claims import StateClaims
from torpor.engine.views import RemovedStates, StateCheck, StateView

_MIB = 1 << 20
CheckReport = Callable[[StateCheck], None]


@dataclass(frozen=True, slots=True)
class _Found:
    workload: Workload
    instance: Instance
    state: SavedState


class StateKeeper:
    """The housekeeping of saved states. Never in the way of an operation."""

    def __init__(self, parts: Parts, records: Records, settings: Settings, executor: Executor) -> None:
        self._parts = parts
        self._records = records
        self._executor = executor
        self._claims = StateClaims(parts, settings)

    def list(self, workload: str | None) -> Sequence[StateView]:
        """Of one workload or of all, by instance, newest first. Raises NotFound."""
        return [
            StateView(found.workload.name, found.instance.name, found.state, self._runs_on(found))
            for found in self._all(workload)
        ]

    def verify(self, workload: str | None, report: CheckReport) -> Sequence[StateCheck]:
        """Read every byte of these states, one after the other; a damaged one does not end it. Raises NotFound."""
        return [self._verify(found, report) for found in self._all(workload)]

    def remove(self, workload: str, generation: int) -> RemovedStates:
        """Remove this generation of every instance of the workload that has it: of all, or of none.

        Raises NotFound, and Conflict for a state that is whole or mapped, or while an operation is under way.
        """
        with self._records.lock:
            going = [f for f in self._all(workload) if f.state.generation == generation]
            if not going:
                raise NotFound(
                    f"workload {workload} has no saved state {generation}", remedy=f"see `torpor state ls {workload}`"
                )
            owner = going[0].workload
            self._require_rest(owner)
            for found in going:
                self._require_removable(found)
            lost = _lost(owner)
            freed = 0
            for found in going:
                before = self._stored(found.instance)
                self._parts.states.remove(found.instance.id, generation)
                freed += before - self._stored(found.instance)
                self._claims.fit([found.instance])
        self._records.event("state-removed", workload, f"Saved state {generation} of {workload} is removed; {lost}.")
        return RemovedStates(workload, generation, tuple(f.instance.name for f in going), freed, lost)

    def collect(self) -> int:
        """Remove what nobody needs any more; returns the bytes freed. Waits for the operation under way."""
        with self._executor.at_rest():
            # An instance that is accepted from here on is not made before we are through.
            known = {i.id for i in self._parts.inventory.instances()}
            freed = self._parts.states.collect(known)
            with self._records.lock:
                self._fit_all_claims(known)
        if freed:
            self._records.event("states-collected", "states", f"{freed // _MIB} MiB of leftovers are removed.")
        return freed

    # Parts of the above

    def _all(self, workload: str | None) -> Sequence[_Found]:
        owners = [self._records.named(workload)] if workload is not None else self._parts.inventory.workloads()
        return [
            _Found(owner, instance, state)
            for owner in owners
            for instance in self._records.instances(owner.id)
            for state in self._parts.suspension.states(instance.id)
        ]

    def _verify(self, found: _Found, report: CheckReport) -> StateCheck:
        generation = found.state.generation
        running = StateCheck(found.workload.name, found.instance.name, generation)
        try:
            self._parts.states.verify(
                found.instance.id,
                generation,
                lambda done, total: report(replace(running, bytes_done=done, bytes_total=total)),
            )
            ended = replace(running, done=True, bytes_done=found.state.stored_bytes)
        except NotFound:
            ended = replace(running, done=True, gone=True)
        except TorporError as error:
            problem = damage(found.workload, found.instance, found.state, self._runs_on(found), error)
            ended = replace(running, done=True, problem=problem)
        report(ended)
        return ended

    def _require_rest(self, workload: Workload) -> None:
        if any(o.workload == workload.id for o in self._parts.journal.open()):
            raise Conflict(
                f"no saved state of {workload.name} was removed",
                detail="an operation is changing the workload",
                remedy="try again when it is at rest",
            )

    def _require_removable(self, found: _Found) -> None:
        what = f"saved state {found.state.generation} of {found.instance.name} was not removed"
        if found.state.status is StateStatus.WHOLE:
            raise Conflict(
                what,
                detail="it is whole: nothing else is left of the memory of a workload that sleeps",
                remedy=f"`torpor resume {found.workload.name}`, or `torpor delete {found.workload.name}`",
            )
        if self._runs_on(found):
            raise Conflict(
                what,
                detail="the guest runs on it: its memory is read from there as it is touched",
                remedy=f"`torpor suspend {found.workload.name}` writes a new one and frees this",
            )

    def _runs_on(self, found: _Found) -> bool:
        """A guest that was restored lazily maps its newest state, never another."""
        newest = next(iter(self._parts.suspension.states(found.instance.id)), None)
        if newest is None or newest.generation != found.state.generation:
            return False
        return self._parts.states.mapped(found.instance.id)

    def _stored(self, instance: Instance) -> int:
        return sum(s.stored_bytes for s in self._parts.suspension.states(instance.id))

    def _fit_all_claims(self, known: set[InstanceId]) -> None:
        busy = {o.workload for o in self._parts.journal.open()}
        claims = self._parts.ledger.claims()
        claimed = {c.consumer for c in claims if c.kind is ClaimKind.STATE}
        found = self._parts.inventory.instances()
        self._claims.fit([i for i in found if i.id in claimed and i.workload not in busy])
        now = {i.id for i in found}
        lost = {c.consumer for c in claims} - known - now - self._parts.hypervisor.observe().keys()
        if lost:
            self._parts.ledger.release(sorted(lost), list(ClaimKind))


def damage(workload: Workload, instance: Instance, state: SavedState, mapped: bool, error: TorporError) -> Problem:
    """What is wrong with a state, and what to do, by what still depends on it."""
    name = workload.name
    what = f"saved state {state.generation} of {instance.name} could not be read"
    if isinstance(error, StateDamaged):
        what = f"saved state {state.generation} of {instance.name} is damaged"
    if mapped:
        remedy = (
            f"the guest runs on it: bring the file back from a backup and `torpor resume {name}` takes {name} back to "
            f"that state, or go back to a snapshot, or `torpor delete {name}` and run it anew"
        )
    elif state.status is StateStatus.SPENT:
        remedy = f"the guest does not need it; suspend {name} to have a new one"
    else:
        remedy = f"bring the file back from a backup, or `torpor delete {name}`"
    return replace(error.problem, what=what, detail=_reason(error), remedy=remedy)


def _reason(error: TorporError) -> str:
    return error.detail or error.what


def _lost(workload: Workload) -> str:
    """What can't be done any more without that state."""
    name = workload.name
    if workload.state is WorkloadState.FAILED:
        return f"{name} can't be taken back to it by `torpor resume`"
    losses = [f"should {name} fail, it can't be taken back to it"]
    if workload.state is WorkloadState.ACTIVE:
        losses.append("its next suspension writes all of its memory")
    return listed(losses)
