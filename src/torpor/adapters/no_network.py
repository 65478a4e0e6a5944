"""Where others provide the guests' network: nothing is made, nothing is taken away."""

from collections.abc import Sequence

from torpor.ports import Check


class NoNetwork:
    def ensure(self) -> None:
        """It is there."""

    def remove(self) -> None:
        """It stays."""

    def checks(self) -> Sequence[Check]:
        return ()
