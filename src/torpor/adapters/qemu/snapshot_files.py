"""Live snapshots on disk: one folder each, written aside, made durable, then renamed into place.

The memory is here; the disk's contents of the same instant are kept inside the instance's own disk.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torpor.adapters.qemu.layout import InstanceFolder, remove_tree, sync_folder, write_durably
from torpor.adapters.qemu.state_files import Manifest, manifest_in, sealed, unsealed
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import Snapshot

_PARTIAL = ".partial-"


def disk_snapshot_name(name: str) -> str:
    """Inside the disk. Not to be taken for that of a saved state, whose name ends in a number alone."""
    return f"torpor-snapshot-{name}"


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """A snapshot's own facts, and what its memory needs of the QEMU that takes it up."""

    name: str
    pause_seconds: float
    disk_bytes: int
    """Room that the disk's contents of its instant may come to take, once the disk has moved on."""
    state: Manifest


@dataclass(frozen=True, slots=True)
class SnapshotFolder:
    """One snapshot in its place."""

    name: str
    path: Path

    @property
    def stream(self) -> Path:
        return self.path / "stream"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> SnapshotManifest:
        """Raises StateDamaged."""
        try:
            body = unsealed(self.manifest_file.read_bytes())
            return SnapshotManifest(**{**body, "state": manifest_in(body["state"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                f"snapshot {self.name} can't be used",
                detail=f"its manifest {self.manifest_file} is damaged: {error}",
                remedy="bring the file back from a backup, or remove the snapshot and take another",
            ) from error

    def snapshot(self) -> Snapshot:
        """For the port. Raises StateDamaged."""
        manifest = self.manifest()
        stored = sum(entry.stat().st_blocks * 512 for entry in self.path.iterdir())
        return Snapshot(
            instance=manifest.state.instance,
            name=self.name,
            mechanism=manifest.state.mechanism,
            created_at=manifest.state.created_at,
            pause_seconds=manifest.pause_seconds,
            stored_bytes=stored + manifest.disk_bytes,
            memory_bytes=manifest.state.memory_bytes,
        )


class SnapshotFiles:
    """The snapshots of one instance."""

    def __init__(self, folder: InstanceFolder) -> None:
        self._folder = folder

    def all(self) -> Sequence[SnapshotFolder]:
        """Oldest first; partial ones left out."""
        try:
            found = [e for e in self._folder.snapshots.iterdir() if not e.name.startswith(".")]
        except FileNotFoundError:
            return ()
        found.sort(key=lambda entry: (entry.stat().st_mtime_ns, entry.name))
        return tuple(SnapshotFolder(entry.name, entry) for entry in found)

    def find(self, name: str) -> SnapshotFolder | None:
        return next((s for s in self.all() if s.name == name), None)

    @contextmanager
    def new(self, name: str) -> Iterator[SnapshotFolder]:
        """A folder to write a snapshot into; what is in it when this block is left is removed. See `publish`."""
        self.sweep()
        self._folder.snapshots.mkdir(mode=0o700, exist_ok=True)
        partial = SnapshotFolder(name, self._folder.snapshots / f"{_PARTIAL}{name}")
        partial.path.mkdir(mode=0o700)
        try:
            yield partial
        finally:
            shutil.rmtree(partial.path, ignore_errors=True)

    def publish(self, partial: SnapshotFolder, manifest: SnapshotManifest) -> SnapshotFolder:
        """From here on the snapshot is whole. Its stream is durable already."""
        write_durably(partial.manifest_file, sealed(asdict(manifest)))
        final = self._folder.snapshots / partial.name
        partial.path.rename(final)
        sync_folder(self._folder.snapshots)
        sync_folder(self._folder.path)
        return SnapshotFolder(partial.name, final)

    def sweep(self) -> None:
        """Remove what was left half written or half removed."""
        if self._folder.snapshots.exists():
            for entry in self._folder.snapshots.glob(".*"):
                shutil.rmtree(entry)

    def remove(self, name: str) -> None:
        """Converges."""
        if self._folder.snapshots.exists():
            self.sweep()
            remove_tree(self._folder.snapshots / name)
