"""Asking one name server what it answers, as its clients would; many names in a few round trips."""

import socket
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

import dns.exception
import dns.message
import dns.rdatatype

from torpor.domain.naming import NameRecord


class Question(NamedTuple):
    """What a client asks for: an absolute name, and A or AAAA."""

    name: str
    kind: dns.rdatatype.RdataType


Answers = Mapping[Question, tuple[str, ...]]
"""Addresses by question; none where the server says that there are none."""

_IN_FLIGHT = 64
"""Questions at once: so many that their answers fit into a socket's buffer."""
_QUERY_SECONDS = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def wanted_of(record: NameRecord, zone: str) -> Answers:
    """What a server that knows the record answers; nothing for the kind of address that the record has not got."""
    name = f"{record.name}.{zone}."
    return {
        Question(name, dns.rdatatype.A): (record.address,) if record.address else (),
        Question(name, dns.rdatatype.AAAA): (record.address6,) if record.address6 else (),
    }


def ask(server: str, port: int, questions: Iterable[Question]) -> Answers:
    """What `server` answers to each of these; a question that it is silent on is left out."""
    answers: dict[Question, tuple[str, ...]] = {}
    waiting = iter(questions)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        try:
            line.connect((server, port))
            while batch := tuple(islice(waiting, _IN_FLIGHT)):
                heard = _ask_batch(line, batch)
                answers.update(heard)
                if not heard:
                    break  # nobody there: the others would be waited for in vain
        except OSError:
            return answers
    return answers


def _ask_batch(line: socket.socket, questions: tuple[Question, ...]) -> Answers:
    asked: dict[int, Question] = {}
    for number, question in enumerate(questions):
        query = dns.message.make_query(question.name, question.kind, id=number)
        line.send(query.to_wire())
        asked[number] = question
    answers: dict[Question, tuple[str, ...]] = {}
    deadline = time.monotonic() + _QUERY_SECONDS
    while asked and (left := deadline - time.monotonic()) > 0:
        line.settimeout(left)
        try:
            answer = dns.message.from_wire(line.recv(4096))
        except TimeoutError:
            break
        except dns.exception.DNSException:
            continue
        # An answer that is late belongs to an earlier batch, whose numbers were the same.
        said = Question(str(answer.question[0].name), answer.question[0].rdtype) if answer.question else None
        if said is not None and asked.get(answer.id) == said:
            answers[asked.pop(answer.id)] = tuple(
                str(data) for found in answer.answer if found.rdtype == said.kind for data in found
            )
    return answers


def unheard(server: str, port: int, wanted: Answers, patience: float) -> Answers:
    """Wait until `server` answers as `wanted`, asking often at first, then less so.

    Returns what it still answers otherwise when nothing has changed for the better for `patience` seconds.
    """
    left, pause, deadline = wanted, _FIRST_PAUSE, time.monotonic() + patience
    while True:
        heard = ask(server, port, left)
        still = {question: addresses for question, addresses in left.items() if heard.get(question) != addresses}
        if len(still) < len(left):
            pause, deadline = _FIRST_PAUSE, time.monotonic() + patience
        left = still
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
