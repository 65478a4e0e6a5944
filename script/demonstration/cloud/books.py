"""Placement's books, looked at all the while, as the cloud's administrator."""

import math
import threading
from collections.abc import Callable

from keystoneauth1.exceptions import ClientException
from openstack.connection import Connection
from openstack.exceptions import SDKException

from demonstration.cloud.findings import Amounts, CloudFindings

INTERVAL = 1.0
"""Seconds between two looks at the books; at the processes it is looked twice as often."""
SHOWN = ("VCPU", "MEMORY_MB", "DISK_GB")


class Books:
    """Of one host. Looks in a thread of its own, until it is closed."""

    def __init__(self, admin: Connection, host: str, guests: Callable[[], int], found: CloudFindings) -> None:
        self._placement = admin.placement
        self._provider = next(iter(self._placement.resource_providers(name=host))).id
        self._guests = guests
        self._found = found
        self._step = "at the beginning"
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._again, args=(look, pause), name=look.__name__, daemon=True)
            for look, pause in ((self._look, INTERVAL), (self._count, INTERVAL / 2))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def during(self, step: str) -> None:
        """What is seen from now on was seen during this step."""
        self._step = f"during {step!r}"

    def booked(self) -> tuple[Amounts, Amounts]:
        """What is booked, and what there is."""
        path = f"/resource_providers/{self._provider}"
        used: dict[str, int] = self._placement.get(f"{path}/usages").json()["usages"]
        inventories = self._placement.get(f"{path}/inventories").json()["inventories"]
        capacity = {
            kind: math.floor((each["total"] - each["reserved"]) * each["allocation_ratio"])
            for kind, each in inventories.items()
        }
        with self._lock:
            self._found.see(used, capacity, self._step)
        return used, capacity

    def line(self) -> str:
        """For people; and kept for the document."""
        used, capacity = self.booked()
        return "Placement: " + ", ".join(f"{kind} {used.get(kind, 0)} of {capacity.get(kind, 0)}" for kind in SHOWN)

    # --- the threads ---

    def _again(self, look: Callable[[], object], pause: float) -> None:
        while not self._stopped.wait(pause):
            try:
                look()
            except (SDKException, ClientException, KeyError, ValueError):
                continue  # an API that did not answer this time

    def _look(self) -> None:
        self.booked()

    def _count(self) -> None:
        self._found.guests_at_most = max(self._found.guests_at_most, self._guests())
