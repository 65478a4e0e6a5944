"""The daemon: taking it down."""

import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from torpor.cli.client import Document
from torpor.cli.problems import Reported, error_of
from torpor.cli.progress import describe, display
from torpor.cli.session import Json, Session, session
from torpor.cli.starter import daemon_command
from torpor.cli.waiting import INTERVAL, interrupted
from torpor.domain.errors import TimedOut

PATIENCE = 120.0
"""Seconds that the daemon may take to end."""
MOVING = ("active", "suspending", "resuming")


def down(
    context: typer.Context,
    suspend: Annotated[
        bool, typer.Option("--suspend", help="Suspend what runs first; it comes back at the next start.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Stop the daemon, the name server and the network. Refused while VMs run or an image is made."""
    here = session(context)
    if here.daemon.answers() or suspend:
        if suspend:
            _suspend_all(here, as_json)
        pid = here.daemon.get("/v1/health")["pid"]
        here.daemon.post("/v1/shutdown", {"network": True})
        _wait_for_end(here, pid, as_json)
    else:
        _take_down_leftovers(here)
    here.print_json({"down": True}) if as_json else here.say("torpor is down")


def _suspend_all(here: Session, quiet: bool) -> None:
    known = {operation["id"] for operation in here.client.get("/v1/operations", limit=1000)["operations"]}
    here.client.post("/v1/suspend-all")
    try:
        with display(here.err, quiet) as shown:
            while moving := _moving(here):
                busy = next((w for w in moving if w["operation"]), None)
                if busy is not None:
                    shown.show(*describe(busy))
                else:
                    _raise_undone(here, known)
                    here.client.post("/v1/suspend-all")  # once more: what was just beginning to run does so now
                time.sleep(INTERVAL)
    except KeyboardInterrupt as error:
        raise interrupted("no longer waiting; the workloads go on being suspended, and the daemon runs on") from error


def _moving(here: Session) -> list[Document]:
    workloads = here.daemon.get("/v1/workloads")["workloads"]
    return [w for w in workloads if w["state"] in MOVING or w["operation"]]


def _raise_undone(here: Session, known: set[str]) -> None:
    for operation in here.daemon.get("/v1/operations", limit=1000)["operations"]:
        if operation["id"] not in known and operation["status"] == "undone" and operation["problem"]:
            raise error_of(operation["problem"])


def _wait_for_end(here: Session, pid: int, quiet: bool) -> None:
    """The socket's file goes last; of a daemon that was killed meanwhile the process goes."""
    give_up = time.monotonic() + PATIENCE
    with display(here.err, quiet) as shown:
        while here.config.socket.exists() and Path(f"/proc/{pid}").exists():
            shown.show("the daemon is stopping")
            if time.monotonic() > give_up:
                raise TimedOut("the daemon has not ended yet", remedy="look at daemon.log in the state directory")
            time.sleep(0.1)


def _take_down_leftovers(here: Session) -> None:
    """No daemon answers: have one take down what an earlier one left, without starting anything."""
    ended = subprocess.run(
        [*daemon_command(here.config_file), "--take-down"], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise Reported(lines[-1].removeprefix("torpor: "), ended.returncode)


def register(app: typer.Typer) -> None:
    app.command()(down)
