"""`torpor network dhcp` on a real Neutron network whose DHCP is off: every port is leased its own address, and its
guest can ask for names."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from lab.openstack.settings import Lab
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from tests.installation import Installation, installation, wait_until
from tests.lab_machines import PATIENCE, LabBench, lab_bench
from tests.names.conftest import (
    SOON,
    ZONE,
    DhcpService,
    NamesService,
    address_of,
    boot,
    console,
    hears,
    make_port,
    port_of,
    with_script,
)

pytestmark = pytest.mark.timeout(1800)

ASKS_FOR_NAME = """#!/bin/sh
exec >/dev/console 2>&1
last=
while :; do
  now=$(nslookup {name} {server} 2>/dev/null | sed -n '/^Name/,$s/^Address[^:]*: *//p' | tr '\\n' ' ')
  [ "$now" = "$last" ] || echo "heard {name} [$now]"
  last=$now
  usleep 50000
done
"""


def test_a_server_without_a_config_drive_gets_its_address_and_its_name(
    dhcp: DhcpService, lab: Lab, member: Connection
) -> None:
    """Also where the DHCP server comes later than the server, and one whose address was chosen."""
    port = make_port(member, "early", "10.10.0.77")
    early = boot(member, "early", port, config_drive=False)
    hears(lab, early, "asks by DHCP")
    dhcp.start()
    hears(lab, early, "has 10.10.0.77, hostname early")
    late = boot(member, "late", config_drive=False)
    hears(lab, late, "has 10.10.0.")
    assert f"has {address_of(port_of(member, late))}, hostname late" in console(lab, late)


def test_it_comes_back_when_it_is_killed_and_what_it_made_goes_with_it(
    dhcp: DhcpService, lab: Lab, member: Connection
) -> None:
    dhcp.start()
    dhcp.kill_dnsmasq()
    server = boot(member, "after", config_drive=False)
    hears(lab, server, "hostname after")
    dhcp.take_down()
    assert not list(member.network.ports(network_id=dhcp.network, device_owner="torpor:dhcp"))


def test_a_name_of_anybodys_server_answers_inside_another_guest_within_seconds(
    dhcp: DhcpService, lab: Lab, member: Connection, service: NamesService
) -> None:
    dhcp.start()
    script = ASKS_FOR_NAME.format(name=f"asked.{ZONE}", server=dhcp.address(member))
    asking = with_script(member, "asking", make_port(member, "asking"), script)
    hears(lab, asking, "hostname asking")
    for _ in range(2):
        told = len(console(lab, asking))
        server = boot(member, "asked")
        _heard(lab, asking, told, f"heard asked.{ZONE} [{address_of(port_of(member, server))} ]", SOON)
        told = len(console(lab, asking))
        member.compute.delete_server(server)
        _heard(lab, asking, told, f"heard asked.{ZONE} []", SOON)
        member.compute.wait_for_delete(server, wait=PATIENCE)


@pytest.fixture
def bench(lab: Lab, service: NamesService) -> Iterator[LabBench]:
    with lab_bench() as made:
        yield made


@pytest.fixture
def torpor(bench: LabBench) -> Iterator[Installation]:
    with installation(number=71, image="", clouds=bench.lab.clouds) as made:
        yield made


def test_a_name_of_torpors_answers_inside_another_guest_within_a_second(
    torpor: Installation, lab: Lab, member: Connection, tmp_path: Path
) -> None:
    """The DHCP server reads what the daemon publishes; two VMs of one name, one after the other, are never confused."""
    network = member.network.find_network("n1", ignore_missing=False).id
    dhcp = DhcpService(lab, network, torpor.config, tmp_path / "log")
    try:
        dhcp.start()
        name = f"job.{torpor.zone}"
        script = ASKS_FOR_NAME.format(name=name, server=dhcp.address(member))
        asking = with_script(member, "asking", make_port(member, "asking"), script)
        hears(lab, asking, "hostname asking")
        time.sleep(1.0)  # it has asked in vain before
        for round in count():
            told = len(console(lab, asking))
            torpor.ok("run", "job", "--image", "tiny", "--flavor", "g256")
            (address,) = torpor.addresses("job")
            _heard(lab, asking, told, f"heard {name} [{address} ]", 1.0)
            told = len(console(lab, asking))
            torpor.ok("delete", "job", "--yes", "--no-wait")
            _heard(lab, asking, told, f"heard {name} []", PATIENCE)
            if round == 2:
                break
            wait_until(lambda: not torpor.has("job"), PATIENCE, "it is gone")
        answers = re.findall(rf"heard {name} \[(.*?)\]", console(lab, asking))
        assert all(len(answer.split()) <= 1 for answer in answers), answers
    finally:
        dhcp.take_down()


def _heard(lab: Lab, asking: Server, told: int, words: str, seconds: float) -> None:
    """In what it says from `told` on."""
    try:
        wait_until(lambda: words in console(lab, asking)[told:], seconds, f"it {words}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it said {console(lab, asking)[told:]!r}") from error
