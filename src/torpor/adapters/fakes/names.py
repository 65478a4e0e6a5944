"""A name server in memory: the `Names` port."""

import threading
from collections.abc import Sequence

from torpor.adapters.fakes.faults import Faults
from torpor.domain.naming import NameRecord, check_records, encode_label
from torpor.ports import Check


class FakeNames:
    """A name server in memory: `lookup` and `reverse` answer as its clients would be answered."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.running = False
        """Set it to False to let the server die; `ensure` brings it back."""
        self._records: dict[str, NameRecord] = {}
        self._lock = threading.Lock()

    def ensure(self) -> None:
        with self.faults.around("ensure"):
            self.running = True

    def publish(self, records: Sequence[NameRecord]) -> None:
        checked = check_records(records)
        with self.faults.around("publish"), self._lock:
            self._records.update({record.name: record for record in checked})

    def withdraw(self, names: Sequence[str]) -> None:
        labels = [encode_label(name) for name in names]
        with self.faults.around("withdraw"), self._lock:
            for label in labels:
                self._records.pop(label, None)

    def records(self) -> Sequence[NameRecord]:
        with self.faults.around("records"), self._lock:
            return tuple(record for _, record in sorted(self._records.items()))

    def checks(self) -> Sequence[Check]:
        return (Check("fake name server", self.running, "running" if self.running else "not running"),)

    def lookup(self, name: str) -> str | None:
        """The name's IPv4 address."""
        with self._lock:
            found = self._records.get(name) if self.running else None
            return (found.address or None) if found else None

    def lookup6(self, name: str) -> str | None:
        """The name's IPv6 address."""
        with self._lock:
            found = self._records.get(name) if self.running else None
            return (found.address6 or None) if found else None

    def reverse(self, address: str) -> str | None:
        with self._lock:
            names = sorted(name for name, known in self._records.items() if address in known.addresses)
            return names[0] if names and self.running else None
