"""Names of a network's ports, whoever made them, published where names are published: looked at again and again."""

import logging
from collections.abc import Callable, Iterable, Sequence, Set

from torpor.domain.errors import TorporError
from torpor.domain.named_ports import name_all
from torpor.domain.naming import NameRecord
from torpor.ports import Clock, NamedPorts, Names

log = logging.getLogger(__name__)

ENSURE_SECONDS = 4.0
"""How often it is seen to that the name servers run and have everything, while nothing changes."""


class NameFollower:
    """The published names are the ports' after each round that succeeds. One thread's."""

    def __init__(self, ports: NamedPorts, names: Names, clock: Clock, stop: Callable[[], None] = lambda: None) -> None:
        """`stop` ends the name server that is its own."""
        self.take_down = stop
        self._ports = ports
        self._names = names
        self._clock = clock
        self._ensured_at: float | None = None
        self._told: frozenset[str] = frozenset()
        self._whole = False
        """Everything was published once in our time: of several places one may have missed what the others have."""
        self.failures: Sequence[str] = ()
        """What kept the last round from being complete; sentences."""

    def round(self) -> bool:
        """Look once, and publish and withdraw what has changed. Returns whether all is as it should be.

        While the cloud does not answer, what is published stays: no answer is not the news that nobody is there.
        """
        try:
            naming = name_all(self._ports.ports())
            before = set(self._names.records())
        except TorporError as error:
            self.failures = (str(error),)
            self._tell(self.failures)
            return False
        wanted = set(naming.records)
        stale = {record.name for record in before} - {record.name for record in wanted}
        self.failures = [
            str(error)
            for error in (
                _try(self._ensure),
                _try(lambda: self._withdraw(sorted(stale))),
                _try(lambda: self._publish(wanted, wanted - before)),
            )
            if error is not None
        ]
        if self.failures:
            self._ensured_at = None
        self._tell([*self.failures, *naming.refused.values()])
        return not self.failures

    def _ensure(self) -> None:
        now = self._clock.now()
        if self._ensured_at is None or not 0 <= now - self._ensured_at < ENSURE_SECONDS:
            self._names.ensure()
            self._ensured_at = now

    def _withdraw(self, names: list[str]) -> None:
        if names:
            self._names.withdraw(names)
            log.info("withdrawn: %s", ", ".join(names))

    def _publish(self, wanted: Set[NameRecord], new: Set[NameRecord]) -> None:
        records, self._whole = new if self._whole else wanted, True
        if records:
            self._names.publish(sorted(records, key=_by_name))
        if new:
            told = (f"{r.name} {'/'.join(r.addresses)}" for r in sorted(new, key=_by_name))
            log.info("published: %s", ", ".join(told))

    def _tell(self, sentences: Iterable[str]) -> None:
        """Of each only that it begins."""
        now = frozenset(sentences)
        for sentence in sorted(now - self._told):
            log.warning("%s", sentence)
        self._told = now


def _by_name(record: NameRecord) -> str:
    return record.name


def _try(act: Callable[[], None]) -> TorporError | None:
    try:
        act()
    except TorporError as error:
        return error
    return None
