"""A stock Debian guest with cloud-init: virtio disk with writes in flight, NIC, agent, config drive.

It boots once, and every test goes on with it; each leaves it running.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.installation import Installation, installation, wait_until
from tests.vm import keeper

from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.arp import has_address
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.qemu.layout import InstanceFolder, Layout
from torpor.domain.errors import TorporError
from torpor.domain.ids import InstanceId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PATIENCE = 600.0
"""For what the guest does by itself, and boots above all: a busy machine emulates it slowly."""
ASLEEP_SECONDS = 20.0
FINISH = "/run/finish"
PROGRAM = "/usr/local/lib/keeper.py"
USER_DATA = {
    "write_files": [
        {"path": PROGRAM, "encoding": "b64", "content": base64.b64encode(Path(keeper.__file__).read_bytes()).decode()}
    ],
    "runcmd": [["systemd-run", "--unit=keeper", "python3", PROGRAM]],
}
DISK_ERRORS = ("I/O error", "EXT4-fs error", "EXT4-fs warning", "JBD2:", "Remounting filesystem read-only")


class Guest:
    """The one instance of a workload, and talk with it."""

    def __init__(self, torpor: Installation, workload: str = "job") -> None:
        self.torpor = torpor
        self.workload = workload
        shown = self.shown()
        self.id = InstanceId(shown["id"])
        self.address = str(shown["address"])
        self.folder: InstanceFolder = Layout(torpor.state_dir).instance(self.id)
        self.agent = AgentGuest(
            over_socket(lambda id: self.folder.agent_socket, 20.0), lambda _: Ethernet(torpor.interface, torpor.gateway)
        )

    def shown(self) -> Any:
        (instance,) = self.torpor.show(self.workload)["instances"]
        return instance

    def run(self, command: str) -> str:
        """Output of a shell command in the guest; fails unless it succeeds."""
        pid = self.agent.execute(self.id, command)
        done = wait_until(lambda: self._finished(pid), PATIENCE, f"{command} ends")
        assert done.exit_code == 0, f"{command}: {done}"
        return str(done.output).strip()

    def succeeds(self, command: str) -> bool:
        """Whether it does; not so while the agent is silent. Slow to say no: a guest that boots has enough to do."""
        try:
            self.run(f"{command} >/dev/null 2>&1")
        except (TorporError, AssertionError):
            time.sleep(3)
            return False
        return True

    def _finished(self, pid: int) -> Any:
        result = self.agent.execution(self.id, pid)
        if not result.finished:
            time.sleep(0.5)
        return result if result.finished else None

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def disk_errors(self) -> list[str]:
        return [line for line in self.run("dmesg").splitlines() if any(error in line for error in DISK_ERRORS)]


class Keeper:
    """A TCP connection to the program that holds the nonce and writes the logs."""

    def __init__(self, address: str) -> None:
        self._connection = socket.create_connection((address, keeper.PORT), timeout=120)
        self._lines = self._connection.makefile()

    def ask(self, question: str) -> Any:
        self._connection.sendall(f"{question}\n".encode())
        return json.loads(self._lines.readline())

    def records(self) -> list[int]:
        """Records that each log has had confirmed; fails where a write has failed."""
        status = self.ask("status")
        assert not status["errors"], status
        return list(status["records"])

    def wait_past(self, counts: Sequence[int]) -> list[int]:
        """Until every log has more than so many records."""
        return list(
            wait_until(
                lambda: (now := self.records()) and all(n > c for n, c in zip(now, counts, strict=True)) and now,
                PATIENCE,
                f"the logs go on after {counts}",
            )
        )

    def write_more(self) -> list[int]:
        return self.wait_past([count + 20 for count in self.records()])

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


@pytest.fixture(scope="module")
def base() -> dict[str, str]:
    """SHA-256 of the image's disk before anything ran from it."""
    return {}


