"""Live snapshots on disk: one folder each, written aside, made durable, then renamed into place.

The memory is here; the disk's contents of the same instant are kept inside the instance's own disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torpor.adapters.qemu.aside import put_in_place, sweep, written_aside
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.state_files import Manifest, manifest_in, sealed, unsealed
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import Snapshot
from torpor.files import remove_tree, write_durably


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
        with written_aside(self._folder.snapshots, name) as path:
            yield SnapshotFolder(name, path)

    def publish(self, partial: SnapshotFolder, manifest: SnapshotManifest) -> SnapshotFolder:
        """From here on the snapshot is whole. Its stream is durable already."""
        write_durably(partial.manifest_file, sealed(asdict(manifest)))
        return SnapshotFolder(partial.name, put_in_place(partial.path))

    def remove(self, name: str) -> None:
        """Converges."""
        if self._folder.snapshots.exists():
            sweep(self._folder.snapshots)
            remove_tree(self._folder.snapshots / name)
