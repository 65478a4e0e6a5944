"""What the Debian guest runs: it holds a nonce in memory, keeps disk writes in flight, and tells of both over TCP.

It stands alone, for it is copied into the guest: `keeper.py` serves, `keeper.py verify` only reads the logs.
Every log is a file of numbered records, each sealed with a checksum over itself and all before it. They
are written past the page cache, and the next one only after the disk has confirmed the last.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PORT = 7001
FOLDER = Path("/var/lib/keeper")
LOGS = ("log-0", "log-1", "log-2", "log-3")
_RECORD = 4096
_SEAL = 32
_CHUNK = 64 * _RECORD
_PAUSE_SECONDS = 0.01
"""Between two records of a log, so that the logs stay small."""


def seals(chunks: Iterator[bytes]) -> list[str]:
    """The seal of every record of a log, hex. Raises ValueError where a record is wrong."""
    found: list[str] = []
    last = b""
    for chunk in chunks:
        for start in range(0, len(chunk), _RECORD):
            record = chunk[start : start + _RECORD]
            body, seal = record[:-_SEAL], record[-_SEAL:]
            if int.from_bytes(body[:8], "big") != len(found) or hashlib.sha256(last + body).digest() != seal:
                raise ValueError(f"record {len(found)} is wrong")
            found.append(seal.hex())
            last = seal
    return found


def read_past_cache(path: Path) -> Iterator[bytes]:
    """The content of a file as the disk has it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _CHUNK) as buffer:
            offset = 0
            while size := os.preadv(fd, [buffer], offset):
                yield buffer[:size]
                offset += size
    finally:
        os.close(fd)


class Log:
    """One log, and in memory the seals of the records that the disk has confirmed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sealed: list[str] = []
        self.error = ""

    def write_on(self) -> None:
        """Append records for ever, or until the disk refuses one."""
        try:
            self._write_on()
        except OSError as error:
            self.error = str(error)

    def verify(self) -> str:
        """What is wrong with the log on the disk, compared with memory; empty when nothing is."""
        confirmed = len(self.sealed)
        try:
            there = seals(read_past_cache(self.path))
        except (OSError, ValueError) as error:
            return str(error)
        known = list(self.sealed)
        if not confirmed <= len(there) <= len(known) + 1:
            return f"{len(there)} records on disk, {confirmed} to {len(known)} in memory"
        return "" if there[: len(known)] == known[: len(there)] else "other records on disk than in memory"

    def _write_on(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DIRECT | os.O_DSYNC, 0o600)
        buffer, last = mmap.mmap(-1, _RECORD), b""
        while True:
            number = len(self.sealed)
            body = number.to_bytes(8, "big") + os.urandom(_RECORD - _SEAL - 8)
            last = hashlib.sha256(last + body).digest()
            buffer[:] = body + last
            os.pwritev(fd, [buffer], number * _RECORD)
            self.sealed.append(last.hex())
            time.sleep(_PAUSE_SECONDS)


class Keeper(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("", PORT), Questions)
        self.nonce = secrets.token_hex(16)
        self.logs = [Log(FOLDER / name) for name in LOGS]
        for log in self.logs:
            threading.Thread(target=log.write_on, daemon=True).start()

    def answer(self, question: list[str]) -> object:
        """`status`, `verify`, or `seal LOG RECORDS`: the seal in memory of the last of so many records."""
        if question[0] == "seal":
            sealed, records = self.logs[int(question[1])].sealed, int(question[2])
            return sealed[records - 1] if records <= len(sealed) else None
        if question[0] == "verify":
            return [log.verify() for log in self.logs]
        counts = [len(log.sealed) for log in self.logs]
        return {"nonce": self.nonce, "records": counts, "errors": [log.error for log in self.logs if log.error]}


class Questions(socketserver.StreamRequestHandler):
    """A question a line, an answer in JSON a line."""

    def handle(self) -> None:
        keeper = self.server
        assert isinstance(keeper, Keeper)
        for line in self.rfile:
            self.wfile.write(json.dumps(keeper.answer(line.decode().split())).encode() + b"\n")


def main() -> None:
    if sys.argv[1:] == ["verify"]:
        records = [len(seals(read_past_cache(FOLDER / name))) for name in LOGS]
        sys.stdout.write(json.dumps(records) + "\n")
        return
    FOLDER.mkdir(exist_ok=True)
    Keeper().serve_forever()


if __name__ == "__main__":
    main()
