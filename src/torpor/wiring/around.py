"""What every backend on this machine has around it: names, records, images, the clock."""

import time

from torpor.adapters.images.store import ImageStore
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.config import Config
from torpor.domain.errors import MissingPart


class WallClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def names(config: Config) -> DnsmasqNames:
    section = config.network
    return DnsmasqNames(
        DnsmasqSettings(
            directory=config.state_dir / "names",
            listen_address=section.gateway,
            zone=section.zone,
            subnet=section.subnet,
            forwarders=tuple(str(address) for address in section.forwarders),
        )
    )


def images(config: Config) -> ImageStore:
    return ImageStore(config.state_dir / "images")


def prepare(config: Config) -> None:
    """Others may pass through the state directory (QEMU's user and dnsmasq's must), and read nothing there."""
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True)
        config.state_dir.chmod(0o711)
    except OSError as error:
        raise MissingPart(
            f"state directory {config.state_dir} can't be prepared",
            detail=error.strerror or str(error),
            remedy="make it writable for root, or set `state_dir` to another",
        ) from error
