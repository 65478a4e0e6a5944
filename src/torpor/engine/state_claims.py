"""Room for saved states, in the books: claimed before a guest is paused, given back when a state goes."""

from collections.abc import Sequence

from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.errors import NoRoomForState
from torpor.domain.ids import HostId
from torpor.domain.instance import Instance
from torpor.domain.plan import state_room_mb
from torpor.domain.workload import Flavor
from torpor.engine.parts import Parts, Settings

_MIB = 1 << 20


class StateClaims:
    """An instance's claim for states is what they take, and, while one is being written, the room for that besides."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings

    def claim_next(self, instances: Sequence[tuple[Instance, HostId]], flavor: Flavor) -> str:
        """Room for the states to come, beside what the instances' states take already.

        Raises NoCapacity where a disk has not got it, NoRoomForState where the limit for saved states forbids it.
        """
        new = state_room_mb(flavor)
        claims = [
            Claim(i.id, ClaimKind.STATE, host, Resources(disk_mb=self.stored_mb(i) + new)) for i, host in instances
        ]
        self.require_allowed(claims)
        self._parts.ledger.claim(claims)
        return f"{new} MiB for each of {len(claims)}"

    def require_allowed(self, wanted: Sequence[Claim]) -> None:
        """Raises NoRoomForState when these claims, in the place of their consumers' own, would pass the limit."""
        limit = self._settings.policy.states_mb
        if limit is None:
            return
        replaced = {claim.consumer for claim in wanted}
        for host in sorted({claim.host for claim in wanted}):
            held = sum(
                claim.resources.disk_mb
                for claim in self._parts.ledger.claims()
                if claim.kind is ClaimKind.STATE and claim.host == host and claim.consumer not in replaced
            )
            needed = sum(claim.resources.disk_mb for claim in wanted if claim.host == host)
            if held + needed > limit:
                raise NoRoomForState(
                    "the saved states would pass their limit",
                    detail=f"host {host} needs {needed} MiB beside {held} MiB, and states_mb allows {limit} MiB",
                    remedy="raise host.states_mb, or remove spent states with `torpor state rm`",
                )

    def fit(self, instances: Sequence[Instance]) -> int:
        """Make the claims what the states really take; the MiB of all together."""
        stored = [(i, self.stored_mb(i)) for i in instances]
        self._parts.ledger.release([i.id for i, mb in stored if not mb], [ClaimKind.STATE])
        self._parts.ledger.claim(
            [
                Claim(i.id, ClaimKind.STATE, i.host, Resources(disk_mb=mb))
                for i, mb in stored
                if mb and i.host is not None
            ]
        )
        return sum(mb for _, mb in stored)

    def stored_mb(self, instance: Instance) -> int:
        """What its states take on disk, rounded up."""
        return -(-sum(s.stored_bytes for s in self._parts.suspension.states(instance.id)) // _MIB)
