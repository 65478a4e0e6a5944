"""The service behind `torpor names serve`: looks at networks again and again, until it is told to stop.

Its end leaves the names as they are, and the name server running: guests go on being found while it is replaced.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from torpor.config import Config
from torpor.daemon import signals
from torpor.domain.errors import BackendFailed
from torpor.lock import locked

log = logging.getLogger(__name__)


class Follower(Protocol):
    def round(self) -> bool: ...


class NamesService(Protocol):
    """What wiring builds."""

    @property
    def follower(self) -> Follower: ...

    @property
    def stop(self) -> Callable[[], None]: ...


Build = Callable[[Config], NamesService]


def serve(config: Config, build: Build) -> None:
    """Raises MissingPart, and Conflict where a daemon or another such service has the state directory."""
    stopping = threading.Event()
    with locked(config.state_dir), signals(stopping.set):
        follower = build(config).follower
        log.info("serving names of %s in %s", ", ".join(config.names.networks), config.network.zone)
        while not stopping.is_set():
            began = time.monotonic()
            follower.round()
            stopping.wait(max(0.0, config.names.look_seconds - (time.monotonic() - began)))
    log.info("stopped")


def once(config: Config, build: Build) -> None:
    """One look. Raises BackendFailed where it did not bring the names up to date; the log says why."""
    with locked(config.state_dir):
        if not build(config).follower.round():
            raise BackendFailed("the names are not up to date", detail="the reason is told above")


def take_down(config: Config, build: Build) -> None:
    """End the name server that such a service has left."""
    with locked(config.state_dir):
        build(config).stop()
