"""Talking to the agent inside a guest over its unix socket.

QEMU lets one client at a time at that socket, so a conversation connects, asks and closes. It
begins with a sync: a guest that slept or booted in between may still owe somebody an answer,
and a question is only put to an agent that was just heard, lest it be acted on much later.
"""

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from torpor.domain.errors import AgentRefused, AgentSilent
from torpor.domain.ids import InstanceId

_DELIMITER = b"\xff"
_LONGEST_ANSWER = 64 * 2**20
"""The agent hands out at most 16 MiB of output of either kind, base64 on top."""

_IN_LINE_SECONDS = 0.1
"""Between two tries to be let in."""


class _TurnedAway(AgentSilent):
    """The line was full, or it was dropped with the client before us: the next try may be let in.

    QEMU keeps one client waiting besides the one that it serves, and turns a third away at once.
    """


class SocketConversation:
    """An agent that was just heard. Not thread-safe."""

    def __init__(self, connection: socket.socket, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._buffer = bytearray()

    def ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """The command's `return` value. Raises AgentRefused, AgentSilent."""
        deadline = time.monotonic() + timeout
        self._send({"execute": command, **({"arguments": arguments} if arguments else {})}, b"", deadline)
        try:
            answer = self._line(deadline)
        except ValueError as error:
            raise _silent(self._path, "its answer can't be read") from error
        if "error" in answer:
            refusal = answer["error"]
            raise AgentRefused(
                f"the guest agent refused {command}",
                detail=str(refusal.get("desc", "") if isinstance(refusal, dict) else refusal)[:500],
                remedy="see that the guest's agent is recent and that the command is not switched off there",
            )
        return answer.get("return")

    def sync(self, deadline: float) -> None:
        """Throw away what is owed to others, until the agent repeats a number of ours."""
        number = secrets.randbelow(2**31)
        question: dict[str, object] = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(question, _DELIMITER, deadline)
        while True:
            while _DELIMITER not in self._buffer:
                self._buffer.clear()
                self._receive(deadline)
            del self._buffer[: self._buffer.index(_DELIMITER) + 1]
            try:
                if self._line(deadline).get("return") == number:
                    return
            except ValueError:
                continue  # the rest of somebody else's answer

    def _send(self, message: dict[str, object], prefix: bytes, deadline: float) -> None:
        with self._in_time(deadline):
            self._connection.sendall(prefix + json.dumps(message).encode() + b"\n")

    def _line(self, deadline: float) -> dict[str, Any]:
        """The next JSON object. Raises ValueError: what a guest sends need not be one."""
        end = self._buffer.find(b"\n")
        while end < 0:
            seen = len(self._buffer)
            self._receive(deadline)
            end = self._buffer.find(b"\n", seen)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            answer = json.loads(line)
        except RecursionError as error:
            raise ValueError("the agent's answer is nested too deep") from error
        if not isinstance(answer, dict):
            raise ValueError("the agent's answer is no object")
        return answer

    def _receive(self, deadline: float) -> None:
        with self._in_time(deadline):
            received = self._connection.recv(65536)
        if not received:
            raise _silent(self._path, "the connection was closed", _TurnedAway)
        if len(self._buffer) > _LONGEST_ANSWER:
            raise _silent(self._path, "its answer has no end")
        self._buffer += received

    @contextmanager
    def _in_time(self, deadline: float) -> Iterator[None]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _silent(self._path, "no answer in time")
        self._connection.settimeout(left)
        try:
            yield
        except TimeoutError as error:
            raise _silent(self._path, "no answer in time") from error
        except OSError as error:
            raise _silent(self._path, error.strerror or str(error), _TurnedAway) from error


def over_socket(
    agent_socket: Callable[[InstanceId], Path], sync_seconds: float = 3.0
) -> Callable[[InstanceId], AbstractContextManager[SocketConversation]]:
    """Conversations with agents, each at a unix socket of its own."""
    return lambda instance: conversation(agent_socket(instance), sync_seconds)


@contextmanager
def conversation(path: Path, timeout: float) -> Iterator[SocketConversation]:
    """Connect to the agent at `path` and sync within `timeout` seconds. Raises AgentSilent."""
    deadline = time.monotonic() + timeout
    knock = Retrying(
        retry=retry_if_exception_type(_TurnedAway),
        wait=wait_fixed(_IN_LINE_SECONDS),
        stop=stop_before_delay(timeout),
        reraise=True,
    )
    with knock(_begin, path, deadline) as connection:
        yield SocketConversation(connection, path)


def _begin(path: Path, deadline: float) -> socket.socket:
    """A connection to an agent that was just heard. Raises AgentSilent; _TurnedAway where another try may be let in."""
    with ExitStack() as undo:
        connection = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.settimeout(max(deadline - time.monotonic(), _IN_LINE_SECONDS))
        try:
            connection.connect(str(path))
        except BlockingIOError as error:
            raise _silent(path, "others are talking with it", _TurnedAway) from error
        except OSError as error:
            raise _silent(path, error.strerror or str(error)) from error
        SocketConversation(connection, path).sync(deadline)
        undo.pop_all()
        return connection


def _silent(path: Path, why: str, kind: type[AgentSilent] = AgentSilent) -> AgentSilent:
    return kind(
        "the guest agent does not answer",
        detail=f"{why} ({path})",
        remedy="have qemu-guest-agent running in the guest, or wait until it has booted",
    )
