"""What the demo's VMs run under: QEMU alone, or a libvirtd of the demo's own."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmark.states.talk import GuestFailed
from demonstration import processes
from demonstration.failure import DemoFailed
from demonstration.guests import Guests
from private_libvirtd import LibvirtHost

NETWORK = "torpor-demo"
"""As libvirt calls it."""
Document = Mapping[str, Any]


class Backend(Protocol):
    greeting: str
    """Title of the step in which it is started."""
    guests: Guests
    name_server: str | None
    """Where Torpor's name server listens; None: at the gateway of its network."""
    poll_seconds: float
    """How often it is looked whether a workload has arrived."""

    def settings(self) -> str:
        """Lines of the configuration that come before its sections."""
        ...

    def section(self) -> str:
        """A section of its own in the configuration."""
        ...

    def start(self) -> None:
        """Have ready what the daemon needs. Converges. Raises DemoFailed."""
        ...

    def environment(self) -> Mapping[str, str]:
        """What Torpor is to find in its environment."""
        ...

    def pids(self, instances: Collection[Document]) -> Mapping[str, int]:
        """By instance id, of those of them that have a QEMU process."""
        ...

    def saved_files(self, instance: Document) -> Iterator[Path]:
        """Files of its saved states."""
        ...

    def end(self) -> list[str]:
        """End what was started, whoever started it; what could not be removed."""
        ...


class _HereBackend:
    """VMs of this machine, which it reaches, and whose processes have their files below Torpor's state directory."""

    name_server: str | None = None
    poll_seconds = 0.05

    def __init__(self, root: Path) -> None:
        self.guests = Guests()
        self._state_dir = root / "state"

    def environment(self) -> Mapping[str, str]:
        return {}

    def pids(self, instances: Collection[Document]) -> Mapping[str, int]:
        wanted = {instance["id"] for instance in instances}
        return {id: pid for id, pid in processes.pids(self._state_dir).items() if id in wanted}


class QemuBackend(_HereBackend):
    """Needs nothing but Torpor."""

    greeting = "Start a Torpor of our own"

    def settings(self) -> str:
        return ""

    def section(self) -> str:
        return ""

    def start(self) -> None:
        return

    def saved_files(self, instance: Document) -> Iterator[Path]:
        folder = self._state_dir / "instances" / instance["id"] / "states"
        return (file for file in folder.rglob("*") if file.is_file())

    def end(self) -> list[str]:
        return []


class LibvirtBackend(_HereBackend):
    """A libvirtd that nobody else sees, in a folder below `root`."""

    greeting = "Start a libvirtd and a Torpor of our own"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._folder = root / "libvirt"
        self._daemon = LibvirtHost(self._folder)

    def settings(self) -> str:
        return 'backend = "libvirt"\n'

    def section(self) -> str:
        return f"""[libvirt]
uri = "{self._daemon.uri}"
network = "{NETWORK}"
save_dir = "{self._daemon.managed_saves}"
"""

    def start(self) -> None:
        try:
            self._daemon.start()
        except GuestFailed as error:
            raise DemoFailed(str(error)) from error

    def saved_files(self, instance: Document) -> Iterator[Path]:
        """libvirt names them after the domain."""
        return (file for file in (self._daemon.managed_saves / f"{instance['name']}.save",) if file.exists())

    def end(self) -> list[str]:
        try:
            self._daemon.close()
        except GuestFailed as error:
            return [f"a part of libvirt's ({error})"]
        shutil.rmtree(self._folder, ignore_errors=True)
        return []


BACKENDS = ("qemu", "libvirt", "openstack")


def make_backend(name: str, root: Path, lab_number: int | None = None) -> Backend:
    """The lab's number is openstack's; None: that of the demo before, or 0."""
    if name == "openstack":
        from demonstration.cloud.backend import OpenStackBackend  # it alone needs openstacksdk

        return OpenStackBackend(root, lab_number)
    return LibvirtBackend(root) if name == "libvirt" else QemuBackend(root)
