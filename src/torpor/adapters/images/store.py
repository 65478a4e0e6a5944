"""The store of images: one folder each, written once, then only read.

    DIRECTORY/NAME/image.json              what `Image` says, and the kernel's command line
                   disk.qcow2 or disk.raw  of a disk image
                   vmlinuz, initrd         of a kernel image, or of a disk without a boot loader

An image appears whole, by a rename, or not at all.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torpor.adapters.images.disk_file import DiskFile, inspect_disk
from torpor.adapters.images.recipe import build_recipe
from torpor.adapters.images.staging import staging, sweep
from torpor.domain.errors import BackendFailed, Conflict, Invalid, NotFound
from torpor.domain.image import Image, ImageKind
from torpor.domain.naming import check_label
from torpor.ports import Disk, Kernel

_CHUNK = 1 << 20
_RECORD = "image.json"
_MAKING = "`torpor image add NAME FILE` or `torpor image build debian --recipe debian`"


class ImageStore:
    """Implements `Images` on a folder, and tells the machines what to boot."""

    def __init__(self, directory: Path, cache: Path | None = None) -> None:
        """`cache` keeps what recipes have built; by default it is a hidden folder in `directory`."""
        self._directory = directory
        self._cache = cache or directory / ".built"

    def list(self) -> Sequence[Image]:
        """By name."""
        return tuple(self.get(name) for name in self._names())

    def get(self, name: str) -> Image:
        """Raises NotFound, and BackendFailed when its record can't be read."""
        record = self._record(name)
        fields = {**record["image"], "kind": ImageKind(record["image"]["kind"])}
        return Image(**fields)

    def boot(self, name: str) -> Kernel | Disk:
        """What a machine of this image is started with. Raises NotFound."""
        record, folder = self._record(name), self._directory / name
        kernel = Kernel(folder / "vmlinuz", folder / "initrd", record["cmdline"]) if record["cmdline"] else None
        image = record["image"]
        if image["kind"] == ImageKind.DISK:
            return Disk(folder / f"disk.{image['format']}", image["format"], image["virtual_bytes"], kernel)
        if kernel is None:
            raise _unreadable(name, "it has no command line for its kernel")
        return kernel

    def add(self, name: str, path: str) -> Image:
        """Take a copy of a disk image. Raises Invalid when it is not one, Conflict when the name is taken."""
        self._check_free(name)
        source = Path(path)
        if not source.is_absolute():
            raise Invalid(f"{path} can't be used as an image", detail="it is not an absolute path")
        if not source.is_file():
            detail = "it is not a file" if source.exists() else "there is no such file"
            raise Invalid(f"{path} can't be used as an image", detail=detail, remedy="check the path")
        format = inspect_disk(source).format
        with self._staging(name) as folder:
            copy = folder / f"disk.{format}"
            digest = _copy(source, copy)
            # The copy counts: the source may have changed while it was read.
            return self._publish(folder, _disk_image(name, copy, inspect_disk(copy), digest))

    def build(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        """Build a test image from distribution packages.

        Raises Invalid for an unknown recipe, MissingPart for a missing program, BackendFailed when
        the build fails, Conflict when the name is taken.
        """
        self._check_free(name)
        with self._staging(name) as folder:
            cmdline = build_recipe(recipe, folder, self._cache, progress)
            disk = folder / "disk.qcow2"
            if disk.exists():
                image = _disk_image(name, disk, inspect_disk(disk), _digest(disk))
            else:
                image = _kernel_image(name, folder)
            return self._publish(folder, image, cmdline)

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        self._record(name)
        with self._staging(name) as folder:
            (self._directory / name).rename(folder / "removed")
            _sync_folder(self._directory)

    def sweep(self) -> None:
        """Remove what processes that are gone have left half done."""
        for folder in (self._directory, self._cache):
            sweep(folder)

    def _names(self) -> Sequence[str]:
        try:
            return sorted(entry.name for entry in self._directory.iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return ()

    def _record(self, name: str) -> Mapping[str, Any]:
        try:
            record: Mapping[str, Any] = json.loads((self._directory / _checked(name) / _RECORD).read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            remedy = "`torpor image ls` lists them" if self._names() else f"make one: {_MAKING}"
            raise NotFound(f"there is no image {name!r}", remedy=remedy) from error
        except (OSError, ValueError) as error:
            raise _unreadable(name, str(error)) from error
        return record

    def _check_free(self, name: str) -> None:
        if (self._directory / _checked(name)).exists():
            raise _taken(name)

    @contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        """A folder that is gone afterwards, unless it was renamed. Errors of the disk become BackendFailed."""
        try:
            with staging(self._directory) as folder:
                yield folder
        except OSError as error:
            raise _not_stored(name, self._directory, error) from error

    def _publish(self, folder: Path, image: Image, cmdline: str = "") -> Image:
        record = folder / _RECORD
        record.write_text(json.dumps({"image": asdict(image), "cmdline": cmdline}, indent=1) + "\n")
        for file in folder.iterdir():
            file.chmod(0o444)
            _sync_file(file)
        folder.chmod(0o755)
        _sync_folder(folder)
        try:
            folder.rename(self._directory / image.name)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise _taken(image.name) from error
            raise
        _sync_folder(self._directory)
        return image


def _checked(name: str) -> str:
    return check_label(name, "image name", "images are named by the same rule as workloads")


def _disk_image(name: str, path: Path, disk: DiskFile, digest: str) -> Image:
    size = path.stat().st_blocks * 512
    return Image(name, ImageKind.DISK, disk.format, size, disk.virtual_bytes, digest, time.time())


def _kernel_image(name: str, folder: Path) -> Image:
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    size = kernel.stat().st_size + initrd.stat().st_size
    return Image(name, ImageKind.KERNEL, "bzImage", size, 0, _digest(initrd), time.time())


def _copy(source: Path, target: Path) -> str:
    """Copy with holes for zeros; return the SHA-256 of the content, hex."""
    digest = hashlib.sha256()
    zeros = bytes(_CHUNK)
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            if chunk == zeros:
                writer.seek(len(chunk), os.SEEK_CUR)
            else:
                writer.write(chunk)
        writer.truncate()
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken(name: str) -> Conflict:
    return Conflict(f"there is an image {name!r} already", remedy="choose another name, or remove that image first")


def _unreadable(name: str, detail: str) -> BackendFailed:
    return BackendFailed(f"image {name!r} can't be read", detail=detail, remedy="remove its folder and add it again")


def _not_stored(name: str, directory: Path, error: OSError) -> BackendFailed:
    return BackendFailed(
        f"image {name!r} was not stored",
        detail=error.strerror or str(error),
        remedy=f"check room and permissions below {directory}",
    )
