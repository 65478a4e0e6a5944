"""Looking after guests that run: is the address on the interface, is the command finished."""

import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from torpor.domain.errors import TorporError
from torpor.domain.instance import AddressState, Instance
from torpor.domain.naming import NameRecord
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records

REVERIFY_SECONDS = 60.0
_RELEARN_SECONDS = 5.0
"""How often an adopted VM's address is looked for: its owner, or a DHCP server, may change it at any time."""
_OUTPUT_SHOWN = 400


class GuestWatch:
    """One round looks at every running instance once, several at a time."""

    def __init__(self, parts: Parts, records: Records, settings: Settings) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._verified_at: dict[str, float] = {}

    def round(self) -> bool:
        """Returns whether a command finished or an address changed its state."""
        work = [
            (workload, instance)
            for workload in self._parts.inventory.workloads()
            if workload.state is WorkloadState.ACTIVE
            for instance in self._records.instances(workload.id)
        ]
        running = {instance.id for _, instance in work}
        self._verified_at = {id: at for id, at in self._verified_at.items() if id in running}
        if not work:
            return False
        with ThreadPoolExecutor(max_workers=min(8, len(work)), thread_name_prefix="guest") as pool:
            return any(list(pool.map(lambda pair: self._look_at(*pair), work)))

    def _look_at(self, workload: Workload, instance: Instance) -> bool:
        try:
            changed = self._verify(workload, instance)
            if workload.command is not None and instance.exit_code is None:
                changed |= self._follow_command(workload, instance)
            return changed
        except TorporError as error:
            # The guest may be booting, or going to sleep under our hands: the next round asks again.
            self._note(workload, instance, str(error))
            return False

    # --- address ---

    def _verify(self, workload: Workload, instance: Instance) -> bool:
        if workload.adopted:
            return self._learn_address(workload, instance)
        now = self._parts.clock.now()
        fresh = now - self._verified_at.get(instance.id, 0.0) < REVERIFY_SECONDS
        if instance.address_state is AddressState.VERIFIED and fresh:
            return False
        if self._parts.guest.probe(instance):
            return self._mark(workload, instance, AddressState.VERIFIED, "")
        if self._parts.guest.agent_answers(instance.id):
            return self._mend(workload, instance)
        since = workload.running_since or now
        if now - since < self._settings.boot_grace:
            return False
        return self._mark(
            workload, instance, AddressState.MISMATCH,
            f"nothing answers for {instance.address} and no guest agent tells why; look at `torpor console "
            f"{instance.name}`, and use an image that reads its address from the config drive (cloud-init)",
        )  # fmt: skip

    def _learn_address(self, workload: Workload, instance: Instance) -> bool:
        """An adopted VM's address is its owner's business: it is found out, followed, and published."""
        now = self._parts.clock.now()
        if now - self._verified_at.get(instance.id, 0.0) < _RELEARN_SECONDS:
            return False
        self._verified_at[instance.id] = now
        found = self._parts.guest.addresses(instance.id)
        if not found:
            return self._mark(
                workload, instance, AddressState.UNVERIFIED,
                "neither its guest agent, nor a DHCP lease, nor the host's ARP table tells its address",
            )  # fmt: skip
        address = instance.address if instance.address in found else found[0]
        if address != instance.address:
            self._records.change_instance(workload.id, instance.id, address=address)
        self._parts.names.publish([NameRecord(instance.name, address)])
        instance = replace(instance, address=address)
        return self._mark(workload, instance, AddressState.VERIFIED, "")

    def _mend(self, workload: Workload, instance: Instance) -> bool:
        """The guest is up and its agent answers, but its address does not."""
        has = self._parts.guest.addresses(instance.id)
        network = self._settings.network(instance.address)
        if instance.address not in has:
            self._parts.guest.assign_address(instance, network.prefix, network.gateway)
            self._records.event(
                "address-mended", instance.name,
                f"{instance.name} had {', '.join(has) or 'no address'} instead of {instance.address}; "
                "the guest agent has put it right.",
            )  # fmt: skip
        if self._parts.guest.probe(instance):
            return self._mark(workload, instance, AddressState.VERIFIED, "")
        return self._mark(
            workload, instance, AddressState.MISMATCH,
            f"the interface has {', '.join(has) or 'no address'}, but nothing answers for {instance.address} "
            "on the network; a firewall in the guest may drop ARP, or another machine may use the address",
        )  # fmt: skip

    def _mark(self, workload: Workload, instance: Instance, state: AddressState, detail: str) -> bool:
        self._verified_at[instance.id] = self._parts.clock.now()
        if (instance.address_state, instance.address_detail) == (state, detail):
            return False
        self._records.change_instance(workload.id, instance.id, address_state=state, address_detail=detail)
        message = f"{instance.name} has {instance.address} {self._parts.guest.vantage()}."
        if state is AddressState.MISMATCH:
            message = f"{instance.name} has not got its address: {detail}."
        self._records.event(f"address-{state}", instance.name, message)
        return True

    # --- command ---

    def _follow_command(self, workload: Workload, instance: Instance) -> bool:
        """Start the command once the agent answers, then wait for its end."""
        guest = self._parts.guest
        if not guest.agent_answers(instance.id):
            return False
        if instance.command_pid is None:
            pid = guest.execute(instance.id, once(workload.command or ""))
            self._records.change_instance(workload.id, instance.id, command_pid=pid)
            self._records.event("command-started", instance.name, f"{instance.name} runs its command.")
            return True
        try:
            result = guest.execution(instance.id, instance.command_pid)
        except TorporError:
            # The agent was restarted, or its answer was lost: `once` makes it safe to ask anew.
            self._records.change_instance(workload.id, instance.id, command_pid=None)
            raise
        if not result.finished:
            return False
        code = result.exit_code if result.exit_code is not None else 255
        self._records.change_instance(workload.id, instance.id, exit_code=code)
        tail = result.output.strip()[-_OUTPUT_SHOWN:]
        self._records.event("command-finished", instance.name, f"exit code {code}" + (f": {tail}" if tail else ""))
        return True

    def _note(self, workload: Workload, instance: Instance, detail: str) -> None:
        if instance.address_state is AddressState.UNVERIFIED and instance.address_detail != detail:
            self._records.change_instance(workload.id, instance.id, address_detail=detail)


def once(command: str) -> str:
    """A shell command that runs `command` the first time in a boot, and waits for that run's end ever after.

    So it does no harm to start it twice when a crash has left it unknown whether it was started.
    """
    return (
        "d=/run/torpor-command; mkdir -p /run; "
        f"if mkdir $d 2>/dev/null; then /bin/sh -c {shlex.quote(command)} >$d/output 2>&1; "
        "echo $? >$d/code; mv $d/code $d/exit; fi; "
        "while [ ! -e $d/exit ]; do sleep 1; done; tail -c 65536 $d/output; exit $(cat $d/exit)"
    )
