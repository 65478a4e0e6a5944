"""Servers as Nova tells of them, looked at all at once and kept for a moment."""

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torpor.adapters.openstack.cloud import Cloud, Document, Query
from torpor.adapters.openstack.metadata import INSTANCE, Said, mark_in
from torpor.domain.errors import BackendFailed, InstanceGone, MissingPart, NotFound, TimedOut
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import BackendState

_PAGE = 500
_STATES = {
    "ACTIVE": BackendState.RUNNING,
    "PAUSED": BackendState.PAUSED,
    "SHUTOFF": BackendState.SHUT_OFF,
    "SUSPENDED": BackendState.ABSENT,
    "ERROR": BackendState.ABSENT,
    "SHELVED": BackendState.SHUT_OFF,
    "SHELVED_OFFLOADED": BackendState.SHUT_OFF,
    "SOFT_DELETED": BackendState.ABSENT,
    "DELETED": BackendState.ABSENT,
}
_WITHOUT_PROCESS = ("SUSPENDED", "SHUTOFF", "ERROR", "SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED", "DELETED")
_POWERED = (1, 3)
"""Nova's power states RUNNING and PAUSED (nova/compute/power_state.py): there is a process."""
_LOCK_PREFIX = "torpor: "
_PROJECTS_SECONDS = 15.0
"""How old the list of projects that have let Torpor in may be."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that Torpor made, or that says something of Torpor in its metadata."""

    id: str
    name: str
    project: str
    status: str
    """As Nova calls it: ACTIVE, SUSPENDED, SHUTOFF, ERROR, ..."""
    power: int
    """What Nova last heard from its hypervisor: 1 runs, 3 is paused, 4 is shut down."""
    task: str
    """What Nova is doing to it; empty where it is at rest."""
    host: HostId | None
    domain: str
    """What its hypervisor calls it."""
    vcpus: int
    memory_mb: int
    disk_gb: int
    """What its flavor has Placement hold for it, where its root disk is not a volume."""
    flavor_specs: Mapping[str, str]
    metadata: Mapping[str, str]
    locked: bool
    lock_reason: str
    addresses: tuple[tuple[str, str], ...]
    """(MAC, IPv4 address) of its interfaces."""
    fault: str
    changed_at: str
    image_properties: Mapping[str, object]
    """Empty for one that boots from a volume."""
    made: bool
    """Whether Torpor made it. Its metadata alone do not say so, for owners write those."""

    @property
    def instance(self) -> InstanceId:
        """As the records know it."""
        return InstanceId(self.metadata[INSTANCE] if self.made else self.id)

    @property
    def said(self) -> Said:
        return mark_in(self.metadata)

    @property
    def ours(self) -> bool:
        """Whether it is to be looked after."""
        return self.made or self.said.mark is not None

    @property
    def state(self) -> BackendState:
        if self.task:
            return BackendState.LOADING
        if self.has_process and self.status == "ERROR":
            return BackendState.RUNNING  # something that Nova did to it failed, and it runs on
        return _STATES.get(self.status, BackendState.LOADING)

    @property
    def has_process(self) -> bool:
        if self.status == "ERROR":
            return bool(self.task) or self.power in _POWERED
        return bool(self.task) or self.status not in _WITHOUT_PROCESS

    @property
    def suspended(self) -> bool:
        return self.status == "SUSPENDED"

    @property
    def locked_by_us(self) -> bool:
        return self.locked and self.lock_reason.startswith(_LOCK_PREFIX)

    @property
    def stopped_by_us(self) -> bool:
        return self.status == "SHUTOFF" and self.made and self.locked_by_us


