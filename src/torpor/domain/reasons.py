"""Why a plan is as it is, in plain words."""

from collections.abc import Sequence

from torpor.domain.capacity import Resources
from torpor.domain.placement import Need, Room, total_room, whole_needs
from torpor.domain.plan import Gang, Policy, World
from torpor.domain.safety import over_limit
from torpor.domain.victims import Candidate, StateRoom, taken
from torpor.domain.wording import amount, listed, room, seconds
from torpor.domain.workload import Workload


def victim_reason(workload: Workload, victim: Candidate) -> str:
    """Why this one sleeps for `workload`."""
    return (
        f"priority {victim.priority} < {workload.priority}, preemptible, frees {amount(victim.freed)}, "
        f"{seconds(victim.suspend_seconds)} to suspend"
    )


def too_large(world: World, gang: Gang) -> str:
    """Why it could not run even if the hosts were empty."""
    wanted = whole_needs(world, gang)
    totals = total_room(world)
    each = wanted[0].resources if wanted else Resources()
    have = listed([f"host {host} has {room(total, each)} in all" for host, total in totals.items()])
    overhead = world.policy.overhead_mb
    ours = f", {overhead} MiB of memory for the hypervisor among that" if overhead and each.memory_mb else ""
    return f"it is too large: it needs {_wanted(wanted)}{ours}; {have or 'there is no host'}"


def too_many(victims: int, limit: int) -> str:
    return f"{victims} workloads would have to sleep for it, and the policy allows {limit}"


def too_young(young: Sequence[Candidate], now: float, policy: Policy) -> str:
    """Which workloads it waits for to have run their minimum time."""
    names = listed(
        [f"{victim.name} (another {seconds(victim.ripe_at - now)})" for victim in sorted(young, key=lambda v: v.name)]
    )
    return f"others can sleep for it {seconds(policy.min_run_seconds)} after they last began to run: {names}"


def no_state_room(wanted: Sequence[Need], free: Room, victims: Sequence[Candidate], states: StateRoom) -> str:
    """Which disk has no room for the victims' states (and the new disks)."""
    needed = taken(victims)
    for host, disk_mb in sorted(needed.items()):
        if disk_mb > states.left_mb.get(host, disk_mb):
            return over_limit(listed([victim.name for victim in victims]), host, disk_mb, states.left_mb[host])
    short = [
        f"host {host} has {max(0, free[host].disk_mb)} MiB of disk free and {disk_mb} MiB are needed"
        for host, disk_mb in sorted(needed.items())
        if host in free and disk_mb > free[host].disk_mb
    ]
    names = listed([victim.name for victim in victims])
    if short:
        return f"no room for saved state of {names}: {listed(short)}"
    disks = sum(need.resources.disk_mb for need in wanted)
    return f"no room for saved state of {names} beside the {disks} MiB of disk that it needs itself"


def no_room(world: World, gang: Gang, wanted: Sequence[Need], free: Room, rivals: Sequence[Candidate]) -> str:
    """What it needs, what there is, and what sleep of others would bring."""
    each = wanted[0].resources if wanted else Resources()
    bound = {need.host for need in wanted if need.host is not None}
    shown = [host for host in free if not bound or host in bound]
    have = listed([f"host {host} has {room(free[host], each)} free" for host in shown])
    text = f"it needs {_wanted(wanted)}; {have}; "
    if not rivals:
        return text + "no preemptible workload of lower priority runs there"
    gain = sum((rival.freed for rival in rivals), Resources())
    return text + f"preemptible workloads of lower priority would free only {amount(gain)}"


def _wanted(wanted: Sequence[Need]) -> str:
    if not wanted:
        return "nothing"
    largest = max((need.resources for need in wanted), key=lambda r: (r.memory_mb, r.vcpus, r.disk_mb))
    if len(wanted) == 1:
        return f"{amount(largest)} on one host"
    return f"{len(wanted)} times {amount(largest)}"
