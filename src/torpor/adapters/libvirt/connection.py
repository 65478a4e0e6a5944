"""The connections to libvirt: opened when they are first needed, opened again when they were lost."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import libvirt

from torpor.adapters.libvirt.failures import is_code, translated, unreachable
from torpor.domain.errors import BackendFailed, InstanceGone, MissingPart
from torpor.domain.ids import InstanceId

log = logging.getLogger(__name__)

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_MISSED = 6
_RESTART_SECONDS = 15.0
"""How long a daemon that was there may take to come back before it counts as not there."""
_KNOCK_SECONDS = 0.2

Listener = Callable[[], None]


class _EventLoop:
    """libvirt's own event loop, one a process, in a thread that ends with it.

    Without it neither events nor keepalive work. It must be there before the first connection is opened.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = False

    def ensure(self) -> None:
        with self._lock:
            if self._running:
                return
            libvirt.registerErrorHandler(_say_nothing, None)  # otherwise every error is printed to stderr, too
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=self._run, name="libvirt-events", daemon=True).start()
            self._running = True

    @staticmethod
    def _run() -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError as error:
                log.warning("libvirt's event loop: %s", error)
                time.sleep(1.0)


_EVENTS = _EventLoop()


class Connection:
    """A connection for each thread that asks, and one that listens. libvirt's objects hold on to theirs.

    Threads do not share one: libvirt's client (seen with 9.0) crashes the program when a connection breaks on which
    several threads wait. So what `find` and `call` give is for the thread that asked for it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.RLock()
        self._own = threading.local()
        self._ears: libvirt.virConnect | None = None
        self._events: list[int] = []
        self._was_there = False
        self._listeners: list[Listener] = []

    @contextmanager
    def call(self, what: str) -> Iterator[libvirt.virConnect]:
        """A live connection; what fails inside is raised as a TorporError with `what` as its first words.

        `what` says what does not happen then: "domain x can't be paused". Domains that `find` gave may be used inside.
        Raises MissingPart when libvirt can't be reached, ConnectionLost when it goes away meanwhile.
        """
        host = self._live()
        with translated(what):
            yield host

    def find(self, instance: InstanceId) -> libvirt.virDomain | None:
        """The domain with this UUID, if there is one, running or not."""
        with self.call(f"domain {instance} can't be looked up") as host:
            try:
                return host.lookupByUUIDString(instance)
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    return None
                raise

    def look_up(self, instance: InstanceId) -> libvirt.virDomain:
        """As `find`, to be used within `call`, which words what it raises. Raises libvirtError, MissingPart."""
        return self._live().lookupByUUIDString(instance)

    def require(self, instance: InstanceId) -> libvirt.virDomain:
        """Raises InstanceGone."""
        domain = self.find(instance)
        if domain is None:
            raise InstanceGone(
                f"instance {instance} is gone", detail="libvirt has no such domain", remedy="run it anew, or delete it"
            )
        return domain

    def on_change(self, listener: Listener) -> None:
        """Have it called whenever any domain begins, ends, pauses, is defined, undefined or marked, and when the
        connection was lost or made anew: anything may have happened meanwhile.

        It is called in libvirt's thread: it must return at once and must not call libvirt.
        """
        with self._lock:
            self._listeners.append(listener)

    def close(self) -> None:
        """Domains that somebody still holds keep their socket open, but nobody is told of changes any more."""
        with self._lock:
            ears, self._ears = self._ears, None
            self._own = threading.local()
            self._was_there = False
        if ears is None:
            return
        with suppress(libvirt.libvirtError):
            ears.unregisterCloseCallback()
            for event in self._events:
                ears.domainEventDeregisterAny(event)
            ears.close()

    # Parts of the above

    def _live(self) -> libvirt.virConnect:
        """This thread's. Raises MissingPart."""
        own: libvirt.virConnect | None = getattr(self._own, "host", None)
        if own and own.isAlive() and self._ears and self._ears.isAlive():
            return own
        with self._lock:
            first = not self._was_there
            if not (own and own.isAlive()):
                own = self._own.host = self._connect()
            deaf = not (self._ears and self._ears.isAlive())
            if deaf:
                self._ears = self._listening(self._connect())
            self._was_there = True
        if deaf and not first:
            self._tell()
        return own

    def _connect(self) -> libvirt.virConnect:
        """Raises MissingPart: at once where nobody ever was there, otherwise after a while; the next call then has
        no patience."""
        _EVENTS.ensure()
        deadline = time.monotonic() + (_RESTART_SECONDS if self._was_there else 0.0)
        while True:
            try:
                host = libvirt.open(self.uri)
                host.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_MISSED)
            except libvirt.libvirtError as error:
                if time.monotonic() >= deadline:
                    self._was_there = False
                    raise unreachable(self.uri, error) from error
                time.sleep(_KNOCK_SECONDS)
            else:
                return host

    def _listening(self, host: libvirt.virConnect) -> libvirt.virConnect:
        """Raises ConnectionLost."""
        with translated("libvirt can't be listened to"):
            host.registerCloseCallback(self._lost, None)
            kinds = (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE)
            self._events = [host.domainEventRegisterAny(None, kind, self._changed, None) for kind in kinds]
        return host

    def _changed(self, *_: object) -> None:
        self._tell()

    def _lost(self, host: libvirt.virConnect, reason: int, _: object) -> None:
        log.warning("the connection to libvirt at %s was lost", self.uri)
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def reachable(connection: Connection) -> bool:
    """Whether libvirt answers now."""
    try:
        with connection.call("libvirt does not answer") as host:
            host.getLibVersion()
    except (MissingPart, BackendFailed):
        return False
    return True


def _say_nothing(_: object, __: object) -> None:
    """libvirt's own printing of errors: they are raised as well."""
