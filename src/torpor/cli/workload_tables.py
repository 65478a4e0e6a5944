"""Workloads and plans, as they are printed."""

import time

from torpor.cli.client import Document
from torpor.cli.problems import error_of
from torpor.cli.quantities import show_bytes, show_mb, show_seconds
from torpor.cli.session import Session
from torpor.cli.tables import left, name, print_table, right, text
from torpor.domain.errors import Refused


def _note(workload: Document) -> str:
    if workload["operation"]:
        return f"{workload['operation']['kind']}: {workload['operation']['reason']}"
    if workload["problem"]:
        return str(error_of(workload["problem"]))
    return str(workload["waiting_for"] or workload["reason"])


def print_workloads(here: Session, workloads: list[Document], everything: bool) -> None:
    if not workloads:
        here.say("there are no workloads" if everything else "there are no workloads (ended ones: `torpor ps -a`)")
        return
    columns = [name("NAME"), left("STATE"), right("VMS"), right("CPUS"), right("MEMORY"), right("PRIO"), right("RAN")]
    rows = [
        (
            w["name"],
            w["state"],
            w["count"],
            w["flavor"]["vcpus"],
            show_mb(w["flavor"]["memory_mb"]),
            w["priority"],
            show_seconds(w["ran_seconds"]) if w["ran_seconds"] else "-",
        )
        for w in workloads
    ]
    print_table(here.out, columns, rows, [_note(w) for w in workloads])


def print_workload(here: Session, w: Document) -> None:
    flavor = w["flavor"]
    rules = [word for word in ("preemptible", "protect", "held", "adopted") if w[word]]
    disk = show_mb(flavor["disk_mb"]) if flavor["disk_mb"] else "as the image"
    facts = [
        ("name", w["name"]),
        ("state", w["state"]),
        ("why", w["reason"]),
        ("waits for", w["waiting_for"]),
        ("problem", error_of(w["problem"]) if w["problem"] else ""),
        ("image", w["image"]),
        ("size", f"{w['count']} x {flavor['vcpus']} vCPU, {show_mb(flavor['memory_mb'])} memory, disk {disk}"),
        ("priority", f"{w['priority']}" + (f" ({', '.join(rules)})" if rules else "")),
        ("ran", show_seconds(w["ran_seconds"]) + _of(w["duration_seconds"])),
        ("command", w["command"] or ""),
        ("created", show_time(w["created_at"])),
        ("id", w["id"]),
    ]
    for label, value in facts:
        if value != "":
            here.say(f"{label + ':':<11} {value}")
    _print_operation(here, w)
    _print_instances(here, w["instances"])


def _of(duration: float | None) -> str:
    return f" of {show_seconds(duration)}" if duration else ""


def show_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _print_operation(here: Session, workload: Document) -> None:
    operation = workload["operation"]
    if operation is None:
        return
    predicted = operation["predicted_seconds"]
    about = f", about {show_seconds(predicted)} predicted" if predicted else ""
    here.say("")
    here.say(f"operation {operation['kind']} ({operation['status']}{about}): {operation['reason']}")
    names = {instance["id"]: instance["name"] for instance in workload["instances"]}
    rows = []
    for step in operation["steps"]:
        took = ""
        if step["started_at"] and step["ended_at"]:
            took = show_seconds(step["ended_at"] - step["started_at"])
        elif step["status"] == "intended" and operation["bytes_total"]:
            took = f"{show_bytes(operation['bytes_done'])} of {show_bytes(operation['bytes_total'])}"
        rows.append((step["kind"], names.get(step["instance"], "-"), step["status"], took, step["detail"]))
    print_table(here.out, [left("STEP"), name("INSTANCE"), left("STATUS"), right("TOOK"), text("DETAIL")], rows)


def _print_instances(here: Session, instances: list[Document]) -> None:
    here.say("")
    rows = []
    for i in instances:
        running = i["backend_state"] == "running"
        rows.append(
            (
                i["name"],
                i["address"],
                i["backend_state"],
                i["address_state"] if running else "-",
                show_bytes(i["process_bytes"]) if i["pid"] else "-",
                show_bytes(i["states"][0]["stored_bytes"]) if i["states"] else "-",
                "" if i["exit_code"] is None else i["exit_code"],
            )
        )
    print_table(
        here.out,
        [
            name("INSTANCE"),
            left("ADDRESS"),
            left("VM"),
            left("ADDRESS IS"),
            right("MEMORY"),
            right("SAVED"),
            text("EXIT"),
        ],
        rows,
    )
    for i in instances:
        if i["address_detail"]:
            here.say(f"{i['name']}: {i['address_detail']}")
        if i["clock_detail"]:
            here.say(f"{i['name']}: when it last ran on, its clock: {i['clock_detail']}")
        if i["problem"]:
            here.say(f"{i['name']}: {error_of(i['problem'])}")


def _plan_headline(plan: Document) -> str:
    if plan["verdict"] == "ready":
        about = f"can go now, in about {show_seconds(plan['predicted_seconds'])}"
        return f"{plan['name']} {about}: {plan['reason']}" if plan["reason"] else f"{plan['name']} {about}"
    if plan["verdict"] == "refused":
        return f"{plan['name']} is refused: {plan['reason']}"
    again = f" (next look at {show_time(plan['retry_at'])[11:]})" if plan["retry_at"] else ""
    return f"{plan['name']} waits: {plan['reason']}{again}"


def print_plan(here: Session, plan: Document) -> None:
    here.say(_plan_headline(plan))
    rows = [
        (f"{number}.", action["kind"], action["name"], show_seconds(action["predicted_seconds"]), action["reason"])
        for number, action in enumerate(plan["actions"], start=1)
    ]
    if rows:
        print_table(here.out, [left(""), left("ACTION"), name("WORKLOAD"), right("PREDICTED"), text("REASON")], rows)


def answer_dry_run(here: Session, outcome: Document, as_json: bool) -> int | None:
    """Print the plan; the exit code is that of a refusal where it is one."""
    here.print_json(outcome) if as_json else print_plan(here, outcome["plan"])
    return Refused.exit_code if outcome["plan"]["verdict"] == "refused" else None


def print_accepted(here: Session, outcome: Document) -> None:
    print_plan(here, outcome["plan"])
    print_table(
        here.out, [name("INSTANCE"), left("ADDRESS"), name("NAME")],
        [(i["name"], i["address"], i["fqdn"]) for i in outcome["workload"]["instances"]],
    )  # fmt: skip


def notice_accepted(here: Session, outcome: Document) -> None:
    here.notice(_plan_headline(outcome["plan"]))


def print_arrived(here: Session, w: Document, already: bool = False) -> None:
    """One line: where it is now, or has been `already`, and what that means."""
    line = f"{w['name']} is {w['state']}" + (" already" if already else "")
    if w["state"] == "suspended":
        saved = sum(i["states"][0]["stored_bytes"] for i in w["instances"] if i["states"])
        line += f": {show_bytes(saved)} saved for {w['count']} VM{'s' if w['count'] > 1 else ''}"
        line += "" if w["held"] else "; it comes back as soon as it fits"
    elif w["state"] == "active":
        line += ": " + ", ".join(f"{i['fqdn']} {i['address']}".rstrip() for i in w["instances"][:4])
        line += f" and {w['count'] - 4} more" if w["count"] > 4 else ""
    elif w["reason"]:
        line += f": {w['reason']}"
    here.say(line)
