"""Is a file a disk image that we may boot from? Asked of qemu-img, and of the first sectors."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torpor.domain.errors import Invalid, MissingPart

DiskFormat = Literal["qcow2", "raw"]
_MBR_SIGNATURE = b"\x55\xaa"
_GPT_SIGNATURE = b"EFI PART"
_CHECK_FOUND_DAMAGE = (2, 3)
"""Exit codes of `qemu-img check`: damaged; leaked clusters only. 3 loses room, not data."""


@dataclass(frozen=True, slots=True)
class DiskFile:
    format: DiskFormat
    virtual_bytes: int


def inspect_disk(path: Path) -> DiskFile:
    """What disk `path` holds. Raises Invalid unless it is whole, stands alone and can be booted from.

    A text file counts as a raw disk for QEMU, so a raw one must have a boot sector. A qcow2
    that names another file (backing file, data file) would have QEMU read that file for
    whoever uses the image.
    """
    what = f"{path} can't be used as an image"
    info = _info(path, what)
    if info["format"] not in ("qcow2", "raw"):
        raise Invalid(
            what,
            detail=f"it is in {info['format']} format",
            remedy="convert it with 'qemu-img convert -O qcow2 FILE NEW' and add the new file",
        )
    disk = DiskFile(cast(DiskFormat, info["format"]), int(info["virtual-size"]))
    if disk.format == "raw":
        _check_boot_sector(path, what)
    else:
        _check_qcow2(path, info, what)
    return disk


def _check_boot_sector(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4096 + len(_GPT_SIGNATURE))
    except OSError as error:
        raise Invalid(what, detail=error.strerror or str(error), remedy="check the path") from error
    signatures = (head[510:512] == _MBR_SIGNATURE, head[512:520] == _GPT_SIGNATURE, head[4096:4104] == _GPT_SIGNATURE)
    if not any(signatures):
        raise Invalid(
            what,
            detail="it is not a disk image: neither a qcow2 header nor a boot sector or partition table",
            remedy="give a qcow2 or raw image of a whole, bootable disk",
        )


def _check_qcow2(path: Path, info: Mapping[str, Any], what: str) -> None:
    special = info.get("format-specific", {}).get("data", {})
    other = info.get("backing-filename") or special.get("data-file")
    if other:
        raise Invalid(
            what,
            detail=f"it needs another file, {other}",
            remedy="make one whole file of it with 'qemu-img convert -O qcow2 FILE NEW' and add that",
        )
    if info.get("encrypted"):
        raise Invalid(what, detail="it is encrypted", remedy="decrypt it with 'qemu-img convert' and add the result")
    result = _qemu_img(["check", "-q", "-f", "qcow2", str(path)])
    if special.get("corrupt") or result.returncode not in (0, _CHECK_FOUND_DAMAGE[1]):
        raise Invalid(
            what,
            detail="its qcow2 structure is damaged or cut short",
            remedy="fetch it again; 'qemu-img check FILE' tells more",
        )


def _info(path: Path, what: str) -> Mapping[str, Any]:
    result = _qemu_img(["info", "--output=json", str(path)])
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["no reason given"]
        raise Invalid(what, detail=said[-1].removeprefix("qemu-img: "), remedy="give a qcow2 or raw disk image")
    return cast(Mapping[str, Any], json.loads(result.stdout))


def _qemu_img(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingPart(
            "disk images can't be checked",
            detail="qemu-img is not installed",
            remedy="run 'apt-get install qemu-utils'",
        ) from error
