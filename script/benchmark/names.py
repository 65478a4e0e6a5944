"""How soon names answer: after a workload was accepted, and when there are thousands of them."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.api import Api
from tests.installation import installation
from tests.name_latency import run_and_ask, wait_for_answer

from benchmark.publishers import SUBNET, ZONE, Published, filled
from benchmark.samples import Measurement
from torpor.domain.naming import NameRecord

NUMBER = 44


def measure(runs: int, published: int, places: Sequence[str], acceptance: bool) -> Measurement:
    """`runs` samples of each; `published` names are there beside the one that changes."""
    measurement = Measurement("names", {"runs": runs, "names published": published})
    if acceptance:
        _acceptance(measurement, runs)
    for place in places:
        _updates(measurement, runs, published, place)
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


def _updates(measurement: Measurement, runs: int, published: int, place: str) -> None:
    """`ours`: processor time of this process; the rest is the disk, the server, and others on this machine."""
    with filled(place, published) as there:
        came, went, ours = _time(there, runs, published)
    measurement.add(f"{place}: a name comes, beside {published}", "ms", came)
    measurement.add(f"{place}: a name goes, beside {published}", "ms", went)
    measurement.add(f"{place}: of that, ours", "ms", ours)


def time_updates(runs: int, published: int) -> tuple[list[float], list[float]]:
    """Milliseconds until our own dnsmasq knows of a name that comes, and of one that goes, `runs` of each."""
    with filled("dnsmasq", published) as there:
        came, went, _ = _time(there, runs, published)
    return came, went


def _time(there: Published, runs: int, published: int) -> tuple[list[float], list[float], list[float]]:
    came: list[float] = []
    went: list[float] = []
    ours: list[float] = []
    for n in range(runs):
        record = NameRecord(f"new-{n}", str(SUBNET[published + n + 2]))
        for change, address, samples in (
            (partial(there.names.publish, [record]), record.address, came),
            (partial(there.names.withdraw, [record.name]), None, went),
        ):
            began = time.process_time()
            samples.append(_until(there, change, record.name, address))
            ours.append(1000 * (time.process_time() - began))
    return came, went, ours


def _until(there: Published, change: Callable[[], None], name: str, address: str | None) -> float:
    """Milliseconds from the beginning of the change to the server's first answer that knows of it."""
    began = time.perf_counter()
    change()
    wait_for_answer(there.server, there.port, f"{name}.{ZONE}", address)
    return 1000 * (time.perf_counter() - began)
