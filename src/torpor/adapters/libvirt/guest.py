"""Guests of a host that is shared with others: what their owners decide is only looked at."""

from collections.abc import Sequence

from torpor.adapters.libvirt.addresses import Converse, NotMet, held
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import tag_in
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import ClockGap, Execution, Instance
from torpor.ports import Guest


class LibvirtGuest:
    """The Guest port: asks the agent as any backend does, and libvirt where there is none. Thread-safe."""

    def __init__(self, connection: Connection, inner: Guest, converse: Converse) -> None:
        self._connection = connection
        self._inner = inner
        self._converse = converse

    def agent_answers(self, instance: InstanceId) -> bool:
        return self._inner.agent_answers(instance)

    def vantage(self) -> str:
        return "on its interface"

    def probe(self, instance: Instance) -> bool:
        """By ARP; where the host is not on the guest's Ethernet, by what agent or DHCP say that its interface has."""
        if not (instance.address and instance.mac):
            return False
        try:
            return self._inner.probe(instance)
        except NotMet:
            found = held(self._connection, self._converse, instance.id)
            return any((each.mac, each.address) == (instance.mac, instance.address) for each in found)

    def addresses(self, instance: InstanceId) -> Sequence[str]:
        """As the agent tells, else as libvirt knows; those of the first interface first."""
        return tuple(each.address for each in held(self._connection, self._converse, instance))

    def assign_address(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        """Raises BackendFailed for a VM that others have made, too: its address is its owner's to change."""
        self._refuse_adopted(instance, f"{instance.name} is not given the address {instance.address}")
        self._inner.assign_address(instance, network_prefix, gateway)

    def take_identity(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        """Raises BackendFailed for a VM that others have made, too."""
        self._refuse_adopted(instance, f"{instance.name} is not told who it is")
        self._inner.take_identity(instance, network_prefix, gateway)

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap | None:
        return self._inner.set_clock(instance, now)

    def execute(self, instance: InstanceId, command: str) -> int:
        return self._inner.execute(instance, command)

    def execution(self, instance: InstanceId, pid: int) -> Execution:
        return self._inner.execution(instance, pid)

    def _refuse_adopted(self, instance: Instance, what: str) -> None:
        domain = self._connection.require(instance.id)
        with self._connection.call(what):
            made = tag_in(domain.XMLDesc()).made
        if not made:
            raise BackendFailed(
                what,
                detail="Torpor did not make this VM, so its network is its owner's",
                remedy="change it in the guest",
            )
