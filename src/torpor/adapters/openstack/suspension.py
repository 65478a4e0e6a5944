"""Saved states as Nova keeps them: implements the `Suspension` port.

Nova has one state of a server at most, on its host, and tells nothing of the file; it is there as long as the server is
SUSPENDED, and used up by the resume. So there is nothing to write here, and little to lose.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from torpor.adapters.openstack.cloud import Document
from torpor.adapters.openstack.hypervisor import SUSPENDED
from torpor.adapters.openstack.servers import Server, Servers
from torpor.domain.errors import Conflict, InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, Mechanism, SavedState, StateStatus
from torpor.ports import Progress

_MIB = 1 << 20


class NovaSuspension:
    """Thread-safe."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str, bool], SavedState | None] = {}

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        """`Hypervisor.pause` has done it. Raises Conflict for a server that was not paused."""
        server = self._servers.find(spec.id)
        if server is None or server.status not in ("SUSPENDED", "ACTIVE", "PAUSED"):
            raise InstanceGone(
                f"server {spec.name} can't be saved",
                detail=f"it is {server.status if server else 'gone'}",
                remedy="run the workload anew, or delete it",
            )
        state = self._state(server) if server.suspended else None
        if state is None:
            seen = f"it is {server.status}"
            raise Conflict(f"server {spec.name} can't be saved", detail=seen, remedy="pause it first")
        progress(state.stored_bytes, state.stored_bytes)
        return state

    def release(self, instance: InstanceId) -> None:
        """Have it locked, where somebody unlocked it meanwhile."""
        server = self._servers.find(instance)
        if server is None or (not server.has_process and not server.suspended):
            return
        if not server.suspended:
            raise Conflict(
                f"server {server.name} can't be released", detail=f"it is {server.status}", remedy="suspend it first"
            )
        self._servers.lock(server, SUSPENDED)

    def restore(self, spec: InstanceSpec, progress: Progress) -> None:
        """Only looked at: Nova can't have it back in memory without letting it run."""
        server = self._servers.find(spec.id)
        if server is None:
            raise InstanceGone(f"server {spec.name} is gone", remedy="delete the workload, or run it anew")
        if server.status == "ACTIVE" and self._state(server) is not None:
            return  # its owner, or an administrator, was first
        if not server.suspended:
            raise Conflict(
                f"server {spec.name} can't be resumed",
                detail=f"it is {server.status}",
                remedy="bring it to rest, or start it as its owner",
            )
        progress(1, 1)

    def spend(self, instance: InstanceId) -> None:
        """The resume does that. Raises Conflict where there is no state."""
        server = self._servers.find(instance)
        if server is None or self._state(server) is None:
            raise Conflict(f"instance {instance} has no saved state", remedy="save it first")

    def revert(self, instance: InstanceId) -> None:
        """A server that was not resumed yet is as it was. Raises Conflict for one that runs."""
        server = self._servers.fresh(instance)
        if server is None or not server.suspended:
            raise Conflict(
                f"instance {instance} can't be taken back to its saved state",
                detail=f"it is {server.status if server else 'gone'}: Nova keeps no older contents of its disk",
                remedy="let it run on",
            )

    def drop(self, instance: InstanceId) -> None:
        """Of a server that runs, Nova has none. Raises Conflict for a suspended one."""
        server = self._servers.fresh(instance)
        if server is not None and server.suspended:
            raise Conflict(
                f"the saved state of instance {instance} is not dropped",
                detail="the server has no process, so nothing else is left of its memory",
                remedy="restore it instead",
            )

    def settle(self, instance: InstanceId) -> None:
        """There are no older ones."""

    def states(self, instance: InstanceId) -> Sequence[SavedState]:
        server = self._servers.find(instance)
        found = self._state(server) if server else None
        return [found] if found else []

    # Parts of the above

    def _state(self, server: Server) -> SavedState | None:
        """The newest: whole while the server is suspended; its number is how often the server was suspended."""
        key = (server.id, server.changed_at, server.status, server.locked_by_us)
        with self._lock:
            if key in self._known:
                return self._known[key]
        found = self._look(server)
        with self._lock:
            self._known = {k: s for k, s in self._known.items() if k[0] != server.id}
            if not server.task:
                self._known[key] = found
        return found

    def _look(self, server: Server) -> SavedState | None:
        path = f"/servers/{server.id}/os-instance-actions"
        listed = self._servers.cloud.compute("GET", path, f"what was done to {server.name} can't be looked at")
        done = [each for each in listed["instanceActions"] if each["action"] not in ("lock", "unlock")]
        done.sort(key=lambda each: str(each["start_time"]), reverse=True)
        suspends = [each for each in done if each["action"] == "suspend" and not _failed(each)]
        since = done[: done.index(suspends[0])] if suspends else []
        used = any(each["action"] == "resume" and not _failed(each) for each in since)
        # Nova could not resume it: it is in error then, and what was saved is there still.
        left = (
            server.status == "ERROR"
            and not server.has_process
            and bool(since)
            and all(each["action"] == "resume" and _failed(each) for each in since)
        )
        whole = server.suspended or left
        if not whole and not used:
            return None  # never suspended; or it was rebooted or rebuilt instead, and what it had in memory is lost
        room = server.memory_mb * _MIB if whole else 0
        return SavedState(
            server.instance,
            max(1, len(suspends)),
            Mechanism.STREAM,
            StateStatus.WHOLE if whole else StateStatus.SPENT,
            _seconds(suspends[0]["start_time"] if suspends else server.changed_at),
            room,
            room,
            ours=server.locked_by_us,
        )


def _failed(action: Document) -> bool:
    return bool(action["message"] == "Error")


def _seconds(text: str) -> float:
    """Nova writes UTC, with or without saying so."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
