"""Rules of the books: which claims may be entered, and how a refusal is worded."""

from collections.abc import Mapping, Sequence

from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.errors import Conflict, Invalid, NoCapacity, NotFound
from torpor.domain.ids import HostId, InstanceId

LARGEST = 10**15
"""More vCPUs or MiB than any host has; keeps sums within 64 bits."""


def newest(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """One claim for each consumer and kind: the last one that is given."""
    latest: dict[tuple[InstanceId, ClaimKind], Claim] = {(c.consumer, c.kind): c for c in claims}
    return tuple(latest.values())


def check_total(host: HostId, total: Resources, used: Resources) -> None:
    """Raise Invalid when `total` is no amount that a host can have, Conflict when it is below `used`."""
    for amount, _ in _amounts(total):
        if not 0 <= amount <= LARGEST:
            raise Invalid(f"host {host} can't have {amount} of anything", remedy=f"give a number from 0 to {LARGEST}")
    short = _shortages(total, used, "has {room} and {need} are claimed")
    if short:
        raise Conflict(
            f"host {host} can't be made that small",
            detail=f"it {short}",
            remedy="suspend or delete workloads first, or give it more",
        )


def check_room(hosts: Mapping[HostId, Host], claims: Sequence[Claim]) -> None:
    """Raise unless all `claims` fit what is free of `hosts`; claims that they replace are given back before.

    Raises NotFound for an unknown host, Invalid for a negative amount, NoCapacity naming what is short where.
    """
    needs: dict[HostId, Resources] = {}
    for claim in claims:
        if claim.host not in hosts:
            raise NotFound(f"host {claim.host} is not in the books", remedy="enter the host first")
        if min(amount for amount, _ in _amounts(claim.resources)) < 0:
            raise Invalid(f"instance {claim.consumer} can't claim less than nothing")
        needs[claim.host] = needs.get(claim.host, Resources()) + claim.resources
    short = [
        f"host {host} {found}"
        for host, need in needs.items()
        if (found := _shortages(hosts[host].free, need, "has {room} free and {need} are needed"))
    ]
    if short:
        raise NoCapacity("there is no room for it", detail="; ".join(short), remedy="wait, free some, or ask for less")


def _amounts(resources: Resources) -> tuple[tuple[int, str], ...]:
    return (
        (resources.vcpus, "vCPUs"),
        (resources.memory_mb, "MiB of memory"),
        (resources.disk_mb, "MiB of disk"),
    )


def _shortages(room: Resources, need: Resources, wording: str) -> str:
    """What `need` has more of than `room`, in words; empty when it fits."""
    return " and ".join(
        wording.format(room=f"{have} {unit}", need=wanted)
        for (have, unit), (wanted, _) in zip(_amounts(room), _amounts(need), strict=True)
        if wanted > have
    )
