"""A clock that tests move."""

import threading


class ManualClock:
    """A clock that moves when it is told to, and when somebody sleeps by it. Thread-safe."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` go by; time does not go backwards."""
        with self._lock:
            self._now += max(0.0, seconds)
