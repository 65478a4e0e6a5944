"""Neutron's ports in memory, answering as Neutron (Zed) does to a project that wants some. Needs openstacksdk."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from torpor.adapters.openstack.cloud import Cloud, failure_of

NETWORK, SHARED = "n1", "campus"
PROJECT = "demo"
_CHOSEN = ("fixed_ips", "mac_address")


class Neutron:
    """`n1` is the project's own network, `campus` one that another project shares; each has a /29."""

    def __init__(self, *, lets_choose: bool = True) -> None:
        """`lets_choose`: its policy lets the account choose addresses and MACs on other projects' networks."""
        self.ports: dict[str, dict[str, Any]] = {}
        self.wanted: list[dict[str, Any]] = []
        """Bodies of what was to be made, in order."""
        self._lets_choose = lets_choose
        self._subnets = {NETWORK: IPv4Network("10.10.0.0/29"), SHARED: IPv4Network("10.20.0.0/29")}
        self._numbers = itertools.count(1)

    @property
    def cloud(self) -> Cloud:
        return cast(Cloud, self)

    def ask(
        self,
        service: str,
        method: str,
        path: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        microversion: str | None = None,
        query: Mapping[str, str] | None = None,
        project: str = "",
    ) -> dict[str, Any]:
        _, kind, *rest = path.split("/")
        assert (service, kind, project) == ("network", "ports", PROJECT)
        if method == "POST" and body:
            return {"port": self._make(what, body["port"])}
        if method == "GET":
            tag = (query or {}).get("tags")
            return {"ports": [port for port in self.ports.values() if tag in (None, *port["tags"])]}
        if rest[0] not in self.ports:
            raise failure_of(what, 404, f"Port {rest[0]} could not be found")
        if method == "DELETE":
            del self.ports[rest[0]]
        else:
            self.ports[rest[0]]["tags"].append(rest[2])
        return {}

    def _make(self, what: str, wanted: dict[str, Any]) -> dict[str, Any]:
        self.wanted.append(wanted)
        network = wanted["network_id"]
        if network != NETWORK and not self._lets_choose and any(key in wanted for key in _CHOSEN):
            raise failure_of(what, 403, "(rule:create_port and rule:create_port:mac_address) is disallowed by policy")
        number = next(self._numbers)
        mac = wanted.get("mac_address", f"fa:16:3e:00:00:{number:02x}")
        if any((port["network_id"], port["mac_address"]) == (network, mac) for port in self.ports.values()):
            raise failure_of(
                what, 409, f"Unable to complete operation for network {network}. The mac address {mac} is in use"
            )
        address = self._address(what, network, wanted)
        self.ports[f"p{number}"] = {
            "id": f"p{number}",
            "name": wanted["name"],
            "network_id": network,
            "mac_address": mac,
            "fixed_ips": [{"ip_address": address}],
            "status": "DOWN",
            "device_id": "",
            "tags": [],
        }
        return self.ports[f"p{number}"]

    def _address(self, what: str, network: str, wanted: Mapping[str, Any]) -> str:
        subnet = self._subnets[network]
        here = [port for port in self.ports.values() if port["network_id"] == network]
        taken = {fixed["ip_address"] for port in here for fixed in port["fixed_ips"]}
        if "fixed_ips" not in wanted:
            free = [str(each) for each in subnet.hosts() if str(each) not in taken]
            if not free:
                raise failure_of(what, 409, f"No more IP addresses available on network {network}")
            return free[0]
        address = str(wanted["fixed_ips"][0]["ip_address"])
        if IPv4Address(address) not in subnet:
            raise failure_of(
                what, 400, f"IP address {address} is not a valid IP for any of the subnets on the specified network"
            )
        if address in taken:
            raise failure_of(what, 409, f"IP address {address} already allocated in subnet s")
        return address
