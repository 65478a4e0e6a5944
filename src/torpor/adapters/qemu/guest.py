"""Guests seen from outside (ARP) and from inside (their agent)."""

import base64
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torpor.adapters.qemu.agent import AgentRefused, AgentSilent, Conversation, conversation
from torpor.adapters.qemu.arp import has_address
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Execution, Instance

_OUTPUT_BYTES = 64 * 1024
_CLOSE_ENOUGH_SECONDS = 0.5
"""A clock that is set under emulation, through two sockets and a serial line, is not set better than so."""
_NOT_WORTH_A_JUMP_SECONDS = 0.05
_SHORT, _LONG = 5.0, 20.0
"""Seconds for a question that the agent answers itself, and for one that runs a program in the guest."""


class QemuGuest:
    """The Guest port. Thread-safe: one conversation at a time with each guest."""

    def __init__(
        self,
        agent_socket: Callable[[InstanceId], Path],
        interface: str,
        gateway: str,
        sync_seconds: float = 3.0,
        probe_seconds: float = 1.0,
    ) -> None:
        """`interface` is the host's link to the guests' Ethernet, `gateway` its address there."""
        self._agent_socket = agent_socket
        self._interface = interface
        self._gateway = gateway
        self._sync_seconds = sync_seconds
        self._probe_seconds = probe_seconds
        self._turns: WeakValueDictionary[InstanceId, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def agent_answers(self, instance: InstanceId) -> bool:
        try:
            with self._talk(instance):
                return True
        except AgentSilent:
            return False

    def probe(self, instance: Instance) -> bool:
        return has_address(self._interface, self._gateway, instance.mac, instance.address, self._probe_seconds)

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
        raise BackendFailed("no snapshots yet")

    def set_clock(self, instance: InstanceId, now: float) -> float:
        """The gap is measured half way through the question; it is correct to half the time that this takes."""
        began = time.monotonic()

        def host_time() -> float:
            return now + time.monotonic() - began

        with self._talk(instance) as talk:
            behind = self._behind(talk, host_time)
            if abs(behind) <= _NOT_WORTH_A_JUMP_SECONDS:
                return behind
            self._adjust(talk, host_time)
            left = self._behind(talk, host_time)
        if abs(left) > max(_CLOSE_ENOUGH_SECONDS, time.monotonic() - began):
            raise BackendFailed(
                "the guest's clock could not be set",
                detail=f"it is still {left:.1f} s behind",
                remedy="set it in the guest, or let it run a time service",
            )
        return behind

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
            with turn, conversation(self._agent_socket(instance), self._sync_seconds) as talk:
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

    # --- clock ---

    def _behind(self, talk: Conversation, host_time: Callable[[], float]) -> float:
        """Seconds by which the guest's clock is behind the host's."""
        before = host_time()
        guest = int(talk.ask("guest-get-time", _SHORT)) / 1e9
        return (before + host_time()) / 2 - guest

    def _adjust(self, talk: Conversation, host_time: Callable[[], float]) -> None:
        """By the agent, which wants a hwclock program in the guest; where there is none, by `date`."""
        try:
            talk.ask("guest-set-time", _LONG, time=int(host_time() * 1e9))
        except AgentRefused:
            self._shell(talk, f"date -u -s @{host_time():.3f} || date -u -s @{host_time():.0f}")


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


def parse_execution(status: Mapping[str, Any]) -> Execution:
    """The answer to guest-exec-status; killed by signal N counts as exit code 128 + N, as in a shell."""
    if not status.get("exited"):
        return Execution(finished=False)
    output = b"".join(base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
    signal = status.get("signal")
    code = 128 + int(signal) if signal is not None else int(status.get("exitcode", 255))
    return Execution(True, code, output[-_OUTPUT_BYTES:].decode(errors="replace"))
