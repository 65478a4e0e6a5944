"""How long a guest stood still, seen from outside: the gaps between the bytes of its 1 ms ticker.

A stopped machine's clock stands still with it, so its own ticker can't see a pause. Run as a program, this is the
process that reads the serial line: one of its own, for it must not wait for anybody else's work.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.states.talk import Talk, seconds

_SETTLE_SECONDS = 0.3
_LONGEST_SECONDS = 10.0
"""Of watching a ticker to which nothing happens."""


@dataclass(frozen=True)
class Gaps:
    """Of one span of time."""

    seconds: float
    largest_ms: float
    """Between two bytes on the serial line."""
    guest_largest_ms: float
    """By the guest's own clock."""

    def wait_as_long(self) -> None:
        time.sleep(min(self.seconds, _LONGEST_SECONDS))


def watched_gaps(talk: Talk, console: Path, work: Callable[[], object]) -> Gaps:
    """The gaps of a 1 ms ticker while `work` is done."""
    talk.tick(1)
    time.sleep(_SETTLE_SECONDS)
    reader = subprocess.Popen(
        [sys.executable, "-m", __name__, str(console)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdin and reader.stdout
    try:
        reader.stdout.readline()
        taken = seconds(work)
        time.sleep(_SETTLE_SECONDS)
        output, _ = reader.communicate()
    finally:
        if reader.poll() is None:
            reader.kill()
    ticks = talk.ask("tick-stop")
    talk.tick()
    return Gaps(taken, json.loads(output)["largest_ms"], ticks["largest_us"] / 1000)


def main() -> None:
    """Read the serial line at argv[1] until standard input is closed; print the largest gap."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    largest, before = 0.0, None
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(sys.argv[1])
        while True:
            ready, _, _ = select.select([line, sys.stdin], [], [])
            now = time.monotonic()
            if line in ready and line.recv(65536):
                if before is None:
                    print("reading", flush=True)
                else:
                    largest = max(largest, now - before)
                before = now
            if sys.stdin in ready:
                break
    print(json.dumps({"largest_ms": largest * 1000}))


if __name__ == "__main__":
    main()
