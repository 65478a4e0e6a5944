"""What the demo's VMs run under: QEMU alone, or a libvirtd of the demo's own."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmark.states.talk import GuestFailed
from demonstration.failure import DemoFailed
from private_libvirtd import LibvirtHost

NETWORK = "torpor-demo"
"""As libvirt calls it."""


class Backend(Protocol):
    greeting: str
    """Title of the step in which it is started."""

    def settings(self) -> str:
        """Lines of the configuration that come before its sections."""
        ...

    def section(self) -> str:
        """A section of its own in the configuration."""
        ...

    def start(self) -> None:
        """Have ready what the daemon needs. Converges. Raises DemoFailed."""
        ...

    def saved_files(self, instance: Mapping[str, Any]) -> Iterator[Path]:
        """Files of its saved states."""
        ...

    def end(self) -> list[str]:
        """End what was started, whoever started it; what could not be removed."""
        ...


class QemuBackend:
    """Needs nothing but Torpor."""

    greeting = "Start a Torpor of our own"

    def __init__(self, root: Path) -> None:
        self._instances = root / "state" / "instances"

    def settings(self) -> str:
        return ""

    def section(self) -> str:
        return ""

    def start(self) -> None:
        return

    def saved_files(self, instance: Mapping[str, Any]) -> Iterator[Path]:
        folder = self._instances / instance["id"] / "states"
        return (file for file in folder.rglob("*") if file.is_file())

    def end(self) -> list[str]:
        return []


class LibvirtBackend:
    """A libvirtd that nobody else sees, in a folder below `root`."""

    greeting = "Start a libvirtd and a Torpor of our own"

    def __init__(self, root: Path) -> None:
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

    def saved_files(self, instance: Mapping[str, Any]) -> Iterator[Path]:
        """libvirt names them after the domain."""
        return (file for file in (self._daemon.managed_saves / f"{instance['name']}.save",) if file.exists())

    def end(self) -> list[str]:
        try:
            self._daemon.close()
        except GuestFailed as error:
            return [f"a part of libvirt's ({error})"]
        shutil.rmtree(self._folder, ignore_errors=True)
        return []


BACKENDS: Mapping[str, type[QemuBackend] | type[LibvirtBackend]] = {"qemu": QemuBackend, "libvirt": LibvirtBackend}
