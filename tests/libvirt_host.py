"""The libvirt backend with a libvirtd of its own, without network; guests are asked through their agent."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
from tests.installation import CACHE, cached_image, wait_until
from tests.vms import BOOT_SECONDS, ignore

from private_libvirtd import LibvirtHost, private_libvirtd
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.images.store import ImageStore
from torpor.adapters.libvirt import LibvirtSettings
from torpor.adapters.libvirt.backend import make_backend
from torpor.adapters.libvirt.layout import InstanceFolder
from torpor.adapters.libvirt.managed_saves import Image
from torpor.domain.errors import TimedOut, TorporError
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import BackendState, InstanceSpec


class LibvirtBench:
    """A backend, its libvirtd, and talk with its guests."""

    def __init__(self, settings: LibvirtSettings, daemon: LibvirtHost) -> None:
        self.daemon = daemon
        self.settings = settings
        self.backend = make_backend(settings, ImageStore(CACHE), config_drive_image)
        self.hypervisor = self.backend.hypervisor
        self.suspension = self.backend.suspension

    def told(self, **changed: Any) -> LibvirtBench:
        """The same guests under a backend that was told otherwise, and that remembers nothing."""
        return LibvirtBench(replace(self.settings, **changed), self.daemon)

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, BOOT_SECONDS, "what the test waits for")

    def folder(self, id: InstanceId) -> InstanceFolder:
        return self.backend.domains.layout.instance(id)

    def image(self, id: InstanceId) -> Image:
        """The managed save image of an instance that has a domain."""
        domain = self.domain(id)
        return Image(self.settings.save_dir / f"{domain.name()}.save")

    def domain(self, id: InstanceId) -> libvirt.virDomain:
        return self.backend.connection.require(id)

    def booted(self, spec: InstanceSpec) -> InstanceSpec:
        """Boot it and wait until its agent answers and its counter runs."""
        self.hypervisor.boot(spec)
        self.wait_guest(spec.id)
        return spec

    def wait_guest(self, id: InstanceId) -> Any:
        return wait_until(lambda: self._status(id), BOOT_SECONDS, f"guest {id} answers: {self.console(id)[-500:]}")

    def ask(self, id: InstanceId, command: str) -> Any:
        """A question to the tiny guest; its answer."""
        return json.loads(self.run_in(id, f"torpor-guest {command}"))

    def run_in(self, id: InstanceId, command: str) -> str:
        """Output of a shell command in the guest; fails unless it succeeds."""
        pid = self._agent(id, "guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})["pid"]
        give_up = time.monotonic() + BOOT_SECONDS
        while not (status := self._agent(id, "guest-exec-status", pid=pid))["exited"]:
            assert time.monotonic() < give_up, f"{command} does not end"
            time.sleep(0.05)
        output = base64.b64decode(status.get("out-data", "")).decode()
        assert status.get("exitcode") == 0, f"{command}: {status}"
        return output

    def console(self, id: InstanceId) -> str:
        log = self.folder(id).console_log
        return log.read_text(errors="replace") if log.exists() else ""

    def state(self, id: InstanceId) -> BackendState:
        seen = self.hypervisor.observe().get(id)
        return seen.state if seen else BackendState.ABSENT

    def suspend(self, spec: InstanceSpec) -> None:
        self.hypervisor.pause(spec.id)
        self.suspension.save(spec, ignore)
        self.suspension.release(spec.id)

    def resume(self, spec: InstanceSpec) -> None:
        self.suspension.restore(spec, ignore)
        self.suspension.spend(spec.id)
        self.hypervisor.run_on(spec.id)

    def _agent(self, id: InstanceId, command: str, **arguments: object) -> Any:
        """Right after a restore libvirt has not heard of the agent yet."""
        question = json.dumps({"execute": command, "arguments": arguments})
        give_up = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                with self.backend.connection.call("the guest agent does not answer"):
                    return json.loads(libvirt_qemu.qemuAgentCommand(self.domain(id), question, 10, 0))["return"]
            except TimedOut as error:
                if "not connected" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    def _status(self, id: InstanceId) -> Any:
        try:
            return self.ask(id, "status")
        except (TorporError, ValueError, AssertionError):
            return None


@contextmanager
def libvirt_bench() -> Iterator[LibvirtBench]:
    """A bench with the tiny image; all of it is gone afterwards. Its folder's name is short, for libvirt's sockets."""
    cached_image("tiny")
    with tempfile.TemporaryDirectory(prefix="lv-", dir="/var/tmp") as folder:
        path = Path(folder)
        path.chmod(0o711)
        with private_libvirtd(path / "v") as daemon:
            settings = LibvirtSettings(
                path / "s", HostId("local"), daemon.uri, save_dir=daemon.managed_saves, tb_size_mb=32, network=None
            )
            made = LibvirtBench(settings, daemon)
            try:
                yield made
            finally:
                made.backend.close()


def cut(daemon: LibvirtHost) -> None:
    """As an administrator would: every client is thrown out, and libvirtd runs on."""
    admin = "libvirtd:///system?socket=" + daemon.uri.partition("socket=")[2].replace(
        "libvirt-sock", "libvirt-admin-sock"
    )

    def virt_admin(*words: str) -> str:
        done = subprocess.run(["virt-admin", "-q", "-c", admin, *words], capture_output=True, text=True, check=False)
        return done.stdout

    for line in virt_admin("client-list", "libvirtd").splitlines():
        if line.split()[:1] and line.split()[0].isdigit():
            virt_admin("client-disconnect", "libvirtd", line.split()[0])
