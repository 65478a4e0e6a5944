"""Our block in a hosts file that belongs to others: where it is, what it holds. Text in, text out.

Full names only: a short one would also be found by the programs on the machine that the file is of, and a guest
called `mirror` or `db` must not become theirs.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torpor.domain.errors import Conflict, Invalid
from torpor.domain.naming import NameRecord, check_record

_MARKER = re.compile(r"#[ \t]*torpor ([a-z0-9-]+): (begin|end)\b")


@dataclass(frozen=True, slots=True)
class Split:
    """A hosts file around one block."""

    before: str
    inside: str
    after: str


def split(text: str, block: str, where: str) -> Split:
    """Everything before, in and after the block and its marker lines; a file without it ends where it would begin.

    Raises Conflict where the markers are not one beginning and one end: then nobody can tell what is ours.
    """
    begins, ends = _markers(text, block)
    if not begins and not ends:
        return Split(text if text.endswith("\n") or not text else text + "\n", "", "")
    if len(begins) == len(ends) == 1 and begins[0][1] <= ends[0][0]:
        inside = text[begins[0][1] : ends[0][0]]
        if not any(_MARKER.match(line) for line in inside.split("\n")):
            return Split(text[: begins[0][0]], inside, text[ends[0][1] :])
    raise Conflict(
        f"the block {block!r} in {where} is damaged, so nothing is written there",
        detail=_damage(text, begins, ends),
        remedy=f"delete the lines with `torpor {block}: begin` and `torpor {block}: end` and what Torpor wrote between "
        "them; the block is then written anew",
    )


_Span = tuple[int, int]
"""Of a whole line, with its newline."""


def _markers(text: str, block: str) -> tuple[list[_Span], list[_Span]]:
    found: dict[str, list[_Span]] = {"begin": [], "end": []}
    at = text.find("torpor ")
    while at != -1:
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at) + 1 or len(text)
        match = _MARKER.match(text, start)
        if match and match[1] == block:
            found[match[2]].append((start, end))
        at = text.find("torpor ", end)
    return found["begin"], found["end"]


def _damage(text: str, begins: list[_Span], ends: list[_Span]) -> str:
    def lines(spans: list[_Span]) -> str:
        return " and ".join(str(text.count("\n", 0, start) + 1) for start, _ in spans)

    if not ends:
        return f"it begins in line {lines(begins)} and has no end"
    if not begins:
        return f"it ends in line {lines(ends)} and has no beginning"
    if len(begins) == len(ends) == 1 and begins[0] < ends[0]:
        return "there is another block's marker in it"
    return f"it begins in line {lines(begins)} and ends in line {lines(ends)}"


def render(block: str, lines: Iterable[str]) -> str:
    """The block with its marker lines."""
    begin = f"# torpor {block}: begin (written by Torpor: what is changed in here is changed back)\n"
    return "".join((begin, *lines, f"# torpor {block}: end\n"))


def line_of(record: NameRecord, zone: str) -> str:
    """The record's lines, one an address."""
    return "".join(f"{address} {record.name}.{zone}\n" for address in record.addresses)


def records_in(inside: str, zone: str) -> Mapping[str, NameRecord]:
    """By name, what we would have written so; other lines are left out."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in inside.split("\n"):
        address, _, name = line.partition(" ")
        if name.endswith(f".{zone}"):
            found[name.removesuffix(f".{zone}")].append(address)
    records = {}
    for name, addresses in found.items():
        four, six = ([a for a in addresses if (":" in a) is kind] for kind in (False, True))
        try:
            record = check_record(NameRecord(name, *(four or [""])[:1], *(six or [""])[:1]))
        except Invalid:
            continue
        if record.name == name and len(addresses) == len(record.addresses):
            records[name] = record
    return records


def others_names(text: str, zone: str) -> Mapping[str, str]:
    """Labels of this zone that lines of others give, with the address that they give."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if zone not in line.lower():
            continue
        address, *names = line.partition("#")[0].lower().split() or [""]
        for name in names:
            label, _, rest = name.rstrip(".").partition(".")
            if rest == zone:
                found.setdefault(label, address)
    return found


class Lines:
    """Records and their lines, kept by name, so that one that changes costs little among ten thousand."""

    def __init__(self, zone: str, records: Iterable[NameRecord]) -> None:
        self._zone = zone
        self._records: dict[str, NameRecord] = {}
        self._names: list[str] = []
        self._lines: list[str] = []
        """Of the names, in the same order."""
        for record in records:
            self.put(record)

    @property
    def records(self) -> Mapping[str, NameRecord]:
        return self._records

    def in_order(self) -> Sequence[NameRecord]:
        """By name."""
        return tuple(self._records[name] for name in self._names)

    def put(self, record: NameRecord) -> None:
        """In the place of an earlier one of its name."""
        at = bisect_left(self._names, record.name)
        if record.name not in self._records:
            self._names.insert(at, record.name)
            self._lines.insert(at, "")
        self._records[record.name] = record
        self._lines[at] = line_of(record, self._zone)

    def drop(self, name: str) -> None:
        if self._records.pop(name, None) is not None:
            at = bisect_left(self._names, name)
            del self._names[at], self._lines[at]

    def without(self, names: Collection[str]) -> Sequence[str]:
        """By name, but for the lines of these names."""
        if not names:
            return self._lines
        return [line for name, line in zip(self._names, self._lines, strict=True) if name not in names]
