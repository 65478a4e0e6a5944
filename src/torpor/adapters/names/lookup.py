"""Asking one name server what it answers, as its clients would."""

import time
from collections.abc import Callable

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

_QUERY_SECONDS = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def ask(server: str, port: int, fqdn: str) -> tuple[str, ...] | None:
    """IPv4 addresses that `server` has for `fqdn` (none: it says there are none); None when nobody answers."""
    query = dns.message.make_query(fqdn, dns.rdatatype.A)
    try:
        answer = dns.query.udp(query, server, port=port, timeout=_QUERY_SECONDS)
    except (dns.exception.DNSException, OSError):
        return None
    return tuple(str(data) for found in answer.answer if found.rdtype == dns.rdatatype.A for data in found)


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Ask again until `holds`, soon at first, then less often; False when `seconds` have passed."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return True
