"""The daemon as a process: one of it, ready when it answers, tidy when it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.functional.conftest import ROOT, Daemon, environment, wait_until, write_config

STRANGER = """
import contextlib, io, os, sys
from torpor.cli.main import create, run
import encodings.idna, httpcore, rich.table
with contextlib.redirect_stdout(io.StringIO()):
    run(create(), ["ps", "--help"])  # loads what is loaded late: a stranger may not be able to read our modules
os.seteuid(65534)
sys.exit(run(create(), sys.argv[1:]))
"""


def on_fakes(config: Path) -> list[str]:
    return [sys.executable, "-m", "tests.functional.daemon_on_fakes", str(config)]


def torpor(config: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "torpor", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        env={**environment(), **environ},
        timeout=60,
        check=False,
    )


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    ended = subprocess.run(
        on_fakes(daemon.config), capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
    )
    assert ended.returncode != 0
    assert f"process {daemon.process.pid} holds its lock" in ended.stderr
    assert daemon.http.get("/v1/health").is_success


def test_sigterm_ends_it_and_takes_the_socket_away(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    assert not daemon.socket.exists()
    assert not (daemon.folder / "state" / "network-removed").exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced(daemon: Daemon) -> None:
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()
    assert daemon.socket.exists()
    again = Daemon(daemon.folder)
    assert again.http.get("/v1/health").json()["pid"] == again.process.pid
    assert again.stop() == 0


def test_it_ends_while_somebody_is_connected(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(daemon.socket))
        assert daemon.stop() == 0


def test_an_image_in_the_making_is_not_taken_down_with_it(daemon: Daemon) -> None:
    """SIGTERM ends it all the same, and who waits for the image is told."""
    daemon.torpor("run", "one", "--image", "test", "--preemptible", "--wait")
    building = subprocess.Popen(
        daemon.command("image", "build", "new", "--recipe", "slow"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert building.stderr is not None and "building new" in building.stderr.readline()
    for command, what in ((["down"], "Torpor is not taken down"), (["down", "--suspend"], "nothing was suspended")):
        refused = daemon.torpor(*command)
        assert refused.returncode == 4
        assert refused.stderr == f"torpor: {what}: image new is being made; wait for it, then try again.\n"
    assert daemon.state("one") == "active"
    assert daemon.stop() == 0
    _, told = building.communicate(timeout=60)
    assert building.returncode == 10
    assert told == "torpor: the work was not finished: the daemon was ended; do it again.\n"
    assert "Traceback" not in daemon.log.read_text()


def test_who_waits_for_a_daemon_that_is_killed_is_told(daemon: Daemon) -> None:
    with subprocess.Popen(
        daemon.command("image", "build", "new", "--recipe", "slow"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as building:
        assert building.stderr is not None and "building new" in building.stderr.readline()
        daemon.process.kill()
        _, told = building.communicate(timeout=60)
    assert building.returncode == 10
    assert told.startswith("torpor: the daemon's answer broke off: the daemon ended meanwhile; look at daemon.log")


def test_what_is_just_coming_back_is_suspended_before_the_daemon_ends(slow_daemon: Daemon) -> None:
    slow_daemon.torpor("run", "one", "--image", "test", "--memory", "1800M", "--wait")
    slow_daemon.torpor("suspend", "one")
    slow_daemon.torpor("resume", "one", "--no-wait")
    wait_until(
        lambda: "resume" in [o["kind"] for o in slow_daemon.http.get("/v1/operations").json()["operations"]],
        "it begins",
    )
    down = slow_daemon.torpor("down", "--suspend")
    assert down.returncode == 0, down.stderr
    assert slow_daemon.process.wait(60) == 0


def test_every_event_is_one_line_of_the_log(daemon: Daemon) -> None:
    daemon.torpor("run", "one", "--image", "test", "--wait")
    daemon.stop()
    lines = daemon.log.read_text().splitlines()
    assert lines
    assert all(line[:4].isdigit() and line.split()[1] == "INFO" for line in lines), lines


def test_a_daemon_that_has_another_configuration_than_the_file_is_found(daemon: Daemon) -> None:
    assert f"ok   configuration: {daemon.config}\n" in daemon.torpor("doctor").stdout
    written = daemon.config.read_text()
    daemon.config.write_text(f"# the same\n{written}")
    assert f"ok   configuration: {daemon.config}\n" in daemon.torpor("doctor").stdout
    daemon.config.write_text(f"{written}[host]\nvcpus = 3\n")
    ended = daemon.torpor("doctor")
    assert ended.returncode == 7
    assert f"FAIL configuration: {daemon.config} is not what the daemon was started with, 2" in ended.stdout
    assert f"; end it with `kill {daemon.process.pid}` (VMs run on); the next command starts it anew\n" in ended.stdout


def test_a_state_directory_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a folder is needed")
    for command in ("ps", "serve"):
        ended = torpor(write_config(tmp_path), command)
        assert ended.returncode in (7, 10)
        assert len(ended.stderr.splitlines()) == 1
        assert "state" in ended.stderr


def test_a_daemon_that_does_not_start_is_told_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    ended = torpor(write_config(tmp_path), "ps", TORPOR_LOG="loud")
    assert ended.returncode == 10
    *progress, last = ended.stderr.splitlines()
    assert progress in ([], ["starting the daemon"])  # said where it takes longer than a moment
    assert last == (
        "torpor: the daemon did not start: TORPOR_LOG='loud' is no level; use one of debug, info, warning, error;"
        f" see {tmp_path}/state/daemon.log."
    )


def test_a_socket_path_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "torpor.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/{"x" * 120}"\n')
    ended = torpor(config, "serve")
    assert ended.returncode == 2
    assert "is too long" in ended.stderr


def test_a_configuration_that_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "torpor.toml"
    config.write_text("colour = 'red'\n")
    ended = torpor(config, "ps")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert torpor(tmp_path / "nothing.toml", "ps").returncode == 2


def test_whoever_is_not_root_is_told_so(daemon_failing: Callable[[str], Daemon], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    command = [sys.executable, "-c", STRANGER, "--config", str(write_config(tmp_path)), "ps"]
    without = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert without.returncode == 7
    assert without.stderr.endswith("run this command as root.\n")
    daemon_failing("nothing")
    with_one = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert with_one.returncode == 7
    assert "only root may use" in with_one.stderr
