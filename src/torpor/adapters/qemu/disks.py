"""An instance's own disk: an overlay on its image, with a snapshot inside for every saved state.

The base is opened read-only and never written.
"""

import json
import os
import pwd
import subprocess
from pathlib import Path

from torpor.domain.errors import BackendFailed, Invalid, MissingPart, NoRoomForState
from torpor.files import sync_folder
from torpor.ports import Disk

_PREFIX = "torpor-"
_TIMEOUT = 120.0
_COPY_SECONDS = 3600.0


def snapshot_name(generation: int) -> str:
    """Name of the snapshot that belongs to a saved state."""
    return f"{_PREFIX}{generation}"


def snapshot_generation(name: str) -> int | None:
    """The saved state that a snapshot belongs to; None for a snapshot that is not ours."""
    number = name.removeprefix(_PREFIX)
    return int(number) if name.startswith(_PREFIX) and number.isdigit() else None


def create_overlay(path: Path, base: Disk, disk_mb: int, user: str) -> None:
    """Make the instance's disk, as large as the image or as `disk_mb`. Does nothing when it is there.

    Raises Invalid when the image is larger than `disk_mb`, BackendFailed.
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
    _give(partial, user)
    partial.replace(path)
    sync_folder(path.parent)


def named_snapshots(path: Path) -> list[str]:
    """Names of the snapshots in this disk, which no process may have open for writing."""
    found = json.loads(_qemu_img("info", "--output=json", str(path))).get("snapshots", [])
    return [str(entry["name"]) for entry in found]


def snapshots(path: Path) -> list[int]:
    """Saved states that have a snapshot in this disk, which no process may have open for writing."""
    generations = (snapshot_generation(name) for name in named_snapshots(path))
    return [generation for generation in generations if generation is not None]


def become(path: Path, name: str) -> None:
    """Take the disk to a snapshot; no process may have it open."""
    _qemu_img("snapshot", "-a", name, str(path))


def keep(path: Path, generation: int) -> None:
    """Keep what the disk has now as the contents of a saved state; no process may have it open. Durable on return."""
    if generation in snapshots(path):
        delete_snapshot(path, generation)  # left by one that did not come about
    _qemu_img("snapshot", "-c", snapshot_name(generation), str(path))
    sync_file(path)


def copy_snapshot(path: Path, name: str, base: Disk, copy: Path, user: str) -> None:
    """Make a disk of its own, on the same base, with the contents of a snapshot; somebody may have `path` open.

    Does nothing when it is there. Durable on return.
    """
    if copy.exists():
        return
    partial = copy.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    source = ["-U", "-l", f"snapshot.name={name}", "-f", "qcow2", str(path)]
    target = ["-O", "qcow2", "-F", base.format, "-B", str(base.path.absolute()), str(partial)]
    _qemu_img("convert", "-q", *source, *target, timeout=_COPY_SECONDS)
    _give(partial, user)
    partial.replace(copy)
    sync_folder(copy.parent)


def delete_named(path: Path, name: str) -> None:
    """Give up a snapshot; no process may have the disk open."""
    _qemu_img("snapshot", "-d", name, str(path))


def apply_snapshot(path: Path, generation: int) -> None:
    """Take the disk back to the instant of a saved state. Durable on return."""
    _qemu_img("snapshot", "-a", snapshot_name(generation), str(path))
    sync_file(path)


def delete_snapshot(path: Path, generation: int) -> None:
    """Give up the disk contents of a saved state; no process may have the disk open."""
    _qemu_img("snapshot", "-d", snapshot_name(generation), str(path))


def sync_file(path: Path) -> None:
    """Make what was written to the file durable, by whomever it was written."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _give(path: Path, user: str) -> None:
    """To QEMU's user alone, durably."""
    account = pwd.getpwnam(user)
    os.chown(path, account.pw_uid, account.pw_gid)
    path.chmod(0o600)
    sync_file(path)


def _qemu_img(*arguments: str, timeout: float = _TIMEOUT) -> str:
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise MissingPart("qemu-img is not there", detail="disks need it", remedy="install qemu-utils") from error
    except subprocess.TimeoutExpired as error:
        raise BackendFailed(f"qemu-img {arguments[0]} did not end within {timeout:g} s") from error
    if done.returncode:
        detail = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        if "No space left" in done.stderr:
            raise NoRoomForState("the disk is full", detail=detail[0], remedy="make room below state_dir")
        raise BackendFailed(f"qemu-img {arguments[0]} failed", detail=detail[0])
    return done.stdout
