"""Guests seen from outside (ARP) and from inside (their agent)."""

import base64
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Protocol
from weakref import WeakValueDictionary

from torpor.adapters.guest.arp import has_address
from torpor.domain.errors import AgentRefused, AgentSilent, BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import ClockGap, Execution, Instance

_OUTPUT_BYTES = 64 * 1024
_FOLLOWS_SECONDS = 1.0
"""A clock that is further off than this, and than half of what it was, does not follow."""
_NOT_WORTH_A_JUMP_SECONDS = 0.03
_CLOCK_ROUNDS = 3
_CLOCK_QUESTIONS = 3
_LONGEST_LEAD_SECONDS = 5.0
_AWAKE_SECONDS = 60.0
"""Until the agent of a guest that goes on from a snapshot is heard."""
_SHORT, _LONG = 5.0, 20.0
"""Seconds for a question that the agent answers itself, and for one that runs a program in the guest."""


class Conversation(Protocol):
    """An agent that was just heard."""

    def ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """The command's `return` value, within `timeout` seconds. Raises AgentRefused, AgentSilent.

        Commands and answers are those of qemu-guest-agent's QAPI schema.
        """
        ...


Converse = Callable[[InstanceId], AbstractContextManager[Conversation]]
"""Begins a conversation with a guest's agent. Raises AgentSilent."""


@dataclass(frozen=True, slots=True)
class Ethernet:
    """Where the host meets a guest: its own link to the guest's Ethernet, and its IPv4 address there."""

    interface: str
    address: str


