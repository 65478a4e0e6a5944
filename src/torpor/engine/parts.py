"""What the engine is made of: every port, and the settings that are not a port's business."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

from torpor.domain.instance import NetworkConfig
from torpor.domain.plan import Policy
from torpor.ports import (
    Adoption,
    BatchSystem,
    Clock,
    Diagnostics,
    Gangs,
    Guest,
    History,
    Hypervisor,
    Images,
    Inventory,
    Journal,
    Ledger,
    Names,
    Provisions,
    Snapshots,
    StateStore,
    Suspension,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The ports, bound. The engine gets them here and nowhere else."""

    hypervisor: Hypervisor
    gangs: Gangs
    suspension: Suspension
    states: StateStore
    guest: Guest
    names: Names
    batch_system: BatchSystem
    images: Images
    diagnostics: Diagnostics
    ledger: Ledger
    journal: Journal
    inventory: Inventory
    history: History
    clock: Clock
    snapshots: Snapshots
    adoption: Adoption
    provisions: Provisions


@dataclass(frozen=True, slots=True)
class Settings:
    """Rules and constants from the configuration. Seconds."""

    policy: Policy
    subnet: str
    """CIDR text; its first address is the gateway's."""
    zone: str
    stop_grace: float
    boot_grace: float
    max_attempts: int
    console_log: str
    """Path of an instance's console log, with `{instance}` where its id goes."""
    ssh_keys: tuple[str, ...] = ()
    unplanned_start: Literal["suspend", "leave"] = "suspend"
    """What becomes of a suspended workload that its owner started without room in the books."""

    def network(self, address: str) -> NetworkConfig:
        """What the guest with this address is told about the network."""
        prefix = int(self.subnet.split("/")[1])
        gateway = self.gateway
        return NetworkConfig(address, prefix, gateway, (gateway,), self.zone)

    @property
    def gateway(self) -> str:
        return str(IPv4Network(self.subnet).network_address + 1)
