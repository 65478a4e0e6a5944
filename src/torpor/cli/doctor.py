"""What is wrong with this installation."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from torpor.cli.client import Document
from torpor.cli.progress import display
from torpor.cli.session import Json, Session, session
from torpor.cli.tables import cell
from torpor.cli.workload_tables import show_time
from torpor.config import DEFAULT_FILE, source
from torpor.domain.errors import BackendFailed, MissingPart, TorporError


def _check(name: str, ok: bool, detail: str, remedy: str = "") -> Document:
    return {"name": name, "ok": ok, "detail": detail, "remedy": remedy}


def _findings(here: Session) -> Iterator[Document]:
    try:
        health = here.client.get("/v1/health")
        yield _check("daemon", True, f"version {health['version']}, process {health['pid']}")
        yield _configuration(here, health)
        yield from here.client.get("/v1/doctor")["checks"]
    except TorporError as error:
        yield _check("daemon", False, f"{error.what}: {error.detail}" if error.detail else error.what, error.remedy)


def _configuration(here: Session, health: Document) -> Document:
    """Whether the daemon has the one that we read."""
    read = source(here.config_file)
    name = str(read) if read else f"there is no {DEFAULT_FILE}, so every key has its default"
    if health.get("configuration") == here.config.digest:
        return _check("configuration", True, name)
    began = show_time(health["started_at"])
    detail = f"{read or 'what there is now'} is not what the daemon was started with, {began}"
    remedy = f"end it with `kill {health['pid']}` (VMs run on); the next command starts it anew"
    return _check("configuration", False, detail, remedy)


def _self_test(here: Session, as_json: bool) -> Document:
    with display(here.err, quiet=as_json) as shown:
        for line in here.client.lines("/v1/doctor/self-test"):
            if check := line.get("check"):
                return dict(check)
            shown.show(f"self-test: {line.get('progress', '')}")
    raise BackendFailed("the self-test ended without a result", remedy="look at the daemon's log")


app = typer.Typer()


@app.callback(invoke_without_command=True)
def doctor(
    context: typer.Context,
    self_test: Annotated[bool, typer.Option("--self-test", help="Also suspend, restore and checksum a guest.")] = False,
    as_json: Json = False,
) -> int | None:
    """Check this installation; exit code 7 where something is wrong."""
    if context.invoked_subcommand is not None:
        return None
    here = session(context)
    checks = list(_findings(here))
    if self_test and checks[0]["ok"]:
        checks.append(_self_test(here, as_json))
    return show(here, checks, as_json)


def show(here: Session, checks: Sequence[Document], as_json: bool) -> int | None:
    """Print what was found; the exit code."""
    if as_json:
        here.print_json({"ok": all(check["ok"] for check in checks), "checks": checks})
    else:
        for check in checks:
            _print(here, check)
    return None if all(check["ok"] for check in checks) else MissingPart.exit_code


def _print(here: Session, check: Document) -> None:
    line = cell("ok" if check["ok"] else "FAIL")
    line.append(" " * (5 - len(line))).append(f"{cell(check['name'])}: ", style="bold default")
    line.append(cell(check["detail"]))
    if not check["ok"] and check["remedy"]:
        line.append(f"; {cell(check['remedy'])}", style="default")
    here.out.print(line, soft_wrap=True)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="doctor")
