"""What the embedded backend is told when it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torpor.domain.ids import HostId


@dataclass(frozen=True, slots=True)
class QemuSettings:
    """Sizes are MiB. What a host offers is measured where it is None."""

    state_dir: Path
    host: HostId
    binary: str = "qemu-system-x86_64"
    user: str = "torpor-qemu"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    tb_size_mb: int = 64
    save_threads: int = 8
    codec: Literal["auto", "none", "lz4", "zstd"] = "auto"
    codec_level: int = 1
    restore: Literal["eager", "lazy"] = "eager"
    vcpus: int | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    reserve_mb: int = 1024
