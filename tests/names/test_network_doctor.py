"""Ways to lose an address on a real Neutron network: reproduced, found by `torpor doctor network`, mended by `--fix`.

The network has no DHCP. Guests are told by a config drive, by a DHCP server on a VM, or by nobody.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lab.openstack.clouds import ORDINARY
from lab.openstack.settings import Lab
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.exceptions import SDKException
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.names.conftest import (
    NETWORK,
    ZONE,
    DhcpService,
    NamesService,
    address_of,
    boot,
    hears,
    make_port,
    with_script,
)
from tests.udhcp import ASKS

pytestmark = pytest.mark.timeout(1800)

SERVES = """#!/bin/sh
exec >/dev/console 2>&1
cat >/run/udhcpd.conf <<END
start 10.10.0.200
end 10.10.0.210
interface eth0
lease_file /run/leases
option subnet 255.255.255.0
option lease 20
{pinned}
END
touch /run/leases
echo "serves DHCP"
exec udhcpd -f /run/udhcpd.conf
"""


class Doctor:
    def __init__(self, service: NamesService, member: Connection) -> None:
        self._environment = service.environment
        self.member = member

    def __call__(self, subject: str, *options: str, config: Path | None = None) -> tuple[int, dict[str, Any]]:
        """Exit code, and findings by name; as a member of the project, on any machine."""
        configured = ("--config", str(config)) if config else ()
        words = (*configured, "doctor", "network", subject, *options)
        return self._run([sys.executable, "-m", "torpor", *words, "--cloud", ORDINARY[0]])

    def on_host(self, dhcp: DhcpService, subject: str, *options: str) -> tuple[int, dict[str, Any]]:
        """As an administrator, on the compute host."""
        return self._run(dhcp.on_host("doctor", "network", subject, *options))

    def _run(self, command: list[str]) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [*command, "--json"], capture_output=True, text=True, env=self._environment, check=False
        )  # fmt: skip
        assert done.returncode in (0, 7), done.stderr
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    def console(self, server: Server) -> str:
        with suppress(SDKException):
            return str(self.member.compute.get_server_console_output(server.id)["output"])
        return ""

    def hears(self, server: Server, words: str, times: int = 1) -> None:
        """Wait until the guest has said so on its console."""
        wait_until(lambda: self.console(server).count(words) >= times, PATIENCE, f"{server.name} says {words!r}")


@pytest.fixture
def doctor(service: NamesService, member: Connection) -> Doctor:
    return Doctor(service, member)


def test_without_dhcp_and_config_drive_a_server_gets_no_address_until_it_is_served(
    doctor: Doctor, dhcp: DhcpService, lab: Lab, member: Connection
) -> None:
    port = make_port(member, "lost")
    lost = boot(member, "lost", port, config_drive=False)
    hears(lab, lost, "asks by DHCP")
    code, found = doctor("lost")
    assert code == 7
    assert "no DHCP, and no config drive" in found["server lost"]["detail"]
    assert "torpor network dhcp n1" in found["server lost"]["remedy"]
    code, found = doctor.on_host(dhcp, "lost", "--fix")
    assert code == 0, found
    assert f"has {address_of(port)}: it answers ARP" in found["server lost"]["detail"]
    hears(lab, lost, f"has {address_of(port)}, hostname lost")


def test_a_fixed_address_that_is_not_on_the_interface_is_missed_on_the_network_and_put_there(
    doctor: Doctor, dhcp: DhcpService, lab: Lab, member: Connection
) -> None:
    """The dashboard shows it, and the image does not read the config drive that tells it."""
    forced = with_script(member, "forced", make_port(member, "forced", "10.10.0.88"), ASKS)
    hears(lab, forced, "broadcasting discover")
    code, found = doctor("forced")
    assert "does not say on its console" in found["server forced"]["detail"], "Neutron's records are all that it sees"
    code, found = doctor.on_host(dhcp, "forced", "--probe")
    assert code == 7
    assert "nobody answers for 10.10.0.88" in found["server forced"]["detail"]
    assert not list(member.network.ports(device_owner="torpor:probe")), "what was made for the look is gone"
    code, found = doctor.on_host(dhcp, "forced", "--probe", "--fix")
    assert code == 0, found
    hears(lab, forced, "lease of 10.10.0.88 obtained")


def test_a_dhcp_server_on_a_vm_is_heard_once_its_port_is_open(doctor: Doctor, member: Connection) -> None:
    asking, serving = make_port(member, "asking"), make_port(member, "serving")
    pinned = f"static_lease {asking.mac_address} {address_of(asking)}"
    server = with_script(member, "dhcp", serving, SERVES.format(pinned=pinned))
    client = with_script(member, "client", asking, ASKS)
    doctor.hears(server, "serves DHCP")
    doctor.hears(client, "broadcasting discover", times=3)
    code, found = doctor(NETWORK, "--dhcp-server", "dhcp")
    assert code == 7
    assert "UDP port 67" in found["DHCP server dhcp"]["detail"]
    assert "hears no DISCOVER" in found["DHCP server dhcp"]["detail"]
    assert "lease of" not in doctor.console(client)
    code, found = doctor(NETWORK, "--dhcp-server", "dhcp", "--fix")
    assert code == 0, found
    doctor.hears(client, f"lease of {address_of(asking)} obtained")
    code, found = doctor("client", "--dhcp-server", "dhcp")
    assert code == 0, found
    assert f"its interface has {address_of(asking)}" in found["server client"]["detail"]


def test_an_address_that_is_not_the_ports_is_found_and_the_pinned_lease_cures_it(
    doctor: Doctor, member: Connection
) -> None:
    asking, serving = make_port(member, "asking"), make_port(member, "serving")
    server = with_script(member, "dhcp", serving, SERVES.format(pinned=""))
    doctor.hears(server, "serves DHCP")
    assert doctor(NETWORK, "--dhcp-server", "dhcp", "--fix")[0] == 0
    client = with_script(member, "client", asking, ASKS)
    doctor.hears(client, "lease of 10.10.0.2")
    code, found = doctor("client", "--dhcp-server", "dhcp")
    assert code == 7
    assert f"dhcp-host={asking.mac_address},{address_of(asking)}" in found["server client"]["remedy"]
    member.compute.delete_server(server)
    member.compute.wait_for_delete(server, wait=PATIENCE)
    pinned = f"static_lease {asking.mac_address} {address_of(asking)}"
    with_script(member, "dhcp", serving, SERVES.format(pinned=pinned))
    doctor.hears(client, f"lease of {address_of(asking)} obtained")
    code, found = doctor("client", "--dhcp-server", "dhcp")
    assert code == 0, found


def test_a_name_that_is_served_here_is_told_with_where_it_leads(
    service: NamesService, doctor: Doctor, member: Connection
) -> None:
    port = make_port(member, "told")
    service.follow("told", [address_of(port)])
    _, found = doctor(NETWORK, config=service.config)
    assert found[f"name told.{ZONE}"]["ok"]
    assert f"it leads to {address_of(port)}" in found[f"name told.{ZONE}"]["detail"]
    _, elsewhere = doctor(NETWORK)
    assert f"name told.{ZONE}" not in elsewhere
