"""Asking one name server what it answers, as its clients would; many names in a few round trips."""

import socket
import time
from collections.abc import Iterable, Mapping
from itertools import islice

import dns.exception
import dns.message
import dns.rdatatype

Answers = Mapping[str, tuple[str, ...]]
"""IPv4 addresses by name; none where the server says that there are none."""

_IN_FLIGHT = 64
"""Questions at once: so many that their answers fit into a socket's buffer."""
_QUERY_SECONDS = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def ask(server: str, port: int, names: Iterable[str]) -> Answers:
    """What `server` answers for each of these absolute names; a name that it is silent on is left out."""
    answers: dict[str, tuple[str, ...]] = {}
    waiting = iter(names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as questions:
        try:
            questions.connect((server, port))
            while batch := tuple(islice(waiting, _IN_FLIGHT)):
                heard = _ask_batch(questions, batch)
                answers.update(heard)
                if not heard:
                    break  # nobody there: the others would be waited for in vain
        except OSError:
            return answers
    return answers


def _ask_batch(questions: socket.socket, names: tuple[str, ...]) -> Answers:
    asked: dict[int, str] = {}
    for number, name in enumerate(names):
        query = dns.message.make_query(name, dns.rdatatype.A, id=number)
        questions.send(query.to_wire())
        asked[number] = name
    answers: dict[str, tuple[str, ...]] = {}
    deadline = time.monotonic() + _QUERY_SECONDS
    while asked and (left := deadline - time.monotonic()) > 0:
        questions.settimeout(left)
        try:
            answer = dns.message.from_wire(questions.recv(4096))
        except TimeoutError:
            break
        except dns.exception.DNSException:
            continue
        # An answer that is late belongs to an earlier batch, whose numbers were the same.
        if asked.get(answer.id) == (str(answer.question[0].name) if answer.question else ""):
            answers[asked.pop(answer.id)] = tuple(
                str(data) for found in answer.answer if found.rdtype == dns.rdatatype.A for data in found
            )
    return answers


def unheard(server: str, port: int, wanted: Answers, patience: float) -> Answers:
    """Wait until `server` answers as `wanted`, asking often at first, then less so.

    Returns what it still answers otherwise when nothing has changed for the better for `patience` seconds.
    """
    left, pause, deadline = wanted, _FIRST_PAUSE, time.monotonic() + patience
    while True:
        heard = ask(server, port, left)
        still = {name: addresses for name, addresses in left.items() if heard.get(name) != addresses}
        if len(still) < len(left):
            pause, deadline = _FIRST_PAUSE, time.monotonic() + patience
        left = still
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
