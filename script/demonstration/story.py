"""The mission, step by step. Acts go through the command line; what is found goes into `Findings`."""

import threading
import time
from typing import Any

from demonstration import processes
from demonstration.failure import DemoFailed
from demonstration.findings import MIB, Answer, Findings
from demonstration.guests import GuestSilent
from demonstration.installation import Installation
from demonstration.resolver import dig
from demonstration.screen import Screen

IMAGE = "tiny"
BATCH, PRIORITY = "batch", "urgent"
GUESTS = 2
FILL_MB = 64
"""Random data in each batch VM."""
BATCH_MB, PRIORITY_MB = 256, 256
HOST = {"vcpus": 4, "memory_mb": 2 * (BATCH_MB + 128) + 64}
"""Room for the two batch VMs with QEMU's own memory, and for no third."""
INPUT_MB = 16
TASK = "until [ -s /run/torpor/fill.sum ]; do sleep 0.2; done; torpor-guest verify | grep -q '\"ok\": true'"
"""The priority VMs' task: wait for the input, then prove that it is whole."""
BOOT_PATIENCE = 120.0

Document = dict[str, Any]


class Story:
    """Runs once. Raises DemoFailed and GuestSilent; what was seen until then is in `findings`."""

    boot_patience = BOOT_PATIENCE
    patience = 120.0
    """Seconds for a workload to arrive where it is to be."""
    talk_patience = 20.0
    """Seconds for what the gang does to have gone on."""

    def __init__(self, installation: Installation, screen: Screen, findings: Findings) -> None:
        self._here = installation
        self._guests = installation.backend.guests
        self._screen = screen
        self._found = findings
        self._batch: list[Document] = []
        self._priority: list[Document] = []
        self._sampler: processes.Sampler | None = None

    def tell(self) -> None:
        step = self._screen.step
        with step("start", self._here.backend.greeting, self._found.seconds):
            self._start()
        with step("image", "Build the small test image, where it is not there yet", self._found.seconds):
            self._build_image()
        self._sampler = processes.Sampler(self._here.backend.pids)
        try:
            with step("batch_boot", "Two batch VMs, one gang, boot and fill the host", self._found.seconds):
                self._boot_batch()
            with step("batch_work", "They fill memory, work, and talk to each other", self._found.seconds):
                self._put_to_work()
            with step("dry_run", "A priority workload asks: what if?", self._found.seconds):
                self._dry_run()
            self._look("before")
            with step("suspend", "It arrives: the gang goes to disk", self._found.seconds):
                self._suspend()
            with step("priority_boot", "Two priority VMs boot on that memory", self._found.seconds):
                self._boot_priority()
            with step("priority_work", "They are reached by name, do their task, end", self._found.seconds):
                self._work_priority()
            with step("restore", "The gang comes back by itself", self._found.seconds):
                self._restore()
            with step("compare", "Everything is compared with before", self._found.seconds):
                self._compare()
        finally:
            self._found.samples = self._sampler.stop()

    # --- before ---

    def _start(self) -> None:
        self._here.start()
        total = self._here.torpor("hosts")["hosts"][0]["total"]
        self._screen.note(
            f"host: {total['vcpus']} vCPUs, {total['memory_mb']} MiB for VMs; name server at {self._here.name_server}"
        )

    def _build_image(self) -> None:
        if IMAGE not in [image["name"] for image in self._here.torpor("image", "ls")["images"]]:
            self._here.torpor("image", "build", IMAGE, "--recipe", "tiny", timeout=600.0)

    def _boot_batch(self) -> None:
        accepted = self._here.torpor(
            "run", BATCH, "--image", IMAGE, "--memory", f"{BATCH_MB}M", "--count", str(GUESTS), "--preemptible"
        )  # fmt: skip
        self._batch = accepted["workload"]["instances"]
        self._accepted(self._batch)
        self._ask_shell(self._batch, "at acceptance")
        assert self._sampler is not None
        self._sampler.watch(self._batch)
        self._here.wait_until(BATCH, lambda w: bool(w["state"] == "active"), self.patience)
        for instance in self._batch:
            self._guests.wait_for(instance["address"], self.boot_patience)

    def _accepted(self, instances: list[Document]) -> None:
        for instance in instances:
            self._found.addresses[instance["name"]] = instance["address"]
            self._screen.note(f"{instance['fqdn']} = {instance['address']}")

    def _put_to_work(self) -> None:
        self._ask_everywhere(self._batch, self._batch, "before")
        self._in_all(self._batch, f"fill {FILL_MB}")
        self._in_all(self._batch, "job")
        first, second = self._batch
        self._guests.ask(first["address"], f"connect {self._peer(second)}")
        self._screen.note(f"{FILL_MB} MiB of random data and a job of chained checksums in each")
        self._screen.note(f"{first['name']} holds a TCP connection to {self._peer(second)}")

    def _peer(self, instance: Document) -> str:
        """What another guest calls it."""
        return str(instance["name"])

    def _dry_run(self) -> None:
        as_equal = self._here.torpor(*self._run_priority(priority=0), "--dry-run")["plan"]
        self._found.fits_without_victims = as_equal["verdict"] == "ready"
        self._screen.note(f"with the same priority it would {as_equal['verdict']}: {as_equal['reason']}")
        plan = self._here.torpor(*self._run_priority(priority=10), "--dry-run")["plan"]
        self._found.victims = plan["victims"]
        for action in plan["actions"]:
            self._screen.note(
                f"plan: {action['kind']} {action['name']}, {action['predicted_seconds']:.1f} s ({action['reason']})"
            )
            if action["kind"] == "suspend":
                self._found.predicted_suspend_seconds = action["predicted_seconds"]
        if self._found.victims != [BATCH]:
            raise DemoFailed(f"the plan's victims are {self._found.victims} and not [{BATCH!r}]: {plan['reason']}")

    def _run_priority(self, priority: int) -> tuple[str, ...]:
        return (
            "run", PRIORITY, "--image", IMAGE, "--memory", f"{PRIORITY_MB}M", "--count", str(GUESTS),
            "--priority", str(priority), "--command", TASK,
        )  # fmt: skip

    def _look(self, when: str) -> None:
        """The guests' own word on where they stand."""
        seen = {i["name"]: self._guests.ask(i["address"], "status") for i in self._batch}
        if when == "before":
            self._found.before = seen
            self._found.memory_before = self._batch_memory()
        else:
            self._found.after = seen

    def _batch_memory(self) -> int:
        return processes.memory_of(self._here.backend.pids(self._batch).values())

    # --- the priority workload ---

    def _suspend(self) -> None:
        accepted = self._here.torpor(*self._run_priority(priority=10))
        self._priority = accepted["workload"]["instances"]
        self._accepted(self._priority)
        assert self._sampler is not None
        self._sampler.watch(self._batch, self._priority)
        self._here.wait_until(BATCH, lambda w: bool(w["state"] == "suspended"), self.patience)
        self._found.memory_after = self._batch_memory()
        self._found.processes_after = len(self._here.backend.pids(self._batch))
        self._found.state_bytes = self._here.stored_bytes(self._batch)
        self._screen.note(
            f"their QEMU processes' own memory: {self._found.memory_before // MIB} MiB before, "
            f"{self._found.memory_after // MIB} MiB now; on disk: {self._found.state_bytes // MIB} MiB"
        )
        self._note_operation("suspend")

    def _note_operation(self, kind: str) -> None:
        operation = self._operation(BATCH, kind)
        took = operation["ended_at"] - operation["created_at"]
        self._found.seconds[f"{kind}_operation"] = took
        predicted = operation["predicted_seconds"]
        said = f", {predicted:.1f} s were predicted" if predicted is not None else ""
        self._screen.note(f"the {kind} operation took {took:.1f} s{said}")

    def _operation(self, workload: str, kind: str) -> Document:
        """The newest of that kind, once it has ended. Raises DemoFailed."""
        give_up = time.monotonic() + self.patience
        while True:
            for operation in self._here.get("/v1/operations?limit=50")["operations"]:
                if (operation["workload"], operation["kind"]) == (workload, kind):
                    if operation["ended_at"]:
                        found: Document = operation
                        return found
                    break
            if time.monotonic() > give_up:
                raise DemoFailed(f"there is no {kind} operation of {workload} that has ended")
            time.sleep(0.2)

    def _boot_priority(self) -> None:
        for instance in self._priority:
            self._guests.wait_for(instance["address"], self.boot_patience)

    def _work_priority(self) -> None:
        self._ask_everywhere(self._batch, self._priority, "while suspended")
        self._ask_everywhere(self._priority, self._priority, "while it ran")
        self._greet_priority()
        self._in_all(self._priority, f"fill {INPUT_MB}")
        done = self._here.wait_until(PRIORITY, lambda w: bool(w["state"] == "done"), self.patience)
        self._found.exit_codes = {i["name"]: i["exit_code"] for i in done["instances"]}
        codes = ", ".join(f"{name}: {code}" for name, code in self._found.exit_codes.items())
        self._screen.note(f"their task is done, exit codes {codes}")

    def _greet_priority(self) -> None:
        for instance in self._priority:
            # Nothing but the name leads there.
            address = dig(self._here.name_server, instance["fqdn"])
            if address is None:
                raise DemoFailed(f"{instance['fqdn']} has no address")
            status = self._guests.ask(address, "status")
            self._found.priority_uptimes[instance["name"]] = status["uptime"]
            self._screen.note(f"{status['hostname']} reached by name, up for {status['uptime']:.0f} s")

    # --- after ---

    def _restore(self) -> None:
        self._here.wait_until(BATCH, lambda w: bool(w["state"] == "active"), self.patience)
        for instance in self._batch:
            self._guests.wait_for(instance["address"], self.boot_patience)
        self._note_operation("resume")

    def _compare(self) -> None:
        self._compare_guests()
        self._here.torpor("delete", PRIORITY, "--yes", "--no-wait")
        self._found.answer_after_deletion = dig(self._here.name_server, self._priority[0]["fqdn"])

    def _compare_guests(self) -> None:
        self._wait_for_talk()
        self._look("after")
        self._ask_everywhere(self._batch, self._batch, "after")
        self._found.verified = self._in_all(self._batch, "verify")

    def _wait_for_talk(self) -> None:
        """Until each counter and the connection have moved, for a while: what has not by then, won't."""
        give_up = time.monotonic() + self.talk_patience
        while time.monotonic() < give_up:
            self._look("after")
            before, after = self._found.before, self._found.after
            if all(after[n]["counter"] > before[n]["counter"] for n in before) and self._found.tcp_survived():
                return
            time.sleep(0.2)

    # --- asking ---

    def _in_all(self, instances: list[Document], command: str) -> dict[str, Document]:
        """Ask all guests at once; answers by instance."""
        answers: dict[str, Document] = {}
        failures: list[GuestSilent] = []

        def work(instance: Document) -> None:
            try:
                answers[instance["name"]] = self._guests.ask(instance["address"], command)
            except GuestSilent as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(instance,)) for instance in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return answers

    def _ask_shell(self, instances: list[Document], when: str) -> None:
        """Forward and reverse, from the operator's shell."""
        for instance in instances:
            address = dig(self._here.name_server, instance["fqdn"])
            self._found.answers.append(Answer(instance["name"], address, "the shell", when))
            back = dig(self._here.name_server, "-x", instance["address"])
            if back != instance["fqdn"]:
                raise DemoFailed(f"{instance['address']} was {back or 'nobody'} and not {instance['fqdn']} {when}")

    def _ask_everywhere(self, instances: list[Document], askers: list[Document], when: str) -> None:
        """From the shell, and from inside every one of the askers, by the short name."""
        self._ask_shell(instances, when)
        for asker in askers:
            for instance in instances:
                found = self._guests.ask(asker["address"], f"resolve {instance['name']}")["addresses"]
                self._found.answers.append(
                    Answer(instance["name"], found[0] if found else None, f"inside {asker['name']}", when)
                )
        told = ", ".join(f"{i['name']} = {i['address']}" for i in instances)
        self._screen.note(f"names {when}: {told}")
        self._screen.note(f"asked from the shell and inside {', '.join(a['name'] for a in askers)}")
