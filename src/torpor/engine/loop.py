"""The engine's threads: one decides and acts, the others look after guests, names and states that guests run on."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from torpor.domain.errors import TorporError
from torpor.engine.guests import GuestWatch
from torpor.engine.parts import Parts
from torpor.engine.queue import Queue
from torpor.engine.scrub import Scrub

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.5
"""Pause between two rounds in which nothing was to be done."""
SCRUB_SECONDS = 2.0
"""How often it is looked for guests that run on a state that was not verified yet."""
NAMES_SECONDS = 5.0
"""How often the name server is looked after."""


class Loop:
    """Runs rounds until it is stopped. A round that fails is reported, and the next one tries again."""

    def __init__(self, parts: Parts, queue: Queue, watch: GuestWatch, scrub: Scrub) -> None:
        self._parts = parts
        self.queue = queue
        self._watch = watch
        self._scrub = scrub
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._last: dict[str, str] = {}
        """What each thread complained of last, so that it says it once."""
        self._threads = [
            threading.Thread(target=self._rounds, name="engine", daemon=True),
            threading.Thread(target=self._watch_guests, name="guests", daemon=True),
            threading.Thread(target=self._watch_names, name="names", daemon=True),
            threading.Thread(target=self._verify_states, name="scrub", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 60.0) -> None:
        """Let the operation under way end; what does not within `patience` seconds goes on at the next start."""
        self.queue.stopping.set()
        self._scrub.stopping.set()
        self._stopped.set()
        self._wanted.set()
        for thread in self._threads:
            thread.join(patience)

    def wake(self) -> None:
        """There may be something to do: begin a round now."""
        self._wanted.set()

    def _rounds(self) -> None:
        asked = True
        while not self._stopped.is_set():
            if self._guarded("round", partial(self.queue.tick, asked)):
                continue
            asked = self._wanted.wait(ROUND_SECONDS)
            self._wanted.clear()

    def _watch_guests(self) -> None:
        while not self._stopped.is_set():
            if self._guarded("looking after guests", self._watch.round):
                self.wake()
            self._stopped.wait(ROUND_SECONDS)

    def _watch_names(self) -> None:
        while not self._stopped.is_set():
            self._guarded("looking after names", self._ensure_names)
            self._stopped.wait(NAMES_SECONDS)

    def _ensure_names(self) -> bool:
        self._parts.names.ensure()
        return False

    def _verify_states(self) -> None:
        while not self._stopped.is_set():
            if self._guarded("verifying saved states", self._scrub.round):
                self.wake()
            self._stopped.wait(SCRUB_SECONDS)

    def _guarded(self, what: str, act: Callable[[], bool]) -> bool:
        try:
            done = act()
            self._last.pop(what, None)
            return done
        except TorporError as error:
            if self._last.get(what) != str(error):
                log.warning("%s: %s", what, error)
            self._last[what] = str(error)
        except Exception:  # a bug in one round must not end the daemon that others' VMs depend on
            log.exception("%s failed", what)
        return False
