"""Live snapshots on disk: a folder each with the memory, written aside, made durable, then renamed into place.

The disks' contents of the same instant are the files that the disks were written to until then; see `layers`.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torpor.adapters.libvirt.layout import InstanceFolder
from torpor.adapters.libvirt.managed_saves import Identity, Image
from torpor.domain.errors import BackendFailed, NoRoomForState, NotFound, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Mechanism, Snapshot
from torpor.files import remove_tree, sync_folder, write_durably

_FORMAT = 1
_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """A disk's file as it was when the snapshot was whole; nobody writes to it any more."""

    target: str
    path: str
    format: str
    size: int
    modified_ns: int

    def defect(self) -> str:
        """Why it can't be used any more, in words; empty where nothing speaks against it."""
        try:
            found = Path(self.path).stat()
        except OSError as error:
            return f"{self.path} is not to be found: {error.strerror}"
        same = (found.st_size, found.st_mtime_ns) == (self.size, self.modified_ns)
        return "" if same else f"{self.path} was written to since"


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """One snapshot. It is there if and only if the snapshot is whole."""

    name: str
    created_at: float
    """When its instant was."""
    pause_seconds: float
    checksum: str
    """xxh3_128 of the memory's file, hex."""
    memory_bytes: int
    disk_bytes: int
    """Room that the disks' contents of its instant may come to take, once the disks have moved on."""
    disks: tuple[FrozenDisk, ...]


@dataclass(frozen=True, slots=True)
class Laid:
    """What was last made of a snapshot for going back to it."""

    name: str
    created_at: float
    image: Identity
    disks: tuple[tuple[str, str], ...]
    """Target and new layer."""


@dataclass(frozen=True, slots=True)
class SnapshotFolder:
    """One snapshot in its place."""

    name: str
    path: Path

    @property
    def memory(self) -> Image:
        """An image as libvirt saves domains."""
        return Image(self.path / "memory")

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> SnapshotManifest:
        """Raises StateDamaged."""
        try:
            fields = json.loads(self.manifest_file.read_bytes())
            if fields.pop("format") != _FORMAT:
                raise ValueError("it has another format")
            disks = tuple(FrozenDisk(**disk) for disk in fields.pop("disks"))
            return SnapshotManifest(**fields, disks=disks)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateDamaged(
                f"snapshot {self.name} can't be used",
                detail=f"its manifest {self.manifest_file} is damaged: {error}",
                remedy="bring the file back from a backup, or remove the snapshot and take another",
            ) from error

    def snapshot(self, instance: InstanceId) -> Snapshot:
        """For the port. Raises StateDamaged."""
        manifest = self.manifest()
        stored = sum(entry.stat().st_blocks * 512 for entry in self.path.iterdir())
        return Snapshot(
            instance, self.name, Mechanism.STREAM, manifest.created_at, manifest.pause_seconds,
            stored + manifest.disk_bytes, manifest.memory_bytes,
        )  # fmt: skip


class SnapshotFiles:
    """The snapshots of one instance."""

    def __init__(self, folder: InstanceFolder) -> None:
        self._instance = folder.id
        self._path = folder.snapshots
        self._laid_file = folder.snapshots / "laid.json"

    def all(self) -> Sequence[SnapshotFolder]:
        """Oldest first, damaged ones before all others; partial ones left out."""
        try:
            names = sorted(e.name for e in self._path.iterdir() if e.is_dir() and not e.name.startswith("."))
        except FileNotFoundError:
            return ()

        def taken_at(folder: SnapshotFolder) -> float:
            with suppress(StateDamaged):
                return folder.manifest().created_at
            return 0.0

        return sorted((SnapshotFolder(name, self._path / name) for name in names), key=taken_at)

    def find(self, name: str) -> SnapshotFolder | None:
        return next((folder for folder in self.all() if folder.name == name), None)

    def require(self, name: str) -> SnapshotFolder:
        """Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"instance {self._instance} has no snapshot {name!r}", remedy="see `torpor snapshot ls`")
        return found

    def frozen(self) -> frozenset[Path]:
        """Files that a snapshot needs as they are. Raises StateDamaged where not every one can be asked."""
        return frozenset(Path(disk.path) for folder in self.all() for disk in folder.manifest().disks)

    def begin(self, name: str) -> SnapshotFolder:
        """A folder, root's alone, to write a snapshot into."""
        for folder in (self._path.parent.parent.parent, self._path.parent.parent, self._path.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._path.mkdir(mode=0o700, exist_ok=True)
        self.sweep()
        partial = self._path / f"{_PARTIAL}{name}"
        partial.mkdir(mode=0o700)
        return SnapshotFolder(name, partial)

    def publish(self, partial: SnapshotFolder, manifest: SnapshotManifest) -> SnapshotFolder:
        """From here on the snapshot is whole. Its memory is durable already."""
        write_durably(partial.manifest_file, json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=1).encode())
        final = self._path / partial.name
        partial.path.rename(final)
        sync_folder(self._path)
        sync_folder(self._path.parent)
        return SnapshotFolder(partial.name, final)

    def remove(self, name: str) -> None:
        """Whole or partial. Converges."""
        if self._path.exists():
            remove_tree(self._path / name)
            self.sweep()
            laid = self.laid()
            if laid and laid.name == name:
                self._laid_file.unlink()

    def sweep(self) -> None:
        """Remove what was left half written or half removed."""
        if self._path.exists():
            for entry in self._path.glob(".*"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def laid(self) -> Laid | None:
        """None where nothing was laid down, or nobody can tell."""
        try:
            fields = json.loads(self._laid_file.read_bytes())
            disks = tuple((str(target), str(path)) for target, path in fields.pop("disks"))
            return Laid(image=Identity(**fields.pop("image")), disks=disks, **fields)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def note_laid(self, laid: Laid) -> None:
        """Durable on return."""
        write_durably(self._laid_file, json.dumps(asdict(laid), indent=1).encode())


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What the file system refuses, as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomForState(
                f"snapshot {what} can't be written",
                detail=f"the disk is full ({error.strerror})",
                remedy="make room below state_dir, and where the VM's disks are",
            ) from error
        raise BackendFailed(
            f"the files of snapshot {what} can't be reached",
            detail=f"{error.filename or 'its folder'}: {error.strerror or error}",
            remedy="look at the disk below state_dir, and where the VM's disks are",
        ) from error
