"""What goes wrong is one clear sentence and an exit code; the guest runs on, or sleeps on with its state."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.crash.daemon_with_trap import FILLER
from tests.installation import Installation, installation, wait_until

STATE_MB = 400
pytestmark = pytest.mark.timeout(900)  # guests boot slowly on a busy machine


@pytest.fixture(scope="module")
def whole() -> Iterator[Installation]:
    """On a small file system of its own, with five addresses to give away, one of them taken by the workload `job`."""
    with installation(number=31, state_mb=STATE_MB, memory_mb=400, subnet="10.111.{number}.0/29") as torpor:
        torpor.ok("run", "job", "--image", "tiny", "--memory", "128M", "--preemptible", "--wait")
        (address,) = torpor.addresses("job")
        torpor.wait_guest(address, 300)
        assert torpor.ask(address, "fill 16", timeout=120)["ok"]
        yield torpor


@pytest.fixture
def torpor(whole: Installation) -> Iterator[Installation]:
    """Whatever a test broke is whole again afterwards; the workload must still be the one that was booted."""
    before = whole.wait_guest(address(whole), 60)
    yield whole
    (whole.state_dir / FILLER).unlink(missing_ok=True)
    restart(whole)
    if whole.state("job") == "suspended":
        whole.ok("resume", "job")
    after = whole.wait_guest(address(whole), 60)
    assert (after["nonce"], after["fill_sum"]) == (before["nonce"], before["fill_sum"])
    assert after["counter"] > before["counter"]
    assert whole.ask(address(whole), "verify", timeout=120)["ok"] is True
    assert whole.resolve("job") == [address(whole)]


def address(torpor: Installation) -> str:
    (only,) = torpor.addresses("job")
    return only


def restart(torpor: Installation, *command: str, prefix: tuple[str, ...] = ()) -> None:
    torpor.kill()
    torpor.start(command, prefix) if command else torpor.start(prefix=prefix)
    torpor.wait_ready()


def refused(torpor: Installation, exit_code: int, what: str, why: str, remedy: str, *words: str) -> None:
    """The command fails with this exit code and one sentence that has these parts in this order."""
    done = torpor.cli(*words)
    assert done.returncode == exit_code, (done.returncode, done.stderr, done.stdout)
    *progress, sentence = done.stderr.splitlines()
    assert re.fullmatch(f"torpor: .*{what}.*: .*{why}.*; .*{remedy}.*\\.", sentence), sentence
    assert "Traceback" not in done.stderr
    assert all(line.startswith("job") for line in progress), "nothing but progress before it"


def runs_on(torpor: Installation) -> None:
    """Its counter goes on, and everybody says that it runs."""
    counter = torpor.wait_guest(address(torpor), 60)["counter"]
    wait_until(lambda: torpor.ask(address(torpor), "status")["counter"] > counter, 60, "the counter goes on")
    assert torpor.state("job") == "active"
    assert len(torpor.qemu_processes()) == 1
    assert torpor.json("hosts")["hosts"][0]["used"]["memory_mb"] == 128 + 64


def sleeps_on(torpor: Installation) -> None:
    """No process, nothing claimed of memory, and a whole state."""
    shown = torpor.show("job")
    assert shown["state"] == "suspended"
    assert shown["instances"][0]["states"][0]["status"] == "whole"
    assert torpor.qemu_processes() == []
    assert torpor.json("hosts")["hosts"][0]["used"]["memory_mb"] == 0


def no_partial_state(torpor: Installation) -> bool:
    return not list(torpor.state_dir.glob("instances/*/states/.*"))


# --- disk full ---


def test_books_have_no_room_for_the_state(torpor: Installation) -> None:
    config = torpor.config.read_text()
    torpor.config.write_text(config.replace("disk_mb = 20000", "disk_mb = 120"))
    restart(torpor)
    torpor.config.write_text(config)
    what, why = "workload job was not suspended", "no room for saved state: job needs .* MiB of disk"
    refused(torpor, 5, what, why, "torpor hosts", "suspend", "job")
    runs_on(torpor)


def test_file_system_has_no_room_for_the_state(torpor: Installation) -> None:
    free = shutil.disk_usage(torpor.state_dir).free
    (torpor.state_dir / FILLER).write_bytes(bytes(free - (8 << 20)))
    refused(torpor, 8, "the state has no room", "MiB are free below state_dir", "make room", "suspend", "job")
    assert no_partial_state(torpor)
    runs_on(torpor)
    (torpor.state_dir / FILLER).unlink()
    torpor.ok("suspend", "job")
    sleeps_on(torpor)


def test_file_system_fills_up_while_the_state_is_written(torpor: Installation) -> None:
    restart(torpor, "-m", "tests.crash.daemon_with_trap", "{config}", "fill-disk", "job")
    refused(torpor, 8, "the state of job can't be saved", "the disk is full", "make room", "suspend", "job")
    assert shutil.disk_usage(torpor.state_dir).free < 8 << 20
    assert no_partial_state(torpor)
    runs_on(torpor)


# --- a damaged state ---


def flip(torpor: Installation) -> None:
    """Turn one bit round, in the midst of what was saved of the guest's memory."""
    (memory,) = torpor.state_dir.glob("instances/*/states/*/memory")
    with memory.open("r+b") as file:
        offset = os.lseek(file.fileno(), memory.stat().st_size // 4, os.SEEK_DATA) + 77
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def test_flipped_byte_in_a_saved_state(torpor: Installation) -> None:
    torpor.ok("suspend", "job")
    flip(torpor)
    try:
        for _ in range(2):  # the second time as the first
            refused(torpor, 9, "saved memory is damaged", "checksum", "backup", "resume", "job")
            sleeps_on(torpor)
    finally:
        flip(torpor)
    torpor.ok("resume", "job")
    runs_on(torpor)


# --- state directory unwritable ---


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder, for everybody who opens anything in it from now on."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_state_directory_becomes_read_only(torpor: Installation) -> None:
    with read_only(torpor.state_dir):
        refused(torpor, 8, "job", "Read-only file system", "make state_dir writable", "suspend", "job")
        runs_on(torpor)
        done = torpor.cli("run", "other", "--image", "tiny", "--memory", "64M")
        assert done.returncode in (7, 8), done.stderr
        assert len(done.stderr.splitlines()) == 1 and "Read-only file system" in done.stderr
    assert [w["name"] for w in torpor.json("ps")["workloads"]] == ["job"]
    torpor.ok("suspend", "job")
    sleeps_on(torpor)


def test_daemon_does_not_start_on_a_read_only_state_directory(torpor: Installation) -> None:
    guest = address(torpor)
    torpor.kill()
    with read_only(torpor.state_dir):
        refused(torpor, 7, "state directory", "Read-only file system", "make it writable", "serve")
        refused(torpor, 10, "the daemon can't be started", "Read-only file system", "writable", "ps")
    assert torpor.status(guest), "the guest needs no daemon"
    torpor.start()
    torpor.wait_ready()
    runs_on(torpor)


# --- no dnsmasq ---


def test_no_dnsmasq(torpor: Installation) -> None:
    binary = shutil.which("dnsmasq", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
    assert binary is not None
    hidden = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', binary)
    restart(torpor, prefix=hidden)
    for server in torpor.name_servers():
        server.kill()
    no_server = ("there is no program 'dnsmasq'", "it serves the guests' names", "install dnsmasq")
    refused(torpor, 7, *no_server, "run", "other", "--image", "tiny", "--memory", "64M")
    assert [w["name"] for w in torpor.json("ps")["workloads"]] == ["job"]
    runs_on(torpor)
    torpor.ok("suspend", "job")
    sleeps_on(torpor)
    torpor.ok("resume", "job")
    runs_on(torpor)


# --- addresses and images ---


def test_address_pool_is_empty(torpor: Installation) -> None:
    words: Any = ("run", "many", "--image", "tiny", "--memory", "64M", "--count", "5")
    refused(torpor, 6, "5 addresses are needed and 4 of", "bound to an instance", "delete a workload", *words)
    assert [w["name"] for w in torpor.json("ps")["workloads"]] == ["job"]
    assert torpor.resolve("many-0") == []
    runs_on(torpor)


def test_image_is_not_a_disk(torpor: Installation, tmp_path: Path) -> None:
    text = tmp_path / "text.qcow2"
    text.write_text("This is no disk.\n" * 100)
    base, child = tmp_path / "base.qcow2", tmp_path / "child.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "8M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, child], check=True)
    add = ("image", "add", "broken")
    refused(torpor, 2, "text.qcow2 can't be used", "it is not a disk image", "give a qcow2 or raw", *add, str(text))
    refused(torpor, 2, "child.qcow2 can't be used", "it needs another file", "qemu-img convert", *add, str(child))
    refused(torpor, 2, "gone.qcow2 can't be used", "no such file", "check the path", *add, str(tmp_path / "gone.qcow2"))
    assert [i["name"] for i in torpor.json("image", "ls")["images"]] == ["tiny"]
    runs_on(torpor)
