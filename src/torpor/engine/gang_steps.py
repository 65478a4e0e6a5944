"""The acts on a gang as one: it stands still, it runs on, its clocks are set."""

from concurrent.futures import ThreadPoolExecutor

from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import BackendFailed, InstanceGone, TorporError
from torpor.domain.instance import BackendState, Instance, StateStatus
from torpor.domain.operation import Operation, OperationKind, StepKind
from torpor.domain.wording import seconds
from torpor.engine.parts import Parts
from torpor.engine.records import Records
from torpor.engine.scene import Done, Scene

CLOSE_SECONDS = 0.1
"""A clock that is nearer to the host's than this is right."""
_LOOKED_THROUGH = 200
"""Operations among which the suspension is looked for that a guest comes back from."""


class GangSteps:
    """Does them and undoes them; as `Steps`, which hands these out."""

    def __init__(self, parts: Parts, records: Records) -> None:
        self._parts = parts
        self._records = records

    def pause(self, scene: Scene) -> Done:
        """Whoever is saved already, by somebody else, stands still enough."""
        skew = self._parts.gangs.pause([i.id for i in scene.instances if not self._saved(i)])
        return Done(f"all stand still{_within(skew)}", skew)

    def _saved(self, instance: Instance) -> bool:
        seen = self._parts.hypervisor.observe().get(instance.id)
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        return (seen is None or seen.pid is None) and newest is not None and newest.status is StateStatus.WHOLE

    def run_on(self, scene: Scene) -> Done:
        """Where there is no way back to a spent state, one that ended while it stood still does not hold the others."""
        able = self._parts.hypervisor.capabilities()
        gone = () if able.revert or not able.gang_pause else self._gone(scene)
        skew = self._parts.gangs.run_on([i.id for i in scene.instances if i.name not in gone])
        return Done(f"all run on{_within(skew)}" + (f"; gone meanwhile: {', '.join(gone)}" if gone else ""), skew)

    def _gone(self, scene: Scene) -> tuple[str, ...]:
        seen = self._parts.hypervisor.observe()
        return tuple(i.name for i in scene.instances if i.id not in seen or seen[i.id].pid is None)

    def let_run(self, scene: Scene) -> Done:
        """Whoever can still run, runs; an instance that is gone is the reconciler's business."""
        gone = []
        for instance in scene.instances:
            seen = self._parts.hypervisor.observe().get(instance.id)
            if (seen is None or seen.state is BackendState.ABSENT) and not self._can_wake(instance):
                gone.append(instance.name)
                continue
            newest = next(iter(self._parts.suspension.states(instance.id)), None)
            if newest is not None and newest.status is StateStatus.WHOLE:
                self._parts.suspension.spend(instance.id)  # it could not be dropped
            try:
                self._parts.hypervisor.run_on(instance.id)
            except InstanceGone:
                gone.append(instance.name)
        return Done(f"gone meanwhile: {', '.join(gone)}" if gone else "")

    def _can_wake(self, instance: Instance) -> bool:
        """Whether it was saved by being paused, and has its room still."""
        claimed = any(c.consumer == instance.id and c.kind is ClaimKind.COMPUTE for c in self._parts.ledger.claims())
        return not self._parts.hypervisor.capabilities().gang_pause and claimed and self._saved(instance)

    def confirm(self, scene: Scene) -> Done:
        """Every instance was seen running; clocks are set where an agent answers."""
        observed = self._parts.hypervisor.observe()
        for instance in scene.instances:
            seen = observed.get(instance.id)
            if seen is None or seen.state is BackendState.ABSENT:
                if not self._parts.hypervisor.capabilities().revert:
                    return Done(f"{instance.name} ended right after it ran on")  # the reconciler tells, and books it
                raise InstanceGone(f"instance {instance.name} ended right after it ran on")
            if seen.state is not BackendState.RUNNING:
                raise BackendFailed(f"instance {instance.name} does not run on", detail=f"it is {seen.state}")
        with ThreadPoolExecutor(max_workers=8) as pool:
            return Done("; ".join(pool.map(lambda i: self._set_clock(scene, i), scene.instances)))

    # --- clocks ---

    def _set_clock(self, scene: Scene, instance: Instance) -> str:
        """What became of it, for the record; a clock is nothing that a resumption fails for."""
        try:
            gap = self._parts.guest.set_clock(instance.id, self._parts.clock.now())
        except TorporError as error:
            return self._tell_not_set(scene, instance, error)
        if gap is None:
            return self._tell_left(scene, instance)
        detail = f"it was {_signed(gap.behind)}, and is set to within {_small(gap.left)}"
        kind, advice = "clock-set", ""
        if abs(gap.left) > CLOSE_SECONDS:
            kind, detail = "clock-off", f"it was {_signed(gap.behind)}, and is still {_signed(gap.left)}"
            advice = "; the machine may be busy: let the guest run a time service"
        self._keep(scene, instance, gap.left, detail)
        self._records.event(kind, instance.name, f"The clock of {instance.name}: {detail}{advice}.")
        return f"{instance.name}: clock was {_signed(gap.behind)}"

    def _tell_not_set(self, scene: Scene, instance: Instance, error: TorporError) -> str:
        """The guest's clock stood still from its pause on, so the gap is known without the guest."""
        off = self._asleep(scene, instance)
        behind = f"it is about {_signed(off)}" if off is not None else "it is behind"
        detail = f"{behind}, and was not set: {error.detail or error.what}"
        self._keep(scene, instance, off, detail)
        self._records.event(
            "clock-not-set",
            instance.name,
            f"The clock of {instance.name}: {detail}; set it in the guest, or let it run a time service.",
        )
        return f"{instance.name}: clock not set"

    def _tell_left(self, scene: Scene, instance: Instance) -> str:
        off = self._asleep(scene, instance)
        stood = f"it stood still for about {seconds(off)}" if off is not None else "it stood still"
        detail = f"{stood}; the backend sets it through the guest agent, and does not tell how that went"
        self._keep(scene, instance, None, detail)
        self._records.event("clock-left", instance.name, f"The clock of {instance.name}: {detail}.")
        return f"{instance.name}: clock left to the backend"

    def _keep(self, scene: Scene, instance: Instance, off: float | None, detail: str) -> None:
        self._records.change_instance(scene.workload.id, instance.id, clock_off=off, clock_detail=detail)

    def _asleep(self, scene: Scene, instance: Instance) -> float | None:
        """Seconds from its pause until it ran on; None where it has no saved state to tell."""
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        if newest is None:
            return None
        written = newest.created_at
        suspensions = [
            operation
            for operation in self._parts.journal.recent(_LOOKED_THROUGH)
            if operation.kind is OperationKind.SUSPEND
            and operation.workload == scene.workload.id
            and operation.created_at <= written <= (operation.ended_at or written)
        ]
        stood_still = paused_at(suspensions[0], written) if suspensions else written
        ran_on = [s.ended_at for s in scene.operation.steps if s.kind is StepKind.RUN_ON and s.ended_at]
        return max(0.0, (ran_on[0] if ran_on else self._parts.clock.now()) - stood_still)


def paused_at(operation: Operation, otherwise: float) -> float:
    """When the gang stood still: a workload is not charged for the time that its saving takes."""
    ends = [s.ended_at for s in operation.steps if s.kind is StepKind.PAUSE and s.ended_at]
    return ends[0] if ends else otherwise


def _within(skew: float | None) -> str:
    return "" if skew is None else f" within {skew * 1000:.1f} ms"


def _small(value: float) -> str:
    return f"{abs(value) * 1000:.0f} ms"


def _signed(value: float) -> str:
    """`3 min behind`, `250 ms ahead`."""
    amount = _small(value) if abs(value) < 1.0 else seconds(abs(value))
    return f"{amount} {'behind' if value >= 0 else 'ahead'}"
