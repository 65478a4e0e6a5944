"""The embedded backend with real QEMU processes, without network; guests are asked through their agent."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.installation import CACHE, cached_image, wait_until

from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.images.store import ImageStore
from torpor.adapters.qemu import QemuSettings, make_backend
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, NetworkConfig
from torpor.domain.workload import Flavor
from torpor.ports import BootImages

BOOT_SECONDS = 120.0
Restore = Literal["eager", "lazy"]
Packing = Literal["auto", "none", "lz4", "zstd"]
USER = "torpor-qemu"


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


def new_spec(image: str = "tiny", memory_mb: int = 128, disk_mb: int = 0, user_data: str | None = None) -> InstanceSpec:
    """An instance that nobody has seen before."""
    id = InstanceId(str(uuid.uuid4()))
    mac = "52:54:00:" + ":".join(id[at : at + 2] for at in (0, 2, 4))
    network = NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "test.internal")
    return InstanceSpec(id, f"vm-{id[:4]}", image, Flavor(1, memory_mb, disk_mb), mac, network, user_data)


class Bench:
    """A backend in a folder of its own, and talk with its guests."""

    def __init__(
        self,
        state_dir: Path,
        images: BootImages | None = None,
        mechanism: Mechanism | None = None,
        user: str = USER,
        restore: Restore = "eager",
        codec: Packing = "auto",
    ) -> None:
        settings = QemuSettings(state_dir, HostId("local"), user=user, tb_size_mb=32, restore=restore, codec=codec)
        self.settings = settings
        self.backend = make_backend(settings, images or ImageStore(CACHE), config_drive_image, mechanism=mechanism)
        self.hypervisor = self.backend.hypervisor
        self.suspension = self.backend.suspension
        self.guest = AgentGuest(
            over_socket(lambda id: self.folder(id).agent_socket), lambda _: Ethernet("lo", "127.0.0.1")
        )

    def told(self, restore: Restore, codec: Packing) -> Bench:
        """The same guests under a backend that was told otherwise."""
        return Bench(self.settings.state_dir, restore=restore, codec=codec)

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, BOOT_SECONDS, "what the test waits for")

    def folder(self, id: InstanceId) -> InstanceFolder:
        return self.backend.layout.instance(id)

    def booted(self, spec: InstanceSpec) -> InstanceSpec:
        """Boot it and wait until its agent answers and its counter runs."""
        self.hypervisor.boot(spec)
        self.wait_guest(spec.id)
        return spec

    def wait_guest(self, id: InstanceId) -> Any:
        return wait_until(lambda: self._status(id), BOOT_SECONDS, f"guest {id} answers: {self.console(id)[-500:]}")

    def run_in(self, id: InstanceId, command: str) -> str:
        """Output of a shell command in the guest; fails unless it succeeds."""
        pid = self.guest.execute(id, command)
        give_up = time.monotonic() + BOOT_SECONDS
        while not (result := self.guest.execution(id, pid)).finished:
            assert time.monotonic() < give_up, f"{command} does not end"
            time.sleep(0.05)
        assert result.exit_code == 0, f"{command}: {result}"
        return result.output

    def ask(self, id: InstanceId, command: str) -> Any:
        """A question to the tiny guest; its answer."""
        return json.loads(self.run_in(id, f"torpor-guest {command}"))

    def console(self, id: InstanceId) -> str:
        log = self.folder(id).console_log
        return log.read_text(errors="replace") if log.exists() else ""

    def state(self, id: InstanceId) -> BackendState:
        seen = self.hypervisor.observe().get(id)
        return seen.state if seen else BackendState.ABSENT

    def pid(self, id: InstanceId) -> int | None:
        seen = self.hypervisor.observe().get(id)
        return seen.pid if seen else None

    def suspend(self, spec: InstanceSpec) -> None:
        self.hypervisor.pause(spec.id)
        self.suspension.save(spec, ignore)
        self.suspension.release(spec.id)

    def resume(self, spec: InstanceSpec) -> None:
        self.suspension.restore(spec, ignore)
        self.suspension.spend(spec.id)
        self.hypervisor.run_on(spec.id)

    def close(self) -> None:
        """End every guest of this bench."""
        for vm in self.backend.vms.all():
            vm.end()
        self.backend.close()

    def _status(self, id: InstanceId) -> Any:
        try:
            return self.ask(id, "status")
        except (BackendFailed, ValueError, AssertionError):
            return None


@contextmanager
def bench(
    folder: Path | None = None,
    mechanism: Mechanism | None = None,
    images: BootImages | None = None,
    restore: Restore = "eager",
    codec: Packing = "auto",
) -> Iterator[Bench]:
    """A bench with the tiny image; all of it is gone afterwards. Its folder's name is short, for QEMU's sockets."""
    cached_image("tiny")
    path = folder or Path(tempfile.mkdtemp(prefix="tq-", dir="/var/tmp"))
    made = Bench(path / "s", images, mechanism, restore=restore, codec=codec)
    try:
        yield made
    finally:
        made.close()
        if folder is None:
            shutil.rmtree(path)
