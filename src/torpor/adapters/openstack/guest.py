"""What can be known of a guest through Nova and Neutron: implements the `Guest` port. There is no way inside."""

from collections.abc import Sequence

from torpor.adapters.openstack.servers import Servers
from torpor.domain.errors import AgentSilent
from torpor.domain.ids import InstanceId
from torpor.domain.instance import ClockGap, Execution, Instance


class NovaGuest:
    """Nova keeps the guest agent's channel to itself."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def agent_answers(self, instance: InstanceId) -> bool:
        return False

    def vantage(self) -> str:
        return "on its port, as Neutron says"

    def probe(self, instance: Instance) -> bool:
        """Whether the server runs with that address on the port that has its MAC, as Nova and Neutron see it."""
        server = self._servers.find(instance.id)
        return server is not None and server.status == "ACTIVE" and (instance.mac, instance.address) in server.addresses

    def addresses(self, instance: InstanceId) -> Sequence[str]:
        server = self._servers.find(instance)
        return [address for _, address in server.addresses] if server else []

    def assign_address(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        raise _no_way()

    def take_identity(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        raise _no_way()

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap | None:
        """Nova sets it at each resume where it can, and does not say whether it could."""
        server = self._servers.find(instance)
        properties = server.image_properties if server else {}
        if str(properties.get("hw_qemu_guest_agent", "")).lower() in ("yes", "true"):
            return None
        raise AgentSilent(
            "the clock was not set",
            detail="Nova does that where the image says hw_qemu_guest_agent=yes, and this one does not",
            remedy="let the guest run a time service",
        )

    def execute(self, instance: InstanceId, command: str) -> int:
        raise _no_way()

    def execution(self, instance: InstanceId, pid: int) -> Execution:
        raise _no_way()


def _no_way() -> AgentSilent:
    return AgentSilent("the guest can't be asked", detail="under OpenStack its agent is Nova's alone")
