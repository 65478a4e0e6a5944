"""A directory with one hosts file for each name, in the form that dnsmasq reads.

Written by us alone, read by the name server as another user. Every change is atomic (a
dotfile, which dnsmasq ignores, renamed into place) and durable on return.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.domain.errors import BackendFailed, Invalid
from torpor.domain.naming import NameRecord, check_label, check_record

_Stamp = tuple[int, int, int]
"""Inode, modification time, size: a file that was not renamed over has the same."""


def render(record: NameRecord, zone: str) -> str:
    return "".join(f"{address} {record.name}.{zone} {record.name}\n" for address in record.addresses)


def parse(name: str, text: str, zone: str) -> NameRecord | None:
    """The record in the file `name`; None when this is not what we would have written for that zone."""
    addresses = [line.partition(" ")[0] for line in text.splitlines()[:2]]
    address = next((a for a in addresses if ":" not in a), "")
    address6 = next((a for a in addresses if ":" in a), "")
    try:
        record = check_record(NameRecord(check_label(name), address, address6))
    except Invalid:
        return None
    return record if text == render(record, zone) else None


class HostsDirectory:
    """Not thread-safe: its owner has the lock. Raises BackendFailed when the disk does not take or give a file."""

    def __init__(self, path: Path, zone: str) -> None:
        self._path = path
        self._zone = zone
        self._read: dict[str, tuple[_Stamp, NameRecord]] = {}

    def prepare(self) -> bool:
        """Have it and the folder above it there, readable for everybody; return whether it had to be made."""
        with self._translated("made"):
            made = not self._path.is_dir()
            self._path.mkdir(parents=True, exist_ok=True)
            for folder in (self._path.parent, self._path):
                folder.chmod(0o755)
            return made

    def records(self) -> Mapping[str, NameRecord]:
        """By name. Files that changed since the last call are read again, the others are not."""
        with self._translated("read"):
            read: dict[str, tuple[_Stamp, NameRecord]] = {}
            for entry in self._files():
                with suppress(FileNotFoundError):  # another process that serves these names has withdrawn it
                    if found := self._look(entry):
                        read[entry.name] = found
            self._read = read
            return {name: record for name, (_, record) in read.items()}

    def of_other_zones(self) -> Sequence[NameRecord]:
        """Records that were written for another zone: `tidy` writes them anew."""
        good = self.records()
        with self._translated("read"):
            found = (self._of_another_zone(entry) for entry in self._files() if entry.name not in good)
            return [record for record in found if record is not None]

    def count(self) -> int:
        """How many files there are."""
        with self._translated("read"):
            return sum(1 for _ in self._path.iterdir()) if self._path.is_dir() else 0

    def put(self, records: Sequence[NameRecord]) -> Sequence[NameRecord]:
        """Write those that are not there yet; return these."""
        with self._translated("written"):
            new = [record for record in records if not self._has(record)]
            for record in new:
                self._write(self._path / f".{record.name}", render(record, self._zone))
            for record in new:
                (self._path / f".{record.name}").rename(self._path / record.name)
            if new:
                self._sync()
            return new

    def remove(self, names: Sequence[str]) -> None:
        with self._translated("written"):
            there = [self._path / name for name in names if (self._path / name).exists()]
            for path in there:
                path.unlink()
            if there:
                self._sync()

    def tidy(self) -> None:
        """Write records of another zone anew; remove what is no record: dotfiles left by a crash, others' files."""
        good = self.records()
        with self._translated("tidied"):
            with os.scandir(self._path) as entries:
                odd = [entry for entry in entries if entry.name not in good and not entry.is_dir(follow_symlinks=False)]
            moved = [record for entry in odd if (record := self._of_another_zone(entry)) is not None]
            self.put(moved)
            for entry in odd:
                if entry.name not in {record.name for record in moved}:
                    Path(entry.path).unlink()

    def _look(self, entry: "os.DirEntry[str]") -> tuple[_Stamp, NameRecord] | None:
        """Raises FileNotFoundError."""
        status = entry.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._read.get(entry.name)
        if known is not None and known[0] == stamp:
            return known
        record = parse(entry.name, Path(entry.path).read_text(errors="replace"), self._zone)
        return (stamp, record) if record is not None else None

    def _of_another_zone(self, entry: "os.DirEntry[str]") -> NameRecord | None:
        if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
            return None
        try:
            text = Path(entry.path).read_text(errors="replace")
        except FileNotFoundError:
            return None
        words = text.split()
        zone = words[1].partition(".")[2] if len(words) >= 3 else ""
        return parse(entry.name, text, zone) if zone != self._zone else None

    def _files(self) -> Iterator["os.DirEntry[str]"]:
        if not self._path.is_dir():
            return
        with os.scandir(self._path) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))

    def _has(self, record: NameRecord) -> bool:
        try:
            return (self._path / record.name).read_text(errors="replace") == render(record, self._zone)
        except FileNotFoundError:
            return False

    def _write(self, path: Path, text: str) -> None:
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())

    def _sync(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackendFailed(
                f"the names' directory {self._path} could not be {done}",
                detail=error.strerror or str(error),
                remedy="check the disk and who may write there",
            ) from error
