"""What no two instances may share, and how a clash is worded."""

from collections.abc import Iterable, Sequence

from torpor.domain.errors import Conflict, Invalid
from torpor.domain.instance import Instance
from torpor.domain.workload import Workload


def check_workload_untaken(newcomer: Workload, holders: Iterable[Workload]) -> None:
    """Raise Conflict when one of `holders` has the newcomer's name or id."""
    for holder in holders:
        if holder.name == newcomer.name:
            raise Conflict(
                f"the name {newcomer.name} is taken",
                detail="there is a workload of that name",
                remedy="choose another name, or delete that workload first",
            )
        if holder.id == newcomer.id:
            raise Conflict(f"workload id {newcomer.id} is taken", detail=f"workload {holder.name} has it")


def check_instances_untaken(
    workload: Workload, newcomers: Sequence[Instance], holders: Iterable[tuple[str, Instance]]
) -> None:
    """Raise Conflict when a newcomer has the id, hostname, address, MAC or index of a holder or of another newcomer.

    `holders` are pairs of a workload's name and an instance of it. Raises Invalid when a
    newcomer says that it belongs to another workload.
    """
    taken = {mark: f"instance {i.name} of workload {owner}" for owner, i in holders for mark in _marks(i)}
    for newcomer in newcomers:
        if newcomer.workload != workload.id:
            raise Invalid(f"instance {newcomer.name} does not belong to workload {workload.name}")
        for what, value in _marks(newcomer):
            if (what, value) in taken:
                raise Conflict(
                    f"{what} {value} is taken",
                    detail=f"{taken[what, value]} has it",
                    remedy="choose another one, or delete that workload first",
                )
        taken |= dict.fromkeys(_marks(newcomer), f"instance {newcomer.name} of workload {workload.name}")


def _marks(instance: Instance) -> tuple[tuple[str, str], ...]:
    marks = (
        ("hostname", instance.name),
        ("address", f"{instance.address} on network {instance.network}" if instance.network else instance.address),
        ("MAC address", instance.mac),
        ("instance id", instance.id),
        ("place", f"{instance.index} in workload {instance.workload}"),
    )
    return tuple((what, value) for what, value in marks if value and (what != "address" or instance.address))
