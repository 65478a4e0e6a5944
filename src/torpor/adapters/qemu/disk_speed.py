"""How fast the disk below the state directory takes what is written to it, for the choice of a codec."""

import json
import mmap
import os
import time
from pathlib import Path

from torpor.files import write_durably

_PROBE = 32 << 20
_BLOCK = 4 << 20
_TELLING = 64 << 20
"""Bytes from which on a save says something about the disk."""
_WEIGHT = 0.3
"""Of a new measurement beside what was known."""
_SOME = 500e6
"""Bytes a second, where the disk can't be tried."""


class DiskSpeed:
    """Bytes a second, learnt from saves and remembered; tried out once where nothing is known yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "disk-speed.json"

    def write_rate(self) -> float:
        try:
            return float(json.loads(self._file.read_bytes())["write_bytes_per_second"])
        except (OSError, ValueError, KeyError, TypeError):
            rate = self._probe()
            self._remember(rate)
            return rate

    def learn(self, num_bytes: int, seconds: float) -> None:
        """From a save that wrote so much in so many seconds, the disk being what it waited for."""
        if num_bytes >= _TELLING and seconds > 0:
            self._remember((1 - _WEIGHT) * self.write_rate() + _WEIGHT * num_bytes / seconds)

    def _remember(self, rate: float) -> None:
        try:
            write_durably(self._file, json.dumps({"write_bytes_per_second": rate}).encode())
        except OSError:
            return  # it is measured anew, then

    def _probe(self) -> float:
        path = self._folder / ".disk-speed.probe"
        data = mmap.mmap(-1, _BLOCK)
        data[:] = os.urandom(_BLOCK)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                began = time.perf_counter()
                for at in range(0, _PROBE, _BLOCK):
                    os.pwrite(fd, data, at)
                os.fsync(fd)
                return _PROBE / (time.perf_counter() - began)
            finally:
                os.close(fd)
                path.unlink()
        except OSError:
            return _SOME
