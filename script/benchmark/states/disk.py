"""The yardstick: `dd` past the page cache, the same bytes on the same disk, random content from memory."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.states.contender import Turn
from benchmark.states.record import Measure
from benchmark.states.talk import drop_caches

NAME = "dd"
_MEMORY = Path("/dev/shm")
_BLOCK = 4 << 20
_SECONDS = re.compile(r"copied, ([\d.e+-]+) s")


class RandomBytes:
    """A file in memory that `dd` copies from; made as large as it was ever asked for."""

    def __init__(self, name: str) -> None:
        self._path = _MEMORY / name

    def of(self, size: int) -> Path:
        made = self._path.stat().st_size if self._path.exists() else 0
        if made < size:
            random = np.random.default_rng()
            with self._path.open("ab") as file:
                while made < size:
                    made += file.write(random.bytes(64 << 20))
        return self._path

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class Disk:
    """Writes and reads as many bytes as `size` says, which is known once a contender has saved."""

    def __init__(self, folder: Path, source: RandomBytes, size: Callable[[], int]) -> None:
        self._file = folder / "dd"
        self._source = source
        self._size = size

    def take_turn(self, turn: Turn) -> None:
        blocks = -(-self._size() // _BLOCK)
        source = self._source.of(blocks * _BLOCK)
        share = self._size() / (blocks * _BLOCK)  # of whole blocks, which direct I/O likes
        drop_caches()
        written = _dd(f"if={source}", f"of={self._file}", f"count={blocks}", "oflag=direct", "conv=fsync")
        drop_caches()
        read = _dd(f"if={self._file}", "of=/dev/null", "iflag=direct")
        turn.add(NAME, Measure.SUSPEND, written * share)
        turn.add(NAME, Measure.SUSPEND_BYTES, self._size())
        turn.add(NAME, Measure.RESTORE, read * share)
        self._file.unlink()

    def close(self) -> None:
        self._file.unlink(missing_ok=True)


def _dd(*operands: str) -> float:
    """Seconds, by its own account."""
    command = ["dd", f"bs={_BLOCK}", *operands]
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stderr
    found = _SECONDS.search(said)
    assert found, said
    return float(found[1])
