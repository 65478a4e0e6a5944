"""What a lab is: where it lies, how it is reached, what its compute host offers."""

from dataclasses import dataclass
from pathlib import Path

PASSWORD = "lab"
"""Of every account in it. Nobody can reach the lab but who is on this machine."""
REGION = "RegionOne"


@dataclass(frozen=True)
class Lab:
    """Everything of the lab is below `folder`; its compute host offers `vcpus` and `memory_mb` to servers."""

    folder: Path
    vcpus: int = 3
    memory_mb: int = 3072
    interface: str = "torporlab0"
    """This machine's end of the cable to the lab."""
    machine_address: str = "10.109.0.1"
    address: str = "10.109.0.2"
    prefix: int = 30
    hostname: str = "lab"
    """Its compute host is called so."""

    @property
    def root(self) -> Path:
        """The Debian that the services see as their /."""
        return self.folder / "root"

    @property
    def guest(self) -> Path:
        return self.folder / "guest"

    @property
    def clouds(self) -> Path:
        return self.folder / "clouds.yaml"

    def inside(self, path: str) -> Path:
        """Where this machine finds a file that the services know as `path`; not for what is in their memory only."""
        return self.root / path.lstrip("/")

    def endpoint(self, port: int, path: str = "") -> str:
        return f"http://{self.address}:{port}{path}"
