"""Names published in several places, as if they were one."""

from collections.abc import Callable, Sequence

from torpor.domain.errors import TorporError
from torpor.domain.naming import NameRecord, check_records, encode_label
from torpor.ports import Check, Names


class NamesInSeveralPlaces:
    """Every place is tried, whatever becomes of another; then the first failure is told. As thread-safe as they are."""

    def __init__(self, places: Sequence[Names]) -> None:
        self._places = places

    def ensure(self) -> None:
        """Converges. Raises what the places raise."""
        self._everywhere(lambda place: place.ensure())

    def publish(self, records: Sequence[NameRecord]) -> None:
        """Converges. Raises what the places raise; Invalid and Conflict before anything is published anywhere."""
        checked = check_records(records)
        self._everywhere(lambda place: place.publish(checked))

    def withdraw(self, names: Sequence[str]) -> None:
        """Converges. Raises what the places raise; Invalid before anything is withdrawn anywhere."""
        labels = [encode_label(name) for name in names]
        self._everywhere(lambda place: place.withdraw(labels))

    def records(self) -> Sequence[NameRecord]:
        """What is published in any of them: only so can it be told what must be withdrawn."""
        found = {record for place in self._places for record in place.records()}
        return tuple(sorted(found, key=lambda record: (record.name, record.addresses)))

    def checks(self) -> Sequence[Check]:
        """Never raises."""
        return tuple(check for place in self._places for check in place.checks())

    def _everywhere(self, act: Callable[[Names], None]) -> None:
        failures = []
        for place in self._places:
            try:
                act(place)
            except TorporError as error:
                failures.append(error)
        if failures:
            raise failures[0]
