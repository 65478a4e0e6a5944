"""Names published in our own block of a hosts file, and whoever reads it told to read it again.

The block is the record of what is published; nothing else is kept. Law: what is outside of it is never changed, and
a name that somebody else's line gives is theirs: ours is held back, and told of, as long as that line is there.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from torpor.adapters.names.hosts_block import Lines, others_names, records_in, render, split
from torpor.adapters.names.lookup import unheard, wanted_of
from torpor.adapters.names.place import Changed, Place
from torpor.domain.errors import BackendFailed, Conflict, TorporError
from torpor.domain.naming import NameRecord, check_records, encode_label
from torpor.ports import Check

log = logging.getLogger(__name__)

_ATTEMPTS = 50
_ANSWER_SECONDS = 2.0
_CROWD = 64


@dataclass(frozen=True, slots=True)
class HostsFileSettings:
    zone: str
    block: str
    """Tells our block from those of other Torpors in the same file."""
    ask: str | None = None
    """Address of the server that reads the file: waited for until it answers accordingly. None: nobody is asked."""
    ask_port: int = 53


class HostsFileNames:
    """The Names port on a hosts file. Thread-safe."""

    def __init__(self, settings: HostsFileSettings, place: Place) -> None:
        self._settings = settings
        self._place = place
        self._lock = threading.Lock()
        self._ours: Lines | None = None
        """What should be published; None until the block could be read."""
        self._unread: dict[str, NameRecord | None] = {}
        """Changes that were asked for before that; None: withdrawn."""
        self._known: bytes | None = None
        """The file as it was when it was last taken apart, or as we have made it since."""
        self._around: tuple[bytes, bytes] = (b"", b"")
        """What was before and after the block then."""
        self._others: Mapping[str, str] = {}
        """Names that the lines around give."""
        self._reload_owed = True
        """The file was changed, by us or in an earlier life, and its reader was not told since."""

    def ensure(self) -> None:
        """Have the block as it should be. Converges. Raises Conflict, MissingPart, BackendFailed."""
        with self._lock:
            self._write()
            self._reload()
            self._refuse_taken(self._published())

    def publish(self, records: Sequence[NameRecord]) -> None:
        """Durable, told to the reader, and heard where one may be asked. Converges.

        Raises Invalid, MissingPart, BackendFailed; Conflict for a damaged block, and for a name that is somebody
        else's: the others are published then.
        """
        checked = check_records(records)
        with self._lock:
            new = self._change({record.name: record for record in checked})
            self._write()
            self._reload()
            held = self._others.keys() & {record.name for record in checked}
            self._hear([r for r in checked if r.name not in held and (r.name in new or len(checked) <= _CROWD)])
            self._refuse_taken(held)

    def withdraw(self, names: Sequence[str]) -> None:
        """Converges. Raises Invalid, Conflict for a damaged block, MissingPart, BackendFailed."""
        labels = [encode_label(name) for name in names]
        with self._lock:
            gone = self._change(dict.fromkeys(labels))
            self._write()
            self._reload()
            self._hear([NameRecord(name) for name in gone if name not in self._others])

    def records(self) -> Sequence[NameRecord]:
        """Never raises: what can't be read is not published."""
        with self._lock:
            if self._ours is None:
                try:
                    self._read()
                except TorporError as error:
                    log.warning("%s", error)
            return self._ours.in_order() if self._ours is not None else ()

    def checks(self) -> Sequence[Check]:
        """Never raises."""
        with self._lock:
            name, where = "names: hosts file", f"block {self._settings.block!r} of {self._place.where}"
            try:
                self._read()
                self._refuse_taken(self._published())
            except TorporError as error:
                return (Check(name, False, str(error), error.remedy), self._place.check())
            return (Check(name, True, f"{where}, zone {self._settings.zone}"), self._place.check())

    # --- the file ---

    def _change(self, changes: Mapping[str, NameRecord | None]) -> Sequence[str]:
        """Remember them; return the names for which that is new."""
        if self._ours is None:
            self._unread.update(changes)
            return tuple(changes)
        new = tuple(name for name, record in changes.items() if self._ours.records.get(name) != record)
        self._apply(self._ours, changes)
        return new

    @staticmethod
    def _apply(ours: Lines, changes: Mapping[str, NameRecord | None]) -> None:
        for name, record in changes.items():
            if record is None:
                ours.drop(name)
            else:
                ours.put(record)

    def _published(self) -> Mapping[str, NameRecord]:
        return self._ours.records if self._ours is not None else {}

    def _read(self) -> tuple[bytes, bytes]:
        """The file as it is, and as it should be."""
        data = self._place.read()
        ours = self._ours
        if ours is None or data != self._known:
            ours = self._take_apart(data)
        before, after = self._around
        block = render(self._settings.block, ours.without(self._others))
        return data, b"".join((before, block.encode(), after))

    def _take_apart(self, data: bytes) -> Lines:
        """Raises Conflict where the block is damaged."""
        zone = self._settings.zone
        found = split(data.decode("utf-8", "surrogateescape"), self._settings.block, self._place.where)
        if self._ours is None:
            self._ours = Lines(zone, records_in(found.inside, zone).values())
            self._apply(self._ours, self._unread)
            self._unread.clear()
        before, after = (text.encode("utf-8", "surrogateescape") for text in (found.before, found.after))
        if self._known is None or self._around != (before, after):
            self._others = others_names(f"{found.before}\n{found.after}", zone)
        self._known, self._around = data, (before, after)
        return self._ours

    def _write(self) -> None:
        again = Retrying(
            retry=retry_if_exception_type(Changed),
            wait=wait_random(0, 0.02),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        try:
            again(self._write_once)
        except Changed as error:
            raise BackendFailed(
                f"{self._place.where} was changed by others all the time",
                detail=f"it was not the same twice in {_ATTEMPTS} attempts",
                remedy="look who writes it",
            ) from error

    def _write_once(self) -> None:
        data, new = self._read()
        if data != new:
            self._place.replace(data, new)
            self._known = new  # byte for byte what was put together from parts that were looked at
            self._reload_owed = True

    def _reload(self) -> None:
        if self._reload_owed:
            self._place.reload()
            self._reload_owed = False

    def _refuse_taken(self, names: Mapping[str, object] | set[str]) -> None:
        taken = sorted(name for name in self._others if name in names)
        if not taken:
            return
        name, more = taken[0], len(taken) - 1
        raise Conflict(
            f"{name}.{self._settings.zone} is not published in {self._place.where}",
            detail=f"a line that is not ours gives it the address {self._others[name]}"
            + (f", and so it is with {more} more" if more else ""),
            remedy="remove that line, or give the instance another name",
        )

    # --- its reader ---

    def _hear(self, wanted: Sequence[NameRecord]) -> None:
        """Wait until the reader answers so (a record without addresses: not at all)."""
        settings = self._settings
        if settings.ask is None:
            return
        answers = {q: found for record in wanted for q, found in wanted_of(record, settings.zone).items()}
        for question in unheard(settings.ask, settings.ask_port, answers, _ANSWER_SECONDS):
            self._reload_owed = True
            raise BackendFailed(
                f"the name server at {settings.ask} does not answer for {question.name} as {self._place.where} says",
                remedy="see whether it runs and reads that file",
            )
