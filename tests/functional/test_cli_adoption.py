"""`torpor adopt` and `torpor release`, on a host in memory that is shared."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.functional.conftest import Daemon, wait_until


@pytest.fixture
def daemon_shared(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, ["--shared"])
    yield daemon
    daemon.stop()


def test_vms_are_listed_adopted_and_let_go(daemon_shared: Daemon) -> None:
    daemon = daemon_shared
    heading, *rows = daemon.torpor("adopt").stdout.splitlines()
    assert heading.split() == ["VM", "STATE", "CPUS", "MEMORY", "WORKLOAD"]
    assert [row.split() for row in rows] == [[f"web_{i}", "running", "1", "256M", "-"] for i in (1, 2)]
    adopted = daemon.torpor("adopt", "web_1", "web_2", "--workload", "web", "--preemptible", "--priority", "3")
    assert adopted.returncode == 0, adopted.stderr
    wait_until(lambda: daemon.json("show", "web")["state"] == "active", "web is active")
    shown = daemon.json("show", "web")
    assert (shown["adopted"], shown["preemptible"], shown["priority"], shown["count"]) == (True, True, 3, 2)
    assert "(preemptible, adopted)" in daemon.torpor("show", "web").stdout
    assert [row.split()[-1] for row in daemon.torpor("adopt").stdout.splitlines()[1:]] == ["web", "web"]
    suspended = daemon.torpor("suspend", "web")
    assert suspended.returncode == 0, suspended.stderr
    assert daemon.torpor("resume", "web").returncode == 0
    refused = daemon.torpor("delete", "web", "--yes")
    assert refused.returncode == 5
    assert "torpor release web" in refused.stderr
    assert daemon.json("release", "web") == {"released": "web"}
    assert daemon.json("ps", "--all") == {"workloads": []}


def test_what_can_not_be_adopted_is_one_sentence(daemon_shared: Daemon) -> None:
    daemon = daemon_shared
    for arguments, code, words in (
        (("adopt", "nobody"), 3, "there is no VM 'nobody'"),
        (("adopt", "web_1", "web_2"), 2, "say --workload NAME"),
        (("adopt", "web_1"), 2, "not a hostname label"),
        (("adopt", "--workload", "web"), 2, "no VM was named"),
    ):
        ended = daemon.torpor(*arguments)
        assert ended.returncode == code, (arguments, ended.stderr)
        assert words in ended.stderr
    assert [vm["workload"] for vm in json.loads(daemon.torpor("adopt", "--json").stdout)["vms"]] == ["", ""]


def test_a_host_that_is_not_shared_says_so(daemon: Daemon) -> None:
    ended = daemon.torpor("adopt")
    assert ended.returncode == 5
    assert "libvirt" in ended.stderr
