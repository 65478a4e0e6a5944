"""A daemon of its own for a test, and the CLI that speaks to it."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from torpor.cli.main import create, run

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "TORPOR_CONFIG", "TORPOR_LOG")}
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "TZ": "UTC"}


def write_config(folder: Path) -> Path:
    file = folder / "torpor.toml"
    file.write_text(f'state_dir = "{folder / "state"}"\nrun_dir = "{folder / "run"}"\n')
    return file


def wait_until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"{what} did not happen in {PATIENCE:.0f} s"
        time.sleep(0.05)


class Daemon:
    """A running daemon on fakes, its API and its CLI."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.config = write_config(folder)
        self.socket = folder / "run" / "api.sock"
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.functional.daemon_on_fakes", str(self.config), *options],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment(),
            )
        self.http = httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://torpor")
        wait_until(self._answers, "the daemon's first answer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/v1/health").is_success
        except httpx.TransportError:
            return False

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "torpor", "--config", str(self.config), *arguments]

    def torpor(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the CLI to its end within this process (its start is what takes longest), its output piped."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(create(), ["--config", str(self.config), *arguments])
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def apart(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the CLI to its end in a process of its own, its output piped."""
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What the CLI prints with --json; it must succeed and print nothing else."""
        ended = self.torpor(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def state(self, name: str) -> str:
        return str(self.http.get(f"/v1/workloads/{name}").json().get("state", "gone"))

    def wait_for_state(self, name: str, state: str) -> None:
        wait_until(lambda: self.state(name) == state, f"{name} {state}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """On a host in memory with 4 vCPUs and 2 GiB."""
    running = Daemon(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def slow_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """As `daemon`, with a slow disk: suspending and resuming take seconds."""
    running = Daemon(tmp_path, ["--slow"])
    yield running
    running.stop()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """As `daemon`, shared by tests that change nothing."""
    running = Daemon(tmp_path_factory.mktemp("idle"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def canned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Answers with the fixed world of `canned.py`."""
    running = Daemon(tmp_path_factory.mktemp("canned"), ["--canned"])
    yield running
    running.stop()


@pytest.fixture
def daemon_failing(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """Makes a daemon on whose host one act fails."""
    running: list[Daemon] = []

    def make(act: str) -> Daemon:
        running.append(Daemon(tmp_path, ["--fail", act]))
        return running[0]

    yield make
    for each in running:
        each.stop()
