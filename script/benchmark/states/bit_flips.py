"""Single bits flipped in the files of saved states, one at a time: does the state's verification see each?"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.states.contender import Bench
from benchmark.states.torpor_vm import TorporGuest
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import Codec
from torpor.ports import StateStore

_MEMORY_MB, _DATA_MB, _CHANGED_PERCENT = 128, 16, 5


@dataclass(frozen=True)
class Flips:
    made: int
    missed: tuple[str, ...]
    """File and bit of each that was not seen."""


def flip_bits(bench: Bench, codecs: Sequence[Codec], count: int) -> Flips:
    """`count` flips, shared out evenly among the codecs: in a second suspension's state and all that it stands on.

    Half of them hit a file chosen by its size, half any file, so that the small ones get their share.
    """
    missed: list[str] = []
    made = 0
    guest = TorporGuest(bench, _MEMORY_MB)
    try:
        guest.boot(_DATA_MB)
        for n, codec in enumerate(codecs):
            share = count // len(codecs) + (n < count % len(codecs))
            number = _saved_twice(guest, codec)
            store: StateStore = guest.backend.states
            _check(store, guest, number)  # it is good before
            files = [file for file in sorted(guest.folder.states.rglob("*")) if file.is_file() and file.stat().st_size]
            for _ in range(share):
                missed += _flip(store, guest, number, files)
                made += 1
            guest.wake()
            guest.talk.ask("verify")
    finally:
        guest.close()
    return Flips(made, tuple(missed))


def _saved_twice(guest: TorporGuest, codec: Codec) -> int:
    """A guest that runs, to sleep, awake, changed, asleep; the newest state's number."""
    if guest.folder.states.exists():
        guest.forget_states()
    guest.use(codec, lazy=False)
    guest.sleep()
    guest.wake()
    guest.talk.ask(f"change {_CHANGED_PERCENT}")
    _, state = guest.sleep()
    return state.generation


def _flip(store: StateStore, guest: TorporGuest, number: int, files: Sequence[Path]) -> list[str]:
    sizes = [sum(size for _, size in places(file)) for file in files]
    (file,) = random.choices(files, sizes if random.random() < 0.5 else [1] * len(files))
    at, bit = _place(file), random.randrange(8)
    with flipped(file, at, bit):
        try:
            _check(store, guest, number)
        except StateDamaged:
            return []
    return [f"{file.relative_to(guest.folder.states)}: bit {bit} of byte {at}"]


def _check(store: StateStore, guest: TorporGuest, number: int) -> None:
    store.verify(guest.spec.id, number, lambda done, total: None)


@contextmanager
def flipped(file: Path, at: int, bit: int) -> Iterator[None]:
    _turn_bit(file, at, bit)
    try:
        yield
    finally:
        _turn_bit(file, at, bit)


def _turn_bit(file: Path, at: int, bit: int) -> None:
    fd = os.open(file, os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([byte ^ 1 << bit]), at)
    finally:
        os.close(fd)


def _place(file: Path) -> int:
    """Any byte that is there; holes are not part of a state."""
    extents = places(file)
    left = random.randrange(sum(size for _, size in extents))
    for offset, size in extents:
        if left < size:
            return offset + left
        left -= size
    raise AssertionError


def places(file: Path) -> list[tuple[int, int]]:
    """Offset and size of what is not a hole."""
    end = file.stat().st_size
    found, at = [], 0
    fd = os.open(file, os.O_RDONLY)
    try:
        while at < end:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            found.append((at, hole - at))
            at = hole
    finally:
        os.close(fd)
    return found
