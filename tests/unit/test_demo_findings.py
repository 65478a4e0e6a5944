"""The demo must be able to fail: every difference between before and after is a complaint."""

import hashlib
from copy import deepcopy
from typing import Any

import pytest

from demonstration.cloud.findings import CloudFindings, own_seconds, seconds_by_kind
from demonstration.findings import Answer, Findings, job_is_right


def job(steps: int) -> dict[str, Any]:
    link = seed = "5eed"
    for step in range(1, steps + 1):
        link = hashlib.sha256(f"{link} {step}\n".encode()).hexdigest()
    return {"seed": seed, "step": steps, "hash": link}


def status(name: str, counter: int, steps: int, rounds: int | None) -> dict[str, Any]:
    tcp = None if rounds is None else {"peer": "b", "connected": True, "rounds": rounds, "local_port": 40000}
    return {
        "hostname": name, "address": "10.0.0.2", "counter": counter, "nonce": f"nonce of {name}", "fill_mb": 1,
        "fill_sum": "sum", "tcp": tcp, "job": job(steps),
    }  # fmt: skip


@pytest.fixture
def found() -> Findings:
    """All is well."""
    return Findings(
        before={"a": status("a", 5, 3, 7), "b": status("b", 5, 3, None)},
        after={"a": status("a", 9, 4, 8), "b": status("b", 9, 4, None)},
        verified={name: {"ok": True, "expected": "sum", "found": "sum"} for name in ("a", "b")},
        addresses={"a": "10.0.0.2"},
        answers=[Answer("a", "10.0.0.2", "the shell", "after")],
        fits_without_victims=False,
        victims=["batch"],
        memory_before=300 << 20,
        state_bytes=1,
        exit_codes={"u": 0},
    )


def test_nothing_is_wrong_where_everything_is_as_it_was(found: Findings) -> None:
    assert found.complaints() == []
    assert found.as_json()["ok"] is True
    assert found.as_json()["host_memory_released_mb"] == 300


@pytest.mark.parametrize(
    ("key", "value", "about"),
    [
        ("nonce", "another", "nonce"),
        ("hostname", "c", "hostname"),
        ("address", "10.0.0.9", "address"),
        ("counter", 5, "counter"),
        ("counter", 1, "counter"),
        ("job", job(3), "did not go on"),
        ("job", {**job(4), "seed": "other"}, "wrong result"),
        ("job", None, "wrong result"),
        ("tcp", None, "TCP"),
    ],
)
def test_a_guest_that_is_not_as_it_was_is_a_complaint(found: Findings, key: str, value: object, about: str) -> None:
    found.after["a"][key] = value
    assert [c for c in found.complaints() if about in c]


@pytest.mark.parametrize("change", [{"connected": False}, {"rounds": 7}, {"local_port": 40001}])
def test_another_connection_is_not_the_one_that_survived(found: Findings, change: dict[str, object]) -> None:
    found.after["a"]["tcp"].update(change)
    assert not found.tcp_survived()
    assert any("TCP" in complaint for complaint in found.complaints())


@pytest.mark.parametrize("change", [{"ok": False}, {"found": "other"}, {"expected": "other", "found": "other"}])
def test_data_that_changed_is_a_complaint(found: Findings, change: dict[str, object]) -> None:
    found.verified["b"] = {**found.verified["b"], **change}
    assert any("random data" in complaint for complaint in found.complaints())


@pytest.mark.parametrize("address", [None, "10.0.0.3"])
def test_a_name_that_answered_wrongly_is_a_complaint(found: Findings, address: str | None) -> None:
    found.answers.append(Answer("a", address, "inside b", "while suspended"))
    assert any("when asked from inside b while suspended" in complaint for complaint in found.complaints())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("victims", []), ("fits_without_victims", True), ("memory_after", 300 << 20), ("processes_after", 1),
        ("state_bytes", 0), ("exit_codes", {}), ("exit_codes", {"u": 1}), ("exit_codes", {"u": None}),
        ("answer_after_deletion", "10.0.0.2"), ("left_behind", ["process 1"]), ("after", {}), ("verified", {}),
    ],
)  # fmt: skip
def test_what_the_demo_is_to_show_is_missed_where_it_was_not_seen(found: Findings, field: str, value: object) -> None:
    setattr(found, field, value)
    if field == "after":
        assert any("did not answer" in complaint for complaint in found.complaints())
    else:
        assert found.complaints()


