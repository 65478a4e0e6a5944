"""What the OpenStack backend has to be told."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class OpenStackSettings:
    """Seconds; names as OpenStack's own commands take them."""

    cloud: str
    """Entry of clouds.yaml: the service account, in a project of its own."""
    project: str = ""
    """Where servers are made if nothing else is said."""
    networks: tuple[str, ...] = ()
    """On which servers are made if nothing else is said; the project's only network where this is empty."""
    hosts: tuple[str, ...] = ()
    """Resource providers (hypervisor hostnames) that count; all compute hosts where this is empty."""
    state_room: Literal["placement", "elsewhere"] = "placement"
    """Who guards the disk room of saved states: DISK_GB of the host, or somebody else."""
    act_seconds: float = 600.0
    """How long Nova may take to suspend, resume, boot or delete a server."""
    poll_seconds: float = 0.2
    """How often it is asked meanwhile."""
    look_seconds: float = 2.0
    """How old what is known of all servers may be, as long as nobody has acted."""
