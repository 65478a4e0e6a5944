"""Saved states on disk: one folder a generation, written aside, made durable, then renamed into place."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torpor.adapters.qemu.aside import put_in_place, sweep, written_aside
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.pages import checksum
from torpor.domain.errors import StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Codec, Mechanism, SavedState, StateStatus
from torpor.files import remove_tree, sync_folder, write_durably

_SPENT = "spent"
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Writer:
    """The process whose memory a state holds."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Part:
    """A file of pages, and the file `NAME.index` that lists them."""

    packed: bool
    codec: Codec
    index_checksum: str
    num_bytes: int
    """Of the pages in it, unpacked."""


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
    parts: dict[str, Part]
    """By file name, in the order in which they are loaded. Empty for a stream."""
    base: int | None
    """The generation that wrote the part `memory`, where this one shares it."""
    device_checksum: str
    """Of the device state; of the whole stream, where the mechanism is that."""
    memory_bytes: int
    """Guest memory that is there and not zero."""
    written_bytes: int
    """Room on disk of what this save wrote of the memory itself."""
    bare: bool = False
    """It begins without a stream's preamble: the QEMU that takes it up must not expect one."""
    origin: str | None = None
    """The instance whose snapshot this was laid down from, where that is another one."""
    snapshot: str = ""
    """Name of the snapshot that this was laid down from."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One saved state in its place."""

    number: int
    path: Path

    def part(self, name: str) -> Path:
        return self.path / name

    def index(self, name: str) -> Path:
        return self.path / f"{name}.index"

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
            return manifest_in(unsealed(self.manifest_file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                f"saved state {self.number} can't be used",
                detail=f"its manifest {self.manifest_file} is damaged: {error}",
                remedy="bring the file back from a backup, or delete the workload",
            ) from error

    def take_over(self, older: "Generation", name: str) -> None:
        """Share a part with an older generation. Parts are never written again, so one file does for both."""
        os.link(older.part(name), self.part(name))
        os.link(older.index(name), self.index(name))

    def stored_bytes(self, counted: set[int] | None = None) -> int:
        """Room on disk; files whose inode is in `counted` are left out, the others' are put in."""
        total, seen = 0, set() if counted is None else counted
        for entry in os.scandir(self.path):
            found = entry.stat(follow_symlinks=False)
            if found.st_ino not in seen:
                total += found.st_blocks * 512
                seen.add(found.st_ino)
        return total

    def saved_state(self, instance: InstanceId, counted: set[int] | None = None) -> SavedState:
        """For the port. A state whose manifest is damaged is shown all the same; restoring it says what is wrong."""
        status = StateStatus.SPENT if self.spent else StateStatus.WHOLE
        stored = self.stored_bytes(counted)
        try:
            manifest = self.manifest()
        except StateDamaged:
            created = self.path.stat().st_mtime
            return SavedState(instance, self.number, Mechanism.MEMORY, status, created, stored, 0)
        codecs = [part.codec for part in manifest.parts.values()]
        return SavedState(
            instance, self.number, manifest.mechanism, status, manifest.created_at, stored, manifest.memory_bytes,
            codecs[0] if codecs else Codec.NONE, manifest.written_bytes, manifest.base,
            None if manifest.origin is None else InstanceId(manifest.origin),
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

    def saved_states(self) -> Sequence[SavedState]:
        """For the port, newest first; what several share is counted at the oldest.

        One that is removed while it is looked at is left out.
        """
        counted: set[int] = set()
        oldest_first: list[SavedState] = []
        for state in reversed(self.all()):
            with suppress(FileNotFoundError):
                oldest_first.append(state.saved_state(self._folder.id, counted))
        return tuple(reversed(oldest_first))

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
        with written_aside(self._folder.states, str(number)) as path:
            yield Generation(number, path)

    def publish(self, partial: Generation, manifest: Manifest) -> Generation:
        """From here on the state is whole. Its other files are durable already."""
        write_durably(partial.manifest_file, sealed(asdict(manifest)))
        return Generation(partial.number, put_in_place(partial.path))

    def sweep(self) -> None:
        """Remove what was left half written or half removed."""
        sweep(self._folder.states)

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


def sealed(body: dict[str, Any]) -> bytes:
    """A manifest's file: the body with its format and checksum."""
    text = json.dumps(body, separators=(",", ":"))
    return json.dumps({"format": _FORMAT, "checksum": checksum(text.encode()), "body": text}).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The body of a manifest's file. Raises ValueError, KeyError, TypeError."""
    outer = json.loads(data)
    if outer["format"] != _FORMAT:
        raise ValueError(f"it has format {outer['format']}, this Torpor reads {_FORMAT}")
    text: str = outer["body"]
    if checksum(text.encode()) != outer["checksum"]:
        raise ValueError("it does not match its checksum")
    body: dict[str, Any] = json.loads(text)
    return body


def manifest_in(body: dict[str, Any]) -> Manifest:
    """Raises KeyError, TypeError, ValueError."""
    parts = {name: Part(**{**part, "codec": Codec(part["codec"])}) for name, part in body["parts"].items()}
    return Manifest(
        **{
            **body,
            "mechanism": Mechanism(body["mechanism"]),
            "writer": Writer(**body["writer"]),
            "arguments": tuple(body["arguments"]),
            "parts": parts,
        }
    )
