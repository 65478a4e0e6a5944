"""Starting services, and knowing when they are ready."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lab.openstack.clouds import API_FAILURES
from lab.openstack.failure import LabFailed
from lab.openstack.namespaces import Cell
from lab.openstack.services import Listens, Reports, Service, Socket
from openstack.connection import Connection

_PATIENCE_SECONDS = 600.0
"""On a busy machine with two cores, and everything started at once."""


class Running:
    """The services as they are in these namespaces. `admin` is asked only for services that report to others."""

    def __init__(self, cell: Cell, admin: Callable[[], Connection]) -> None:
        self._cell = cell
        self._admin = admin
        self._started: dict[str, datetime] = {}

    def start(self, services: Sequence[Service]) -> None:
        """Start those that do not run."""
        for service in services:
            if self._cell.pid(service.name) is None:
                self._started[service.name] = datetime.now(UTC).replace(microsecond=0)
                self._cell.spawn(service.name, service.command, service.environment)

    def wait(self, services: Sequence[Service]) -> None:
        """Until all of them are ready. Raises LabFailed when one ends, or takes too long."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        waiting = list(services)
        while waiting := [service for service in waiting if not self.ready(service)]:
            for service in waiting:
                if self._cell.pid(service.name) is None:
                    raise LabFailed(f"{service.name} has ended\n{self._last_words(service)}")
            if time.monotonic() > give_up:
                raise LabFailed(f"{waiting[0].name} does not get ready\n{self._last_words(waiting[0])}")
            time.sleep(0.25 if isinstance(waiting[0].ready, Listens | Socket) else 1.0)

    def ready(self, service: Service) -> bool:
        match service.ready:
            case Listens(port):
                return self._cell.listens(port)
            case Socket(path):
                return self._cell.seen(path).exists()
            case Reports(to, program):
                heard = self._heard(to, program)
                return heard is not None and heard >= self._started.get(service.name, heard)

    def _heard(self, to: str, program: str) -> datetime | None:
        """When it last reported, as far as whom it reports to thinks that it is alive."""
        admin = self._admin()
        try:
            if to == "compute":
                times = [s.updated_at for s in admin.compute.services(binary=program) if s.state == "up"]
            else:
                times = [a.last_heartbeat_at for a in admin.network.agents(binary=program) if a.is_alive]
        except API_FAILURES:  # an API that is up may still be without what it needs itself
            return None
        return max((datetime.fromisoformat(text).replace(tzinfo=UTC) for text in times if text), default=None)

    def _last_words(self, service: Service) -> str:
        log = self._cell.seen("/var/log/lab", f"{service.name}.log")
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""
