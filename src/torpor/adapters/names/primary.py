"""A primary name server that takes signed updates: what its zones hold, and changes to them.

The zones are followed as a secondary server would follow them: transferred once (AXFR), then by their changes (IXFR).
An update carries its prerequisites (RFC 2136, 2.4), so that the server itself refuses what would touch a record that
is not ours, whatever happened since we looked.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
from dns.rdatatype import AAAA, PTR, TXT, A

from torpor.adapters.names.nodes import Contents, Node
from torpor.domain.errors import BackendFailed, MissingPart

_ANSWER_SECONDS = 3.0
_TRANSFER_SECONDS = 60.0
_KINDS = (A, AAAA, PTR)
"""Record types that we write, beside the mark."""
_FAILED_PREREQUISITE = frozenset(
    {dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN}  # some servers answer the last
)


class Unreachable(BackendFailed):
    """The server does not answer, or is not ready yet."""


class _OutOfStep(BackendFailed):
    """What the server says does not fit what it said before."""


class _Version(dns.zone.WritableVersion):
    """The next state of a zone.

    Its names are taken over all at once; one by one, thousands of them are compared, for their hashes collide.
    """

    def __init__(self, zone: dns.zone.Zone, replacement: bool = False) -> None:
        super().__init__(zone, replacement=True)  # which takes nothing over
        if not replacement:
            self.nodes = copy(zone.nodes)


class _FollowedZone(dns.zone.Zone):
    """A copy of a zone that tells which names changed."""

    writable_version_factory = _Version

    def __init__(self, origin: dns.name.Name) -> None:
        super().__init__(origin, relativize=False)
        self.changed: set[dns.name.Name] = set()
        self.all_changed = True

    def writer(self, replacement: bool = False) -> dns.zone.Transaction:
        transaction = super().writer(replacement)
        if replacement:
            self.all_changed = True
        else:
            transaction.check_put_rdataset(lambda _, name, __: self.changed.add(name))
            transaction.check_delete_rdataset(lambda _, name, *__: self.changed.add(name))
            transaction.check_delete_name(lambda _, name: self.changed.add(name))
        return transaction


@dataclass(frozen=True, slots=True)
class Held:
    """What one name in a zone holds of the types that we write."""

    ours: bool
    """It has our mark, and no other TXT record."""
    contents: Contents


@dataclass(frozen=True, slots=True)
class Change:
    """One name is to hold this; nothing: it is to be taken away."""

    node: Node
    wanted: Contents
    ours: bool
    """Whether it is there with our mark; otherwise it is there not at all."""


class Primary:
    """Its owner has the lock. Several threads may act at once, each on another zone."""

    def __init__(self, address: str, port: int, key: dns.tsig.Key, owner: str, ttl: int) -> None:
        self._address = address
        self._port = port
        self.key = key
        self._ttl = ttl
        self._mark = dns.rdata.from_text(dns.rdataclass.IN, TXT, f'"torpor owner={owner}"')
        self._zones: dict[dns.name.Name, _FollowedZone] = {}

    @property
    def where(self) -> str:
        return f"{self._address} port {self._port}"

    def follow(self, zone: dns.name.Name) -> Set[Node] | None:
        """Have the zone as the server has it now. Raises Unreachable, MissingPart, BackendFailed.

        Returns the names that may have changed since the last time; None: any.
        """
        try:
            self._transfer(zone)
        except _OutOfStep:  # the zone was put back to an older one, say: from the beginning
            self._zones.pop(zone, None)
            self._transfer(zone)
        followed = self._zones[zone]
        changed = None if followed.all_changed else {Node(zone, name) for name in followed.changed}
        followed.all_changed, followed.changed = False, set()
        return changed

    def held(self, node: Node) -> Held | None:
        """None where there is no such name. As of the last `follow`."""
        found = self._zones[node.zone].get_node(node.name)
        if found is None or not found.rdatasets:
            return None
        marks = found.get_rdataset(dns.rdataclass.IN, TXT)
        contents = [rdata for kind in _KINDS for rdata in found.get_rdataset(dns.rdataclass.IN, kind) or ()]
        ours = marks is not None and len(marks) == 1 and marks[0] == self._mark
        return Held(ours, frozenset(contents))

    def text(self, node: Node) -> str:
        """All that a name holds, for people. As of the last `follow`."""
        found = self._zones[node.zone].get_node(node.name)
        return found.to_text(node.name).replace("\n", "; ") if found is not None else "nothing"

    def marked(self, zone: dns.name.Name) -> Iterator[Node]:
        """Every name with our mark. As of the last `follow`."""
        for name, marks in self._zones[zone].iterate_rdatasets(TXT):
            if len(marks) == 1 and marks[0] == self._mark:
                yield Node(zone, name)

    def change(self, zone: dns.name.Name, changes: Sequence[Change]) -> bool:
        """All of them or none; False where one of these names is not (any more) as its change says.

        Raises Unreachable, MissingPart, BackendFailed.
        """
        update = dns.update.UpdateMessage(zone, keyring=self.key, keyname=self.key.name)
        for change in changes:
            self._add(update, change)
        with self._translated(zone, "changed"):
            answer = dns.query.tcp(update, self._address, timeout=_ANSWER_SECONDS, port=self._port)
        if answer.rcode() in _FAILED_PREREQUISITE:
            return False
        if answer.rcode() != dns.rcode.NOERROR:
            self._refused(zone, "changed", answer.rcode())
        return True

    def _add(self, update: dns.update.UpdateMessage, change: Change) -> None:
        name = change.node.name
        if change.ours:
            update.present(name, self._mark)
            for kind in _KINDS:
                update.delete(name, kind)
            if not change.wanted:
                update.delete(name, TXT)
        else:
            update.absent(name)
            update.add(name, self._ttl, self._mark)
        for rdata in change.wanted:
            update.add(name, self._ttl, rdata)

    def _transfer(self, zone: dns.name.Name) -> None:
        followed = self._zones.get(zone) or _FollowedZone(zone)
        query, _ = dns.xfr.make_query(followed, keyring=self.key, keyname=self.key.name)
        with self._translated(zone, "read"):
            dns.query.inbound_xfr(
                self._address, followed, query, self._port, timeout=_ANSWER_SECONDS, lifetime=_TRANSFER_SECONDS
            )
        self._zones[zone] = followed

    @contextmanager
    def _translated(self, zone: dns.name.Name, done: str) -> Iterator[None]:
        what = f"zone {zone.to_text(True)} could not be {done} on {self.where}"
        try:
            yield
        except dns.xfr.TransferError as error:
            self._refused(zone, done, error.rcode)
        except (OSError, EOFError, dns.exception.Timeout) as error:
            detail = getattr(error, "strerror", None) or "it does not answer"
            raise Unreachable(
                what, detail=detail, remedy="see whether the name server runs; it is tried again"
            ) from error
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as error:
            raise MissingPart(what, detail="its clock and ours differ", remedy="set both by NTP") from error
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadKey, dns.message.UnknownTSIGKey) as error:
            raise MissingPart(
                what,
                detail=f"it does not take the key {self.key.name.to_text(True)}",
                remedy="give both sides the same key file",
            ) from error
        except dns.exception.DNSException as error:
            raise _OutOfStep(what, detail=str(error), remedy="see its log; it is tried again") from error

    def _refused(self, zone: dns.name.Name, done: str, rcode: dns.rcode.Rcode) -> None:
        name, key = zone.to_text(True), self.key.name.to_text(True)
        what = f"zone {name} could not be {done} on {self.where}"
        if rcode == dns.rcode.SERVFAIL:
            raise Unreachable(what, detail="the server says SERVFAIL", remedy="see its log; it is tried again")
        allow = "allow-update" if done == "changed" else "allow-transfer"
        raise MissingPart(
            what,
            detail=f"the server says {dns.rcode.to_text(rcode)}",
            remedy=f'let it be primary for {name}, with {allow} {{ key "{key}"; }} in the zone',
        )


def batches(changes: Iterable[Change], size: int) -> Iterator[Sequence[Change]]:
    waiting = list(changes)
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]
