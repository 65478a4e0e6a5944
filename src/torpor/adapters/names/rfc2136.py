"""Names published by signed dynamic updates (RFC 2136, RFC 8945) to a name server that is somebody else's.

What should be published is kept in a directory of ours; whose a name in the zone is, the zone itself says: a TXT
record beside it that names us. Law: a name without that mark is never touched.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dns.name
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from torpor.adapters.names.hosts_directory import HostsDirectory
from torpor.adapters.names.nodes import Node, Wanted
from torpor.adapters.names.primary import Change, Primary, Unreachable, batches
from torpor.adapters.names.tsig import read_key
from torpor.domain.errors import BackendFailed, Conflict, TorporError
from torpor.domain.naming import NameRecord, check_records, encode_label
from torpor.ports import Check

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 2.0
"""For a server that is being restarted; one that is away for longer is tried again by `ensure`."""
_BATCH_SIZES = (50, 1, 1, 1)
"""Names in one update, from one attempt to the next: one that is not as we thought spoils a whole batch."""


@dataclass(frozen=True, slots=True)
class Rfc2136Settings:
    directory: Path
    """Folder of ours, for what should be published."""
    server: str
    """The zones' primary: an IPv4 or IPv6 address."""
    zone: str
    owner: str
    """Marks our names in the zones; no other Torpor that writes there may have the same."""
    key_file: Path
    reverse_zones: Sequence[str] = ()
    """An address in none of them gets no PTR record."""
    port: int = 53
    ttl: int = 0
    """Seconds. More, and resolvers may tell an old address for so long."""


