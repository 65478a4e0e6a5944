"""Waiting until a workload is where it was sent to."""

import math
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from torpor.cli.client import Client, Document, segment
from torpor.cli.problems import INTERRUPTED, Reported, error_of
from torpor.cli.progress import Display, describe, display
from torpor.cli.session import Session
from torpor.domain.errors import Conflict, DaemonUnreachable, NotFound, TorporError

INTERVAL = 0.2
"""Seconds between two looks."""
PATIENCE = 30.0
"""Seconds that the daemon may be away (it may be restarting) before waiting is given up."""
HINT_SECONDS = 3.0
"""How long a workload may wait for room before it is said that nobody need wait with it."""
Arrived = Callable[[Document], bool]


def active(workload: Document) -> bool:
    """It runs, or has run to its end."""
    return workload["state"] in ("active", "done")


def interrupted(sentence: str) -> Reported:
    """Somebody pressed Ctrl-C; only the waiting has ended."""
    return Reported(sentence + ".", INTERRUPTED)


def fetch(client: Client, name: str) -> Document | None:
    """The workload, None when it is gone. A daemon that is away is waited for."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return client.get(f"/v1/workloads/{segment(name, 'workload')}")
        except NotFound:
            return None
        except DaemonUnreachable:
            if time.monotonic() > give_up:
                raise
            time.sleep(INTERVAL)


def operation_ids(client: Client, name: str) -> Set[str]:
    """Operations of the workload that are known now."""
    return {operation["id"] for operation in _operations(client, name)}


def _operations(client: Client, name: str) -> list[Document]:
    try:
        operations: list[Document] = client.get("/v1/operations", limit=200)["operations"]
    except DaemonUnreachable:
        return []
    return [operation for operation in operations if operation["workload"] == name]


class Wait:
    """Waits for one workload; `known` are the operations that were there before."""

    def __init__(self, session: Session, name: str, known: Set[str] = frozenset()) -> None:
        self._session = session
        self._name = name
        self._known = set(known)
        self._looked = 0.0
        self._undone: TorporError | None = None

    def until(self, arrived: Arrived, quiet: bool = False, give_up_when_undone: bool = False) -> Document:
        """Return the workload once it has `arrived`.

        Raises the problem of a workload that failed, and with `give_up_when_undone` that of an operation
        that was undone; else such a one is told of, for the daemon tries again.
        """
        hint_at = time.monotonic() + HINT_SECONDS
        with self._shown(quiet, "goes on") as shown:
            while True:
                workload = fetch(self._session.daemon, self._name)
                if workload is None:
                    raise Conflict(f"workload {self._name} was deleted while it was waited for")
                if arrived(workload):
                    return workload
                self._raise_end(workload)
                self._look_for_failure(workload, shown, give_up_when_undone)
                shown.show(*describe(workload))
                if workload["operation"] is None and workload["waiting_for"] and time.monotonic() > hint_at:
                    shown.note(f"{self._name} goes on by itself as soon as it can; Ctrl-C ends only this waiting")
                    hint_at = math.inf
                time.sleep(INTERVAL)

    def until_gone(self, quiet: bool = False) -> None:
        """Return once there is no such workload. Raises the problem of a deletion that was undone."""
        with self._shown(quiet, "goes on being deleted") as shown:
            while (workload := fetch(self._session.daemon, self._name)) is not None:
                self._look_for_failure(workload, shown, give_up_when_undone=True)
                shown.show(*describe(workload))
                time.sleep(INTERVAL)

    @contextmanager
    def _shown(self, quiet: bool, goes_on: str) -> Iterator[Display]:
        try:
            with display(self._session.err, quiet) as shown:
                yield shown
        except KeyboardInterrupt as error:
            raise interrupted(f"no longer waiting; {self._name} {goes_on} (see `torpor show {self._name}`)") from error

    def _raise_end(self, workload: Document) -> None:
        """A workload that is at rest where it can't leave without help will not arrive any more."""
        if workload["operation"] is not None:
            return
        if self._undone is not None and workload["state"] == "suspended" and workload["held"]:
            raise self._undone
        if workload["state"] == "failed":
            raise error_of(workload["problem"] or {"what": f"workload {self._name} failed"})
        if workload["state"] == "done":
            raise Conflict(f"workload {self._name} has ended", detail=workload["reason"])

    def _look_for_failure(self, workload: Document, shown: Display, give_up_when_undone: bool) -> None:
        if workload["operation"] is not None or time.monotonic() - self._looked < 1.0:
            return
        self._looked = time.monotonic()
        for operation in _operations(self._session.daemon, self._name):
            if operation["id"] not in self._known and operation["status"] == "undone":
                self._known.add(operation["id"])
                error = error_of(operation["problem"] or {"what": f"{operation['kind']} of {self._name} was undone"})
                self._undone = error
                now = fetch(self._session.daemon, self._name) or workload  # it may have been seen before the operation
                if give_up_when_undone or now["held"]:
                    raise error
                shown.note(f"{operation['kind']} of {self._name} was undone: {error}")
