"""`torpor snapshot`, on a daemon on fakes."""

from collections.abc import Callable

from tests.functional.conftest import Daemon, wait_until

RUN = ("run", "job", "--image", "test", "--memory", "256M", "--wait")


def test_a_snapshot_is_taken_shown_gone_back_to_and_removed(daemon: Daemon) -> None:
    daemon.torpor(*RUN, "--count", "2")
    told = daemon.torpor("snapshot", "create", "job", "s1")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("snapshot s1 of job: ")
    assert "for 2 VMs, which stood still for 4 ms" in told.stdout
    (listed,) = daemon.json("snapshot", "ls")["snapshots"]
    assert listed == daemon.json("snapshot", "show", "job", "s1")
    assert [i["instance"] for i in listed["instances"]] == ["job-0", "job-1"]
    assert "s1" in daemon.torpor("snapshot", "ls", "job").stdout
    assert "job-1" in daemon.torpor("snapshot", "show", "job", "s1").stdout
    back = daemon.torpor("snapshot", "restore", "job", "s1")
    assert back.returncode == 0, back.stderr
    assert back.stdout.startswith("job is active")
    assert daemon.torpor("snapshot", "rm", "job", "s1").stdout == "snapshot s1 of job is removed\n"
    assert daemon.torpor("snapshot", "ls").stdout == "there are no snapshots\n"


def address_state(daemon: Daemon) -> str:
    return str(daemon.json("show", "job")["instances"][0]["address_state"])


def test_a_clone_is_planned_and_run(daemon: Daemon) -> None:
    daemon.torpor(*RUN)
    wait_until(lambda: address_state(daemon) == "verified", "a guest that answers, as its clone will have to")
    daemon.torpor("snapshot", "create", "job", "s1")
    (action,) = daemon.json("snapshot", "clone", "job", "s1", "copy", "--dry-run")["plan"]["actions"]
    assert (action["kind"], action["name"]) == ("clone", "copy")
    copy = daemon.json("snapshot", "clone", "job", "s1", "copy", "--priority", "3", "--preemptible", "--wait")
    assert copy["workload"]["state"] == "active"
    assert (copy["workload"]["priority"], copy["workload"]["preemptible"]) == (3, True)
    assert daemon.json("show", "job")["instances"][0]["address"] != copy["workload"]["instances"][0]["address"]


def test_what_can_not_be_done_is_one_sentence_and_an_exit_code(daemon: Daemon) -> None:
    daemon.torpor(*RUN)
    for words, code in (
        (("show", "job", "s1"), 3),
        (("rm", "job", "s1"), 3),
        (("restore", "job", "s1"), 3),
        (("clone", "job", "s1", "copy"), 3),
        (("create", "nobody", "s1"), 3),
        (("create", "job", "S 1"), 2),
    ):
        ended = daemon.torpor("snapshot", *words)
        assert ended.returncode == code, words
        assert ended.stderr.count("\n") == 1
    daemon.torpor("snapshot", "create", "job", "s1")
    assert daemon.torpor("snapshot", "create", "job", "s1").returncode == 4
    daemon.torpor("suspend", "job")
    ended = daemon.torpor("snapshot", "create", "job", "s2")
    assert ended.returncode == 4
    assert "on disk already" in ended.stderr


def test_a_snapshot_that_fails_says_why(daemon_failing: Callable[[str], Daemon]) -> None:
    daemon = daemon_failing("take")
    daemon.torpor(*RUN)
    ended = daemon.torpor("snapshot", "create", "job", "s1")
    assert ended.returncode == 8
    assert "the host did not take" in ended.stderr
    assert daemon.json("show", "job")["state"] == "active"
