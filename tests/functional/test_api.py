"""The API over its real socket."""

import json
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.functional.conftest import ROOT, Daemon

BATCH = {"name": "batch", "image": "test", "memory_mb": 800, "count": 2, "preemptible": True}
PROBLEM_KEYS = {"code", "what", "detail", "remedy", "retryable", "message"}


def test_health_says_that_it_is_served(idle: Daemon) -> None:
    health = idle.http.get("/v1/health").json()
    assert health["status"] == "ok"
    assert health["pid"] == idle.process.pid


def test_socket_is_for_root_alone_and_nothing_listens_on_tcp(idle: Daemon) -> None:
    mode = idle.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert psutil.Process(idle.process.pid).net_connections(kind="inet") == []


def test_a_workload_runs_is_suspended_resumed_and_deleted(daemon: Daemon) -> None:
    accepted = daemon.http.post("/v1/workloads", json=BATCH)
    assert accepted.status_code == 202
    assert [i["name"] for i in accepted.json()["workload"]["instances"]] == ["batch-0", "batch-1"]
    daemon.wait_for_state("batch", "active")
    assert daemon.http.post("/v1/workloads/batch/suspend").status_code == 202
    daemon.wait_for_state("batch", "suspended")
    assert daemon.http.post("/v1/workloads/batch/resume").status_code == 202
    daemon.wait_for_state("batch", "active")
    assert daemon.http.delete("/v1/workloads/batch").json() == {"deleting": "batch"}
    daemon.wait_for_state("batch", "gone")
    kinds = [o["kind"] for o in daemon.http.get("/v1/operations").json()["operations"]]
    assert kinds == ["delete", "resume", "suspend", "run"]


def test_a_workload_that_is_posted_again_has_the_addresses_and_macs_of_before_if_it_asks(daemon: Daemon) -> None:
    def post(**more: Any) -> list[tuple[str, str]]:
        accepted = daemon.http.post("/v1/workloads", json={**BATCH, **more}).json()["workload"]
        return [(i["address"], i["mac"]) for i in accepted["instances"]]

    before = post()
    for keep in (True, False):
        daemon.wait_for_state("batch", "active")
        daemon.http.delete("/v1/workloads/batch")
        daemon.wait_for_state("batch", "gone")
        assert (post(keep_address=keep) == before) is keep


def test_dry_runs_answer_with_the_plan_and_change_nothing(daemon: Daemon) -> None:
    daemon.http.post("/v1/workloads", json=BATCH)
    daemon.wait_for_state("batch", "active")
    urgent = {"name": "urgent", "image": "test", "memory_mb": 1500, "priority": 10}
    answer = daemon.http.post("/v1/workloads", params={"dry_run": True}, json=urgent)
    assert answer.status_code == 200
    assert answer.json()["workload"] is None
    assert answer.json()["plan"]["victims"] == ["batch"]
    suspension = daemon.http.post("/v1/workloads/batch/suspend", params={"dry_run": True}).json()["plan"]
    assert [a["kind"] for a in suspension["actions"]] == ["suspend"]
    assert [w["name"] for w in daemon.http.get("/v1/workloads").json()["workloads"]] == ["batch"]
    assert daemon.state("batch") == "active"


def test_an_image_build_reports_progress_line_by_line(daemon: Daemon) -> None:
    answer = daemon.http.post("/v1/images/build", json={"name": "mine", "recipe": "busybox"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [list(line) for line in lines] == [["progress"], ["image"]]
    assert "mine" in [i["name"] for i in daemon.http.get("/v1/images").json()["images"]]


def test_a_build_that_fails_ends_with_its_problem(idle: Daemon) -> None:
    answer = idle.http.post("/v1/images/build", json={"name": "mine", "recipe": "windows"})
    assert json.loads(answer.text.splitlines()[-1])["problem"]["code"] == "invalid"


def test_the_console_can_be_read_on_from_where_one_was(daemon: Daemon) -> None:
    daemon.http.post("/v1/workloads", json={**BATCH, "count": 1})
    log = daemon.folder / "state" / "console.log"
    log.write_bytes(b"booting\n")
    first = daemon.http.get("/v1/instances/batch/console")
    assert first.content == b"booting\n"
    with log.open("ab") as file:
        file.write(b"login:")
    following = daemon.http.get("/v1/instances/batch/console", params={"offset": first.headers["Torpor-Offset"]})
    assert following.content == b"login:"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/workloads/nobody", None, 404, "not-found"),
        ("POST", "/v1/workloads/nobody/suspend", None, 404, "not-found"),
        ("DELETE", "/v1/workloads/nobody", None, 404, "not-found"),
        ("DELETE", "/v1/images/nothing", None, 404, "not-found"),
        ("GET", "/v1/instances/nobody/console", None, 404, "not-found"),
        ("GET", "/v1/nowhere", None, 404, "not-found"),
        ("PUT", "/v1/workloads", None, 405, "invalid"),
        ("GET", "/v1/events?limit=0", None, 400, "invalid"),
        ("GET", "/v1/events?limit=many", None, 400, "invalid"),
        ("POST", "/v1/workloads", [], 400, "invalid"),
        ("POST", "/v1/workloads", {}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "image": "unknown"}, 404, "not-found"),
        ("POST", "/v1/workloads", {**BATCH, "name": "two\nlines"}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "name": "x" * 900}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "name": "x" * 100_000}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "name": ""}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "count": -1}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "count": 10**30}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "vcpus": 0}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "memory_mb": 0}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "memory_mb": "800"}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "priority": 2**70}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "duration_seconds": 0}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "keep_address": "yes"}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "colour": "red"}, 400, "invalid"),
        ("POST", "/v1/workloads", {**BATCH, "memory_mb": 2**39}, 409, "refused"),
    ],
)
def test_every_refusal_has_one_shape_and_one_sentence(
    idle: Daemon, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = idle.http.request(method, path, json=body)
    problem = answer.json()
    assert set(problem) == PROBLEM_KEYS
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["message"].endswith(".")
    assert "\n" not in problem["message"]
    assert len(problem["message"]) < 400
    assert idle.http.get("/v1/workloads").json() == {"workloads": []}


def test_a_body_that_is_no_json_is_told_so(idle: Daemon) -> None:
    answer = idle.http.post("/v1/workloads", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("the request is not JSON")


def test_a_bug_is_answered_as_internal_and_logged_with_its_traceback(canned: Daemon) -> None:
    answer = canned.http.post("/v1/workloads/batch/suspend")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    logged = [line for line in canned.log.read_text().splitlines() if "unexpected error" in line]
    assert logged
    assert "Traceback" in logged[-1]
    assert canned.http.get("/v1/health").is_success


def test_the_reference_describes_this_api(idle: Daemon) -> None:
    written = json.loads(Path(ROOT / "docs/reference/openapi.json").read_text())
    assert idle.http.get("/openapi.json").json() == written, (
        "write it anew: curl --unix-socket /run/torpor/api.sock http://torpor/openapi.json"
        " | python3 -m json.tool --sort-keys > docs/reference/openapi.json"
    )
