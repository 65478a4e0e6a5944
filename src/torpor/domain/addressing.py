"""Addresses and MACs: bound to an instance from its acceptance until its deletion."""

import hashlib
from collections.abc import Collection
from ipaddress import IPv4Network
from itertools import islice

from torpor.domain.errors import AddressPoolEmpty
from torpor.domain.ids import InstanceId


def free_addresses(subnet: str, used: Collection[str], count: int) -> tuple[str, ...]:
    """The lowest `count` addresses of `subnet` (CIDR text) that are neither used nor the gateway's.

    Raises AddressPoolEmpty.
    """
    pool = IPv4Network(subnet).hosts()
    next(pool)  # the gateway's
    found = tuple(islice((str(a) for a in pool if str(a) not in used), count))
    if len(found) < count:
        raise AddressPoolEmpty(
            f"{count} addresses are needed and {len(found)} of {subnet} are free",
            detail="every other one is bound to an instance",
            remedy="delete a workload that is not needed any more, or configure a larger subnet",
        )
    return found


def mac_of(instance: InstanceId) -> str:
    """A locally administered unicast MAC that is the same whenever it is asked for (QEMU's prefix 52:54:00)."""
    digest = hashlib.sha256(instance.encode()).digest()
    return "52:54:00:" + ":".join(f"{b:02x}" for b in digest[:3])
