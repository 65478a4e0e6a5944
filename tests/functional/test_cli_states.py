"""`torpor state` and its API, on a host in memory."""

import json
from collections.abc import Callable

from tests.functional.conftest import Daemon

BATCH = ("run", "batch", "--image", "test", "--memory", "400M", "--count", "2", "--preemptible", "--wait")


def slept(daemon: Daemon) -> Daemon:
    for arguments in (BATCH, ("suspend", "batch")):
        ended = daemon.torpor(*arguments)
        assert ended.returncode == 0, ended.stderr
    return daemon


def test_states_are_listed_shown_and_verified(daemon: Daemon) -> None:
    assert daemon.torpor("state", "ls").stdout == "there are no saved states\n"
    slept(daemon)
    heading, *rows = daemon.torpor("state", "ls").stdout.splitlines()
    assert heading.split() == ["INSTANCE", "GENERATION", "STATUS", "CODEC", "BASE", "STORED", "MEMORY", "AGE"]
    assert [row.split()[:5] for row in rows] == [[f"batch-{i}", "1", "whole", "none", "-"] for i in range(2)]
    shown = daemon.torpor("state", "show", "batch").stdout
    assert "status:     whole\n" in shown
    assert "by the mechanism memory" in shown
    verified = daemon.json("state", "verify")
    assert verified["whole"] is True
    assert [(c["instance"], c["whole"]) for c in verified["checked"]] == [("batch-0", True), ("batch-1", True)]
    assert daemon.torpor("state", "verify", "batch").returncode == 0


def test_damaged_states_are_named_in_one_sentence_and_end_with_code_9(canned: Daemon) -> None:
    ended = canned.torpor("state", "verify")
    assert ended.returncode == 9
    assert ended.stderr.splitlines()[-1].startswith("torpor: saved state 1 of batch-0 is damaged: a bit flipped; ")
    assert ended.stderr.splitlines()[-1].endswith("so are 1 more: 1 of batch-1.")
    assert [line.split()[2] for line in ended.stdout.splitlines()[1:3]] == ["FAIL", "FAIL"]
    document = json.loads(canned.torpor("state", "verify", "--json").stdout)
    assert document["whole"] is False
    assert document["checked"][0]["damage"]["code"] == "state-damaged"


def test_a_state_that_can_not_be_read_does_not_end_the_verification(daemon_failing: Callable[[str], Daemon]) -> None:
    daemon = slept(daemon_failing("verify"))
    ended = daemon.torpor("state", "verify")
    assert ended.returncode == 8
    assert "saved state 1 of batch-0 could not be read" in ended.stderr
    assert [line.split()[2] for line in ended.stdout.splitlines()[1:]] == ["FAIL", "FAIL"]


def test_only_what_was_run_on_from_can_be_removed_and_the_loss_is_said(daemon: Daemon) -> None:
    slept(daemon)
    refused = daemon.torpor("state", "rm", "batch", "1", "--yes")
    assert refused.returncode == 4
    assert "it is whole" in refused.stderr
    daemon.torpor("resume", "batch")
    removed = daemon.torpor("state", "rm", "batch", "1", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert "should batch fail, it can't be taken back to it" in removed.stdout
    assert daemon.json("state", "ls")["states"] == []
    again = daemon.http.delete("/v1/workloads/batch/states/1")
    assert again.status_code == 404
    assert again.json()["code"] == "not-found"


def test_there_is_nothing_to_collect_on_a_tidy_host(daemon: Daemon) -> None:
    slept(daemon)
    assert daemon.torpor("state", "gc").stdout == "there was nothing to remove\n"
    assert daemon.json("state", "gc") == {"freed_bytes": 0}
