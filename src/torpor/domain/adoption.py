"""VMs that others have made on a host that Torpor shares with them."""

from dataclasses import dataclass

from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import BackendState
from torpor.domain.workload import Flavor


@dataclass(frozen=True, slots=True)
class Mark:
    """What a VM says of itself that Torpor is to know: it belongs to this workload, and may be treated so.

    VMs with the same workload are a gang, and say the same of everything else.
    """

    workload: str
    priority: int = 0
    preemptible: bool = False
    protect: bool = False


@dataclass(frozen=True, slots=True)
class Stranger:
    """A VM that Torpor did not make, as its backend describes it."""

    id: InstanceId
    name: str
    """As its owner calls it; not always a hostname."""
    flavor: Flavor
    mac: str
    """Of its first network interface; empty where it has none."""
    state: BackendState
    mark: Mark | None = None
    """None: it is to be left alone."""
    defect: str = ""
    """Why its mark can't be understood, in words; then `mark` is None."""
    unfit: str = ""
    """Why it could not be saved and brought back, whatever its mark says: it is transient, has a device of the
    host's, and so on."""
    host: HostId | None = None
    """Where it is, from a backend with several hosts."""
    network: str = ""
    """As `Instance.network`."""
