"""Talking to the agent inside a guest through libvirt, which keeps the agent's socket to itself.

libvirt syncs with the agent by itself, one conversation at a time. Every question has a timeout of its own here. The
calls of libvirt that hide the agent (`virDomainGetTime`, `virDomainInterfaceAddresses`) have none: they wait for ever
on an agent that stopped after it was last heard, and any guest can have such a one. The price is a remark in the
domain's log that others than libvirt asked it things (`custom-ga-command`).
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import libvirt
import libvirt_qemu
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import tag_in
from torpor.adapters.libvirt.failures import reason
from torpor.domain.errors import AgentRefused, AgentSilent
from torpor.domain.ids import InstanceId

_COMMAND_TIMED_OUT = 112
"""VIR_ERR_AGENT_COMMAND_TIMEOUT, which bindings for an older libvirt have no name for."""
_CONNECTED_SECONDS = 2.0
"""How long libvirt may take to notice the agent of a guest that has just run on."""
_KNOCK_SECONDS = 0.1
_SILENCE = (
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_OPERATION_INVALID,  # the domain does not run
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # it has no channel for an agent
    libvirt.VIR_ERR_NO_DOMAIN,
    _COMMAND_TIMED_OUT,
)


class _NotConnected(AgentSilent):
    """libvirt has not heard yet that the agent holds its end of the channel, as right after a restore; or has none."""


class AgentConversation:
    """The agent of one domain."""

    def __init__(self, connection: Connection, domain: libvirt.virDomain) -> None:
        self._connection = connection
        self._domain = domain

    def ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """The command's `return` value. Raises AgentRefused, AgentSilent, ConnectionLost, MissingPart.

        The timeout is rounded up to whole seconds. A silent agent that libvirt has to sync with first takes five
        seconds instead.
        """
        question = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        with self._connection.call("the guest agent can't be asked"):
            try:
                answer = libvirt_qemu.qemuAgentCommand(self._domain, question, max(1, math.ceil(timeout)), 0)
            except libvirt.libvirtError as error:
                told = _told(command, error)
                if told is None:
                    raise
                raise told from error
        try:
            return json.loads(answer).get("return")
        except RecursionError as error:
            raise ValueError("the agent's answer is nested too deep") from error


def _told(command: str, error: libvirt.libvirtError) -> AgentSilent | AgentRefused | None:
    """What libvirt says of the agent; None where it is about something else."""
    code, of_the_domain = error.get_error_code(), error.get_error_domain() == libvirt.VIR_FROM_QEMU
    if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
        return _silent(reason(error), _NotConnected)
    if code in _SILENCE or (of_the_domain and code != libvirt.VIR_ERR_INTERNAL_ERROR):
        return _silent(reason(error))
    if not of_the_domain:
        return None
    return AgentRefused(
        f"the guest agent refused {command}",
        detail=reason(error),
        remedy="see that the guest's agent is recent and that the command is not switched off there",
    )


def through_libvirt(
    connection: Connection, ping_seconds: float = 3.0
) -> Callable[[InstanceId], AbstractContextManager[AgentConversation]]:
    """Conversations with the agents of marked domains, each begun with a question that costs nothing."""

    @contextmanager
    def converse(instance: InstanceId) -> Iterator[AgentConversation]:
        domain = connection.find(instance)
        if domain is None:
            raise _silent("libvirt has no such domain")
        with connection.call("the guest agent can't be asked"):
            marked = tag_in(domain.XMLDesc()).mark is not None
        if not marked:
            raise _silent("the domain carries no mark of Torpor's, and is left alone")
        conversation = AgentConversation(connection, domain)
        knock = Retrying(
            retry=retry_if_exception_type(_NotConnected),
            wait=wait_fixed(_KNOCK_SECONDS),
            stop=stop_before_delay(_CONNECTED_SECONDS),
            reraise=True,
        )
        knock(conversation.ask, "guest-ping", ping_seconds)
        yield conversation

    return converse


def _silent(why: str, kind: type[AgentSilent] = AgentSilent) -> AgentSilent:
    return kind(
        "the guest agent does not answer",
        detail=why,
        remedy="have qemu-guest-agent in the guest and its channel in the domain, or wait until it has booted",
    )
