"""The daemon: one process that owns the engine, and serves the API on a unix socket.

Its end leaves VMs, name server and network as they are, unless it was asked to take the
network down. The order of start: lock, engine (which recovers first), then the API, so that
whoever gets an answer speaks to a daemon that is ready.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from torpor.api.app import create_app
from torpor.api.streaming import Streams
from torpor.config import Config
from torpor.domain.errors import Conflict, Invalid, MissingPart, TorporError
from torpor.domain.instance import BackendState
from torpor.domain.workload import WorkloadState
from torpor.engine.service import Service
from torpor.lock import locked

log = logging.getLogger(__name__)

RUNNING = frozenset({WorkloadState.ACTIVE, WorkloadState.SUSPENDING, WorkloadState.RESUMING, WorkloadState.DELETING})
LONGEST_SOCKET_PATH = 107
"""Bytes; the kernel's limit for the path of a unix socket."""


class App(Protocol):
    """What wiring builds."""

    @property
    def service(self) -> Service: ...

    def start(self) -> None:
        """Recover what a crash left, then begin to act."""
        ...

    def stop(self) -> None:
        """Come to rest: finish or leave resumable what is under way."""
        ...

    def remove_network(self) -> None:
        """End the name server and remove bridge, taps and namespace. Converges."""
        ...


Build = Callable[[Config], App]


def serve(config: Config, build: Build) -> None:
    """Run the daemon until it is told to stop. Raises MissingPart, Conflict, Invalid."""
    with locked(config.state_dir), _bound(config.socket) as listener:
        app = build(config)
        daemon = _Daemon(app, config.digest)
        with signals(daemon.wake):
            app.start()
            try:
                _serve_until_stopped(listener, daemon)
            finally:
                app.stop()
                if daemon.network:
                    _remove_network(app)
    log.info("stopped")


def take_down(config: Config, build: Build) -> None:
    """Remove what a daemon that is no more has left: name server and network. Raises Conflict while VMs run."""
    with locked(config.state_dir):
        app = build(config)
        _refuse_while_busy(app.service)
        app.remove_network()


class _Daemon:
    """The lifecycle that the API offers."""

    def __init__(self, app: App, configuration: str) -> None:
        self.started_at = time.time()
        self.configuration = configuration
        self.service = app.service
        self.network = False
        self._stopping = threading.Event()

    def stop(self, network: bool) -> None:
        if network:
            _refuse_while_busy(self.service)
        self.network = network
        self.wake()

    def wake(self) -> None:
        self._stopping.set()

    def wait(self, server: threading.Thread) -> None:
        """Until somebody asks for the end, or `server` has ended by itself."""
        while not self._stopping.wait(0.5):
            if not server.is_alive():
                raise MissingPart("the API server ended by itself", remedy="look at the daemon's log")


def _running(service: Service) -> list[str]:
    """Names of workloads that have, or may be about to have, a VM with a process."""
    return [
        view.workload.name
        for view in service.workloads()
        if not view.workload.adopted  # its VMs are on networks of their own, and stay as they are
        and (
            view.workload.state in RUNNING
            or any(instance.backend_state is not BackendState.ABSENT for instance in view.instances)
        )
    ]


def _refuse_while_busy(service: Service) -> None:
    if making := service.images_in_the_making():
        raise Conflict(
            "Torpor is not taken down",
            detail=f"image {', '.join(making)} is being made",
            remedy="wait for it, then try again",
        )
    names = _running(service)
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise Conflict(
            "Torpor is not taken down",
            detail=f"workloads run on its network: {shown}",
            remedy="use `torpor down --suspend`, or delete them",
        )


def _remove_network(app: App) -> None:
    try:
        # Asked for when nothing ran; a workload may have begun between that answer and the stop.
        _refuse_while_busy(app.service)
        app.remove_network()
    except TorporError as error:
        log.warning("network left as it is: %s", error)


@contextlib.contextmanager
def signals(wake: Callable[[], None]) -> Iterator[None]:
    def handler(number: int, frame: FrameType | None) -> None:
        wake()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket that root alone may connect to, not listening yet; its file is the last thing to go.

    One that a dead daemon left is replaced: we hold the lock, so it is dead.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise Invalid(
            f"socket path {path} is too long",
            detail=f"the kernel allows {LONGEST_SOCKET_PATH} bytes",
            remedy="set `run_dir` to a shorter one",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise MissingPart(
            f"socket {path} can't be made", detail=error.strerror or str(error), remedy="check `run_dir`"
        ) from error
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _serve_until_stopped(listener: socket.socket, daemon: _Daemon) -> None:
    streams = Streams()
    server = _server(create_app(daemon.service, daemon, streams))
    # Not in the main thread: there uvicorn would put its own signal handlers in the place of ours.
    thread = threading.Thread(target=server.run, args=([listener],), name="api", daemon=True)
    thread.start()
    log.info("serving %s", listener.getsockname())
    try:
        daemon.wait(thread)
    finally:
        streams.end()
        server.should_exit = True
        thread.join(timeout=10)


def _server(api: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            api,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )
