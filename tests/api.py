"""A daemon's API on one connection: a look costs milliseconds, where the command line costs a process."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import httpx
from tests.installation import wait_until

Document = dict[str, Any]
POLL_SECONDS = 0.05


class Api:
    """Answers as plain documents; an answer that is an error raises httpx.HTTPStatusError."""

    def __init__(self, socket: Path, timeout: float = 300.0) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for every look
        transport = httpx.HTTPTransport(uds=str(socket))
        self._client = httpx.Client(transport=transport, base_url="http://torpor/v1", timeout=timeout)

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | int) -> Document:
        return cast(Document, self._client.get(path, params=parameters).raise_for_status().json())

    def post(self, path: str, body: Mapping[str, Any] | None = None, **parameters: str | int) -> Document:
        return cast(Document, self._client.post(path, json=body, params=parameters).raise_for_status().json())

    def delete(self, path: str) -> Document:
        return cast(Document, self._client.delete(path).raise_for_status().json())

    def workload(self, name: str) -> Document | None:
        """None when there is no such workload."""
        answer = self._client.get(f"/workloads/{name}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()

    def wait_at_rest(self, name: str, state: str, seconds: float) -> Document:
        """Until the workload is in this state and no operation is changing it; fails at once when it failed."""
        give_up = time.monotonic() + seconds
        while True:
            # To look at a workload is to look at its processes: that would slow down what is waited for.
            if not self._changing(name):
                found = self.get(f"/workloads/{name}")
                if found["state"] == state and found["operation"] is None:
                    return found
                assert found["state"] != "failed", f"{name} failed: {found['problem']}"
            assert time.monotonic() < give_up, f"{name} is not {state} after {seconds:.0f} s: {self.workload(name)}"
            time.sleep(POLL_SECONDS)

    def _changing(self, name: str) -> bool:
        operations = self.get("/operations", limit=5)["operations"]
        return any(o["workload"] == name and o["ended_at"] is None for o in operations)

    def wait_gone(self, name: str, seconds: float) -> None:
        wait_until(lambda: self.workload(name) is None, seconds, f"{name} is gone")

    def last_operation(self, name: str, kind: str) -> Document:
        """The newest operation of this kind on the workload."""
        operations: Sequence[Document] = self.get("/operations", limit=50)["operations"]
        return next(o for o in operations if o["workload"] == name and o["kind"] == kind)


def seconds_of(operation: Document) -> float:
    """From the operation's beginning to its end."""
    return float(operation["ended_at"] - operation["created_at"])


def step_seconds(operation: Document, *kinds: str) -> float:
    """What the steps of these kinds took together."""
    return sum(float(s["ended_at"] - s["started_at"]) for s in operation["steps"] if s["kind"] in kinds)
