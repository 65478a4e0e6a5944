"""QEMU's monitor for synchronous callers: one event loop in one thread, a timeout on every call."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError, Runstate

from torpor.domain.errors import BackendFailed, TimedOut

T = TypeVar("T")
DEFAULT_TIMEOUT = 10.0
"""Seconds for commands that QEMU answers at once."""


class MonitorLost(BackendFailed):
    """The monitor's socket does not answer: QEMU ended, or has not begun to listen."""


class CommandFailed(BackendFailed):
    """QEMU answered a command with an error; `detail` is QEMU's own text."""


class Monitors:
    """Connections to monitors, kept open, made anew on demand. Thread-safe.

    A monitor serves one client at a time: within one process, share one of these.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._clients: dict[Path, QMPClient] = {}
        self._connecting: dict[Path, asyncio.Lock] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # a QEMU that ends is no news to log

    def execute(
        self,
        socket: Path,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        fd: int | None = None,
    ) -> Any:
        """The command's return value. `fd` is handed to QEMU with it.

        Raises MonitorLost, CommandFailed, TimedOut.
        """
        return self._run(self._execute(socket, command, arguments, fd, timeout))

    def execute_on_all(self, sockets: Sequence[Path], command: str, *, timeout: float) -> Mapping[Path, Any]:
        """The return values of those that answered in time."""
        return self._run(self._execute_on_all(sockets, command, timeout))

    def execute_at_once(
        self, sockets: Sequence[Path], command: str, event: str, *, timeout: float = DEFAULT_TIMEOUT
    ) -> Mapping[Path, float | BackendFailed]:
        """The command to all at the same time, and when each said by this event that it was carried out.

        Seconds since the epoch by QEMU's own clock, or what went wrong. All connections are made before.
        """
        return self._run(self._execute_at_once(sockets, command, event, timeout))

    def forget(self, socket: Path) -> None:
        """Close the connection, if there is one."""
        self._run(self._disconnect(socket))
        self._connecting.pop(socket, None)

    def close(self) -> None:
        """Close every connection and end the thread."""
        for socket in list(self._clients):
            self.forget(socket)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _execute(
        self, socket: Path, command: str, arguments: Mapping[str, object] | None, fd: int | None, timeout: float
    ) -> Any:
        async with self._explained(socket, command, timeout), asyncio.timeout(timeout):
            client = await self._client(socket)
            if fd is not None:
                client.send_fd_scm(fd)
            return await client.execute(command, arguments)

    @asynccontextmanager
    async def _explained(self, socket: Path, command: str, timeout: float) -> AsyncIterator[None]:
        try:
            yield
        except ExecuteError as error:
            raise CommandFailed(f"QEMU refused {command}", detail=str(error)) from error
        except TimeoutError as error:  # the connection stays: others may wait longer, and late answers are dropped
            raise TimedOut(f"QEMU did not answer {command} within {timeout:g} s") from error
        except (QMPError, OSError, EOFError) as error:
            await self._disconnect(socket)
            raise MonitorLost(f"QEMU's monitor was lost at {command}", detail=str(error)) from error

    async def _execute_on_all(self, sockets: Sequence[Path], command: str, timeout: float) -> Mapping[Path, Any]:
        answers = await asyncio.gather(
            *(self._execute(socket, command, None, None, timeout) for socket in sockets), return_exceptions=True
        )
        return {socket: a for socket, a in zip(sockets, answers, strict=True) if not isinstance(a, BaseException)}

    async def _execute_at_once(
        self, sockets: Sequence[Path], command: str, event: str, timeout: float
    ) -> Mapping[Path, float | BackendFailed]:
        await asyncio.gather(*(self._client(socket) for socket in sockets), return_exceptions=True)
        answers = await asyncio.gather(
            *(self._execute_and_hear(socket, command, event, timeout) for socket in sockets), return_exceptions=True
        )
        told: dict[Path, float | BackendFailed] = {}
        for socket, answer in zip(sockets, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, BackendFailed):
                raise answer
            told[socket] = answer
        return told

    async def _execute_and_hear(self, socket: Path, command: str, event: str, timeout: float) -> float:
        async with self._explained(socket, command, timeout), asyncio.timeout(timeout):
            client = await self._client(socket)
            with client.listener(event) as heard:
                await client.execute(command)
                return _moment(await heard.get())

    async def _client(self, socket: Path) -> QMPClient:
        async with self._connecting.setdefault(socket, asyncio.Lock()):
            client = self._clients.get(socket)
            if client is not None and client.runstate is Runstate.RUNNING:
                return client
            await self._disconnect(socket)
            client = QMPClient()
            try:
                await client.connect(str(socket))
            except ConnectError:
                raise
            except asyncio.CancelledError:
                await _quietly(client.disconnect())
                raise
            self._clients[socket] = client
            return client

    async def _disconnect(self, socket: Path) -> None:
        client = self._clients.pop(socket, None)
        if client is not None:
            await _quietly(client.disconnect())


def _moment(event: Mapping[str, Any]) -> float:
    """When QEMU sent it, seconds since the epoch."""
    stamp = event["timestamp"]
    return float(stamp["seconds"]) + float(stamp["microseconds"]) / 1e6


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """A connection that is given up may fail as it likes, but not hang us."""
    try:
        async with asyncio.timeout(1.0):
            await work
    except (QMPError, OSError, EOFError):
        return
