"""A port of ours on a Neutron network that can't be plugged in here is not left behind."""

from __future__ import annotations

from typing import Any, cast

import pytest

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.own_port import OwnPort
from torpor.domain.errors import MissingPart

NETWORK = {"id": "n", "name": "net", "mtu": 1450}


class Neutron:
    """Binds every port in one way; None: it does not tell this account how."""

    def __init__(self, vif_type: str | None) -> None:
        self.vif_type = vif_type
        self.ports: list[dict[str, Any]] = []

    def ask(self, service: str, method: str, path: str, what: str, body: Any = None, **more: Any) -> dict[str, Any]:
        if method == "POST":
            bound = {} if self.vif_type is None else {"binding:vif_type": self.vif_type}
            self.ports.append({**body["port"], "id": "p", **bound})
            return {"port": self.ports[-1]}
        if method == "DELETE":
            self.ports = [port for port in self.ports if path != f"/ports/{port['id']}"]
            return {}
        assert method == "GET"
        return {"ports": self.ports}


@pytest.mark.parametrize(
    ("vif_type", "why"),
    [("ovs", "knows Linux bridges only"), ("binding_failed", "knows no agent there"), (None, "binding:host_id")],
)
def test_what_can_not_be_plugged_in_is_told_and_not_left_behind(vif_type: str | None, why: str) -> None:
    neutron = Neutron(vif_type)
    with pytest.raises(MissingPart, match=why):
        OwnPort(cast(Cloud, neutron), NETWORK, "host", "dhcp").ensure([])
    assert neutron.ports == []


def test_one_that_was_there_before_stays() -> None:
    neutron = Neutron("ovs")
    port = OwnPort(cast(Cloud, neutron), NETWORK, "host", "dhcp")
    made = {"device_owner": "torpor:dhcp", "device_id": "torpor-dhcp-host", "fixed_ips": [], "binding:vif_type": "ovs"}
    neutron.ports = [{"id": "p", "name": "torpor-dhcp", **made}]
    with pytest.raises(MissingPart):
        port.ensure([])
    assert len(neutron.ports) == 1, "its agent may only be away"
