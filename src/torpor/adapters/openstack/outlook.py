"""Whether addresses answer on a Neutron network, asked from a port of our own there: implements the `Outlook` port."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.own_port import OwnPort
from torpor.adapters.openstack.plug import INTERFACE, is_there
from torpor.domain.address_path import Echo
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.iproute import run

_AT_ONCE = 16
_PLUGGED_SECONDS = 30.0
_PING_SECONDS = 15.0


class NeutronOutlook:
    """One thread's."""

    def __init__(self, cloud: Cloud, host: str, may_plug: bool) -> None:
        """`host`: what the Neutron agent on this machine calls it. `may_plug`: a port of our own may be made for the
        look, and is gone afterwards, where no DHCP server of Torpor's on this machine has one."""
        self._cloud = cloud
        self._host = host
        self._may_plug = may_plug

    def ask(self, network: str, addresses: Sequence[str]) -> Mapping[str, Echo] | None:
        if not addresses:
            return {}
        told = self._get(f"/networks/{network}", "the network can't be looked at")["network"]
        served = OwnPort(self._cloud, told, self._host, "dhcp")
        if is_there(served.namespace):
            return _echoes(served.namespace, addresses)
        if not self._may_plug:
            return None
        probe = OwnPort(self._cloud, told, self._host, "probe")
        try:
            subnets = self._get("/subnets", "the subnets can't be listed", network_id=network)["subnets"]
            probe.ensure([subnet for subnet in subnets if subnet["ip_version"] == 4])
            self._await_plugged(probe)
            return _echoes(probe.namespace, addresses)
        finally:
            probe.remove()

    def _await_plugged(self, probe: OwnPort) -> None:
        give_up = time.monotonic() + _PLUGGED_SECONDS
        while (port := probe.find()) is None or port["status"] != "ACTIVE":
            if time.monotonic() > give_up:
                raise BackendFailed(
                    "no port of ours comes up on the network",
                    detail=f"the Neutron agent on {self._host} has not plugged it in",
                    remedy="openstack network agent list: is it alive?",
                )
            time.sleep(0.3)

    def _get(self, path: str, what: str, **query: str) -> Document:
        return self._cloud.ask("network", "GET", path, what, query=query)


def _echoes(namespace: str, addresses: Sequence[str]) -> dict[str, Echo]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(addresses, pool.map(lambda address: _echo(namespace, address), addresses), strict=True))


def _echo(namespace: str, address: str) -> Echo:
    """Ping asks for the MAC first, so what the kernel has heard is looked up afterwards; what it knew before is not."""
    there = ["ip", "-n", namespace]
    run([*there, "neigh", "flush", "to", address, "dev", INTERFACE])
    inside = ["ip", "netns", "exec", namespace]
    command = [*inside, "ping", "-n", "-q", "-c", "3", "-i", "0.3", "-W", "2", address]
    try:
        pings = subprocess.run(command, capture_output=True, timeout=_PING_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        pings = 1
    if pings not in (0, 1):
        raise MissingPart("addresses can't be asked for", detail="ping does not run", remedy="install iputils-ping")
    heard = json.loads(run([*there, "-json", "neigh", "show", "to", address, "dev", INTERFACE]) or "[]")
    macs = [entry["lladdr"] for entry in heard if "lladdr" in entry]
    return Echo(macs[0] if macs else "", pings == 0)