class Rfc2136Names:
    """The Names port on a primary name server. Thread-safe; one user of the directory at a time."""

    def __init__(self, settings: Rfc2136Settings) -> None:
        self._settings = settings
        self._hosts = HostsDirectory(settings.directory, settings.zone)
        self._zone = dns.name.from_text(settings.zone)
        self._zones = (self._zone, *(dns.name.from_text(zone) for zone in settings.reverse_zones))
        self._wanted = Wanted(self._zone, self._zones[1:])
        self._primary: Primary | None = None
        self._loaded = False
        self._doubtful: dict[dns.name.Name, set[Node] | None] = dict.fromkeys(self._zones)
        """By zone, the names that are not known to hold what they should; None: any may be so."""
        self._others: dict[Node, str] = {}
        """Names that we should hold and that are somebody else's, with what is there."""
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Converges: what the server lost comes back, what should not be ours there goes.

        Raises Conflict for names that are somebody else's, MissingPart, BackendFailed.
        """
        with self._lock:
            self._load()
            self._each_zone(self._zones)
            self._refuse(self._others)

    def publish(self, records: Sequence[NameRecord]) -> None:
        """Durable here, then answering there. Converges. Raises Invalid, Conflict, MissingPart, BackendFailed.

        What could not be published is kept, and published by `ensure` once it can be.
        """
        checked = check_records(records)
        with self._lock:
            self._load()
            self._hosts.put(checked)
            touched = self._wanted.put(checked)
            self._push(touched)
            self._refuse({node: text for node, text in self._others.items() if node in touched})

    def withdraw(self, names: Sequence[str]) -> None:
        """Durable here, then silent there. Converges. Raises Invalid, MissingPart, BackendFailed.

        A server that can't be reached keeps nobody waiting: `ensure` takes the names away as soon as it is back.
        """
        labels = [encode_label(name) for name in names]
        with self._lock:
            self._load()
            self._hosts.remove(labels)
            try:
                self._push(self._wanted.drop(labels))
            except Unreachable as error:
                log.warning("names are withdrawn later: %s", error)

    def records(self) -> Sequence[NameRecord]:
        """What should be published. Raises BackendFailed when our own disk fails.

        Changes nothing, so that it may be asked while another process serves these names.
        """
        with self._lock:
            if self._loaded:
                known = self._wanted.records
            else:
                known = {record.name: record for record in self._hosts.of_other_zones()} | dict(self._hosts.records())
            return tuple(record for _, record in sorted(known.items()))

    def checks(self) -> Sequence[Check]:
        """Never raises."""
        with self._lock:
            name = "names: rfc2136"
            try:
                self._load()
                primary = self._reach()
                for zone in self._zones:
                    self._doubt(zone, primary.follow(zone))
                self._refuse(self._others)
            except TorporError as error:
                return (Check(name, False, str(error), error.remedy),)
            zones = ", ".join(zone.to_text(omit_final_dot=True) for zone in self._zones)
            detail = f"{primary.where}, zones {zones}, as {self._settings.owner}"
            return (Check(name, True, detail), self._check_key())

    def _check_key(self) -> Check:
        file = self._settings.key_file
        try:
            hidden = not file.stat().st_mode & 0o077
        except OSError as error:
            return Check("names: key", False, f"{file}: {error.strerror}", "set key_file in [names.rfc2136]")
        detail = f"{file} is read by its owner only" if hidden else f"{file} may be read by others"
        return Check("names: key", hidden, detail, f"chmod 600 {file}")

    # --- what should be ---

    def _load(self) -> None:
        if not self._loaded:
            self._hosts.prepare()
            self._hosts.tidy()
            self._wanted.put(tuple(self._hosts.records().values()))
            self._loaded = True

    def _refuse(self, taken: Mapping[Node, str]) -> None:
        if not taken:
            return
        node = min(taken)
        more = len(taken) - 1
        raise Conflict(
            f"{node.name.to_text(omit_final_dot=True)} on {self._settings.server} is somebody else's",
            detail=f"it holds {taken[node]} without our mark" + (f", and so do {more} more" if more else ""),
            remedy="have it removed there, or give the instance another name",
        )

    # --- what is ---

    def _reach(self) -> Primary:
        settings = self._settings
        key = read_key(settings.key_file)  # each time: it may be a new one
        if self._primary is None or self._primary.key != key:
            self._primary = Primary(settings.server, settings.port, key, settings.owner, settings.ttl)
        return self._primary

    def _push(self, touched: Iterable[Node]) -> None:
        zones: defaultdict[dns.name.Name, set[Node]] = defaultdict(set)
        for node in touched:
            zones[node.zone].add(node)
        for zone, nodes in zones.items():
            self._doubt(zone, nodes)
        self._each_zone([zone for zone in self._zones if zone in zones])

    def _doubt(self, zone: dns.name.Name, nodes: Set[Node] | None) -> None:
        known = self._doubtful[zone]
        self._doubtful[zone] = None if nodes is None or known is None else known | nodes

    def _each_zone(self, zones: Sequence[dns.name.Name]) -> None:
        """All at once: most of the time it is waited for the server. All are tried before the first failure is told."""
        if not zones:
            return
        primary = self._reach()
        with ThreadPoolExecutor(len(zones)) as threads:
            failures = [e for e in threads.map(lambda zone: self._settle(primary, zone), zones) if e is not None]
        if any(isinstance(failure, Unreachable) for failure in failures):
            self._primary = None  # it may come back with other zones that have the same serials
        if failures:
            raise failures[0]

    def _settle(self, primary: Primary, zone: dns.name.Name) -> TorporError | None:
        """What kept its names from holding what they should."""
        again = Retrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_fixed(0.2),
            stop=stop_after_delay(_PATIENCE_SECONDS),
            reraise=True,
        )
        try:
            again(self._converge, primary, zone)
        except TorporError as error:
            return error
        return None

    def _converge(self, primary: Primary, zone: dns.name.Name) -> None:
        """Let every name of the zone hold what it should. Touches nothing that is of another zone."""
        for size in _BATCH_SIZES:
            self._doubt(zone, primary.follow(zone))
            changes = list(self._changes(primary, self._candidates(primary, zone)))
            lost = [batch for batch in batches(changes, size) if not primary.change(zone, batch)]
            if not lost:
                # Until they were seen there: the server may have lost them by then.
                self._doubtful[zone] = {change.node for change in changes}
                return
        raise BackendFailed(
            f"zone {zone.to_text(omit_final_dot=True)} on {self._settings.server} was changed by others all the time",
            remedy="it is tried again",
        )

    def _candidates(self, primary: Primary, zone: dns.name.Name) -> Set[Node]:
        doubtful = self._doubtful[zone]
        if doubtful is not None:
            return doubtful
        return {node for node in self._wanted.nodes if node.zone == zone} | set(primary.marked(zone))

    def _changes(self, primary: Primary, nodes: Iterable[Node]) -> Iterator[Change]:
        for node in nodes:
            wanted, held = self._wanted.of(node), primary.held(node)
            self._others.pop(node, None)
            if held is None:
                if wanted:
                    yield Change(node, wanted, ours=False)
            elif held.ours:
                if wanted != held.contents or not wanted:
                    yield Change(node, wanted, ours=True)
            elif wanted:
                self._others[node] = primary.text(node)
