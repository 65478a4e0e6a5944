"""What every backend on this machine has around it: images, the clock, a state directory."""

import time

from torpor.adapters.images.store import ImageStore
from torpor.config import Config
from torpor.domain.errors import MissingPart


class WallClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def images(config: Config) -> ImageStore:
    """Without what a daemon that is gone has left half made."""
    store = ImageStore(config.state_dir / "images")
    store.sweep()
    return store


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
