"""The mission on a cloud: the same as everywhere, and who else wants its room."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.openstack.clouds import API_FAILURES
from lab.openstack.failure import LabFailed
from openstack.connection import Connection

from demonstration import guests, processes
from demonstration.cloud.backend import NETWORK, OTHERS, OWNER, RIVAL, OpenStackBackend
from demonstration.cloud.books import Books
from demonstration.cloud.findings import CloudFindings, own_seconds, seconds_by_kind
from demonstration.cloud.rival import Rival
from demonstration.failure import DemoFailed
from demonstration.findings import Findings
from demonstration.installation import Installation
from demonstration.resolver import dig
from demonstration.screen import Screen
from demonstration.story import BATCH, BATCH_MB, GUESTS, IMAGE, INPUT_MB, PRIORITY, Document, Story

FLAVOR = f"g{BATCH_MB}"
PATIENCE = 600.0
"""Seconds for what Nova does to emulated guests on a busy machine."""
MOST_ROUNDS = 6
"""So often it is tried whether the competitor wins."""
_NOVA_STEPS = {"suspend": "pause", "resume": "run-on"}
"""The steps of these operations in which Nova acts, and Torpor waits."""


class CloudStory(Story):
    """Runs once; `compete`: somebody of another project tries to boot all the while."""

    boot_patience = PATIENCE
    patience = PATIENCE
    talk_patience = 120.0

    def __init__(
        self, installation: Installation, backend: OpenStackBackend, screen: Screen, findings: Findings, compete: bool
    ) -> None:
        super().__init__(installation, screen, findings)
        self._lab = backend
        self._cloud = findings.cloud = CloudFindings(competing=compete)
        self._books: Books | None = None
        self._rival: Rival | None = None
        self._line: socket.socket | None = None
        self._round = 1

    def tell(self) -> None:
        try:
            with self._step("start", self._here.backend.greeting):
                self._start()
            self._sampler = processes.Sampler(self._here.backend.pids)
            self._tell()
        except (*API_FAILURES, LabFailed, OSError) as error:
            raise DemoFailed(f"the lab failed: {' '.join(str(error).split())}") from error
        finally:
            self._end()

    def _end(self) -> None:
        if self._sampler is not None:
            self._found.samples = self._sampler.stop()
        if self._rival is not None:
            self._rival.stop()
        if self._line is not None:
            self._line.close()
        if self._books is not None:
            self._books.close()

    def _tell(self) -> None:
        with self._step("batch_boot", "A batch gang of two, and others' servers, fill the host"):
            self._boot_batch()
            self._fill_host()
        with self._step("batch_work", "The gang fills memory, works, and talks to each other"):
            self._put_to_work()
        with self._step("no_valid_host", "An ordinary boot: there is no room"):
            self._boot_in_vain()
        with self._step("dry_run", "A priority workload asks: what if?"):
            self._dry_run()
        self._look("before")
        if self._cloud.competing:
            self._rival = Rival(self._lab.cloud(RIVAL), _server(self._lab.cloud(RIVAL)), self._cloud)
        self._preempt()
        while self._rival is not None and not self._cloud.wins and self._round < MOST_ROUNDS:
            self._round += 1
            self._preempt()
        with self._step("compare", "Everything is compared with before"):
            self._compare()

    def _preempt(self) -> None:
        """A round: room is made, used, and given back."""
        again = "" if self._round == 1 else f"_{self._round}"
        with self._step(f"suspend{again}", "It arrives: the gang goes to disk"):
            self._suspend()
        with self._step(f"priority_boot{again}", "Two priority servers boot on what was freed"):
            self._boot_priority()
        with self._step(f"priority_work{again}", "They are reached by name, and work"):
            self._work_priority()
        with self._step(f"restore{again}", "They are deleted, and the gang comes back by itself"):
            self._restore()

    @contextmanager
    def _step(self, key: str, title: str) -> Iterator[None]:
        with self._screen.step(key, title, self._found.seconds):
            if self._books is not None:
                self._books.during(key)
            yield
            if self._books is not None:
                used, _ = self._books.booked()
                self._cloud.by_step[key] = dict(used)
                self._screen.note(self._books.line())

    # --- before ---

    def _start(self) -> None:
        self._here.start()
        self._lab.probe.open(self._lab.admin, _id(self._lab.cloud(OWNER), NETWORK))
        self._books = Books(self._lab.admin, self._lab.lab.hostname, self._lab.guests_running, self._cloud)
        super()._start()

    def _boot_batch(self) -> None:
        if (free := self._free_vcpus()) < GUESTS + 1:
            number = self._lab.lab.number
            raise DemoFailed(f"lab {number} has {free} vCPUs free, and {GUESTS + 1} are needed: delete servers there")
        super()._boot_batch()

    def _free_vcpus(self) -> int:
        assert self._books is not None
        used, capacity = self._books.booked()
        return capacity.get("VCPU", 0) - used.get("VCPU", 0)

    def _fill_host(self) -> None:
        """By the owner's own, of which Torpor is told nothing."""
        owner = self._lab.cloud(OWNER)
        server = _server(owner)
        made = [owner.compute.create_server(name=f"{OTHERS}{n}", **server) for n in range(self._free_vcpus())]
        for each in made:
            owner.compute.wait_for_server(each, wait=int(PATIENCE))
        self._screen.note(f"beside the gang {len(made)} of others: {', '.join(each.name for each in made)}")

    def _put_to_work(self) -> None:
        super()._put_to_work()
        self._line = self._guests.connect(self._batch[0]["address"], guests.ECHO_PORT, 60.0)
        self._line.settimeout(120.0)
        self._cloud.outside["before"] = self._say_on_line(1)
        self._cloud.outside["port_before"] = self._line.getsockname()[1]
        self._screen.note(f"a client outside holds a TCP connection to {self._batch[0]['name']}, too")

    def _peer(self, instance: Document) -> str:
        return str(instance["address"])  # the lab's guests have no name server

    def _say_on_line(self, round: int) -> int:
        """The round, once the guest has said the same; 0 where it did not."""
        assert self._line is not None
        said = f"round {round}\n".encode()
        try:
            self._line.sendall(said)
            heard = b""
            while not heard.endswith(b"\n") and (more := self._line.recv(64)):
                heard += more
        except OSError:
            return 0
        return round if heard == said else 0

    def _boot_in_vain(self) -> None:
        """As anybody would, in a project of which Torpor knows nothing."""
        stranger = self._lab.cloud(RIVAL).compute
        made = stranger.create_server(name=f"{OTHERS}in-vain", **_server(self._lab.cloud(RIVAL)))
        seen = stranger.get_server(made)
        give_up = time.monotonic() + PATIENCE
        while seen.status not in ("ACTIVE", "ERROR") and time.monotonic() < give_up:
            time.sleep(0.5)
            seen = stranger.get_server(made)
        self._cloud.refusal = str((seen.fault or {}).get("message", "")) or f"it is {seen.status}"
        self._lab.delete_others(self._lab.cloud(RIVAL))
        self._screen.note(f"Nova: {self._cloud.refusal}")

    # --- the priority workload ---

    @property
    def _priority_name(self) -> str:
        return PRIORITY if self._round == 1 else f"{PRIORITY}{self._round}"

    def _run_priority(self, priority: int) -> tuple[str, ...]:
        return (
            "run", self._priority_name, "--image", IMAGE, "--memory", f"{BATCH_MB}M", "--count", str(GUESTS),
            "--priority", str(priority),
        )  # fmt: skip

    def _suspend(self) -> None:
        super()._suspend()
        self._cloud.own_suspend_seconds = self._own_seconds("suspend")
        self._screen.note(
            f"our own time on top of Nova's suspend: {self._cloud.own_suspend_seconds:.2f} s for the gang of {GUESTS}"
        )

    def _own_seconds(self, kind: str) -> float:
        """Of the newest operation of that kind, on top of what Nova took."""
        steps = self._operation(BATCH, kind)["steps"]
        self._cloud.step_seconds[kind] = seconds_by_kind(steps)
        return round(own_seconds(steps, _NOVA_STEPS[kind]), 2)

    def _boot_priority(self) -> None:
        while True:
            arrived = self._here.wait_until(self._priority_name, lambda w: _runs(w) or self._lost(w), PATIENCE)
            if _runs(arrived):
                break
            self._tell_of_loss(arrived)
        self._priority = arrived["instances"]
        super()._boot_priority()

    def _lost(self, workload: Document) -> bool:
        """The competitor has the room, and the workload has nothing under way any more, and says why."""
        waits = workload["state"] == "pending" and workload["operation"] is None
        return self._rival is not None and self._rival.has_room and waits and bool(_why(workload))

    def _tell_of_loss(self, workload: Document) -> None:
        assert self._rival is not None
        batch = self._here.get(f"/v1/workloads/{BATCH}")["state"]
        self._cloud.told = _why(workload)
        self._screen.note(
            f"the competitor took the room: {workload['name']} is {workload['state']}, {BATCH} is {batch}"
        )
        self._screen.note(f"{workload['name']} waits: {self._cloud.told}")
        if self._books is not None:
            self._screen.note(self._books.line())
        self._rival.let_go()
        self._screen.note("the competitor lets go, and goes on after a rest")

    def _work_priority(self) -> None:
        self._ask_everywhere(self._batch, self._priority, "while suspended")
        self._ask_everywhere(self._priority, self._priority, "while it ran")
        self._greet_priority()
        self._in_all(self._priority, f"fill {INPUT_MB}")
        for name, answer in self._in_all(self._priority, "verify").items():
            self._found.priority_verified[name] = bool(answer["ok"])
        self._screen.note("each has filled memory and found it whole")

    # --- after ---

    def _restore(self) -> None:
        self._here.torpor("delete", self._priority_name, "--yes", "--no-wait")
        self._found.answer_after_deletion = dig(self._here.name_server, self._priority[0]["fqdn"])
        super()._restore()
        self._cloud.own_resume_seconds = self._own_seconds("resume")
        self._screen.note(
            f"our own time on top of Nova's resume: {self._cloud.own_resume_seconds:.2f} s for the gang of {GUESTS}"
        )

    def _compare(self) -> None:
        self._compare_guests()
        assert self._line is not None
        self._cloud.outside["after"] = self._say_on_line(2)
        self._cloud.outside["port_after"] = self._line.getsockname()[1]
        if self._cloud.outside_survived():
            self._screen.note("the client outside is answered on its connection")
        if self._cloud.competing:
            self._screen.note(f"the competitor asked {self._cloud.attempts} times, and won {self._cloud.wins} times")

    # --- asking ---

    def _ask_everywhere(self, instances: list[Document], askers: list[Document], when: str) -> None:
        """From the shell: the lab's guests have no name server."""
        self._ask_shell(instances, when)
        told = ", ".join(f"{i['name']} = {i['address']}" for i in instances)
        self._screen.note(f"names {when}: {told}")


def _runs(workload: Document) -> bool:
    return bool(workload["state"] == "active")


def _why(workload: Document) -> str:
    return str(workload["reason"] or workload["waiting_for"])  # the latter may be of the plan that was outrun


def _server(cloud: Connection) -> dict[str, Any]:
    """An ordinary server, as its owner asks for it."""
    return {
        "image_id": cloud.image.find_image(IMAGE, ignore_missing=False).id,
        "flavor_id": cloud.compute.find_flavor(FLAVOR, ignore_missing=False).id,
        "networks": [{"uuid": _id(cloud, NETWORK)}],
        "config_drive": True,
    }


def _id(cloud: Connection, network: str) -> str:
    return str(cloud.network.find_network(network, ignore_missing=False).id)
