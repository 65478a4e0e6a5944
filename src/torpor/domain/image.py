"""Images: what instances are made from."""

from dataclasses import dataclass
from enum import StrEnum


class ImageKind(StrEnum):
    DISK = "disk"
    """A bootable disk; every instance gets an overlay on it."""
    KERNEL = "kernel"
    """A kernel and an initramfs, booted directly; no disk."""


@dataclass(frozen=True, slots=True)
class Image:
    """A base, as the store describes it. Sizes in bytes; `sha256` of the disk or of the initramfs, hex."""

    name: str
    kind: ImageKind
    format: str
    """`qcow2` or `raw` for a disk, `bzImage` for a kernel."""
    size_bytes: int
    virtual_bytes: int
    """Size of the disk that a guest sees; 0 for a kernel."""
    sha256: str
    created_at: float