class Servers:
    """Thread-safe. What was seen is kept until somebody of ours acts, or for `look_seconds`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._listing = threading.Lock()
        self._lock = threading.Lock()
        self._listed_at = -math.inf
        self._forgotten_at = -math.inf
        self._seen: dict[str, tuple[float, Server]] = {}
        """By id, the newest server first, with the moment at which it was asked for."""
        self._acted_on: dict[str, float] = {}
        """Servers that were told to do something since they were looked at."""
        self._projects: tuple[float, tuple[str, ...]] = (-math.inf, ())
        self._images: dict[str, Mapping[str, object]] = {}

    def all(self) -> Sequence[Server]:
        """Every server of the projects that have let Torpor in, whatever it says of itself."""
        with self._listing:
            if not self._fresh():
                self._list()
            for id in tuple(self._acted_on):
                self.look_at(id)
            if not self._fresh():
                self._list()  # one of them is gone
            with self._lock:
                return tuple(server for _, server in self._seen.values())

    def forget(self) -> None:
        """Servers came or went: what was seen, or is being looked at, is old."""
        self._forgotten_at = time.monotonic()

    def find(self, instance: InstanceId) -> Server | None:
        """By what is known already, else looked at anew."""
        found = self._among(instance, self.all())
        if found is None:
            self.forget()
            found = self._among(instance, self.all())
        return found

    def fresh(self, instance: InstanceId) -> Server | None:
        """As it is right now. None where it is gone."""
        known = self.find(instance)
        return self.look_at(known.id) if known else None

    def require(self, instance: InstanceId) -> Server:
        """As it is right now. Raises InstanceGone."""
        found = self.fresh(instance)
        if found is None:
            raise InstanceGone(f"server {instance} is gone", remedy="run the workload anew, or delete it")
        return found

    def look_at(self, server_id: str) -> Server | None:
        asked = time.monotonic()
        try:
            answer = self.cloud.compute("GET", f"/servers/{server_id}", f"server {server_id} can't be looked at")
        except NotFound:
            self._acted_on.pop(server_id, None)
            self.forget()
            return None
        server = self._server(answer["server"])
        self._saw(server, asked)
        return server

    def act(self, server: Server, action: str, arguments: object = None, what: str = "") -> None:
        """POST an action of Nova's. Raises Conflict in a state in which Nova refuses it."""
        try:
            self.cloud.compute(
                "POST", f"/servers/{server.id}/action", what or f"server {server.name} can't be told to {action}",
                {action: arguments},
            )  # fmt: skip
        finally:
            self._acted_on[server.id] = time.monotonic()

    def await_status(self, server: Server, wanted: str, what: str) -> Server:
        """Wait until it has that status and is at rest; as it is then.

        Raises InstanceGone, TimedOut, and BackendFailed once it rests in another status.
        """
        deadline = time.monotonic() + self.cloud.settings.act_seconds
        while True:
            seen = self.look_at(server.id)
            if seen is None:
                raise InstanceGone(what, detail="somebody deleted it", remedy="delete the workload")
            if not seen.task and seen.status == wanted:
                return seen
            if not seen.task and seen.status != "BUILD":
                raise BackendFailed(what, detail=f"it is {seen.status}{': ' + seen.fault if seen.fault else ''}")
            if time.monotonic() > deadline:
                raise TimedOut(
                    what,
                    detail=f"it is {seen.status} ({seen.task}) after {self.cloud.settings.act_seconds:g} s",
                    remedy="see what nova-compute on its host is doing",
                )
            time.sleep(self.cloud.settings.poll_seconds)

    def runs(self, server: Server) -> bool:
        """Whether its hypervisor says so right now, whatever Nova thinks of it. Raises BackendFailed."""
        path = f"/servers/{server.id}/diagnostics"
        told = self.cloud.compute("GET", path, f"it can't be found out whether server {server.name} runs")
        return bool(told.get("state") == "running")

    def await_rest(self, server: Server) -> Server | None:
        """Wait until Nova does nothing to it; None where it is gone. Raises TimedOut."""
        deadline = time.monotonic() + self.cloud.settings.act_seconds
        while True:
            seen = self.look_at(server.id)
            if seen is None or (not seen.task and seen.status != "BUILD"):
                return seen
            if time.monotonic() > deadline:
                raise TimedOut(f"server {server.name} does not come to rest", detail=f"Nova is {seen.task}")
            time.sleep(self.cloud.settings.poll_seconds)

    def await_gone(self, server: Server, what: str) -> None:
        """Raises TimedOut."""
        deadline = time.monotonic() + self.cloud.settings.act_seconds
        while self.look_at(server.id) is not None:
            if time.monotonic() > deadline:
                raise TimedOut(what, detail=f"it is still there after {self.cloud.settings.act_seconds:g} s")
            time.sleep(self.cloud.settings.poll_seconds)

    def lock(self, server: Server, reason: str) -> None:
        """Keep its owner from changing it; a lock of somebody else's is left as it is. Converges.

        By the service account in its own project: an owner can take off a lock that was made in theirs.
        """
        if not server.locked:
            self.act(server, "lock", {"locked_reason": f"{_LOCK_PREFIX}{reason}"})
            self.look_at(server.id)

    def unlock(self, server: Server) -> None:
        """Take off our lock. Converges."""
        if server.locked_by_us:
            self.act(server, "unlock")
            self.look_at(server.id)

    # Parts of the above

    @staticmethod
    def _among(instance: InstanceId, servers: Sequence[Server]) -> Server | None:
        """The newest, should an earlier boot have left one."""
        return next((s for s in servers if s.instance == instance and s.ours), None)

    def _saw(self, server: Server, asked: float) -> None:
        """It replaces what was seen of the server before. One that is not listed yet stays so until the next list."""
        with self._lock:
            if self._acted_on.get(server.id, -math.inf) <= asked:
                self._acted_on.pop(server.id, None)
            if server.id in self._seen and self._seen[server.id][0] <= asked:
                self._seen[server.id] = (asked, server)

    def _fresh(self) -> bool:
        newest = max(self._forgotten_at, time.monotonic() - self.cloud.settings.look_seconds)
        return self._listed_at > newest

    def _list(self) -> None:
        asked = time.monotonic()
        listed = self._look()
        with self._lock:
            before = self._seen
            newer = {s.id: before[s.id] for s in listed if s.id in before and before[s.id][0] > asked}
            self._seen = {s.id: newer.get(s.id, (asked, s)) for s in listed}
            self._acted_on = {id: at for id, at in self._acted_on.items() if at > asked}
            self._listed_at = asked

    def _look(self) -> tuple[Server, ...]:
        asked_at, projects = self._projects
        if time.monotonic() - asked_at > _PROJECTS_SECONDS:
            projects = tuple(self.cloud.projects())
            self._projects = (time.monotonic(), projects)
        if not projects:
            return ()
        with ThreadPoolExecutor(min(8, len(projects)), thread_name_prefix="servers") as pool:
            return tuple(server for found in pool.map(self._of_project, projects) for server in found)

    def _of_project(self, project: str) -> list[Server]:
        return [self._server(each) for each in pages(self.cloud, {"all_tenants": 1, "project_id": project})]

    def _server(self, told: Document) -> Server:
        image = (told.get("image") or {}).get("id", "")
        properties = self._properties(told["tenant_id"], image) if image else {}
        return read_server(told, properties, self.cloud.own.current_user_id)

    def _properties(self, project: str, image: str) -> Mapping[str, object]:
        """Glance never changes what an image's servers were booted with; what can't be seen says nothing."""
        if image not in self._images:
            what = f"image {image} can't be looked at"
            try:
                self._images[image] = self.cloud.ask("image", "GET", f"/images/{image}", what, project=project)
            except NotFound:
                self._images[image] = {}
        return self._images[image]


