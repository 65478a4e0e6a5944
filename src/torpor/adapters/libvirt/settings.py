"""What the libvirt backend is told when it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torpor.domain.ids import HostId


@dataclass(frozen=True, slots=True)
class LibvirtSettings:
    """Sizes are MiB. What a host offers is asked of libvirt where it is None."""

    state_dir: Path
    host: HostId
    uri: str = "qemu:///system"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    save_dir: Path = Path("/var/lib/libvirt/qemu/save")
    """Where libvirtd puts managed save images, as this process sees it."""
    bypass_cache: bool = True
    """Images are written past the page cache."""
    save_timeout: float = 600.0
    """Seconds after which a save is called off."""
    tb_size_mb: int = 64
    vcpus: int | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    reserve_mb: int = 1024
    network: str | None = "torpor"
    """The libvirt network that VMs of our making are put into; None: they have no NIC."""