def test_a_job_is_computed_anew() -> None:
    right = job(20)
    assert job_is_right(right)
    wrong = deepcopy(right)
    wrong["hash"] = "0" * 64
    assert not job_is_right(wrong)


def cloud() -> CloudFindings:
    """All is well; somebody competed."""
    seen = CloudFindings(
        guests_at_most=3,
        refusal="No valid host was found.",
        outside={"before": 1, "after": 2, "port_before": 40000, "port_after": 40000},
        own_suspend_seconds=0.5,
        own_resume_seconds=0.5,
        competing=True,
        attempts=9,
        wins=1,
        told="there is no room",
    )
    seen.see({"VCPU": 3, "MEMORY_MB": 768}, {"VCPU": 3, "MEMORY_MB": 3072}, "during 'suspend'")
    return seen


@pytest.fixture
def clouded(found: Findings) -> Findings:
    """The same on a cloud, where no command can be given."""
    found.cloud = cloud()
    found.exit_codes = {}
    found.priority_verified = {"u": True}
    return found


def test_on_a_cloud_nothing_is_wrong_where_everything_is_as_it_was(clouded: Findings) -> None:
    assert clouded.complaints() == []
    assert clouded.as_json()["placement_peaks"] == {"VCPU": 3, "MEMORY_MB": 768}


@pytest.mark.parametrize("verified", [{}, {"u": True, "v": False}])
def test_priority_servers_that_lost_what_they_filled_are_a_complaint(
    clouded: Findings, verified: dict[str, bool]
) -> None:
    clouded.priority_verified = verified
    assert any("did not finish their task" in complaint for complaint in clouded.complaints())


def test_one_look_at_overcommitted_books_is_a_complaint_for_good() -> None:
    seen = cloud()
    seen.see({"VCPU": 4}, {"VCPU": 3}, "during 'restore'")
    seen.see({"VCPU": 2}, {"VCPU": 3}, "during 'compare'")
    assert seen.complaints() == ["4 of 3 VCPU were booked during 'restore'"]
    assert seen.as_json()["placement_violations"] == 1


@pytest.mark.parametrize(
    ("field", "value", "about"),
    [
        ("samples", 0, "not looked at"), ("guests_at_most", 4, "had a process at once"),
        ("guests_at_most", 0, "had a process at once"), ("refusal", "", "was not refused"),
        ("refusal", "it is ACTIVE", "was not refused"), ("own_suspend_seconds", None, "own"),
        ("own_resume_seconds", None, "own"), ("wins", 0, "never won"), ("told", "", "not told"),
        ("outside", {}, "outside"), ("outside", {"before": 1, "port_before": 4}, "outside"),
        ("outside", {"before": 1, "after": 0, "port_before": 4, "port_after": 4}, "outside"),
        ("outside", {"before": 1, "after": 2, "port_before": 4, "port_after": 5}, "outside"),
    ],
)  # fmt: skip
def test_what_is_to_be_shown_of_a_cloud_is_missed_where_it_was_not_seen(field: str, value: object, about: str) -> None:
    seen = cloud()
    setattr(seen, field, value)
    assert [complaint for complaint in seen.complaints() if about in complaint]


def test_our_own_time_is_what_novas_step_did_not_take() -> None:
    def step(kind: str, began: float | None, ended: float | None) -> dict[str, Any]:
        return {"kind": kind, "started_at": began, "ended_at": ended}

    steps = [step("claim", 10.0, 10.25), step("pause", 10.25, 14.25), step("save", 14.5, 15.0), step("x", None, None)]
    assert own_seconds(steps, "pause") == 1.0
    assert seconds_by_kind([*steps, step("save", 15.0, 16.0)]) == {"claim": 0.25, "pause": 4.0, "save": 1.5}
