"""Three ways to lose an address on a real Neutron network: reproduced, found by `torpor doctor network`, and mended.

The network has no DHCP. Guests are told by a config drive, by a DHCP server on a VM, or by nobody.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.exceptions import SDKException
from openstack.network.v2.port import Port
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.names.conftest import NETWORK, ZONE, NamesService, address_of, boot, make_port

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
ASKS = """#!/bin/sh
exec >/dev/console 2>&1
ip addr flush dev eth0
cat >/run/lease <<'END'
#!/bin/sh
case $1 in
    deconfig) ip addr flush dev eth0 ;;
    bound) ip addr add $ip/24 dev eth0 ;;
esac
ip link set eth0 up
END
chmod 755 /run/lease
exec udhcpc -i eth0 -s /run/lease -t 1000 -T 2 -A 2 -f
"""
"""As an image does that does not read the config drive."""


class Doctor:
    def __init__(self, service: NamesService, member: Connection) -> None:
        self._environment = service.environment
        self.member = member

    def __call__(self, subject: str, *options: str, config: Path | None = None) -> tuple[int, dict[str, Any]]:
        """Exit code, and findings by name."""
        command = [
            sys.executable,
            "-m",
            "torpor",
            *(["--config", str(config)] if config else []),
            "doctor",
            "network",
            subject,
            "--cloud",
            "lab-demo",
            "--json",
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)
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


def with_script(member: Connection, name: str, port: Port, script: str) -> Server:
    return boot(member, name, port, user_data=base64.b64encode(script.encode()).decode())


def test_without_dhcp_and_config_drive_a_server_gets_no_address(doctor: Doctor, member: Connection) -> None:
    port = make_port(member, "lost")
    lost = boot(member, "lost", port, config_drive=False)
    doctor.hears(lost, "no config drive: no address")
    code, found = doctor("lost")
    assert code == 7
    assert "no DHCP, and no config drive" in found["server lost"]["detail"]
    assert f"--config-drive true --port {port.id}" in found["server lost"]["remedy"]
    member.compute.delete_server(lost)
    member.compute.wait_for_delete(lost, wait=PATIENCE)
    again = boot(member, "lost", port)
    doctor.hears(again, f"has {address_of(port)}")
    code, found = doctor(NETWORK)
    assert code == 0, found


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