@pytest.fixture(scope="module")
def guest(base: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Booted; cloud-init has done its work."""
    user_data = tmp_path_factory.mktemp("debian") / "user-data"
    user_data.write_text(f"#cloud-config\n{json.dumps(USER_DATA)}\n")
    with installation(number=50, image="debian", memory_mb=2048, tb_size_mb=128) as torpor:
        base["before"] = image_digest(torpor)
        options = ("--cpus", "2", "--memory", "768M", "--preemptible", "--user-data", str(user_data))
        torpor.ok("run", "job", "--image", "debian", *options, "--command", f"until [ -e {FINISH} ]; do sleep 2; done")
        made = Guest(torpor)
        is_verified(made)
        wait_until(lambda: listens(made.address), PATIENCE, "cloud-init has started what user data ask for")
        yield made


@pytest.fixture
def connection(guest: Guest) -> Iterator[Keeper]:
    """Its logs are being written."""
    made = Keeper(guest.address)
    made.write_more()
    yield made
    made.close()


def image_digest(torpor: Installation) -> str:
    return sha256((torpor.state_dir / "images" / "debian" / "disk.qcow2").read_bytes()).hexdigest()


def listens(address: str) -> bool:
    """Whether the program of the user data can be reached; asked from outside, to leave the booting guest alone."""
    time.sleep(1)
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, keeper.PORT)) == 0


def is_verified(guest: Guest) -> None:
    """Torpor has found the address on its interface."""
    wait_until(lambda: guest.shown()["address_state"] == "verified", PATIENCE, "the address is verified")


def answers_by_name(guest: Guest) -> None:
    """Name and address are where they were: in the name server, on the interface, and for those who ask by name."""
    name = f"job.{guest.torpor.zone}"
    assert guest.torpor.resolve("job") == [guest.address]
    assert list(guest.agent.addresses(guest.id)) == [guest.address]
    assert guest.run("hostname") == "job"
    assert guest.address in guest.run(f"resolvectl query --cache=no {name}")


def snapshots(guest: Guest) -> int:
    """Snapshots inside the overlay, whether a process has it or not."""
    listing = ["qemu-img", "snapshot", "-l", "-U", str(guest.folder.disk)]
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout.count("torpor-")


def saved_logs(guest: Guest, folder: Path) -> list[list[str]]:
    """Seals of the records on the disk of a guest that sleeps; its file system must be whole."""
    disk = folder / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", guest.folder.disk, disk], check=True)
    checked = subprocess.run(["e2fsck", "-f", "-p", disk], capture_output=True, text=True, check=False)
    assert checked.returncode in (0, 1), checked  # 1: the journal was replayed
    found = []
    for name in keeper.LOGS:
        copy = folder / name
        subprocess.run(["debugfs", "-R", f"dump {keeper.FOLDER / name} {copy}", disk], capture_output=True, check=True)
        found.append(keeper.seals(iter([copy.read_bytes()])))
    disk.unlink()
    return found


def suspend(guest: Guest) -> None:
    guest.torpor.ok("suspend", "job", timeout=PATIENCE)
    assert guest.torpor.qemu_processes() == []
    assert [state["status"] for state in guest.shown()["states"]] == ["whole"]
    assert snapshots(guest) == 1


def resume(guest: Guest) -> None:
    guest.torpor.ok("resume", "job", timeout=PATIENCE)
    assert len(guest.torpor.qemu_processes()) == 1


def memory_agrees(connection: Keeper, logs: Sequence[Sequence[str]]) -> None:
    """What the disk had while the guest slept is what its memory goes on from, record by record."""
    connection.wait_past([len(log) for log in logs])
    for number, log in enumerate(logs):
        assert connection.ask(f"seal {number} {len(log)}") == log[-1]
    assert connection.ask("verify") == [""] * len(logs)


def test_it_has_what_its_config_drive_says(guest: Guest) -> None:
    answers_by_name(guest)
    status = json.loads(guest.run("cat /run/cloud-init/status.json"))["v1"]
    assert status["datasource"].startswith("DataSourceConfigDrive")
    stages = {name: stage for name, stage in status.items() if isinstance(stage, dict)}
    assert {"init-local", "init", "modules-config", "modules-final"} <= set(stages)
    assert [name for name, stage in stages.items() if stage["errors"]] == []
    assert guest.run("cat /var/lib/cloud/data/instance-id") == guest.id
    assert guest.run(f"sha256sum <{PROGRAM}").split()[0] == sha256(Path(keeper.__file__).read_bytes()).hexdigest()
    assert guest.run("findmnt -no SOURCE /").startswith("/dev/vda")


def test_it_sleeps_in_the_midst_of_writing_and_goes_on(guest: Guest, connection: Keeper, tmp_path: Path) -> None:
    nonce, boot_id, before = connection.ask("status")["nonce"], guest.boot_id(), connection.records()
    began = time.monotonic()
    suspend(guest)
    logs = saved_logs(guest, tmp_path)
    assert all(len(log) >= count for log, count in zip(logs, before, strict=True)), "nothing confirmed is missing"
    time.sleep(max(0.0, ASLEEP_SECONDS - (time.monotonic() - began)))  # so that a clock left alone would show
    resume(guest)
    assert abs(guest.agent.set_clock(guest.id, time.time()).behind) < ASLEEP_SECONDS / 2
    assert connection.ask("status")["nonce"] == nonce, "on the same connection"
    memory_agrees(connection, logs)
    assert guest.boot_id() == boot_id
    assert guest.disk_errors() == []
    is_verified(guest)
    answers_by_name(guest)


def test_it_goes_back_to_one_instant_of_memory_and_disk(guest: Guest, connection: Keeper, tmp_path: Path) -> None:
    nonce, boot_id = connection.ask("status")["nonce"], guest.boot_id()
    suspend(guest)
    logs = saved_logs(guest, tmp_path)
    resume(guest)
    assert snapshots(guest) == 1
    lost = connection.wait_past([len(log) + 50 for log in logs])
    guest.run("echo lost >/var/lib/lost && sync")
    guest.torpor.kill_qemu(guest.id)
    guest.torpor.wait_state("job", "failed", 120)
    resume(guest)
    again = Keeper(guest.address)
    assert again.ask("status")["nonce"] == nonce
    memory_agrees(again, logs)
    assert guest.boot_id() == boot_id
    guest.run("echo 3 >/proc/sys/vm/drop_caches; test ! -e /var/lib/lost")
    again.wait_past(lost)
    suspend(guest)
    later = saved_logs(guest, tmp_path)
    assert all(log[: len(old)] == old for log, old in zip(later, logs, strict=True))
    resume(guest)
    memory_agrees(again, later)
    again.close()
    assert guest.disk_errors() == []
    assert snapshots(guest) == 1
    answers_by_name(guest)


def test_a_live_snapshot_is_of_one_instant_and_is_gone_back_to_and_cloned(guest: Guest, connection: Keeper) -> None:
    nonce, boot_id, before = connection.ask("status")["nonce"], guest.boot_id(), connection.records()
    guest.torpor.ok("snapshot", "create", "job", "s1", timeout=PATIENCE)
    lost = connection.write_more()
    guest.run("echo lost >/var/lib/lost && sync")

    guest.torpor.ok("snapshot", "clone", "job", "s1", "copy", "--wait", timeout=PATIENCE)
    clone = Guest(guest.torpor, "copy")
    is_verified(clone)
    assert clone.run("hostname") == "copy"
    assert guest.torpor.resolve("copy") == [clone.address]
    its_own = Keeper(clone.address)
    assert its_own.ask("status")["nonce"] == nonce
    its_own.write_more()
    assert its_own.ask("verify") == [""] * len(keeper.LOGS), "its disk agrees with its memory"
    assert clone.run("test ! -e /var/lib/lost && cat /proc/sys/kernel/random/boot_id") == boot_id
    assert clone.disk_errors() == []
    its_own.close()
    guest.torpor.ok("delete", "copy", "--yes", timeout=PATIENCE)
    connection.write_more()  # the original was not disturbed, not even its connection

    guest.torpor.ok("snapshot", "restore", "job", "s1", timeout=PATIENCE)
    guest.torpor.wait_state("job", "active", PATIENCE)
    again = Keeper(guest.address)
    assert again.ask("status")["nonce"] == nonce
    assert all(n >= count for n, count in zip(again.records(), before, strict=True)), "nothing confirmed is missing"
    again.wait_past(lost)
    assert again.ask("verify") == [""] * len(keeper.LOGS)
    assert guest.boot_id() == boot_id
    guest.run("echo 3 >/proc/sys/vm/drop_caches; test ! -e /var/lib/lost")
    assert guest.disk_errors() == []
    again.close()
    guest.torpor.ok("snapshot", "rm", "job", "s1", timeout=PATIENCE)
    answers_by_name(guest)


def test_restored_it_can_reboot(guest: Guest, connection: Keeper) -> None:
    boot_id, written = guest.boot_id(), connection.records()
    guest.agent.execute(guest.id, "systemctl reboot")
    wait_until(lambda: guest.succeeds(f"! grep -q {boot_id} /proc/sys/kernel/random/boot_id"), PATIENCE, "it reboots")
    answers_by_name(guest)
    assert has_address(guest.torpor.interface, guest.torpor.gateway, guest.shown()["mac"], guest.address, 10.0)
    kept = json.loads(guest.run(f"python3 {PROGRAM} verify"))
    assert all(there >= count for there, count in zip(kept, written, strict=True))
    assert guest.disk_errors() == []


def test_its_command_ends_after_all_that_and_the_image_is_as_it_was(guest: Guest, base: dict[str, str]) -> None:
    assert guest.torpor.state("job") == "active"
    guest.run(f"touch {FINISH}")
    guest.torpor.wait_state("job", "done", PATIENCE)
    assert guest.shown()["exit_code"] == 0
    assert guest.torpor.qemu_processes() == []
    assert image_digest(guest.torpor) == base["before"]
