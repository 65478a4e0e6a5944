"""What the backend needs of this host, found or missing: implements the `Diagnostics` port."""

import os
import tempfile
from collections.abc import Callable, Sequence

from torpor.adapters.libvirt.domains import Domains
from torpor.adapters.libvirt.hypervisor import LibvirtHypervisor
from torpor.adapters.libvirt.layout import free_bytes
from torpor.adapters.libvirt.managed_saves import Image
from torpor.domain.errors import MissingPart, TorporError
from torpor.ports import Check

_LITTLE_ROOM = 2 << 30


class LibvirtDiagnostics:
    """The libvirt backend's part of `torpor doctor`."""

    def __init__(self, domains: Domains, hypervisor: LibvirtHypervisor) -> None:
        self._domains = domains
        self._hypervisor = hypervisor

    def checks(self) -> Sequence[Check]:
        tries: tuple[tuple[str, Callable[[], str]], ...] = (
            ("libvirt", self._libvirt),
            ("accelerator", self._accelerator),
            ("state_dir", self._state_dir),
            ("saved domains", self._save_dir),
            ("domains", self._marked),
        )
        return tuple(_try(name, find) for name, find in tries)

    def self_test(self, progress: Callable[[str], None]) -> Check:
        return Check(
            "save and restore",
            True,
            "not needed: states are libvirt's own managed save images, written and read by QEMU's own migration",
        )

    def _libvirt(self) -> str:
        with self._domains.connection.call("libvirt can't be asked for its version") as host:
            versions = [_version(number) for number in (host.getLibVersion(), host.getVersion())]
        return f"{self._domains.settings.uri} answers: libvirt {versions[0]}, QEMU {versions[1]}"

    def _accelerator(self) -> str:
        choice = self._hypervisor.accelerator()
        return f"{'kvm' if choice.type == 'kvm' else 'tcg'} ({choice.reason})"

    def _state_dir(self) -> str:
        folder = self._domains.layout.state_dir
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        return f"{folder} is writable"

    def _save_dir(self) -> str:
        folder = self._domains.settings.save_dir
        if not folder.is_dir():
            raise MissingPart(f"{folder} is not there", remedy="set libvirt.save_dir to where libvirt saves domains")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise MissingPart(f"{folder} can't be written", remedy="run the daemon as root")
        free = free_bytes(folder)
        room = f"{free >> 20} MiB free" + (", which is little" if free < _LITTLE_ROOM else "")
        formats = sorted({image.format() for image in map(Image, folder.glob("*.save")) if image.is_whole()})
        kind = f"images there are {', '.join(formats)}" if formats else "no image is there now"
        past = "past the page cache" if self._domains.settings.bypass_cache else "through the page cache"
        return f"{folder}, {room}; {kind}, written {past}; their format is `save_image_format` of libvirt's qemu.conf"

    def _marked(self) -> str:
        marked = self._domains.all()
        made = sum(vm.tag.made for vm in marked)
        return f"{made} made by Torpor, {len(marked) - made} adopted; all others are left alone"


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _try(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, True, find())
    except TorporError as error:
        return Check(name, False, error.what + (f": {error.detail}" if error.detail else ""), error.remedy)
    except OSError as error:
        return Check(name, False, f"{error.filename}: {error.strerror}", "make it accessible to the daemon")
