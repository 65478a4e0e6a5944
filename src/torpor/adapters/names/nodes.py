"""What each name in each zone should hold, of all that is published. Pure; knows of no server."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename

from torpor.domain.naming import NameRecord


class Node(NamedTuple):
    """One name in one zone; both absolute."""

    zone: dns.name.Name
    name: dns.name.Name


Contents = frozenset[dns.rdata.Rdata]
NOTHING: Contents = frozenset()


class Wanted:
    """Not thread-safe. Changes are as cheap among ten thousand names as among ten."""

    def __init__(self, zone: dns.name.Name, reverse_zones: Sequence[dns.name.Name]) -> None:
        self._zone = zone
        self._reverse = sorted(reverse_zones, key=len, reverse=True)
        self._records: dict[str, NameRecord] = {}
        self._named: defaultdict[str, set[str]] = defaultdict(set)
        """Names by address."""
        self._nodes: dict[Node, Contents] = {}

    @property
    def records(self) -> Mapping[str, NameRecord]:
        return self._records

    @property
    def nodes(self) -> Mapping[Node, Contents]:
        """Those that hold anything."""
        return self._nodes

    def of(self, node: Node) -> Contents:
        return self._nodes.get(node, NOTHING)

    def put(self, records: Sequence[NameRecord]) -> Set[Node]:
        """Each in the place of an earlier one of its name; the nodes that this may have changed."""
        addresses = self._take_out([record.name for record in records])
        for record in records:
            self._records[record.name] = record
            for address in record.addresses:
                self._named[address].add(record.name)
                addresses.add(address)
        return self._settle([record.name for record in records], addresses)

    def drop(self, names: Sequence[str]) -> Set[Node]:
        """The nodes that this may have changed."""
        return self._settle(names, self._take_out(names))

    def _take_out(self, names: Iterable[str]) -> set[str]:
        """The addresses that they had."""
        addresses: set[str] = set()
        for name in names:
            record = self._records.pop(name, None)
            for address in record.addresses if record else ():
                addresses.add(address)
                self._named[address].discard(name)
        return addresses

    def _settle(self, names: Iterable[str], addresses: Iterable[str]) -> Set[Node]:
        contents = {Node(self._zone, self._full(name)): self._forward(name) for name in names}
        for address in addresses:
            pointer = dns.reversename.from_address(address)
            zone = next((zone for zone in self._reverse if pointer.is_subdomain(zone)), None)
            if zone is not None:
                contents[Node(zone, pointer)] = self._backward(address)
        for node, content in contents.items():
            if content:
                self._nodes[node] = content
            else:
                self._nodes.pop(node, None)
        return contents.keys()

    def _full(self, name: str) -> dns.name.Name:
        return dns.name.Name((name.encode(), *self._zone.labels))

    def _forward(self, name: str) -> Contents:
        record = self._records.get(name)
        if record is None:
            return NOTHING
        kinds = [(dns.rdatatype.AAAA if ":" in a else dns.rdatatype.A, a) for a in record.addresses]
        return frozenset(dns.rdata.from_text(dns.rdataclass.IN, kind, address) for kind, address in kinds)

    def _backward(self, address: str) -> Contents:
        """Of several names with one address the first by alphabet is its name."""
        names = self._named.get(address)
        if not names:
            self._named.pop(address, None)
            return NOTHING
        return frozenset({dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.PTR, self._full(min(names)).to_text())})
