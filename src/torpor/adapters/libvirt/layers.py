"""The overlays that disks got for snapshots' sake: which there are, which are needed, which can be merged away.

A snapshot freezes the file that a disk is written to, and the disk goes on in an overlay. Whoever goes back to a
snapshot goes on in another overlay on the same frozen file. So a disk's files are a tree, of which this is the account:
an overlay that is not in it was not made by Torpor, and neither it nor what lies below it is ever written or removed.
"""

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from torpor.domain.errors import StateDamaged
from torpor.files import sync_folder, write_durably

_FORMAT = 1
_MARK = ".torpor-"


@dataclass(frozen=True, slots=True)
class Layer:
    """An overlay, always a qcow2 file, and the file that it lies on."""

    target: str
    """The disk that it is of, as the guest's bus has it: `vda`."""
    path: Path
    parent: Path
    """Was the disk's own file, or another layer, until this one was made: nobody else's base."""
    parent_format: str


class Layers:
    """The account of one instance, in a file of its own. Layers are entered before they are made."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> Sequence[Layer]:
        """Oldest first. Raises StateDamaged."""
        try:
            body = json.loads(self._file.read_bytes())
            if body["format"] != _FORMAT:
                raise ValueError("it has another format")
            return tuple(
                Layer(e["target"], Path(e["path"]), Path(e["parent"]), e["parent_format"]) for e in body["layers"]
            )
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                "the account of a VM's disk files is damaged",
                detail=f"{self._file}: {error}",
                remedy="bring the file back from a backup, or remove it and keep all of the disk's files",
            ) from error

    def enter(self, new: Sequence[Layer]) -> None:
        """Durable on return. Raises OSError."""
        if new:
            self._write((*self.all(), *new))

    def forget(self, path: Path) -> None:
        """Converges."""
        known = self.all()
        left = [layer for layer in known if layer.path != path]
        if len(left) < len(known):
            self._write(left)

    def _write(self, layers: Sequence[Layer]) -> None:
        """None are left: no file."""
        if not layers:
            self._file.unlink(missing_ok=True)
            sync_folder(self._file.parent)
            return
        entries = [
            {
                "target": layer.target,
                "path": str(layer.path),
                "parent": str(layer.parent),
                "parent_format": layer.parent_format,
            }
            for layer in layers
        ]
        for folder in (self._file.parent.parent.parent, self._file.parent.parent, self._file.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_durably(self._file, json.dumps({"format": _FORMAT, "layers": entries}, indent=1).encode())
        sync_folder(self._file.parent.parent)


def needed(layers: Sequence[Layer], roots: Set[Path]) -> Set[Path]:
    """The roots, and every file that one of them lies on."""
    parents = {layer.path: layer.parent for layer in layers}
    found: set[Path] = set()
    for path in roots:
        at: Path | None = path
        while at is not None and at not in found:
            found.add(at)
            at = parents.get(at)
    return found


def mergeable(layers: Sequence[Layer], active: Path, frozen: Set[Path]) -> Sequence[Layer]:
    """The layers that can be merged away downwards, beginning with the one that is written to.

    What they lie on takes up what they hold: it must be kept by no snapshot and be under no other layer.
    """
    by_path = {layer.path: layer for layer in layers}
    found: list[Layer] = []
    at = active
    while (layer := by_path.get(at)) and at not in {each.path for each in found}:
        others = [other for other in layers if other.parent == layer.parent and other is not layer]
        if layer.parent in frozen or others:
            break
        found.append(layer)
        at = layer.parent
    return found


def new_path(parent: Path, snapshot: str, taken: Set[Path]) -> Path:
    """A free name beside the disk's own file: `DISK.torpor-SNAPSHOT`, and `.2` and so on where that is there."""
    original = parent.name.partition(_MARK)[0]
    path, count = parent.with_name(f"{original}{_MARK}{snapshot}"), 1
    while path in taken or path.exists() or path.is_symlink():
        count += 1
        path = parent.with_name(f"{original}{_MARK}{snapshot}.{count}")
    return path


def youngest(file: Path, otherwise: Path) -> Path:
    """Which file a disk of our making is written to, where no domain tells that any more. Raises StateDamaged."""
    there = [layer.path for layer in Layers(file).all() if layer.path.exists()]
    return there[-1] if there else otherwise
