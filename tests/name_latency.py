"""How soon a name answers: asked in a tight loop, without pauses of a resolver's own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode
from tests.api import Api

_GIVE_UP_SECONDS = 30.0


@dataclass(frozen=True)
class Latency:
    """Seconds."""

    accepted: float
    """From the request to the answer that it is accepted."""
    answering: float
    """From that answer to the first right answer of the name server."""


def run_and_ask(api: Api, body: dict[str, Any], server: str, zone: str) -> Latency:
    """Run a workload of one instance and wait for its name. Raises TimeoutError."""
    asked = time.perf_counter()
    accepted = api.post("/workloads", body)
    answered = time.perf_counter()
    instance = accepted["workload"]["instances"][0]
    wait_for_answer(server, 53, f"{instance['name']}.{zone}", instance["address"])
    return Latency(answered - asked, time.perf_counter() - answered)


def wait_for_answer(server: str, port: int, name: str, address: str | None) -> None:
    """Until the server gives this address, or (None) says that there is no such name. Raises TimeoutError."""
    give_up = time.perf_counter() + _GIVE_UP_SECONDS
    query = dns.message.make_query(name, "A")
    while time.perf_counter() < give_up:
        try:
            answer = dns.query.udp(query, server, port=port, timeout=1.0)
        except dns.exception.Timeout:
            continue
        found = [record.to_text() for records in answer.answer for record in records]
        if found == [address] or (address is None and answer.rcode() == dns.rcode.NXDOMAIN):
            return
    raise TimeoutError(f"{name} did not become {address} within {_GIVE_UP_SECONDS:.0f} s")
