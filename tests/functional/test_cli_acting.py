"""Commands that change something, against the whole engine on a host in memory."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from tests.functional.conftest import Daemon, environment, wait_until

BATCH = ("run", "batch", "--image", "test", "--memory", "800M", "--count", "2", "--preemptible")


def test_run_answers_with_the_plan_and_the_names(daemon: Daemon) -> None:
    ended = daemon.torpor(*BATCH)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("batch can go now")
    assert "batch-1.test.internal" in ended.stdout


def test_run_waits_until_it_is_active(daemon: Daemon) -> None:
    outcome = daemon.json(*BATCH, "--wait")
    assert outcome["workload"]["state"] == "active"
    assert outcome["plan"]["verdict"] == "ready"


def test_a_dry_run_names_the_victims_and_changes_nothing(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    urgent = ("run", "urgent", "--image", "test", "--memory", "1500M", "--priority", "9", "--dry-run")
    assert daemon.json(*urgent)["plan"]["victims"] == ["batch"]
    assert "suspend  batch" in daemon.torpor(*urgent).stdout
    assert [w["name"] for w in daemon.json("ps", "-a")["workloads"]] == ["batch"]


def test_a_workload_with_a_command_is_waited_for_until_it_is_done(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor(
        "run", "urgent", "--image", "test", "--memory", "1500M", "--priority", "9", "--command", "true", "--wait"
    )
    assert ended.returncode == 0
    assert ended.stdout == "urgent is done: its command finished (exit code 0)\n"
    daemon.wait_for_state("batch", "active")


def test_the_exit_code_of_a_command_that_failed_is_handed_on(daemon: Daemon) -> None:
    ended = daemon.torpor("run", "bad", "--image", "test", "--command", "exit 3", "--wait")
    assert ended.returncode == 3


def test_a_duration_ends_a_workload(daemon: Daemon) -> None:
    outcome = daemon.json("run", "short", "--image", "test", "--duration", "1s", "--wait")
    assert outcome["workload"]["state"] == "done"


def test_suspend_resume_and_delete_wait_until_they_are_done(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    suspended = daemon.torpor("suspend", "batch")
    assert suspended.returncode == 0, suspended.stderr
    assert suspended.stdout.startswith("batch is suspended: 800M saved for 2 VMs")
    assert daemon.state("batch") == "suspended"
    assert daemon.torpor("suspend", "batch").stdout.startswith("batch is suspended already: 800M saved")
    assert daemon.json("resume", "batch")["workload"]["state"] == "active"
    assert daemon.torpor("delete", "batch", "--yes").stdout == "batch is deleted\n"
    assert daemon.state("batch") == "gone"


def test_a_workload_that_is_run_again_keeps_its_address_and_mac_if_asked_to(daemon: Daemon) -> None:
    daemon.torpor("run", "first", "--image", "test", "--memory", "256M", "--wait")
    again = ("run", "web", "--image", "test", "--memory", "256M")
    (before,) = daemon.json(*again, "--wait")["workload"]["instances"]
    for name in ("web", "first"):
        assert daemon.torpor("delete", name, "--yes").returncode == 0
    assert daemon.json(*again, "--keep-address", "--dry-run")["plan"]["verdict"] == "ready"
    assert daemon.state("web") == "gone"
    (after,) = daemon.json(*again, "--keep-address", "--wait")["workload"]["instances"]
    assert (after["address"], after["mac"]) == (before["address"], before["mac"])
    assert after["id"] != before["id"]


def test_no_wait_returns_before_it_is_done(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    assert daemon.json("suspend", "batch", "--no-wait")["workload"]["state"] == "suspending"
    daemon.wait_for_state("batch", "suspended")
    assert daemon.json("delete", "batch", "--yes", "--no-wait") == {"deleting": "batch"}


def test_plans_of_suspend_and_resume_change_nothing(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    assert daemon.json("suspend", "batch", "--dry-run")["plan"]["actions"][0]["kind"] == "suspend"
    assert daemon.state("batch") == "active"
    daemon.torpor("suspend", "batch")
    assert daemon.json("resume", "batch", "--dry-run")["plan"]["actions"][0]["kind"] == "resume"
    assert daemon.state("batch") == "suspended"


def test_a_refused_plan_ends_as_the_refusal_would(daemon: Daemon) -> None:
    giant = ("run", "giant", "--image", "test", "--memory", "900G")
    why = (
        "it is too large: it needs 1 vCPU, 921664 MiB and 1024 MiB of disk on one host, "
        "64 MiB of memory for the hypervisor among that; "
        "host local has 4 vCPUs, 2048 MiB and 60000 MiB of disk in all"
    )
    ended = daemon.torpor(*giant)
    assert ended.stderr == (
        f"torpor: workload giant was refused: {why}; ask for less; `torpor hosts` shows what there is.\n"
    )
    asked = daemon.torpor(*giant, "--dry-run")
    assert asked.stdout == f"giant is refused: {why}\n"
    assert asked.returncode == ended.returncode == 5


def test_without_anybody_to_ask_nothing_is_deleted(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor("delete", "batch")
    assert ended.returncode == 2
    assert ended.stderr == "torpor: batch was not deleted: there is nobody to ask; say --yes.\n"
    assert daemon.state("batch") == "active"


def test_a_suspension_that_fails_is_told_and_leaves_the_workload_running(
    daemon_failing: Callable[[str], Daemon],
) -> None:
    daemon = daemon_failing("save")
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor("suspend", "batch")
    assert ended.returncode == 8
    assert ended.stderr.splitlines()[-1] == ("torpor: the host did not save: it was told to fail; tell it otherwise.")
    daemon.wait_for_state("batch", "active")


def test_a_workload_that_never_starts_ends_the_waiting_with_its_reason(
    daemon_failing: Callable[[str], Daemon],
) -> None:
    daemon = daemon_failing("boot")
    ended = daemon.torpor(*BATCH, "--wait")
    assert ended.returncode == 8
    assert "the host did not boot" in ended.stderr


INTERRUPTIBLE = ("env", "--default-signal=INT")
"""A shell starts what it puts into the background deaf to Ctrl-C; these tests may be run so."""


def test_ctrl_c_ends_the_waiting_only(daemon: Daemon) -> None:
    with subprocess.Popen(
        [*INTERRUPTIBLE, *daemon.command("run", "long", "--image", "test", "--duration", "1h", "--wait")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as waiting:
        daemon.wait_for_state("long", "active")
        assert waiting.stderr is not None
        # It says what it waits for once it waits: from then on Ctrl-C means the waiting.
        waiting.stderr.readline()
        waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert said.splitlines()[-1] == "torpor: no longer waiting; long goes on (see `torpor show long`)."
    assert daemon.state("long") == "active"


def test_who_waits_for_room_is_told_that_nobody_need(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    daemon.torpor("suspend", "batch")
    daemon.torpor("run", "first", "--image", "test", "--memory", "1500M", "--priority", "9", "--wait")
    with subprocess.Popen(
        [*INTERRUPTIBLE, *daemon.command("resume", "batch")], stderr=subprocess.PIPE, text=True, env=environment()
    ) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("batch is suspended, waiting: it needs")
        assert waiting.stderr.readline() == "batch goes on by itself as soon as it can; Ctrl-C ends only this waiting\n"
        daemon.torpor("delete", "first", "--yes")
        waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert daemon.state("batch") == "active"


def test_what_waits_says_why(daemon: Daemon) -> None:
    daemon.torpor("run", "first", "--image", "test", "--memory", "1500M", "--wait")
    ended = daemon.torpor("run", "second", "--image", "test", "--memory", "1500M")
    assert ended.stdout.startswith("second waits: ")
    assert daemon.torpor("plan").stdout.startswith("second waits: ")
    assert [p["name"] for p in daemon.json("plan")["plans"]] == ["second"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "n", "--image", "unknown"), 3, "there is no image 'unknown'"),
        (("run", "two\nlines", "--image", "test"), 2, "is not a hostname label"),
        (("run", "x" * 5000, "--image", "test"), 2, "name"),
        (("run", "UPPER", "--image", "test"), 2, "is not a hostname label"),
        (("run", "giant", "--image", "test", "--memory", "900G"), 5, "giant"),
        (("suspend", "nobody"), 3, "there is no workload"),
        (("image", "add", "mine", "/etc/passwd"), 2, "is not a disk image"),
        (("image", "build", "mine", "--recipe", "windows"), 2, "there is no recipe"),
        (("image", "rm", "nothing"), 3, "there is no image"),
    ],
)
def test_what_the_daemon_refuses_is_one_sentence(
    idle: Daemon, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = idle.torpor(*arguments)
    assert said in ended.stderr
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert idle.json("ps", "-a") == {"workloads": []}


def test_images_are_added_built_and_removed(daemon: Daemon) -> None:
    assert daemon.json("image", "add", "disk", "/somewhere/disk.qcow2")["format"] == "qcow2"
    assert daemon.torpor("image", "build", "mine", "--recipe", "busybox").stdout.startswith("image mine is built")
    assert daemon.torpor("image", "rm", "mine").stdout == "image mine is removed\n"
    assert [i["name"] for i in daemon.json("image", "ls")["images"]] == ["disk", "test"]


def test_followed_events_come_as_they_happen(daemon: Daemon) -> None:
    with subprocess.Popen(
        [*INTERRUPTIBLE, *daemon.command("events", "--follow", "--json")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as following:
        assert following.stdout is not None
        daemon.torpor("run", "one", "--image", "test", "--wait")
        kinds: list[str] = []
        while "run-succeeded" not in kinds:
            kinds.append(json.loads(following.stdout.readline())["kind"])
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 0
    assert kinds[0] == "workload-accepted"
    assert len(kinds) == len(set(kinds))


def test_down_is_refused_while_a_workload_runs(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor("down")
    assert ended.returncode == 4
    assert "workloads run on its network: batch" in ended.stderr
    assert daemon.state("batch") == "active"


def test_down_suspends_when_asked_to_and_takes_the_network_with_it(daemon: Daemon) -> None:
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor("down", "--suspend")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "torpor is down\n"
    assert daemon.process.wait(60) == 0
    assert not daemon.socket.exists()
    assert (daemon.folder / "state" / "network-removed").exists()


def test_down_keeps_the_network_when_a_suspension_fails(daemon_failing: Callable[[str], Daemon]) -> None:
    daemon = daemon_failing("save")
    daemon.torpor(*BATCH, "--wait")
    ended = daemon.torpor("down", "--suspend")
    assert ended.returncode == 8
    assert "the host did not save" in ended.stderr
    assert daemon.process.poll() is None


def test_a_daemon_that_restarts_while_it_is_waited_for_is_waited_for(daemon: Daemon) -> None:
    """Only the waiting is looked at: the host in memory is gone with the daemon, so the workload is as well."""
    with subprocess.Popen(
        daemon.command("run", "long", "--image", "test", "--duration", "1h", "--wait"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as waiting:
        daemon.wait_for_state("long", "active")
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
        time.sleep(1)
        assert waiting.poll() is None
        again = Daemon(daemon.folder)
        wait_until(lambda: waiting.poll() is not None, "the end of the waiting")
        again.stop()
        assert waiting.stderr is not None
        assert "long was deleted while it was waited for" in waiting.stderr.read()
