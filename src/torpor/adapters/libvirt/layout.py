"""Where things lie below the state directory. Saved images lie where libvirtd keeps them, not here."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from torpor.domain.ids import InstanceId


@dataclass(frozen=True, slots=True)
class InstanceFolder:
    """One instance's files. Of a domain that others made there are only its states' manifests and its snapshots."""

    id: InstanceId
    path: Path

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def layers(self) -> Path:
        """The account of the overlays that disks got for snapshots' sake."""
        return self.path / "layers.json"

    @property
    def console_log(self) -> Path:
        return self.path / "console.log"

    @property
    def run(self) -> Path:
        """What QEMU opens; libvirt gives the files to QEMU's user."""
        return self.path / "run"

    @property
    def disk(self) -> Path:
        return self.run / "disk.qcow2"

    @property
    def seed(self) -> Path:
        return self.run / "seed.iso"

    def make(self) -> None:
        """Raises OSError. QEMU's user, whom libvirt knows, passes through these folders but can't list them."""
        for path in (self.path.parent.parent, self.path.parent, self.path, self.run):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def num_bytes(self) -> int:
        """Room on disk of all of it."""
        return used_bytes(self.path)


@dataclass(frozen=True, slots=True)
class Layout:
    state_dir: Path

    @property
    def instances_dir(self) -> Path:
        return self.state_dir / "instances"

    def instance(self, id: InstanceId) -> InstanceFolder:
        return InstanceFolder(id, self.instances_dir / id)

    def instances(self) -> Iterator[InstanceFolder]:
        """Every instance that has a folder."""
        try:
            names = sorted(entry.name for entry in self.instances_dir.iterdir())
        except FileNotFoundError:
            return
        for name in names:
            if _is_uuid(name):
                yield self.instance(InstanceId(name))


def free_bytes(path: Path) -> int:
    """What is free for us on the file system that holds `path`, which may not be there yet."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def used_bytes(folder: Path) -> int:
    """Room on disk of what is below it; a file with several names counts once."""
    seen: set[int] = set()
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found = Path(path, name).lstat()
            except OSError:
                continue
            total += found.st_blocks * 512 if found.st_ino not in seen else 0
            seen.add(found.st_ino)
    return total


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
