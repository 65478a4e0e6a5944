"""What Nova tells of servers, and what is made of it: pure functions, on documents as the lab's Nova writes them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from requests import Response

from torpor.adapters.openstack.cloud import Cloud, failure_of, words_of
from torpor.adapters.openstack.metadata import mark_in, written
from torpor.adapters.openstack.obstacles import obstacle
from torpor.adapters.openstack.servers import Servers, read_server
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.domain.adoption import Mark
from torpor.domain.errors import BackendFailed, Conflict, MissingPart, NotFound, Refused
from torpor.domain.instance import BackendState

MAC = "fa:16:3e:00:00:01"


def _entry(address: str, version: int, kind: str) -> dict[str, object]:
    return {"OS-EXT-IPS-MAC:mac_addr": MAC, "addr": address, "version": version, "OS-EXT-IPS:type": kind}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "id": "7c1c",
        "name": "web",
        "tenant_id": "demo",
        "user_id": "ann",
        "status": "ACTIVE",
        "OS-EXT-STS:task_state": None,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": "node1",
        "flavor": {"vcpus": 2, "ram": 512, "disk": 4, "ephemeral": 1, "swap": 512, "extra_specs": {}},
        "image": {"id": "1234"},
        "metadata": {},
        "locked": False,
        "locked_reason": None,
        "addresses": {
            "n1": [
                _entry("10.0.0.5", 4, "fixed"),
                _entry("fd00::5", 6, "fixed"),
                _entry("192.0.2.7", 4, "floating"),
            ]
        },
        "updated": "2026-01-01T00:00:00Z",
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "task", "state", "process"),
    [
        ("ACTIVE", None, BackendState.RUNNING, True),
        ("ACTIVE", "suspending", BackendState.LOADING, True),
        ("SUSPENDED", None, BackendState.ABSENT, False),
        ("SUSPENDED", "resuming", BackendState.LOADING, True),
        ("PAUSED", None, BackendState.PAUSED, True),
        ("SHUTOFF", None, BackendState.SHUT_OFF, False),
        ("SHELVED_OFFLOADED", None, BackendState.SHUT_OFF, False),
        ("ERROR", None, BackendState.ABSENT, False),
        ("BUILD", "spawning", BackendState.LOADING, True),
    ],
)
def test_a_status_says_whether_there_is_a_process(
    status: str, task: str | None, state: BackendState, process: bool
) -> None:
    seen = read_server(document(status=status, **{"OS-EXT-STS:task_state": task}), {}, "torpor")
    assert (seen.state, seen.has_process) == (state, process)


@pytest.mark.parametrize(("power", "state"), [(1, BackendState.RUNNING), (3, BackendState.RUNNING)])
def test_what_is_in_error_and_runs_all_the_same_has_a_process(power: int, state: BackendState) -> None:
    """Nova could not suspend it, for want of room say."""
    seen = read_server(document(status="ERROR", **{"OS-EXT-STS:power_state": power}), {}, "torpor")
    assert (seen.state, seen.has_process) == (state, True)
    gone = read_server(document(status="ERROR", **{"OS-EXT-STS:power_state": 4}), {}, "torpor")
    assert (gone.state, gone.has_process) == (BackendState.ABSENT, False)


def test_sizes_are_what_placement_holds_for_it() -> None:
    seen = read_server(document(), {}, "torpor")
    assert (seen.vcpus, seen.memory_mb, seen.disk_gb, seen.host) == (2, 512, 4 + 1 + 1, "node1")
    assert read_server(document(image=""), {}, "torpor").disk_gb == 1 + 1, "its root is a volume"


def test_only_fixed_ipv4_addresses_are_its_own() -> None:
    assert read_server(document(), {}, "torpor").addresses == ((MAC, "10.0.0.5"),)


def test_a_lock_is_ours_by_its_reason() -> None:
    ours = document(status="SUSPENDED", locked=True, locked_reason="torpor: suspended to make room")
    assert read_server(ours, {}, "torpor").locked_by_us
    assert not read_server({**ours, "locked_reason": "do not touch"}, {}, "torpor").locked_by_us


def test_what_an_owner_writes_into_metadata_makes_no_server_ours_to_delete() -> None:
    claimed = document(metadata={"torpor:instance": "somebody-elses"})
    assert not read_server(claimed, {}, "torpor").made
    assert read_server(claimed, {}, "torpor").instance == "7c1c"
    assert read_server({**claimed, "user_id": "torpor"}, {}, "torpor").made


def test_a_mark_reads_as_it_was_written() -> None:
    for mark in (Mark("batch", -3, True, False), Mark("kept", 7, False, True)):
        assert mark_in(written(mark)).mark == mark
    assert mark_in({}).mark is None


@pytest.mark.parametrize(("key", "value"), [("torpor:priority", "high"), ("torpor:preemptible", "maybe")])
def test_what_can_not_be_understood_is_no_mark_and_says_why(key: str, value: str) -> None:
    said = mark_in({"torpor:workload": "batch", key: value})
    assert said.mark is None
    assert value in said.defect


@pytest.mark.parametrize(
    ("specs", "properties", "why"),
    [
        ({"hw:cpu_policy": "dedicated"}, {}, "pinned"),
        ({}, {"hw_cpu_policy": "dedicated"}, "pinned"),
        ({"hw:numa_nodes": "2"}, {}, "NUMA"),
        ({"pci_passthrough:alias": "gpu:1"}, {}, "PCI"),
        ({"hw:mem_encryption": "true"}, {}, "SEV"),
        ({"hw:tpm_version": "2.0"}, {}, "TPM"),
        ({"resources:VGPU": "1"}, {}, "GPU"),
    ],
)
def test_what_can_not_give_way_iswords_of(specs: dict[str, str], properties: dict[str, object], why: str) -> None:
    assert why in obstacle(specs, properties)


def test_an_ordinary_server_can_give_way() -> None:
    assert obstacle({"hw:cpu_policy": "shared", "hw:mem_page_size": "any"}, {"hw_rng_model": "virtio"}) == ""


def answer(status: int, text: str) -> Response:
    made = Response()
    made.status_code, made._content = status, text.encode()
    return made


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, '{"itemNotFound": {"code": 404, "message": "Instance x is gone."}}', NotFound, "x is gone"),
        (409, '{"conflictingRequest": {"code": 409, "message": "Instance is locked"}}', Conflict, "locked"),
        (409, '{"errors": [{"title": "Conflict", "detail": "Unable to allocate inventory"}]}', Conflict, "inventory"),
        (403, '{"forbidden": {"code": 403, "message": "Quota exceeded for cores"}}', Refused, "cores"),
        (403, '{"forbidden": {"code": 403, "message": "Policy does not allow"}}', MissingPart, "Policy"),
        (409, '{"NeutronError": {"type": "X", "message": "No more IP addresses"}}', Conflict, "No more"),
        (502, "<html>bad gateway</html>", BackendFailed, "502"),
    ],
)  # fmt: skip
def test_a_refusal_keeps_the_services_own_words(status: int, body: str, kind: type[Exception], words: str) -> None:
    error = failure_of("nothing happened", status, words_of(answer(status, body)))
    assert type(error) is kind
    assert words in str(error)


# --- what is remembered of them ---


class Nova:
    """Answers as Nova does, from documents, and counts what it is asked."""

    settings = OpenStackSettings("none", look_seconds=3600.0)
    own = SimpleNamespace(current_user_id="torpor")

    def __init__(self, *servers: dict[str, Any]) -> None:
        self.servers = {each["id"]: each for each in servers}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """Happens while servers are listed."""

    def projects(self) -> dict[str, str]:
        return {"demo": "demo"}

    def ask(self, *_: object, **__: object) -> dict[str, Any]:
        return {}  # Glance, of an image without properties

    def compute(self, method: str, path: str, what: str, body: object = None, **_: object) -> dict[str, Any]:
        self.asked.append(f"{method} {path}")
        if path == "/servers/detail":
            self.meanwhile()
            return {"servers": list(self.servers.values())}
        id = path.split("/")[2]
        if id not in self.servers:
            raise NotFound(what)
        return {"server": self.servers[id]} if method == "GET" else {}


def remembering(nova: Nova) -> Servers:
    return Servers(cast(Cloud, nova))


def test_servers_are_listed_once_and_only_who_was_acted_on_is_looked_at_again() -> None:
    nova = Nova(document(id="a"), document(id="b"))
    servers = remembering(nova)
    (first, _), again = servers.all(), servers.all()
    assert [server.id for server in again] == ["a", "b"]
    nova.servers["a"] |= {"status": "SUSPENDED"}
    servers.act(first, "suspend")
    assert [server.status for server in servers.all()] == ["SUSPENDED", "ACTIVE"]
    assert [server.status for server in servers.all()] == ["SUSPENDED", "ACTIVE"]
    assert nova.asked == ["GET /servers/detail", "POST /servers/a/action", "GET /servers/a"]


def test_a_server_that_was_looked_at_is_remembered_as_it_was_then() -> None:
    nova = Nova(document(id="a"), document(id="b"))
    servers = remembering(nova)
    servers.all()
    nova.servers["b"] |= {"status": "SHUTOFF"}
    servers.look_at("b")
    assert [server.status for server in servers.all()] == ["ACTIVE", "SHUTOFF"]


def test_once_one_is_gone_all_are_listed_anew() -> None:
    nova = Nova(document(id="a"), document(id="b"))
    servers = remembering(nova)
    (first, _) = servers.all()
    del nova.servers["a"]
    with pytest.raises(NotFound):
        servers.act(first, "suspend")
    assert [server.id for server in servers.all()] == ["b"]


def test_what_was_forgotten_while_it_was_listed_is_listed_again() -> None:
    nova = Nova(document(id="a"))
    servers = remembering(nova)
    nova.meanwhile = servers.forget
    servers.all()
    nova.servers["b"] = document(id="b")
    nova.meanwhile = lambda: None
    assert [server.id for server in servers.all()] == ["a", "b"]


def test_a_lock_is_seen_as_soon_as_it_was_made() -> None:
    nova = Nova(document(id="a"))
    servers = remembering(nova)
    (server,) = servers.all()
    nova.servers["a"] |= {"locked": True, "locked_reason": "torpor: asleep"}
    servers.lock(server, "asleep")
    asked = len(nova.asked)
    (server,) = servers.all()
    assert server.locked_by_us
    assert len(nova.asked) == asked, "it was looked at already"
