"""All of Torpor on a libvirtd that dies, and beside people who use virsh: nothing is lost, and the books are right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.installation import Installation, installation, wait_until
from tests.libvirt_host import cut

from private_libvirtd import LibvirtHost

HOLDS_MB = 128 + 64
"""A guest's memory and QEMU's own, in the books."""
FILL_MB = 24
PATIENCE = 120.0


@dataclass(frozen=True)
class Scene:
    """A workload `batch` of one guest, on a host that has room for one more."""

    torpor: Installation
    daemon: LibvirtHost
    nonce: str

    @property
    def address(self) -> str:
        return self.torpor.addresses("batch")[0]

    @property
    def image(self) -> Path:
        return self.daemon.managed_saves / "batch.save"

    def status(self) -> Any:
        return self.torpor.wait_guest(self.address)

    def suspend(self) -> None:
        self.torpor.request("POST", "workloads/batch/suspend").raise_for_status()
        self.torpor.wait_state("batch", "suspended", PATIENCE)

    def resume(self) -> None:
        self.torpor.request("POST", "workloads/batch/resume").raise_for_status()
        self.torpor.wait_state("batch", "active", PATIENCE)

    def used_mb(self) -> int:
        """Memory that is in the books."""
        return int(self.torpor.get("hosts")["hosts"][0]["used"]["memory_mb"])

    def last(self, kind: str, since: float) -> Any:
        """The newest operation of this kind that began after `since`, once it has ended."""

        def ended() -> Any:
            operations = self.torpor.get("operations?limit=100")["operations"]
            found = [o for o in operations if o["kind"] == kind and o["created_at"] >= since]
            newest = max(found, key=lambda o: o["created_at"], default=None)
            return newest if newest and newest["ended_at"] else None

        return wait_until(ended, PATIENCE, f"a {kind} operation has ended")

    def check(self) -> None:
        """It runs, it is the same guest, and it holds what it is to hold."""
        self.torpor.wait_state("batch", "active", PATIENCE)
        status = self.status()
        assert status["nonce"] == self.nonce
        assert self.torpor.ask(self.address, "verify")["ok"] is True
        wait_until(lambda: self.status()["counter"] > status["counter"], 30, "the counter runs")
        wait_until(lambda: self.used_mb() == HOLDS_MB, 30, "the books hold one guest")
        assert self.torpor.resolve("batch") == [self.address]

    def events(self, kind: str) -> list[str]:
        return [e["message"] for e in self.torpor.get("events?limit=1000")["events"] if e["kind"] == kind]


@pytest.fixture(scope="module")
def scene(daemon: LibvirtHost) -> Iterator[Scene]:
    with installation(number=32, memory_mb=2 * HOLDS_MB + 32, libvirt=daemon) as torpor:
        torpor.ok("run", "batch", "--image", "tiny", "--memory", "128M", "--preemptible", "--wait")
        (address,) = torpor.addresses("batch")
        nonce = torpor.wait_guest(address)["nonce"]
        assert torpor.ask(address, f"fill {FILL_MB}")["ok"]
        yield Scene(torpor, daemon, nonce)


@pytest.fixture
def running(scene: Scene) -> Iterator[Scene]:
    """It runs, before and after."""
    scene.check()
    yield scene
    scene.check()


@contextmanager
def as_soon_as(seen: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Watch while the body asks for something, and act at the very moment that it is under way."""
    over = threading.Event()
    acted: list[bool] = []

    def watch() -> None:
        while not over.wait(0.001):
            if seen():
                act()
                acted.append(True)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
        watcher.join(PATIENCE)
    finally:
        over.set()
        watcher.join()
    assert acted, "what was waited for has not begun"


def saving(scene: Scene) -> Callable[[], bool]:
    return scene.image.exists


def loading(scene: Scene) -> Callable[[], bool]:
    """libvirt makes a folder for every process that it starts."""
    folders = scene.daemon.managed_saves.parent
    return lambda: any(folders.glob("domain-*-batch"))


