"""Services that look at a cloud again and again until they are told to stop: `torpor names serve`, `network dhcp`.

Their end leaves all as it is, and the dnsmasq that each has running: guests are served while the service is replaced.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torpor.daemon import signals
from torpor.domain.errors import BackendFailed
from torpor.lock import locked

log = logging.getLogger(__name__)


class Follower(Protocol):
    """What wiring builds."""

    def round(self) -> bool:
        """Look once; whether all is as it should be. What is not is in the log."""
        ...

    def take_down(self) -> None:
        """End what runs for it. Converges. Raises TorporErrors."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    folder: Path
    """Of its own; one service at a time has it."""
    look_seconds: float
    task: str
    """What it does, for the log."""
    build: Callable[[], Follower]


def serve(service: Service) -> None:
    """Raises MissingPart, and Conflict where another has the folder."""
    stopping = threading.Event()
    with locked(service.folder), signals(stopping.set):
        follower = service.build()
        log.info("%s", service.task)
        while not stopping.is_set():
            began = time.monotonic()
            follower.round()
            stopping.wait(max(0.0, service.look_seconds - (time.monotonic() - began)))
    log.info("stopped")


def once(service: Service) -> None:
    """One look. Raises BackendFailed where not all is as it should be then; the log says why."""
    with locked(service.folder):
        if not service.build().round():
            raise BackendFailed(f"{service.task}: it is not done", detail="the reason is told above")


def take_down(service: Service) -> None:
    """End what such a service has left."""
    with locked(service.folder):
        service.build().take_down()
