"""How soon names answer: after a workload was accepted, and when there are thousands of them."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

from tests.api import Api
from tests.installation import installation
from tests.name_latency import run_and_ask, wait_for_answer

from benchmark.samples import Measurement
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.domain.naming import NameRecord

ZONE, SERVER, PORT = "bench.internal", "127.0.0.53", 5353
SUBNET = IPv4Network("10.96.0.0/16")
NUMBER = 44


def measure(runs: int, published: int) -> Measurement:
    """`runs` samples of each; `published` names are there beside the one that changes."""
    measurement = Measurement("names", {"runs": runs, "names published": published})
    _acceptance(measurement, runs)
    _updates(measurement, runs, published)
    return measurement


def _acceptance(measurement: Measurement, runs: int) -> None:
    """The first workload boots, the others wait for room: a name does not."""
    with installation(number=NUMBER, memory_mb=192) as torpor, Api(torpor.socket) as api:
        latencies = [
            run_and_ask(api, {"name": f"bench-{n}", "image": "tiny", "memory_mb": 128}, torpor.gateway, torpor.zone)
            for n in range(runs)
        ]
    measurement.add("request to its acceptance", "ms", [1000 * each.accepted for each in latencies])
    measurement.add("acceptance to the name's answer", "ms", [1000 * each.answering for each in latencies])


def _updates(measurement: Measurement, runs: int, published: int) -> None:
    came, went = time_updates(runs, published)
    measurement.add(f"a name comes, beside {published}", "ms", came)
    measurement.add(f"a name goes, beside {published}", "ms", went)


def time_updates(runs: int, published: int) -> tuple[list[float], list[float]]:
    """Milliseconds until the name server knows of a name that comes, and of one that goes, `runs` of each."""
    came, went = [], []
    with _server() as names:
        names.publish([NameRecord(f"n-{n}", str(SUBNET[n + 2])) for n in range(published)])
        for n in range(runs):
            record = NameRecord(f"new-{n}", str(SUBNET[published + n + 2]))
            came.append(_until(partial(names.publish, [record]), record.name, record.address))
            went.append(_until(partial(names.withdraw, [record.name]), record.name, None))
    return came, went


def _until(change: Callable[[], None], name: str, address: str | None) -> float:
    """Milliseconds from the beginning of the change to the server's first answer that knows of it."""
    began = time.perf_counter()
    change()
    wait_for_answer(SERVER, PORT, f"{name}.{ZONE}", address)
    return 1000 * (time.perf_counter() - began)


@contextmanager
def _server() -> Iterator[DnsmasqNames]:
    """A name server of the benchmark's own, on the loopback interface."""
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        Path(folder).chmod(0o755)  # the server reads as a user of its own
        names = DnsmasqNames(DnsmasqSettings(Path(folder) / "names", SERVER, ZONE, SUBNET, port=PORT))
        try:
            names.ensure()
            yield names
        finally:
            names.stop()