# --- libvirtd and the connection to it ---


def test_libvirtd_killed_during_a_save_leaves_it_running_or_suspended(running: Scene) -> None:
    asked = time.time()
    with as_soon_as(saving(running), running.daemon.kill):
        running.torpor.request("POST", "workloads/batch/suspend").raise_for_status()
    running.daemon.start()
    operation = running.last("suspend", asked)
    state = running.torpor.state("batch")
    if operation["status"] == "succeeded":
        assert (state, running.used_mb()) == ("suspended", 0)
    else:
        assert operation["problem"]["message"]
        running.check()
        running.suspend()
    running.resume()


def test_libvirtd_killed_during_a_resume_leaves_it_suspended_or_running(running: Scene) -> None:
    running.suspend()
    asked = time.time()
    with as_soon_as(loading(running), running.daemon.kill):
        running.torpor.request("POST", "workloads/batch/resume").raise_for_status()
    running.daemon.start()
    operation = running.last("resume", asked)
    assert operation["status"] == "succeeded" or operation["problem"]["message"]
    # What was taken back is tried again by itself.
    running.torpor.wait_state("batch", "active", PATIENCE)


def test_a_connection_that_is_cut_during_a_save_is_made_anew(running: Scene) -> None:
    asked = time.time()
    with as_soon_as(saving(running), lambda: cut(running.daemon)):
        running.torpor.request("POST", "workloads/batch/suspend").raise_for_status()
    operation = running.last("suspend", asked)
    assert operation["status"] == "succeeded", operation["problem"]
    running.torpor.wait_state("batch", "suspended")
    assert "somebody else" not in running.torpor.show("batch")["reason"]
    running.resume()


def test_a_connection_that_is_cut_during_a_resume_is_made_anew(running: Scene) -> None:
    running.suspend()
    asked = time.time()
    with as_soon_as(loading(running), lambda: cut(running.daemon)):
        running.torpor.request("POST", "workloads/batch/resume").raise_for_status()
    running.last("resume", asked)
    running.torpor.wait_state("batch", "active", PATIENCE)


def test_without_libvirtd_every_answer_says_what_to_do(running: Scene) -> None:
    running.daemon.kill()
    try:
        assert "libvirt" in running.torpor.cli("doctor").stdout
        for words in (("ps",), ("adopt",)):
            refused = running.torpor.cli(*words)
            assert refused.returncode != 0
            assert "start libvirtd" in refused.stderr
    finally:
        running.daemon.start()


# --- people with virsh ---


def test_what_torpor_saved_virsh_starts_and_torpor_follows(running: Scene) -> None:
    running.suspend()
    running.daemon.virsh("start", "batch")
    running.check()


def test_what_torpor_saved_virsh_restores_from_the_file(running: Scene) -> None:
    running.suspend()
    running.daemon.virsh("restore", str(running.image))
    running.check()
    running.suspend()
    running.resume()


def test_what_virsh_saved_is_suspended_until_torpor_brings_it_back(running: Scene) -> None:
    running.daemon.virsh("managedsave", "batch")
    running.torpor.wait_state("batch", "suspended")
    wait_until(lambda: running.used_mb() == 0, 30, "the books are empty")
    shown = running.torpor.show("batch")
    assert shown["held"]
    assert "saved by somebody else" in shown["reason"]
    running.resume()


def fill_the_host(scene: Scene) -> None:
    """`batch` sleeps, and another has its room."""
    scene.torpor.ok("run", "urgent", "--image", "tiny", "--memory", "320M", "--priority", "10", "--wait")
    assert scene.torpor.state("batch") == "suspended"


def test_what_is_started_without_room_is_suspended_again(running: Scene) -> None:
    fill_the_host(running)
    asked = time.time()
    running.daemon.virsh("start", "batch")
    wait_until(lambda: running.events("started-without-room"), 30, "it was told")
    operation = running.last("suspend", asked)
    assert operation["status"] == "succeeded", operation
    running.torpor.wait_state("batch", "suspended")
    assert running.torpor.state("urgent") == "active"
    running.torpor.ok("delete", "urgent", "--yes")
    running.torpor.wait_state("batch", "active", PATIENCE)


