"""Somebody of another project who wants the room as well, and asks for it again and again."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.connection import Connection
from openstack.exceptions import SDKException

from demonstration.cloud.findings import CloudFindings

NAME = "torpor-demo-rival"
_AT_ONCE = 2
"""Boots that are under way at the same moment."""
_HOLD = 300.0
"""Seconds for which it keeps what it has won, unless it is asked to let go."""
_REST = 90.0
"""Seconds for which it asks for nothing afterwards: others are to have a turn."""
_POLL = 0.5


class Rival:
    """Boots until it is stopped, each time a server of this kind."""

    def __init__(self, cloud: Connection, server: Mapping[str, Any], found: CloudFindings) -> None:
        self._compute = cloud.compute
        self._server = dict(server)
        self._found = found
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._holding = 0
        self._asked_to_go = threading.Event()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._boot_again, args=(number,), name=f"{NAME}-{number}", daemon=True)
            for number in range(_AT_ONCE)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_room(self) -> bool:
        """A server of its runs."""
        return self._holding > 0

    def let_go(self) -> None:
        """It gives back what it has, rests, and then goes on."""
        self._rests_until = time.monotonic() + _REST
        self._asked_to_go.set()

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()
            self._asked_to_go.set()
        for thread in self._threads:
            thread.join()

    def _boot_again(self, number: int) -> None:
        while not self._stopped.is_set():
            self._stopped.wait(max(0.0, self._rests_until - time.monotonic()))
            try:
                self._boot(f"{NAME}-{number}")
            except (SDKException, ClientException):
                self._stopped.wait(2.0)  # an API that did not answer this time

    def _boot(self, name: str) -> None:
        made = self._compute.create_server(name=name, **self._server)
        with self._lock:
            self._found.attempts += 1
        try:
            while (status := self._compute.get_server(made).status) not in ("ACTIVE", "ERROR"):
                time.sleep(_POLL)
            if status == "ACTIVE":
                self._hold()
        finally:
            self._compute.delete_server(made)
            self._compute.wait_for_delete(made, interval=1, wait=300)

    def _hold(self) -> None:
        with self._lock:
            self._found.wins += 1
            self._holding += 1
            if not self._stopped.is_set():
                self._asked_to_go.clear()
        self._asked_to_go.wait(_HOLD)
        with self._lock:
            self._holding -= 1
