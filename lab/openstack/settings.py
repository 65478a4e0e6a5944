"""What a lab is: where it lies, how it is reached, what its compute host offers."""

from dataclasses import dataclass
from pathlib import Path

PASSWORD = "lab"
"""Of every account in it. Nobody can reach the lab but who is on this machine."""
REGION = "RegionOne"
NUMBERS = range(256)
"""A lab's number is a byte of its address."""


@dataclass(frozen=True)
class Lab:
    """Everything of the lab is below `folder`; its compute host offers `vcpus` and `memory_mb` to servers."""

    folder: Path
    vcpus: int = 3
    memory_mb: int = 3072
    number: int = 0
    """Labs of different numbers don't meet on the machine."""
    prefix: int = 30
    hostname: str = "lab"
    """Its compute host is called so."""

    @property
    def interface(self) -> str:
        """This machine's end of the cable to the lab."""
        return f"torporlab{self.number}"

    @property
    def machine_address(self) -> str:
        return f"10.109.{self.number}.1"

    @property
    def address(self) -> str:
        return f"10.109.{self.number}.2"

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


def folder_of(number: int, below: Path = Path("build")) -> Path:
    """Where the lab of this number lies unless somebody says otherwise."""
    return below / (f"lab-{number}" if number else "lab")