def pages(cloud: Cloud, query: Query) -> Iterator[Document]:
    """Every server of that query, as Nova tells of it, however many there are."""
    marker: Query = {}
    while True:
        asked = {**query, **marker, "limit": _PAGE}
        page = cloud.compute("GET", "/servers/detail", "the servers can't be listed", query=asked)["servers"]
        yield from page
        if len(page) < _PAGE:
            return
        marker = {"marker": page[-1]["id"]}


def visible(cloud: Cloud) -> Sequence[Document]:
    """Every server that the account may see: everybody's where it is an administrator's, else its project's."""
    if cloud.everybodys:
        try:
            return list(pages(cloud, {"all_tenants": 1}))
        except MissingPart:
            cloud.everybodys = False
    return list(pages(cloud, {}))


def read_server(told: Document, image_properties: Mapping[str, object], own_user: str | None) -> Server:
    """Of Nova's document of a server, microversion 2.90 (api-ref, "Show Server Details")."""
    flavor, metadata = told["flavor"], told.get("metadata") or {}
    host = told.get("OS-EXT-SRV-ATTR:hypervisor_hostname")
    root = 0 if _on_volume(told) else int(flavor["disk"])
    return Server(
        id=told["id"],
        name=told["name"],
        project=told["tenant_id"],
        status=told["status"],
        power=int(told.get("OS-EXT-STS:power_state") or 0),
        task=told.get("OS-EXT-STS:task_state") or "",
        host=HostId(host) if host else None,
        domain=told.get("OS-EXT-SRV-ATTR:instance_name") or "",
        vcpus=int(flavor["vcpus"]),
        memory_mb=int(flavor["ram"]),
        disk_gb=root + int(flavor.get("ephemeral") or 0) + -(-int(flavor.get("swap") or 0) // 1024),
        flavor_specs=flavor.get("extra_specs") or {},
        metadata=metadata,
        locked=bool(told.get("locked")),
        lock_reason=told.get("locked_reason") or "",
        addresses=tuple(
            (entry["OS-EXT-IPS-MAC:mac_addr"], entry["addr"])
            for entries in told.get("addresses", {}).values()
            for entry in entries
            if entry["version"] == 4 and entry.get("OS-EXT-IPS:type") == "fixed"
        ),
        fault=" ".join(str((told.get("fault") or {}).get("message", "")).split())[:300],
        changed_at=told.get("updated") or "",
        image_properties=image_properties,
        made=INSTANCE in metadata and told["user_id"] == own_user,
    )


def _on_volume(told: Document) -> bool:
    return not told.get("image")
