"""What the contract of `ports.Suspension` asks, asked of a stock Debian guest whose disk is written to all the while.

It boots once. A daemon gives it network, name and config drive, and is gone before the first test, so that the ports
can be called one by one.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.installation import installation, wait_until
from tests.vm import keeper
from tests.vm.test_debian_guest import PATIENCE, USER_DATA, Guest, Keeper, listens

from torpor import wiring
from torpor.adapters.qemu.spec_file import read_spec
from torpor.config import load
from torpor.domain.errors import Conflict
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus
from torpor.engine.parts import Parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SKEW_SECONDS = 0.5
"""Milliseconds on a machine that has nothing else to do; `script/bench` measures it."""


@dataclass
class Veteran:
    """The Debian guest as the ports know it, and its neighbour in the gang."""

    guest: Guest
    parts: Parts
    spec: InstanceSpec
    neighbour: InstanceSpec
    connection: Keeper
    nonce: str
    boot_id: str

    def state(self, spec: InstanceSpec) -> BackendState:
        seen = self.parts.hypervisor.observe().get(spec.id)
        return seen.state if seen else BackendState.ABSENT

    def statuses(self) -> list[tuple[int, StateStatus]]:
        return [(s.generation, s.status) for s in self.parts.suspension.states(self.spec.id)]

    def pause_while_it_writes(self) -> list[int]:
        """What its logs had had confirmed just before."""
        confirmed = self.connection.write_more()
        self.parts.hypervisor.pause(self.spec.id)
        return confirmed

    def resume(self) -> None:
        self.parts.suspension.restore(self.spec, ignore)
        self.parts.suspension.spend(self.spec.id)
        self.parts.hypervisor.run_on(self.spec.id)

    def unharmed(self, confirmed: Sequence[int]) -> None:
        """It is the same boot, on the same TCP connection; disk and memory tell the same of every write."""
        assert self.state(self.spec) is BackendState.RUNNING
        status = self.connection.ask("status")
        assert status["nonce"] == self.nonce
        assert status["errors"] == []
        assert all(n >= c for n, c in zip(status["records"], confirmed, strict=True)), "nothing confirmed is missing"
        self.connection.write_more()
        assert self.connection.ask("verify") == [""] * len(keeper.LOGS)
        assert self.guest.boot_id() == self.boot_id
        assert self.guest.disk_errors() == []


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


def public_key(folder: Path) -> str:
    """Of a pair made there; where nothing makes pairs, one that nobody can log in with."""
    if shutil.which("ssh-keygen"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        return (folder / "key.pub").read_text().strip()
    fields = (b"ssh-ed25519", os.urandom(32))
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} nobody"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def veteran(keys: Path) -> Iterator[Veteran]:
    user_data = keys / "user-data"
    user_data.write_text(f"#cloud-config\n{json.dumps(USER_DATA)}\n")
    with installation(number=54, image="debian", memory_mb=2048, tb_size_mb=128) as torpor:
        torpor.kill()
        torpor.use_image("tiny")
        torpor.config.write_text(f"ssh_authorized_keys = [{json.dumps(public_key(keys))}]\n{torpor.config.read_text()}")
        torpor.start()
        torpor.wait_ready()
        torpor.ok("run", "job", "--image", "debian", "--cpus", "2", "--memory", "768M", "--user-data", str(user_data))
        torpor.ok("run", "other", "--image", "tiny", "--memory", "128M")
        guest, other = Guest(torpor), Guest(torpor, "other")
        wait_until(lambda: guest.shown()["address_state"] == "verified", PATIENCE, "the address is verified")
        wait_until(lambda: listens(guest.address), PATIENCE, "cloud-init has started what user data ask for")
        torpor.kill()  # the guests outlive it, and their monitors are free
        parts = wiring.bind(load(torpor.config)).parts
        connection = Keeper(guest.address)
        nonce, boot_id = connection.ask("status")["nonce"], guest.boot_id()
        specs = (read_spec(guest.folder.spec), read_spec(other.folder.spec))
        made = Veteran(guest, parts, *specs, connection, nonce, boot_id)
        try:
            yield made
        finally:
            made.connection.close()
            for spec in specs:
                parts.hypervisor.erase(spec.id)


def test_the_keys_of_its_config_drive_let_people_in(veteran: Veteran, keys: Path) -> None:
    (known,) = veteran.spec.ssh_keys
    assert known in veteran.guest.run("cat /home/debian/.ssh/authorized_keys")
    if not (shutil.which("ssh") and (keys / "key").exists()):
        return
    options = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={keys / 'known'}", "BatchMode=yes", "ConnectTimeout=60")
    login = ["ssh", "-i", str(keys / "key"), *(word for option in options for word in ("-o", option))]
    told = subprocess.run([*login, f"debian@{veteran.guest.address}", "hostname"], capture_output=True, text=True)
    assert (told.returncode, told.stdout.strip()) == (0, "job"), told.stderr


def test_memory_is_not_released_without_a_whole_state(veteran: Veteran) -> None:
    confirmed = veteran.pause_while_it_writes()
    with pytest.raises(Conflict):
        veteran.parts.suspension.release(veteran.spec.id)
    veteran.parts.hypervisor.run_on(veteran.spec.id)
    veteran.unharmed(confirmed)


def test_a_pause_is_saved_once_and_a_dropped_save_leaves_it_running(veteran: Veteran) -> None:
    confirmed = veteran.pause_while_it_writes()
    first = veteran.parts.suspension.save(veteran.spec, ignore)
    assert veteran.parts.suspension.save(veteran.spec, ignore) == first
    assert veteran.statuses() == [(first.generation, StateStatus.WHOLE)]
    assert veteran.state(veteran.spec) is BackendState.PAUSED
    veteran.parts.suspension.drop(veteran.spec.id)
    assert veteran.statuses() == []
    veteran.parts.hypervisor.run_on(veteran.spec.id)
    veteran.unharmed(confirmed)


def test_a_restore_that_is_taken_back_leaves_the_state_whole(veteran: Veteran) -> None:
    confirmed = veteran.pause_while_it_writes()
    number = veteran.parts.suspension.save(veteran.spec, ignore).generation
    veteran.parts.suspension.release(veteran.spec.id)
    assert veteran.state(veteran.spec) is BackendState.ABSENT
    with pytest.raises(Conflict):
        veteran.parts.suspension.drop(veteran.spec.id)  # nothing else is left of it
    veteran.parts.suspension.restore(veteran.spec, ignore)
    assert veteran.state(veteran.spec) is BackendState.PAUSED
    veteran.parts.suspension.revert(veteran.spec.id)
    assert veteran.state(veteran.spec) is BackendState.ABSENT
    assert veteran.statuses() == [(number, StateStatus.WHOLE)]
    veteran.resume()
    assert veteran.statuses() == [(number, StateStatus.SPENT)]
    veteran.unharmed(confirmed)


def test_settling_keeps_the_newest_state_only(veteran: Veteran) -> None:
    """It has run on from one."""
    ((older, _),) = veteran.statuses()
    confirmed = veteran.pause_while_it_writes()
    newest = veteran.parts.suspension.save(veteran.spec, ignore).generation
    assert veteran.statuses() == [(newest, StateStatus.WHOLE), (older, StateStatus.SPENT)]
    veteran.parts.suspension.settle(veteran.spec.id)
    assert veteran.statuses() == [(newest, StateStatus.WHOLE)]
    veteran.parts.suspension.release(veteran.spec.id)
    veteran.resume()
    veteran.unharmed(confirmed)


def test_a_gang_stands_still_and_goes_on_as_one(veteran: Veteran) -> None:
    specs = [veteran.spec, veteran.neighbour]
    ids = [spec.id for spec in specs]
    confirmed = veteran.connection.write_more()
    skew = veteran.parts.gangs.pause(ids)
    assert [veteran.state(spec) for spec in specs] == [BackendState.PAUSED] * 2
    for spec in specs:
        veteran.parts.suspension.save(spec, ignore)
    for spec in specs:
        veteran.parts.suspension.release(spec.id)
    assert [veteran.state(spec) for spec in specs] == [BackendState.ABSENT] * 2
    for spec in specs:
        veteran.parts.suspension.restore(spec, ignore)
    assert [veteran.state(spec) for spec in specs] == [BackendState.PAUSED] * 2
    for spec in specs:
        veteran.parts.suspension.spend(spec.id)
    apart = veteran.parts.gangs.run_on(ids)
    veteran.unharmed(confirmed)
    assert veteran.state(veteran.neighbour) is BackendState.RUNNING
    assert skew is not None and apart is not None
    assert max(skew, apart) < SKEW_SECONDS, (skew, apart)


def test_a_spent_state_is_refused_until_the_disk_was_taken_back(veteran: Veteran) -> None:
    confirmed = veteran.pause_while_it_writes()
    number = veteran.parts.suspension.save(veteran.spec, ignore).generation
    veteran.parts.suspension.release(veteran.spec.id)
    veteran.parts.suspension.settle(veteran.spec.id)
    veteran.resume()
    veteran.guest.run("echo lost >/var/lib/lost && sync")
    veteran.parts.hypervisor.stop(veteran.spec.id, 0.0)
    assert veteran.statuses() == [(number, StateStatus.SPENT)]
    with pytest.raises(Conflict, match="run on"):
        veteran.parts.suspension.restore(veteran.spec, ignore)
    assert veteran.state(veteran.spec) is BackendState.ABSENT
    veteran.parts.suspension.revert(veteran.spec.id)
    veteran.resume()
    veteran.connection = Keeper(veteran.guest.address)  # the old one is further than the guest
    veteran.unharmed(confirmed)
    veteran.guest.run("echo 3 >/proc/sys/vm/drop_caches; test ! -e /var/lib/lost")
