"""Names and DHCP leases that change together: whoever has a name is leased its address."""

from collections.abc import Callable, Sequence

from torpor.domain.dhcp import DhcpService
from torpor.domain.naming import NameRecord
from torpor.ports import Check, DhcpServer, Names


class NamesWithLeases:
    """The Names port. Leases are looked up anew at each change, and at each `ensure`. As thread-safe as its parts."""

    def __init__(self, names: Names, server: DhcpServer, service: Callable[[], DhcpService]) -> None:
        self._names = names
        self._server = server
        self._service = service

    def ensure(self) -> None:
        self._names.ensure()
        self._lease()

    def publish(self, records: Sequence[NameRecord]) -> None:
        """What is to be named has its lease before it is booted."""
        self._lease()
        self._names.publish(records)

    def withdraw(self, names: Sequence[str]) -> None:
        self._names.withdraw(names)
        self._lease()

    def records(self) -> Sequence[NameRecord]:
        return self._names.records()

    def checks(self) -> Sequence[Check]:
        return self._names.checks()

    def _lease(self) -> None:
        self._server.serve(self._service())
