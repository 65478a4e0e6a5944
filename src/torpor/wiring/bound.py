"""What a backend's own part of the wiring hands over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torpor.engine.parts import Parts
from torpor.ports import Check, Diagnostics


class Network(Protocol):
    """The guests' network, made and taken away by the daemon."""

    def ensure(self) -> None:
        """Have it there. Converges. Raises Conflict, MissingPart, BackendFailed."""
        ...

    def remove(self) -> None:
        """Take it away, and leave the host as it was. Converges."""
        ...

    def checks(self) -> Sequence[Check]: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """The ports, bound, and what is no port: the daemon's business with the backend."""

    parts: Parts
    network: Network
    stop_names: Callable[[], None]
    listen: Callable[[Callable[[], None]], None]
    """Takes what is to be called whenever a VM may have changed its state behind our back; from any thread."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """The backend's checks and the network's, as one: implements `Diagnostics`."""

    backend: Diagnostics
    network: Network

    def checks(self) -> Sequence[Check]:
        return (*self.backend.checks(), *self.network.checks())

    def self_test(self, progress: Callable[[str], None]) -> Check:
        return self.backend.self_test(progress)
