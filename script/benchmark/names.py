"""How soon names answer, after acceptance and beside thousands of others; and how many questions are answered."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.api import Api
from tests.installation import installation
from tests.name_latency import run_and_ask, wait_for_answer

from benchmark import resolver_load
from benchmark.publishers import SUBNET, ZONE, Published, filled
from benchmark.resolver_load import Load, Loads
from benchmark.samples import Measurement
from torpor.domain.naming import NameRecord

NUMBER = 44


def measure(runs: int, published: int, places: Sequence[str], acceptance: bool, load_seconds: int) -> Measurement:
    """`runs` samples of each; `published` names are there beside the one that changes.

    The servers are asked for them under load, `load_seconds` a run; 0: they are not.
    """
    settings = {"runs": runs, "names published": published, "seconds of load a run": load_seconds}
    measurement = Measurement("names", settings)
    if acceptance:
        _acceptance(measurement, runs)
    for place in places:
        _updates(measurement, runs, published, place, load_seconds)
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


def _updates(measurement: Measurement, runs: int, published: int, place: str, load_seconds: int) -> None:
    """`ours`: processor time of this process; the rest is the disk, the server, and others on this machine."""
    with filled(place, published) as there:
        came, went, ours = _time(there, runs, published)
        loads = _load(there, published, load_seconds) if load_seconds else Loads()
    measurement.add(f"{place}: a name comes, beside {published}", "ms", came)
    measurement.add(f"{place}: a name goes, beside {published}", "ms", went)
    measurement.add(f"{place}: of that, ours", "ms", ours)
    _add_load(measurement, f"{place}, still", loads.still)
    _add_load(measurement, f"{place}, changing", loads.busy)
    if loads.changes:
        measurement.add(f"{place}, changing: changes", "1/s", loads.changes)


def _load(there: Published, published: int, seconds: int) -> Loads:
    record = NameRecord("comes-and-goes", str(SUBNET[published + 2]))
    return resolver_load.measure(there, [f"n-{n}" for n in range(published)], record, seconds)


def _add_load(measurement: Measurement, when: str, loads: Sequence[Load]) -> None:
    if loads:
        measurement.add(f"{when}: answered", "1/s", [load.rate for load in loads])
        measurement.add(f"{when}: lost", "%", [load.lost for load in loads])
        measurement.add(f"{when}: wrong", "%", [load.wrong for load in loads])
        measurement.add(f"{when}: latency", "ms", [load.average for load in loads])
        measurement.add(f"{when}: longest", "ms", [load.longest for load in loads])


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
