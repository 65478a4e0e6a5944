"""How many questions a name server answers while it knows thousands of names: dnsperf asks, on loopback."""

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.publishers import ZONE, Published
from torpor.domain.naming import NameRecord

ROUNDS = 3
_SENT = re.compile(r"Queries sent:\s+(\d+)")
_COMPLETED = re.compile(r"Queries completed:\s+(\d+)")
_LOST = re.compile(r"Queries lost:\s+(\d+)")
_ANSWERED = re.compile(r"Response codes:.*?\bNOERROR (\d+)")
_RATE = re.compile(r"Queries per second:\s+([\d.]+)")
_LATENCY = re.compile(r"Average Latency \(s\):\s+([\d.]+) \(min [\d.]+, max ([\d.]+)\)")


@dataclass(frozen=True)
class Load:
    """What one run of dnsperf tells."""

    rate: float
    """Questions answered a second."""
    lost: float
    """Per cent of those that were asked."""
    wrong: float
    """Per cent of the answers that tell of an error, or that there is no such name."""
    average: float
    """Milliseconds."""
    longest: float
    """Milliseconds."""


@dataclass
class Loads:
    still: list[Load] = field(default_factory=list)
    """While no name changes."""
    busy: list[Load] = field(default_factory=list)
    """While one name comes and goes without a pause."""
    changes: list[float] = field(default_factory=list)
    """How often it came or went meanwhile, a second."""


def measure(there: Published, asked: Sequence[str], other: NameRecord, seconds: int) -> Loads:
    """Runs of so many seconds, of both kinds in turn; `asked`: labels that are there, `other` changes beside them."""
    loads = Loads()
    with tempfile.NamedTemporaryFile("w", prefix="torpor-bench-", suffix=".questions") as questions:
        questions.writelines(f"{name}.{ZONE} A\n" for name in asked)
        questions.flush()
        for _ in range(ROUNDS):
            loads.still.append(_run(there, Path(questions.name), seconds))
            with _changing(there, other, loads.changes):
                loads.busy.append(_run(there, Path(questions.name), seconds))
    return loads


def read(text: str) -> Load:
    """What dnsperf prints at its end. Raises ValueError where that is something else."""
    found = [pattern.search(text) for pattern in (_SENT, _COMPLETED, _LOST, _RATE, _LATENCY)]
    sent, completed, lost, rate, latency = found
    if not (sent and completed and lost and rate and latency):
        raise ValueError(f"dnsperf prints no statistics: {text[-500:]}")
    right = _ANSWERED.search(text)
    wrong = int(completed[1]) - (int(right[1]) if right else 0)
    return Load(
        rate=float(rate[1]),
        lost=100 * int(lost[1]) / max(1, int(sent[1])),
        wrong=100 * wrong / max(1, int(completed[1])),
        average=1000 * float(latency[1]),
        longest=1000 * float(latency[2]),
    )


def _run(there: Published, questions: Path, seconds: int) -> Load:
    """The file's questions again and again, a hundred under way at any time. Raises RuntimeError."""
    command = ["dnsperf", "-s", there.server, "-p", str(there.port), "-d", str(questions), "-l", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return read(done.stdout)


@contextmanager
def _changing(there: Published, record: NameRecord, rates: list[float]) -> Iterator[None]:
    """It is published and withdrawn all the time; afterwards `rates` has how often a second."""
    stop = threading.Event()
    rounds = 0
    failures: list[Exception] = []

    def change() -> None:
        nonlocal rounds
        try:
            while not stop.is_set():
                there.names.publish([record])
                there.names.withdraw([record.name])
                rounds += 1
        except Exception as error:
            failures.append(error)

    began = time.perf_counter()
    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
    rates.append(2 * rounds / (time.perf_counter() - began))
