"""DHCP on a network whose ports others make: looked at again and again, and what is leased follows."""

import logging

from torpor.domain.errors import TorporError
from torpor.ports import Clock, DhcpNetwork, DhcpServer

log = logging.getLogger(__name__)

ATTACH_SECONDS = 4.0
"""How often it is seen to that our port is there and plugged in, while nothing fails."""


class LeaseFollower:
    """What is leased are the ports' own addresses after each round that succeeds. One thread's."""

    def __init__(self, network: DhcpNetwork, server: DhcpServer, clock: Clock) -> None:
        self._network = network
        self._server = server
        self._clock = clock
        self._attached_at: float | None = None
        self._leases = -1
        self.failure = ""
        """Why the last round did not succeed; a sentence."""

    def round(self) -> bool:
        """Look once, and pin what has changed. Returns whether all is as it should be.

        While the cloud does not answer, what was pinned stays.
        """
        try:
            now = self._clock.now()
            if self._attached_at is None or not 0 <= now - self._attached_at < ATTACH_SECONDS:
                if self._network.attach():
                    self._server.stop()
                self._attached_at = now
            service = self._network.look()
            self._server.serve(service)
        except TorporError as error:
            self._attached_at = None
            if str(error) != self.failure:
                log.warning("%s", error)
            self.failure = str(error)
            return False
        self.failure = ""
        if len(service.leases) != self._leases:
            self._leases = len(service.leases)
            where = ", ".join(f"{subnet.cidr} from {subnet.server}" for subnet in service.subnets)
            log.info("%d leases pinned on %s", self._leases, where)
        return True

    def take_down(self) -> None:
        """End the server, and take its port away. Converges. Raises TorporErrors."""
        self._server.stop()
        self._network.detach()
