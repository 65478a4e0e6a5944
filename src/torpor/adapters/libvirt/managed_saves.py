"""libvirt's managed save images as files: whose they are, whether they are whole, and their checksums."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import xxhash

from torpor.domain.errors import StateDamaged
from torpor.files import sync_folder
from torpor.ports import Progress

_MAGIC = b"LibvirtQemudSave"
"""Of a whole image. While it is being written the magic is another one."""
_HEADER = struct.Struct("=16sIIII")
"""Magic, version, length of the XML behind the header, whether the guest ran, format."""
_FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop")
_CHUNK = 1 << 20
_TAIL = 1 << 16
"""Device state, and with it the guest's clocks, lies at an image's end: no two saves have the same."""


@dataclass(frozen=True, slots=True)
class Identity:
    """By what an image is known again without reading all of it."""

    size: int
    inode: int
    tail: str
    """Checksum of its end."""


@dataclass(frozen=True, slots=True)
class Image:
    """The managed save image of one domain; it may not be there."""

    path: Path

    def is_there(self) -> bool:
        return self.path.exists()

    def is_whole(self) -> bool:
        """Whether libvirt wrote it to its end."""
        return self._header()[0] == _MAGIC

    def format(self) -> str:
        """As qemu.conf calls it."""
        number = int(self._header()[4])
        return _FORMATS[number] if number < len(_FORMATS) else f"format {number}"

    def stored_bytes(self) -> int:
        """Room on disk."""
        return self.path.stat().st_blocks * 512

    def modified_at(self) -> float:
        return self.path.stat().st_mtime

    def identity(self) -> Identity:
        found = self.path.stat()
        with self.path.open("rb") as file:
            file.seek(max(0, found.st_size - _TAIL))
            return Identity(found.st_size, found.st_ino, xxhash.xxh3_128_hexdigest(file.read()))

    def is_the_one(self, known: Identity, perhaps_damaged: bool) -> bool:
        """Whether it is the image of that identity. One that is `perhaps_damaged` may differ in what it holds."""
        found = self.path.stat()
        if found.st_size != known.size:
            return False
        return (perhaps_damaged and found.st_ino == known.inode) or self.identity().tail == known.tail

    def checksum(self, progress: Progress) -> str:
        """xxh3_128, hex, of all of it."""
        digest = xxhash.xxh3_128()
        with self.path.open("rb") as file:
            size, done = os.fstat(file.fileno()).st_size, 0
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                progress(min(done, size), size)
        return digest.hexdigest()

    def sync(self) -> None:
        """Make it durable."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(self.path.parent)

    def remove(self) -> None:
        """Durably. Converges."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir():
            sync_folder(self.path.parent)

    def _header(self) -> tuple[bytes, int, int, int, int]:
        """Zeros where the file is too short for one, or not there."""
        try:
            with self.path.open("rb") as file:
                head = file.read(_HEADER.size)
        except FileNotFoundError:
            head = b""
        magic, version, length, ran, format = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
        return magic, version, length, ran, format


def check(image: Image, expected: str, progress: Progress) -> None:
    """Raises StateDamaged when it is not what was written."""
    if image.checksum(progress) != expected:
        raise damaged(image, "it does not match its checksum")


def damaged(image: Image, why: str) -> StateDamaged:
    return StateDamaged(
        "the saved state is damaged",
        detail=f"{image.path}: {why}",
        remedy="bring the file back from a backup, or delete the workload",
    )