class AgentGuest:
    """The Guest port. Thread-safe: one conversation at a time with each guest."""

    def __init__(
        self,
        converse: Converse,
        ethernet: Callable[[Instance], Ethernet],
        probe_seconds: float = 1.0,
        link_up: Callable[[InstanceId], None] = lambda instance: None,
    ) -> None:
        """`ethernet` tells where to ask for a guest's address; `link_up` plugs a guest's network cable in."""
        self._link_up = link_up
        self._converse = converse
        self._ethernet = ethernet
        self._probe_seconds = probe_seconds
        self._turns: WeakValueDictionary[InstanceId, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def agent_answers(self, instance: InstanceId) -> bool:
        try:
            with self._talk(instance):
                return True
        except AgentSilent:
            return False

    def vantage(self) -> str:
        return "on its interface"

    def probe(self, instance: Instance) -> bool:
        link = self._ethernet(instance)
        return has_address(link.interface, link.address, instance.mac, instance.address, self._probe_seconds)

    def addresses(self, instance: InstanceId) -> Sequence[str]:
        with self._talk(instance) as talk:
            return interface_addresses(talk.ask("guest-network-get-interfaces", _SHORT))

    def assign_address(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        with self._talk(instance.id) as talk:
            interface = interface_of(instance.mac, talk.ask("guest-network-get-interfaces", _SHORT))
            if interface is None:
                raise BackendFailed(
                    f"{instance.name} can't be given its address {instance.address}",
                    detail=f"no interface in the guest has the MAC {instance.mac}",
                    remedy="see that the image's kernel has a virtio network driver",
                )
            result = self._shell(talk, assigning(interface, instance.address, network_prefix, gateway))
        if result.exit_code != 0:
            raise BackendFailed(
                f"{instance.name} could not be given its address {instance.address}",
                detail=" ".join(result.output.split())[-300:] or f"exit code {result.exit_code}",
                remedy="look at the guest's network with `torpor console`",
            )

    def take_identity(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        """The agent may have to be waited for: the guest has just begun to run, and remembers another line."""
        self._await_agent(instance.id)
        with self._talk(instance.id) as talk:
            found = talk.ask("guest-network-get-interfaces", _SHORT)
            interface = interface_of(instance.mac, found) or only_interface(found)
            if interface is None:
                raise BackendFailed(
                    f"{instance.name} can't be told who it is",
                    detail="which of its interfaces is meant can't be told",
                    remedy="make clones of guests with one network interface",
                )
            result = self._shell(talk, identifying(interface, instance, network_prefix, gateway))
        if result.exit_code != 0:
            raise BackendFailed(
                f"{instance.name} could not be told who it is",
                detail=" ".join(result.output.split())[-300:] or f"exit code {result.exit_code}",
                remedy="look at the guest's network with `torpor console`",
            )
        self._link_up(instance.id)

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap:
        """Set it, look how far off it still is, set it again with that much lead: a few rounds at most.

        Gaps are correct to half the time that the question takes.
        """
        began = time.monotonic()

        def host_time() -> float:
            return now + time.monotonic() - began

        with self._talk(instance) as talk:
            behind = left = self._behind(talk, host_time)
            lead = 0.0
            for _ in range(_CLOCK_ROUNDS):
                if abs(left) <= _NOT_WORTH_A_JUMP_SECONDS:
                    break
                self._adjust(talk, host_time() + lead)
                left = self._behind(talk, host_time)
                lead = min(_LONGEST_LEAD_SECONDS, max(0.0, lead + left))
        if abs(left) > max(_FOLLOWS_SECONDS, abs(behind) / 2):
            raise BackendFailed(
                "the guest's clock could not be set",
                detail=f"it is still {left:.1f} s behind",
                remedy="set it in the guest, or let it run a time service",
            )
        return ClockGap(behind, left)

    def execute(self, instance: InstanceId, command: str) -> int:
        with self._talk(instance) as talk:
            return self._start(talk, command)

    def execution(self, instance: InstanceId, pid: int) -> Execution:
        with self._talk(instance) as talk:
            try:
                return parse_execution(talk.ask("guest-exec-status", _LONG, pid=pid))
            except AgentRefused as error:
                raise AgentRefused(
                    f"the guest agent knows no command with pid {pid}",
                    detail="its result was handed out before, or the guest has booted since",
                ) from error

    def shutdown(self, instance: InstanceId) -> None:
        """Ask the guest to power itself off; returns at once. Raises AgentSilent, AgentRefused."""
        with self._talk(instance) as talk:
            try:
                talk.ask("guest-shutdown", 0.5, mode="powerdown")
            except AgentSilent:
                return  # it answers only where it refuses

    # --- conversations ---

    @contextmanager
    def _talk(self, instance: InstanceId) -> Iterator[Conversation]:
        with self._lock:
            turn = self._turns.setdefault(instance, threading.Lock())
        try:
            with turn, self._converse(instance) as talk:
                yield talk
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A guest may send anything: what can't be made sense of is its failure, not ours.
            raise BackendFailed("the guest agent's answer makes no sense", detail=repr(error)[:300]) from error

    def _start(self, talk: Conversation, command: str) -> int:
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        return int(talk.ask("guest-exec", _LONG, **arguments)["pid"])

    def _shell(self, talk: Conversation, command: str) -> Execution:
        """Run a short command to its end."""
        pid, deadline = self._start(talk, command), time.monotonic() + _LONG
        while True:
            result = parse_execution(talk.ask("guest-exec-status", _LONG, pid=pid))
            if result.finished:
                return result
            if time.monotonic() > deadline:
                raise BackendFailed("a command in the guest does not end", detail=command[:200])
            time.sleep(0.05)

    def _await_agent(self, instance: InstanceId) -> None:
        """Raises AgentSilent."""
        give_up = time.monotonic() + _AWAKE_SECONDS
        while True:
            try:
                with self._talk(instance):
                    return
            except AgentSilent:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    # --- clock ---

    def _behind(self, talk: Conversation, host_time: Callable[[], float]) -> float:
        """Seconds by which the guest's clock is behind the host's, by the quickest of a few answers."""
        quickest, best = math.inf, 0.0
        for _ in range(_CLOCK_QUESTIONS):
            before = host_time()
            guest = int(talk.ask("guest-get-time", _SHORT)) / 1e9
            after = host_time()
            if after - before < quickest:
                quickest, best = after - before, (before + after) / 2 - guest
            if quickest <= _NOT_WORTH_A_JUMP_SECONDS:
                break
        return best

    def _adjust(self, talk: Conversation, moment: float) -> None:
        """By the agent, which wants a hwclock program in the guest; where there is none, by `date`."""
        try:
            talk.ask("guest-set-time", _LONG, time=int(moment * 1e9))
        except AgentRefused:
            self._shell(talk, setting_clock(moment))


def setting_clock(moment: float) -> str:
    """A shell command that sets the clock to `moment`, seconds since the epoch.

    A `date` that takes whole seconds only is called when the next one begins.
    """
    whole = math.ceil(moment)
    return (
        f"date -u -s @{moment:.3f} || {{ sleep {whole - moment:.3f} && date -u -s @{whole}; }} "
        f"|| date -u -s @{moment:.0f}"
    )


def interface_addresses(interfaces: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """IPv4 addresses in the answer to guest-network-get-interfaces, loopback left out."""
    found = (
        str(entry["ip-address"])
        for interface in interfaces
        for entry in interface.get("ip-addresses", ())
        if entry.get("ip-address-type") == "ipv4"
    )
    return tuple(address for address in found if not IPv4Address(address).is_loopback)


def interface_of(mac: str, interfaces: Sequence[Mapping[str, Any]]) -> str | None:
    """Name of the interface that has this MAC."""
    for interface in interfaces:
        if str(interface.get("hardware-address", "")).lower() == mac.lower():
            return str(interface["name"])
    return None


def assigning(interface: str, address: str, prefix: int, gateway: str) -> str:
    """Shell commands that put the address on the interface and take every other one away; iproute2 or busybox."""
    name = shlex.quote(interface)
    wanted = f"{IPv4Address(address)}/{int(prefix)}"
    return (
        f"set -e; ip link set {name} up; "
        f'for a in $(ip -4 addr show dev {name} | while read -r k v r; do [ "$k" != inet ] || echo $v; done); do '
        f"[ $a = {wanted} ] || ip addr del $a dev {name} || :; done; "
        f"ip -4 addr show dev {name} | grep -q 'inet {wanted} ' || ip addr add {wanted} dev {name}; "
        f"ip route replace default via {IPv4Address(gateway)} dev {name}"
    )


def only_interface(interfaces: Sequence[Mapping[str, Any]]) -> str | None:
    """Name of the one Ethernet interface; None where there are none or several."""
    names = [str(i["name"]) for i in interfaces if _is_ethernet(i)]
    return names[0] if len(names) == 1 else None


def _is_ethernet(interface: Mapping[str, Any]) -> bool:
    mac = str(interface.get("hardware-address", "00:00:00:00:00:00"))
    return interface.get("name") != "lo" and mac.startswith("52:54:00:")


def identifying(interface: str, instance: Instance, prefix: int, gateway: str) -> str:
    """Shell commands that make a guest the instance: name, MAC, address; iproute2 or busybox. Can be repeated.

    What was a route by the old address goes with it. The name is kept where the guest keeps names.
    """
    name, host = shlex.quote(interface), shlex.quote(instance.name)
    return (
        f"set -e; hostname {host}; if [ -f /etc/hostname ]; then echo {host} > /etc/hostname; fi; "
        f"ip link set {name} down; ip link set {name} address {shlex.quote(instance.mac)}; "
        f"{assigning(interface, instance.address, prefix, gateway)}"
    )


def parse_execution(status: Mapping[str, Any]) -> Execution:
    """The answer to guest-exec-status; killed by signal N counts as exit code 128 + N, as in a shell."""
    if not status.get("exited"):
        return Execution(finished=False)
    output = b"".join(base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
    signal = status.get("signal")
    code = 128 + int(signal) if signal is not None else int(status.get("exitcode", 255))
    return Execution(True, code, output[-_OUTPUT_BYTES:].decode(errors="replace"))
