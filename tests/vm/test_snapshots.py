"""A snapshot of a workload that runs, gone back to and cloned: with real guests, network and names."""

import json
import socket
from typing import Any

import pytest
from tests.installation import GUEST_PORT, Installation, installation, wait_until

pytestmark = pytest.mark.timeout(600)  # guests boot slowly on a busy machine

SKEW_SECONDS = 0.5
"""Some milliseconds, unless the machine is very busy."""


def address(torpor: Installation, workload: str) -> str:
    (only,) = torpor.addresses(workload)
    return only


def disk_used(torpor: Installation) -> int:
    (host,) = torpor.get("hosts")["hosts"]
    return int(host["used"]["disk_mb"])


def ask_on(connection: socket.socket, command: str) -> Any:
    connection.sendall(f"{command}\n".encode())
    with connection.makefile() as lines:
        return json.loads(lines.readline())


def test_a_clone_lives_beside_its_original_which_can_be_taken_back() -> None:
    with installation(number=52, memory_mb=512) as torpor:
        torpor.ok("run", "job", "--image", "tiny", "--memory", "128M", "--wait")
        first = torpor.wait_guest(address(torpor, "job"))
        assert torpor.ask(address(torpor, "job"), "fill 16", timeout=120)["ok"]
        room = disk_used(torpor)
        with socket.create_connection((address(torpor, "job"), GUEST_PORT), timeout=60) as connection:
            snapshot = torpor.json("snapshot", "create", "job", "s1")
            assert snapshot["pause_seconds"] > 0
            assert disk_used(torpor) > room
            torpor.ok("snapshot", "clone", "job", "s1", "copy", "--wait")
            copy = torpor.wait_guest(address(torpor, "copy"))
            original = ask_on(connection, "status")
        assert (copy["hostname"], copy["address"]) == ("copy", address(torpor, "copy"))
        assert (original["hostname"], original["address"]) == ("job", address(torpor, "job"))
        assert copy["nonce"] == original["nonce"] == first["nonce"], "it is the same memory"
        assert torpor.ask(address(torpor, "copy"), "verify", timeout=120)["ok"] is True
        assert torpor.resolve("copy") == [address(torpor, "copy")] != torpor.resolve("job")
        verified(torpor, "job", "copy")
        took_back(torpor)
        slept(torpor)
        torpor.ok("snapshot", "rm", "job", "s1")
        assert torpor.get("snapshots")["snapshots"] == []
        torpor.ok("delete", "job", "--yes")
        assert torpor.wait_guest(address(torpor, "copy"))["nonce"] == first["nonce"]


def verified(torpor: Installation, *names: str) -> None:
    """Each address is answered for by the instance's own MAC."""

    def all_verified() -> bool:
        rows = {row["name"]: row for row in torpor.get("names")["names"]}
        return len({rows[n]["mac"] for n in names}) == len(names) and all(
            rows[n]["address_state"] == "verified" for n in names
        )

    wait_until(all_verified, 60, "every address is verified")


def took_back(torpor: Installation) -> None:
    """The original goes back to its snapshot; the clone goes on."""
    later = torpor.wait_guest(address(torpor, "job"))
    aside = torpor.wait_guest(address(torpor, "copy"))
    torpor.ok("snapshot", "restore", "job", "s1")
    now = torpor.wait_guest(address(torpor, "job"))
    assert now["nonce"] == later["nonce"]
    assert now["uptime"] < later["uptime"]
    assert torpor.ask(address(torpor, "job"), "verify", timeout=120)["ok"] is True
    assert torpor.wait_guest(address(torpor, "copy"))["uptime"] >= aside["uptime"]


def slept(torpor: Installation) -> None:
    """A clone is suspended and resumed as anybody, and is itself afterwards."""
    torpor.ok("suspend", "copy")
    torpor.ok("resume", "copy")
    copy = torpor.wait_guest(address(torpor, "copy"))
    assert (copy["hostname"], copy["address"]) == ("copy", address(torpor, "copy"))
    verified(torpor, "copy")


def test_a_gang_is_kept_at_one_instant_and_goes_back_as_one() -> None:
    with installation(number=56, memory_mb=512) as torpor:
        torpor.ok("run", "gang", "--image", "tiny", "--memory", "128M", "--count", "2", "--wait")
        addresses = torpor.addresses("gang")
        nonces = [torpor.wait_guest(a)["nonce"] for a in addresses]
        assert torpor.ask(addresses[0], f"connect {addresses[1]}")["ok"]
        snapshot = torpor.json("snapshot", "create", "gang", "s1")
        assert sorted(i["instance"] for i in snapshot["instances"]) == ["gang-0", "gang-1"]
        assert 0 <= snapshot["skew_seconds"] < SKEW_SECONDS
        assert torpor.json("snapshot", "show", "gang", "s1")["skew_seconds"] == snapshot["skew_seconds"]
        later = [torpor.wait_guest(a)["uptime"] for a in addresses]
        torpor.ok("snapshot", "restore", "gang", "s1")
        now = [torpor.wait_guest(a) for a in addresses]
        assert [status["nonce"] for status in now] == nonces
        assert all(status["uptime"] < before for status, before in zip(now, later, strict=True))
        assert torpor.ask(addresses[0], "status")["tcp"]["connected"], "both ends are of the same instant"