def test_or_it_is_left_running_where_the_configuration_says_so(running: Scene) -> None:
    told = len(running.events("started-without-room"))
    restart_with(running, 'unplanned_start = "leave"')
    try:
        fill_the_host(running)
        running.daemon.virsh("start", "batch")
        wait_until(lambda: len(running.events("started-without-room")) > told, 30, "it was told")
        assert running.status()["nonce"] == running.nonce
        assert running.torpor.state("batch") == "suspended"
        running.torpor.ok("delete", "urgent", "--yes")
        running.torpor.wait_state("batch", "active", PATIENCE)
    finally:
        restart_with(running, 'unplanned_start = "suspend"')


def restart_with(scene: Scene, line: str) -> None:
    scene.torpor.kill()
    lines = scene.torpor.config.read_text().splitlines()
    key = line.split()[0]
    scene.torpor.config.write_text("\n".join(line if old.startswith(key) else old for old in lines) + "\n")
    scene.torpor.start()
    scene.torpor.wait_ready()


# --- people who undefine ---


@pytest.fixture
def other(running: Scene) -> Iterator[Scene]:
    """A second workload, `other`, whose guest nobody waits for."""
    running.torpor.ok("run", "other", "--image", "tiny", "--memory", "128M", "--preemptible", "--wait")
    yield running
    running.torpor.cli("delete", "other", "--yes")
    assert "other" not in running.daemon.virsh("list", "--all", "--name").split()


def test_a_running_vm_that_somebody_ended_and_undefined_has_failed(other: Scene) -> None:
    other.daemon.virsh("destroy", "other")
    other.daemon.virsh("undefine", "other")
    wait_until(lambda: other.torpor.state("other") in ("failed", "done"), 30, "it is not there any more")
    wait_until(lambda: other.used_mb() == HOLDS_MB, 30, "the books hold `batch` alone")


def test_a_running_vm_that_somebody_undefined_runs_on_and_says_why_it_is_not_suspended(other: Scene) -> None:
    other.daemon.virsh("undefine", "other")
    asked = other.torpor.cli("suspend", "other")
    assert asked.returncode != 0, asked
    assert "Traceback" not in asked.stderr
    assert asked.stderr.strip()
    assert other.torpor.state("other") == "active"
    assert other.used_mb() == 2 * HOLDS_MB


def test_a_suspended_vm_that_somebody_undefined_has_lost_its_state_and_says_so(other: Scene) -> None:
    other.torpor.ok("suspend", "other", "--wait")
    other.daemon.virsh("undefine", "--managed-save", "other")
    other.torpor.wait_state("other", "failed")
    assert "gone" in other.torpor.show("other")["problem"]["message"]


def test_a_vm_that_somebody_undefines_while_it_is_saved_is_not_lost(other: Scene) -> None:
    image = other.daemon.managed_saves / "other.save"
    (instance,) = other.torpor.show("other")["instances"]
    asked = time.time()
    with as_soon_as(image.exists, lambda: undefine(other.daemon)):
        other.torpor.request("POST", "workloads/other/suspend").raise_for_status()
    operation = other.last("suspend", asked)
    runs = instance["id"] in other.daemon.virsh("list", "--uuid").split()
    assert runs or image.exists(), f"neither memory nor image is left: {operation}"
    assert operation["status"] == "succeeded" or operation["problem"]["message"]
    if not runs:
        wait_until(lambda: other.used_mb() == HOLDS_MB, 30, "the books hold `batch` alone")
        other.daemon.virsh("restore", str(image))
        assert instance["id"] in other.daemon.virsh("list", "--uuid").split()


def undefine(daemon: LibvirtHost) -> None:
    """libvirt itself refuses where the image is there already."""
    with suppress(RuntimeError):
        daemon.virsh("undefine", "other")
