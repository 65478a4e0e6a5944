"""Logging: one line an event, on standard error, level from $TORPOR_LOG.

The daemon's standard error is its log; the CLI sends it to `<state_dir>/daemon.log`.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from torpor.domain.errors import Invalid

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class OneLine(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO torpor.engine: text`; tracebacks are folded into the line."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(line.strip() for line in super().format(record).splitlines() if line.strip())


def level_from(environment: Mapping[str, str]) -> int:
    """The level that $TORPOR_LOG asks for, INFO without it. Raises Invalid."""
    word = environment.get("TORPOR_LOG", "info").lower()
    if word not in LEVELS:
        raise Invalid(f"TORPOR_LOG={word!r} is no level", remedy=f"use one of {', '.join(LEVELS)}")
    return LEVELS[word]


def configure(level: int | None = None, stream: TextIO | None = None) -> None:
    """Send what Torpor logs at `level` or above, and every other library's warnings, to `stream`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("torpor").setLevel(level_from(os.environ) if level is None else level)
