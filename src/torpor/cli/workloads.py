"""Workloads: run, suspend, resume, delete, ps, show, plan."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from torpor.cli import workload_tables as tables
from torpor.cli.client import Document, segment
from torpor.cli.quantities import disk, duration, memory
from torpor.cli.session import DryRun, Json, Session, session
from torpor.cli.waiting import Wait, active, operation_ids
from torpor.domain.errors import Invalid

Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name of the workload.")]
Waiting = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]


def _path(name: str) -> str:
    return f"/v1/workloads/{segment(name, 'workload')}"


def _ended(workload: Document) -> bool:
    return bool(workload["state"] == "done")


def _suspended(workload: Document) -> bool:
    return bool(workload["state"] == "suspended") and workload["operation"] is None


def _read_user_data(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Invalid(f"user data {file} can't be read", detail=str(reason), remedy="check the path") from error


def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the workload; its instances' hostnames begin with it.")],
    image: Annotated[str, typer.Option(help="Image to boot; see `torpor image ls`.")],
    cpus: Annotated[int, typer.Option(min=1, max=1_000_000, help="vCPUs of an instance.")] = 1,
    memory: Annotated[int, typer.Option(parser=memory, metavar="SIZE", help="Memory: 512M, 2G.")] = "512M",  # type: ignore[assignment]
    disk: Annotated[int, typer.Option(parser=disk, metavar="SIZE", help="Disk; 0: as the image.")] = "0",  # type: ignore[assignment]
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Instances.")] = 1,
    priority: Annotated[int, typer.Option(min=-1_000_000, max=1_000_000, help="Higher goes first.")] = 0,
    preemptible: Annotated[bool, typer.Option("--preemptible", help="May be suspended to make room.")] = False,
    protect: Annotated[bool, typer.Option("--protect", help="Must never be suspended.")] = False,
    duration: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="Ends then: 90s, 2h.")] = None,
    command: Annotated[str | None, typer.Option(help="Shell command for every guest; ends when all have.")] = None,
    user_data: Annotated[Path | None, typer.Option(metavar="FILE", help="For cloud-init; - reads stdin.")] = None,
    keep_address: Annotated[bool, typer.Option("--keep-address", help="With the last one's address and MAC.")] = False,
    project: Annotated[str, typer.Option(help="OpenStack: the project that the servers belong to.")] = "",
    flavor: Annotated[str, typer.Option(help="OpenStack: instead of --cpus, --memory and --disk.")] = "",
    network: Annotated[list[str] | None, typer.Option(help="OpenStack; may be given several times.")] = None,
    key_name: Annotated[str, typer.Option(help="OpenStack: a key pair of Nova's.")] = "",
    security_group: Annotated[list[str] | None, typer.Option(help="OpenStack; may be given several times.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it runs; with an end, until that.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int | None:
    """Run a workload: one or more equal VMs that belong together."""
    here = session(context)
    body: dict[str, Any] = {
        "name": name, "image": image, "vcpus": cpus, "memory_mb": memory, "disk_mb": disk, "count": count,
        "priority": priority, "preemptible": preemptible, "protect": protect, "duration_seconds": duration,
        "command": command, "user_data": _read_user_data(user_data), "keep_address": keep_address,
        "options": {
            "project": project, "flavor": flavor, "networks": network or [], "key_name": key_name,
            "security_groups": security_group or [],
        },
    }  # fmt: skip
    outcome = here.client.post("/v1/workloads", body, dry_run=dry_run)
    if dry_run:
        return tables.answer_dry_run(here, outcome, as_json)
    if not wait:
        here.print_json(outcome) if as_json else tables.print_accepted(here, outcome)
        return None
    if not as_json:
        tables.notice_accepted(here, outcome)
    final = Wait(here, name).until(_ended if command or duration else active, quiet=as_json)
    here.print_json({**outcome, "workload": final}) if as_json else tables.print_arrived(here, final)
    return _exit_code(final)


def _exit_code(workload: Document) -> int | None:
    """The first exit code of the workload's command that is not 0."""
    codes = [instance["exit_code"] for instance in workload["instances"] if instance["exit_code"]]
    return min(255, codes[0]) if codes and codes[0] > 0 else (1 if codes else None)


def suspend(
    context: typer.Context, name: Name, wait: Waiting = True, dry_run: DryRun = False, as_json: Json = False
) -> int | None:
    """Suspend a workload to disk; it stays so until `resume`."""
    here = session(context)
    if dry_run:
        return tables.answer_dry_run(here, here.client.post(f"{_path(name)}/suspend", dry_run=True), as_json)
    known = operation_ids(here.client, name)
    outcome = here.client.post(f"{_path(name)}/suspend")
    already = _suspended(outcome["workload"]) and operation_ids(here.client, name) == known
    if wait:
        outcome["workload"] = Wait(here, name, known).until(_suspended, as_json, give_up_when_undone=True)
    here.print_json(outcome) if as_json else tables.print_arrived(here, outcome["workload"], already)
    return None


def resume(
    context: typer.Context, name: Name, wait: Waiting = True, dry_run: DryRun = False, as_json: Json = False
) -> int | None:
    """Let a suspended workload come back as soon as it fits."""
    here = session(context)
    if dry_run:
        return tables.answer_dry_run(here, here.client.post(f"{_path(name)}/resume", dry_run=True), as_json)
    known = operation_ids(here.client, name)
    outcome = here.client.post(f"{_path(name)}/resume")
    if wait:
        outcome["workload"] = Wait(here, name, known).until(active, as_json)
    here.print_json(outcome) if as_json else tables.print_arrived(here, outcome["workload"])
    return None


def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Waiting = True,
    as_json: Json = False,
) -> None:
    """Delete a workload with its disks and saved states."""
    here = session(context)
    if not yes:
        _confirm(here, name)
    known = operation_ids(here.client, name)
    with here.busy(f"deleting {name}; an operation under way is waited for", quiet=as_json):
        outcome = here.client.delete(_path(name))
    if wait:
        Wait(here, name, known).until_gone(quiet=as_json)
        outcome = {"deleted": name}
    if as_json:
        here.print_json(outcome)
    else:
        here.say(f"{name} is deleted" if wait else f"{name} is being deleted")


def _confirm(here: Session, name: str) -> None:
    workload = here.client.get(_path(name))
    if not sys.stdin.isatty():
        raise Invalid(f"{name} was not deleted", detail="there is nobody to ask", remedy="say --yes")
    what = f"Delete {name} ({workload['state']}, {workload['count']} VMs) with its disks and saved states?"
    typer.confirm(what, abort=True, err=True)


def ps(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
    as_json: Json = False,
) -> None:
    """List workloads."""
    here = session(context)
    document = here.client.get("/v1/workloads")
    if not everything:
        document["workloads"] = [w for w in document["workloads"] if w["state"] != "done"]
    here.print_json(document) if as_json else tables.print_workloads(here, document["workloads"], everything)


def show(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show a workload, its instances and what is being done to it."""
    here = session(context)
    workload = here.client.get(_path(name))
    here.print_json(workload) if as_json else tables.print_workload(here, workload)


def plan(context: typer.Context, as_json: Json = False) -> None:
    """Show the queue: what every waiting workload waits for, or what would be done for it."""
    here = session(context)
    document = here.client.get("/v1/queue")
    if as_json:
        here.print_json(document)
        return
    if not document["plans"]:
        here.say("nothing waits")
    for index, each in enumerate(document["plans"]):
        if index:
            here.say("")
        tables.print_plan(here, each)


def register(app: typer.Typer) -> None:
    for command in (run, suspend, resume, delete, ps, show, plan):
        app.command()(command)
