"""Addresses and MACs: bound to an instance from its acceptance until its deletion, and remembered for its hostname."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain, islice

from torpor.domain.errors import AddressPoolEmpty, Conflict
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance


@dataclass(frozen=True, slots=True)
class LastAddress:
    """What the instance of a hostname had when it was deleted; the fields are as an `Instance` has them."""

    address: str
    mac: str
    network: str = ""


def free_addresses(subnet: str, used: Collection[str], count: int, spare: Sequence[str] = ()) -> tuple[str, ...]:
    """The lowest `count` addresses of `subnet` (CIDR text) that are neither used nor the gateway's.

    Those of `spare`, which somebody may want back, come last, and in their order. Raises AddressPoolEmpty.
    """
    # Backwards, so that one which is there twice has its later place.
    last = dict.fromkeys(a for a in reversed(spare) if a not in used and in_pool(subnet, a))
    pool = IPv4Network(subnet).hosts()
    next(pool)  # the gateway's
    first = (str(a) for a in pool if str(a) not in used and str(a) not in last)
    found = tuple(islice(chain(first, reversed(last)), count))
    if len(found) < count:
        raise AddressPoolEmpty(
            f"{count} addresses are needed and {len(found)} of {subnet} are free",
            detail="every other one is bound to an instance",
            remedy="delete a workload that is not needed any more, or configure a larger subnet",
        )
    return found


def in_pool(subnet: str, address: str) -> bool:
    """Whether it is one that instances get: inside the subnet, and not its first, which is the gateway's."""
    network = IPv4Network(subnet)
    return network.network_address + 1 < IPv4Address(address) < network.broadcast_address


def keep_addresses(
    instances: Sequence[Instance], last: Mapping[str, LastAddress], others: Collection[Instance], network: str
) -> tuple[Instance, ...]:
    """The instances, each with what its hostname had last; one whose hostname had nothing yet is left as it is.

    `others` are all that have an address now, `network` is where these are to be. Raises Conflict.
    """
    holders = {(other.network, other.address): other.name for other in others}
    kept = []
    for instance in instances:
        before = last.get(instance.name)
        if before is None:
            kept.append(instance)
            continue
        holder = holders.setdefault((before.network, before.address), instance.name)
        _require_free(instance.name, before, holder, network)
        kept.append(replace(instance, address=before.address, mac=before.mac, network=before.network))
    return tuple(kept)


def _require_free(name: str, before: LastAddress, holder: str, network: str) -> None:
    what = f"{name} can't keep the address {before.address}"
    if before.network != network:
        raise Conflict(
            what,
            detail=f"it had it on another network{f', {before.network}' if before.network else ''}",
            remedy="run it on that one (--network), or leave --keep-address out",
        )
    if holder != name:
        raise Conflict(
            what,
            detail=f"instance {holder} has it now",
            remedy="leave --keep-address out, or delete the workload that has it",
        )


def mac_of(instance: InstanceId) -> str:
    """A locally administered unicast MAC that is the same whenever it is asked for (QEMU's prefix 52:54:00)."""
    digest = hashlib.sha256(instance.encode()).digest()
    return "52:54:00:" + ":".join(f"{b:02x}" for b in digest[:3])
