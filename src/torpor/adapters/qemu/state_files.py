"""Saved states on disk: one folder a generation, written aside, made durable, then renamed into place."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torpor.adapters.qemu.layout import InstanceFolder, remove_tree, sync_folder, write_durably
from torpor.adapters.qemu.memory import Sealed, checksum
from torpor.adapters.qemu.ram import Extent
from torpor.domain.errors import StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Mechanism, SavedState, StateStatus

_PARTIAL = ".partial-"
_SPENT = "spent"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Writer:
    """The process whose memory a state holds."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a state is, what it needs of the QEMU that takes it up, and the checksums of its parts."""

    instance: InstanceId
    generation: int
    mechanism: Mechanism
    created_at: float
    writer: Writer
    qemu: str
    """Major and minor version."""
    machine: str
    accelerator: str
    cpu: str
    """Of the host, where the guest sees it; empty under TCG."""
    arguments: tuple[str, ...]
    blocks: dict[str, int]
    """RAM blocks of the machine and their sizes in bytes."""
    placed: tuple[tuple[str, int, int], ...]
    """RAM blocks in the memory file: name, offset, size."""
    pieces: tuple[Sealed, ...]
    device_checksum: str
    """Of the device state; of the whole stream, where the mechanism is that."""
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Generation:
    """One saved state in its place."""

    number: int
    path: Path

    @property
    def memory(self) -> Path:
        return self.path / "memory"

    @property
    def device(self) -> Path:
        return self.path / "device"

    @property
    def stream(self) -> Path:
        return self.path / "stream"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def spent(self) -> bool:
        return (self.path / _SPENT).exists()

    def manifest(self) -> Manifest:
        """Raises StateDamaged."""
        try:
            outer = json.loads(self.manifest_file.read_bytes())
            body = outer["body"]
            if checksum(body.encode()) != outer["checksum"]:
                raise ValueError("it does not match its checksum")
            return _manifest(json.loads(body))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                f"saved state {self.number} can't be used",
                detail=f"its manifest {self.manifest_file} is damaged: {error}",
                remedy="bring the file back from a backup, or delete the workload",
            ) from error

    def stored_bytes(self) -> int:
        return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(self.path))

    def saved_state(self, instance: InstanceId) -> SavedState:
        """For the port. A state whose manifest is damaged is shown all the same; restoring it says what is wrong."""
        status = StateStatus.SPENT if self.spent else StateStatus.WHOLE
        try:
            manifest = self.manifest()
        except StateDamaged:
            created, stored = self.path.stat().st_mtime, self.stored_bytes()
            return SavedState(instance, self.number, Mechanism.MEMORY, status, created, stored, 0)
        return SavedState(
            instance, self.number, manifest.mechanism, status, manifest.created_at, self.stored_bytes(),
            manifest.memory_bytes,
        )  # fmt: skip


class StateFiles:
    """The saved states of one instance.

    A VM never runs on, nor boots, while its newest state is whole. So where the newest state is
    whole, nothing has run since it was saved: disk, paused process and state are of one instant.
    """

    def __init__(self, folder: InstanceFolder) -> None:
        self._folder = folder

    def all(self) -> Sequence[Generation]:
        """Newest first; partial ones left out."""
        try:
            names = [entry.name for entry in self._folder.states.iterdir()]
        except FileNotFoundError:
            return ()
        numbers = sorted((int(name) for name in names if name.isdigit()), reverse=True)
        return tuple(Generation(n, self._folder.states / str(n)) for n in numbers)

    def newest(self) -> Generation | None:
        return next(iter(self.all()), None)

    def whole(self) -> Generation | None:
        """The newest state, if the instance has not run since."""
        newest = self.newest()
        return None if newest is None or newest.spent else newest

    @contextmanager
    def new(self, number: int) -> Iterator[Generation]:
        """A folder to write a state into; what is in it when a failure leaves this block is removed.

        `publish` puts it in its place.
        """
        self.sweep()
        self._folder.states.mkdir(mode=0o700, exist_ok=True)
        partial = Generation(number, self._folder.states / f"{_PARTIAL}{number}")
        partial.path.mkdir(mode=0o700)
        try:
            yield partial
        finally:
            shutil.rmtree(partial.path, ignore_errors=True)

    def publish(self, partial: Generation, manifest: Manifest) -> Generation:
        """From here on the state is whole. Its other files are durable already."""
        body = json.dumps(asdict(manifest), separators=(",", ":"))
        outer = {"format": _FORMAT, "checksum": checksum(body.encode()), "body": body}
        write_durably(partial.manifest_file, json.dumps(outer).encode())
        final = self._folder.states / str(partial.number)
        partial.path.rename(final)
        sync_folder(self._folder.states)
        sync_folder(self._folder.path)
        return Generation(partial.number, final)

    def sweep(self) -> None:
        """Remove what was left half written or half removed."""
        if self._folder.states.exists():
            for entry in self._folder.states.glob(".*"):
                shutil.rmtree(entry)

    def remove(self, generation: Generation) -> None:
        remove_tree(generation.path)

    def mark_spent(self, generation: Generation) -> None:
        """Durable on return."""
        if not generation.spent:
            write_durably(generation.path / _SPENT, b"")

    def mark_whole(self, generation: Generation) -> None:
        """Durable on return."""
        (generation.path / _SPENT).unlink(missing_ok=True)
        sync_folder(generation.path)


def _manifest(body: dict[str, Any]) -> Manifest:
    pieces = (Sealed(Extent(**piece["extent"]), piece["checksum"]) for piece in body["pieces"])
    return Manifest(
        **{
            **body,
            "mechanism": Mechanism(body["mechanism"]),
            "writer": Writer(**body["writer"]),
            "arguments": tuple(body["arguments"]),
            "placed": tuple(tuple(block) for block in body["placed"]),
            "pieces": tuple(pieces),
        }
    )
