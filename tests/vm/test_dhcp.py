"""Guests that have their address by DHCP and from nowhere else, on a network of Torpor's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.installation import BOOT_PATIENCE, Installation, installation, wait_until
from tests.udhcp import ASKS


@pytest.fixture(scope="module")
def torpor() -> Iterator[Installation]:
    with installation(number=46, dhcp=True) as made:
        yield made


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "user-data"
    file.write_text(ASKS)
    return str(file)


def leased(torpor: Installation, workload: str) -> bool:
    """Whether its guest has said that it was leased the address that is its own."""
    (instance,) = torpor.show(workload)["instances"]
    console = torpor.state_dir / "instances" / instance["id"] / "console.log"
    return f"lease of {instance['address']} obtained" in console.read_text(errors="replace")


def verified(torpor: Installation, workload: str) -> bool:
    return bool(torpor.show(workload)["instances"][0]["address_state"] == "verified")


def test_a_guest_is_leased_its_own_address_and_keeps_it_through_a_suspension(torpor: Installation, script: str) -> None:
    torpor.ok("run", "asks", "--image", "tiny", "--memory", "128M", "--preemptible", "--user-data", script, "--wait")
    wait_until(lambda: leased(torpor, "asks"), BOOT_PATIENCE, "it is leased its address")
    wait_until(lambda: verified(torpor, "asks"), BOOT_PATIENCE, "it answers there")
    (address,) = torpor.addresses("asks")
    torpor.ok("suspend", "asks", "--wait")
    torpor.ok("resume", "asks", "--wait")
    wait_until(lambda: verified(torpor, "asks"), BOOT_PATIENCE, "it answers there again")
    assert torpor.status(address)
    torpor.ok("delete", "asks", "--yes")


def test_a_vm_that_is_provisioned_again_is_leased_the_address_that_it_kept(torpor: Installation, script: str) -> None:
    had = []
    for _ in range(2):
        words = ("run", "again", "--image", "tiny", "--memory", "128M", "--user-data", script, "--keep-address")
        torpor.ok(*words, "--wait")
        wait_until(lambda: leased(torpor, "again"), BOOT_PATIENCE, "it is leased its address")
        (instance,) = torpor.show("again")["instances"]
        had.append((instance["address"], instance["mac"]))
        torpor.ok("delete", "again", "--yes")
    assert had[0] == had[1]


def test_the_dhcp_server_outlives_the_daemon_and_goes_when_torpor_is_taken_down(torpor: Installation) -> None:
    (server,) = torpor.dhcp_servers()
    torpor.kill()
    assert server.is_running()
    server.kill()
    torpor.start()
    torpor.wait_ready()
    assert len(torpor.dhcp_servers()) == 1
    torpor.ok("down")
    assert torpor.dhcp_servers() == []
    torpor.start()
    torpor.wait_ready()
