"""Starting the daemon where none answers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torpor.config import Config
from torpor.domain.errors import Conflict, DaemonUnreachable, MissingPart

PATIENCE = 120.0
"""Seconds until a daemon must answer. Before it does it recovers what a crash left."""
LARGEST_LOG = 10 * 1024 * 1024
"""Bytes; a larger log becomes `daemon.log.1` before a daemon is started."""


def start_daemon(config: Config, config_file: Path | None, answers: Callable[[], bool]) -> None:
    """Start `torpor serve` in a session of its own and wait until it answers. Raises DaemonUnreachable, MissingPart."""
    if os.geteuid() != 0:
        raise MissingPart(
            "the daemon is not running and can't be started", detail="only root may", remedy="run this command as root"
        )
    log = config.state_dir / "daemon.log"
    daemon = _launch(log, config_file)
    give_up = time.monotonic() + PATIENCE
    while not answers():
        code = daemon.poll()
        if code == Conflict.exit_code:
            # Another daemon was quicker, and will answer; or it is just ending, and then ours is needed.
            time.sleep(0.5)
            daemon = _launch(log, config_file)
        elif code is not None:
            raise DaemonUnreachable("the daemon did not start", detail=_last_line(log), remedy=f"see {log}")
        if time.monotonic() > give_up:
            raise DaemonUnreachable("the daemon does not answer yet", detail=_last_line(log), remedy=f"see {log}")
        time.sleep(0.05)


def daemon_command(config_file: Path | None) -> list[str]:
    """The command line of a daemon with this configuration."""
    config = ["--config", str(config_file.absolute())] if config_file else []
    return [sys.executable, "-m", "torpor", *config, "serve"]


def _launch(log: Path, config_file: Path | None) -> "subprocess.Popen[bytes]":
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LARGEST_LOG:
            log.replace(log.with_name("daemon.log.1"))
        with log.open("ab") as output:
            return subprocess.Popen(
                daemon_command(config_file),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise DaemonUnreachable(
            "the daemon can't be started",
            detail=f"{log}: {error.strerror or error}",
            remedy="make the state directory writable, or set `state_dir` to another",
        ) from error


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"its log can't be read ({error.strerror})"
    return lines[-1].removeprefix("torpor: ").removesuffix(".") if lines else "it wrote nothing to its log"
