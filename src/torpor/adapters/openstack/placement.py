"""Placement: what hosts have, and who holds what of them.

Source of the formats: the Placement API reference, microversion 1.28 (a consumer's allocations carry its generation),
and 1.38 from where on they carry the consumer's type, too.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.domain.capacity import Resources
from torpor.domain.errors import BackendFailed, Conflict, MissingPart, NoCapacity
from torpor.domain.ids import HostId

WITH_GENERATION = (1, 28)
WITH_TYPE = (1, 38)
_TRIES = 6
_AT_ONCE = 8
_TYPE = "INSTANCE"
_CONCURRENT = ("concurrent", "generation conflict", "another process", "generation")
CPUS = ("VCPU", "PCPU")
DISK = "DISK_GB"
GIB_MB = 1024
Amounts = Mapping[str, int]
"""By resource class: VCPU, PCPU, MEMORY_MB, DISK_GB, ..."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A compute host, as Placement has it. Amounts are what can be held: (total - reserved) x allocation ratio."""

    id: str
    name: HostId
    capacity: Amounts
    used: Amounts
    held: Mapping[str, Amounts]
    """What each consumer holds of it."""


@dataclass(frozen=True, slots=True)
class Allocations:
    """What one consumer holds; `generation` None: nobody has heard of it yet."""

    consumer: str
    by_provider: Mapping[str, Amounts]
    generation: int | None
    project: str
    user: str
    type: str = _TYPE

    def on(self, provider: str, amounts: Amounts) -> "Allocations":
        """The same with just these on that provider."""
        left = {cls: amount for cls, amount in amounts.items() if amount > 0}
        others = {p: held for p, held in self.by_provider.items() if p != provider}
        return replace(self, by_provider={**others, provider: left} if left else others)


class Placement:
    """As the service account. Thread-safe."""

    def __init__(self, cloud: Cloud, newest: tuple[int, int] = WITH_TYPE) -> None:
        """`newest`: the microversion that is spoken where Placement offers it."""
        self._cloud = cloud
        self._newest = newest
        self._version: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._seen: tuple[float, tuple[Provider, ...]] | None = None
        self._ids: dict[HostId, str] = {}

    def providers(self) -> Sequence[Provider]:
        """Every provider that offers vCPUs, or those that the configuration names, by name.

        What was seen is kept until we write, or for `look_seconds`.
        """
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen[0] > self._cloud.settings.look_seconds:
                self._seen = (time.monotonic(), self._look())
            return self._seen[1]

    def provider_id(self, host: HostId) -> str:
        """Raises NoCapacity for a host that there is not (any more)."""
        if host not in self._ids:
            self.providers()
        if host in self._ids:
            return self._ids[host]
        raise NoCapacity(f"host {host} is not in Placement", remedy="see `torpor hosts`")

    def allocations(self, consumer: str) -> Allocations:
        answer = self._ask("GET", f"/allocations/{consumer}", "a claim can't be looked at")
        held = {provider: each["resources"] for provider, each in answer["allocations"].items()}
        if not held:
            return Allocations(consumer, {}, None, "", "")
        type = answer.get("consumer_type") or _TYPE
        return Allocations(
            consumer, held, answer["consumer_generation"], answer["project_id"], answer["user_id"],
            type if type.isupper() else _TYPE,
        )  # fmt: skip

    def write(self, wanted: Sequence[Allocations]) -> None:
        """All of them in one transaction. A consumer that holds nothing then is gone.

        Raises NoCapacity where a host has not got it, Conflict where one of them was changed meanwhile.
        """
        changed = [each for each in wanted if each.by_provider or each.generation is not None]
        body = {each.consumer: self._document(each) for each in changed}
        if not body:
            return
        try:
            self._ask("POST", "/allocations", "the books can't be written", body)
        except Conflict as error:
            if any(word in error.detail.lower() for word in _CONCURRENT):
                raise
            raise NoCapacity(
                "there is no room for it", detail=error.detail, remedy="wait, free some, or ask for less"
            ) from error
        finally:
            with self._lock:
                self._seen = None

    def version(self) -> tuple[int, int]:
        """The microversion that is spoken: the newest of the two whose forms are known. Raises MissingPart."""
        if self._version is None:
            answer = self._cloud.ask("placement", "GET", "/", "Placement does not answer")
            offered = tuple(int(n) for n in str(answer["versions"][0]["max_version"]).split("."))
            if offered < WITH_GENERATION:
                raise MissingPart(
                    "this Placement is too old",
                    detail=f"it speaks {'.'.join(map(str, offered))}, and 1.28 is needed",
                    remedy="use Rocky or later",
                )
            self._version = self._newest if offered >= self._newest else WITH_GENERATION
        return self._version

    # Parts of the above

    def _look(self) -> tuple[Provider, ...]:
        hosts = self._cloud.settings.hosts
        listed = self._ask("GET", "/resource_providers", "the hosts can't be listed")["resource_providers"]
        wanted = [each for each in listed if not hosts or each["name"] in hosts]
        if not wanted:
            return ()
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted)), thread_name_prefix="books") as pool:
            found = pool.map(lambda each: self._provider(each["uuid"], HostId(each["name"])), wanted)
            able = [provider for provider in found if any(provider.capacity.get(cls) for cls in CPUS)]
        self._ids = {provider.name: provider.id for provider in able}
        return tuple(sorted(able, key=lambda provider: provider.name))

    def _provider(self, id: str, name: HostId) -> Provider:
        path, what = f"/resource_providers/{id}", f"host {name} can't be looked at"
        inventories = self._ask("GET", f"{path}/inventories", what)
        usages = self._ask("GET", f"{path}/usages", what)
        allocations = self._ask("GET", f"{path}/allocations", what)["allocations"]
        held = {consumer: each["resources"] for consumer, each in allocations.items()}
        capacity = {
            cls: math.floor((each["total"] - each["reserved"]) * each["allocation_ratio"])
            for cls, each in inventories["inventories"].items()
        }
        return Provider(id, name, capacity, usages["usages"], held)

    def _document(self, wanted: Allocations) -> Document:
        own = self._cloud.own
        document: Document = {
            "allocations": {p: {"resources": dict(held)} for p, held in wanted.by_provider.items()},
            "consumer_generation": wanted.generation,
            "project_id": wanted.project or own.current_project_id,
            "user_id": wanted.user or own.current_user_id,
        }
        if self.version() >= WITH_TYPE:
            document["consumer_type"] = wanted.type
        return document

    def _ask(self, method: str, path: str, what: str, body: Document | None = None) -> Document:
        version = ".".join(map(str, self.version()))
        return self._cloud.ask("placement", method, path, what, body, version)


def retried(act: Callable[[], None]) -> None:
    """Again, as long as others change the same claims meanwhile. Raises BackendFailed when that does not end."""
    for _ in range(_TRIES):
        try:
            return act()
        except Conflict:
            continue
    raise BackendFailed("the books can't be written", detail="others change the same claims all the time")


def resources(amounts: Amounts) -> Resources:
    """In the units of the books."""
    return Resources(
        sum(amounts.get(cls, 0) for cls in CPUS), amounts.get("MEMORY_MB", 0), amounts.get(DISK, 0) * GIB_MB
    )
