"""Overlays in qcow2: an instance's own disk on its image, and a disk's new layer on a frozen one."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from torpor.domain.errors import BackendFailed, Invalid, MissingPart, NoRoomForState
from torpor.files import sync_folder
from torpor.ports import Disk

_TIMEOUT = 120.0


def create_overlay(path: Path, base: Disk, disk_mb: int) -> None:
    """Make it as large as the image or as `disk_mb` MiB. Does nothing when it is there.

    Raises Invalid when the image is larger than `disk_mb`, MissingPart, NoRoomForState, BackendFailed.
    """
    if path.exists():
        return
    size = disk_mb << 20 if disk_mb else base.virtual_bytes
    if size < base.virtual_bytes:
        raise Invalid(
            f"a disk of {disk_mb} MiB is too small for this image",
            detail=f"the image's own disk has {-(-base.virtual_bytes >> 20)} MiB",
            remedy="ask for a larger disk",
        )
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    _qemu_img(
        "create", "-q", "-f", "qcow2", "-F", base.format, "-b", str(base.path.absolute()), str(partial), str(size)
    )
    partial.chmod(0o600)
    partial.replace(path)
    sync_folder(path.parent)


def create_layer(path: Path, parent: Path, parent_format: str) -> None:
    """An empty overlay of the same size, for whoever may write to its parent. Durable on return.

    Raises MissingPart, NoRoomForState, BackendFailed, OSError.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    _qemu_img("create", "-q", "-f", "qcow2", "-F", parent_format, "-b", str(parent), str(partial))
    found = parent.stat()
    os.chown(partial, found.st_uid, found.st_gid)
    partial.chmod(found.st_mode & 0o777 | 0o600)
    sync_file(partial)
    partial.replace(path)
    sync_folder(path.parent)


def commit(top: Path, base: Path, timeout: float) -> None:
    """Write what `top`, and the layers between the two, hold into `base`, on which they lie. Nobody has them open.

    `top` has the same contents all the while, so it may be interrupted and repeated. Raises MissingPart,
    NoRoomForState, BackendFailed.
    """
    _qemu_img("commit", "-q", "-f", "qcow2", "-d", "-b", str(base), str(top), timeout=timeout)
    sync_file(base)


def chain_of(path: Path, format: str) -> Sequence[Path]:
    """A disk's file and what it lies on, in order, by the files' own headers; they may be in use.

    Raises MissingPart, BackendFailed: also where one of them is not there.
    """
    if format != "qcow2":
        return (path,)  # what a guest writes into a raw disk is no header
    told = json.loads(_qemu_img("info", "-U", "-f", format, "--backing-chain", "--output=json", str(path)))
    return tuple(Path(each["filename"]) for each in told)


def sync_file(path: Path) -> None:
    """Make its contents durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _qemu_img(*arguments: str, timeout: float = _TIMEOUT) -> str:
    """What it prints."""
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise MissingPart("qemu-img is not there", detail="disks need it", remedy="install qemu-utils") from error
    except subprocess.TimeoutExpired as error:
        raise BackendFailed(f"qemu-img {arguments[0]} did not end within {timeout:g} s") from error
    if done.returncode:
        detail = (done.stderr.strip().splitlines()[-1:] or ["no reason given"])[0]
        if "No space left" in done.stderr:
            raise NoRoomForState("the disk is full", detail=detail, remedy="make room below state_dir")
        raise BackendFailed(f"qemu-img {arguments[0]} failed", detail=detail)
    return done.stdout
