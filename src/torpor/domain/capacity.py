"""Hosts, and who holds what of them."""

from dataclasses import dataclass
from enum import StrEnum

from torpor.domain.ids import HostId, InstanceId


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of capacity: vCPUs, memory in MiB, disk in MiB."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_mb: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.vcpus + other.vcpus,
            self.memory_mb + other.memory_mb,
            self.disk_mb + other.disk_mb,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(
            self.vcpus - other.vcpus,
            self.memory_mb - other.memory_mb,
            self.disk_mb - other.disk_mb,
        )

    def fits_in(self, room: "Resources") -> bool:
        return self.vcpus <= room.vcpus and self.memory_mb <= room.memory_mb and self.disk_mb <= room.disk_mb


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with capacity, as the books have it."""

    id: HostId
    total: Resources
    used: Resources = Resources()

    @property
    def free(self) -> Resources:
        return self.total - self.used


class ClaimKind(StrEnum):
    """What a claim is for. An instance has at most one claim of each kind."""

    COMPUTE = "compute"
    """vCPUs and memory (the hypervisor's own overhead included) of a VM that has a process."""
    DISK = "disk"
    """Room for the VM's disk, from its first boot until it is deleted."""
    STATE = "state"
    """Room for its saved states: both the newest one and the one being written."""
    SNAPSHOT = "snapshot"
    """Room for its snapshots, with the disk contents that they keep."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry in the books: `consumer` holds `resources` of `host`."""

    consumer: InstanceId
    kind: ClaimKind
    host: HostId
    resources: Resources
