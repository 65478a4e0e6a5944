"""Talking to the small test guest: one line in, one line of JSON out, on TCP port 7000."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

PORT = 7000
ECHO_PORT = 7
Connect = Callable[[str, int, float], socket.socket]
"""To an address and port, within so many seconds. Raises OSError."""


class GuestSilent(Exception):
    """The guest did not answer; the message is a clause."""


def from_here(address: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=timeout)


class Guests:
    """All that can be reached by `connect`."""

    def __init__(self, connect: Connect = from_here) -> None:
        self.connect = connect

    def ask(self, address: str, command: str, timeout: float = 240.0) -> dict[str, Any]:
        """Raises GuestSilent also when the guest answers that it could not do it."""
        try:
            with self.connect(address, PORT, timeout) as connection:
                connection.sendall(command.encode() + b"\n")
                with connection.makefile("r", encoding="utf-8") as lines:
                    line = lines.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise GuestSilent(f"{address} did not answer {command.split()[0]!r}: {error}") from error
        if "error" in answer:
            raise GuestSilent(f"{address} could not {command!r}: {answer['error']}")
        return answer

    def wait_for(self, address: str, patience: float) -> dict[str, Any]:
        """The guest's first status, as soon as there is one. Raises GuestSilent."""
        give_up = time.monotonic() + patience
        while True:
            try:
                return self.ask(address, "status", timeout=5.0)
            except GuestSilent:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
