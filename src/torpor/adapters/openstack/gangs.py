"""Several servers at one moment, as near as Nova allows: implements the `Gangs` port."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torpor.adapters.openstack.hypervisor import NovaHypervisor
from torpor.adapters.openstack.servers import Server, Servers
from torpor.domain.errors import InstanceGone
from torpor.domain.ids import InstanceId

_MOST = 16


class NovaGangs:
    """All are told at once. The skew is that of Nova's taking the orders: when its compute services acted on them it
    tells to the second only."""

    def __init__(self, servers: Servers, hypervisor: NovaHypervisor) -> None:
        self._servers = servers
        self._hypervisor = hypervisor

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        found = self._fresh(instances)
        gone = [instance for instance in instances if instance not in found]
        if gone:
            raise InstanceGone(f"server {', '.join(gone)} is gone", remedy="delete the workload, or run it anew")
        return self._at_once(list(found.values()), self._hypervisor.suspend)

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        """A server that somebody deleted meanwhile does not hold up the others."""
        return self._at_once(list(self._fresh(instances).values()), self._hypervisor.resume)

    def _fresh(self, instances: Sequence[InstanceId]) -> dict[InstanceId, Server]:
        """Those that there are, in the order of `instances`; looked at right now, all with one question."""
        self._servers.forget()
        there = {server.instance: server for server in reversed(self._servers.all()) if server.ours}
        return {instance: there[instance] for instance in instances if instance in there}

    def _at_once(self, servers: Sequence[Server], act: Callable[[Server], float | None]) -> float | None:
        """Seconds between the first order that Nova took and the last; None where one had nothing to be ordered.

        Every one is told, whichever fails; raises the first failure.
        """
        if not servers:
            return None
        with ThreadPoolExecutor(min(_MOST, len(servers)), thread_name_prefix="gang") as pool:
            done = [pool.submit(act, server) for server in servers]
        moments = [each.result() for each in done]
        known = [moment for moment in moments if moment is not None]
        return max(known) - min(known) if len(known) == len(moments) else None
