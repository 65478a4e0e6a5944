"""The books in Placement: implements the `Ledger` port.

A server's claims are its own allocation: vCPUs and memory are COMPUTE, its flavor's disk is DISK, and what it holds of
the disk besides is STATE. An instance that has no server yet holds what it is promised under its own id.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torpor.adapters.openstack.placement import (
    CPUS,
    DISK,
    GIB_MB,
    Allocations,
    Amounts,
    Placement,
    Provider,
    resources,
    retried,
)
from torpor.adapters.openstack.servers import Server, Servers
from torpor.domain.books import newest
from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.ids import HostId, InstanceId

COMPUTE = (*CPUS, "MEMORY_MB")
Known = Callable[[], Mapping[InstanceId, int]]
"""Instances of the records, each with the MiB of its flavor's disk."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whose allocation an instance's claims are in."""

    instance: InstanceId
    consumer: str
    disk_gb: int
    """Of the flavor: what it holds of the disk beyond that is for its states."""


class PlacementLedger:
    """Never over-committed by us: Placement refuses what does not fit. Thread-safe."""

    def __init__(self, placement: Placement, servers: Servers, known: Known) -> None:
        self._placement = placement
        self._servers = servers
        self._known = known
        self._guards_states = servers.cloud.settings.state_room == "placement"

    def hosts(self) -> Sequence[Host]:
        return tuple(_host(provider) for provider in self._placement.providers())

    def set_host(self, host: HostId, total: Resources) -> None:
        """Nova tells Placement what its hosts have."""

    def claims(self) -> Sequence[Claim]:
        holders = {holder.consumer: holder for holder in self._holders()}
        found: list[Claim] = []
        for provider in self._placement.providers():
            for consumer, amounts in provider.held.items():
                if consumer in holders:
                    found.extend(_claims(holders[consumer], provider.name, amounts))
        return tuple(sorted(found, key=lambda claim: (claim.consumer, claim.kind)))

    def claim(self, claims: Sequence[Claim], instead_of: Sequence[InstanceId] = ()) -> None:
        wanted = [c for c in newest(claims) if self._guards_states or c.kind is not ClaimKind.STATE]
        names = {c.consumer for c in wanted} | set(instead_of)

        def change(holder: _Holder, now: Allocations) -> Allocations:
            if holder.instance in instead_of:
                now = _without(now, holder, (ClaimKind.COMPUTE,))
            for claim in wanted:
                if claim.consumer == holder.instance:
                    now = self._with(now, holder, claim)
            return now

        if names:
            self._change(names, change)

    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        if consumers:
            self._change(consumers, lambda holder, now: _without(now, holder, kinds))

    # Parts of the above

    def _change(self, instances: Collection[InstanceId], change: Callable[[_Holder, Allocations], Allocations]) -> None:
        """All in one transaction, on what each holds right now."""
        holders = [holder for holder in self._holders() if holder.instance in instances]

        def once() -> None:
            with ThreadPoolExecutor(max(1, min(8, len(holders))), thread_name_prefix="books") as pool:
                held = list(pool.map(lambda holder: self._placement.allocations(holder.consumer), holders))
            changed = [change(holder, now) for holder, now in zip(holders, held, strict=True)]
            self._placement.write([new for new, old in zip(changed, held, strict=True) if new != old])

        retried(once)

    def _with(self, now: Allocations, holder: _Holder, claim: Claim) -> Allocations:
        provider = self._placement.provider_id(claim.host)
        held = dict(now.by_provider.get(provider, {}))
        if claim.kind is ClaimKind.COMPUTE:
            cpus = next((cls for cls in CPUS if held.get(cls)), CPUS[0])
            held[cpus], held["MEMORY_MB"] = claim.resources.vcpus, claim.resources.memory_mb
        elif claim.kind is ClaimKind.DISK:
            held[DISK] = gib(claim.resources.disk_mb) + _states_gb(holder, held)
        else:
            held[DISK] = min(holder.disk_gb, held.get(DISK, 0)) + gib(claim.resources.disk_mb)
        return now.on(provider, held)

    def _holders(self) -> Iterator[_Holder]:
        """A server's own allocation; of an instance without a server, what was promised to it."""
        servers: dict[InstanceId, Server] = {s.instance: s for s in reversed(self._servers.all()) if s.ours}
        for instance, disk_mb in self._known().items():
            server = servers.get(instance)
            yield _Holder(instance, server.id, server.disk_gb) if server else _Holder(instance, instance, gib(disk_mb))


def gib(mib: int) -> int:
    """Placement counts disk in whole GB; rounded up."""
    return -(-mib // GIB_MB)


def _states_gb(holder: _Holder, held: Amounts) -> int:
    return max(0, held.get(DISK, 0) - holder.disk_gb)


def _without(now: Allocations, holder: _Holder, kinds: Collection[ClaimKind]) -> Allocations:
    for provider, amounts in now.by_provider.items():
        held = dict(amounts)
        if ClaimKind.COMPUTE in kinds:
            held = {cls: amount for cls, amount in held.items() if cls not in COMPUTE}
        if ClaimKind.STATE in kinds:
            held[DISK] = held.get(DISK, 0) - _states_gb(holder, held)
        if ClaimKind.DISK in kinds:
            held[DISK] = _states_gb(holder, held)
        now = now.on(provider, held)
    return now


def _claims(holder: _Holder, host: HostId, held: Amounts) -> Iterator[Claim]:
    cpus = sum(held.get(cls, 0) for cls in CPUS)
    if cpus or held.get("MEMORY_MB"):
        yield Claim(holder.instance, ClaimKind.COMPUTE, host, Resources(cpus, held.get("MEMORY_MB", 0)))
    states = _states_gb(holder, held)
    if disk := held.get(DISK, 0) - states:
        yield Claim(holder.instance, ClaimKind.DISK, host, Resources(disk_mb=disk * GIB_MB))
    if states:
        yield Claim(holder.instance, ClaimKind.STATE, host, Resources(disk_mb=states * GIB_MB))


def _host(provider: Provider) -> Host:
    return Host(provider.name, resources(provider.capacity), resources(provider.used))
