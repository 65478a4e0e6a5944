"""The daemon with its real API, socket and threads, on a host in memory.

`python -m tests.functional.daemon_on_fakes CONFIG` runs it.
`--fail ACT` lets that act of the host fail each time; `--slow` gives it a slow disk; `--canned` answers with a fixed
world instead.
"""

import sys
import time
from pathlib import Path

from tests.functional.canned import CannedService

from torpor import daemon, log
from torpor.adapters.address_pool import AddressPool
from torpor.adapters.fakes import (
    SHARED,
    FakeAdoption,
    FakeBatchSystem,
    FakeGangs,
    FakeGuest,
    FakeHypervisor,
    FakeImages,
    FakeNames,
    FakeOwner,
    FakeSnapshots,
    FakeStateStore,
)
from torpor.adapters.fakes.hypervisor import ABLE
from torpor.adapters.fakes.records import FakeHistory, FakeInventory, FakeJournal, FakeLedger
from torpor.config import Config, load
from torpor.domain.capacity import Resources
from torpor.domain.errors import BackendFailed
from torpor.domain.plan import Policy
from torpor.domain.workload import Flavor
from torpor.engine.execute import Executor
from torpor.engine.guests import GuestWatch, once
from torpor.engine.loop import Loop
from torpor.engine.parts import Parts, Settings
from torpor.engine.queue import Queue
from torpor.engine.reading import Reader
from torpor.engine.records import Records
from torpor.engine.scrub import Scrub
from torpor.engine.service import Service
from torpor.engine.states import StateKeeper
from torpor.ports import Clock

OVERHEAD_MB = 64
TOTAL = Resources(vcpus=4, memory_mb=2048, disk_mb=60_000)


class RealClock:
    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def parts_on_fakes(clock: Clock, failing: str | None, shared: bool = False, bytes_per_second: float = 1e9) -> Parts:
    able = SHARED if shared else ABLE
    world = FakeHypervisor(
        clock, total=TOTAL, overhead_mb=OVERHEAD_MB, bytes_per_second=bytes_per_second, capabilities=able
    )
    if shared:
        owner = FakeOwner(world)
        for name in ("web_1", "web_2"):
            owner.start(owner.define(name, Flavor(1, 256)))
    guest = FakeGuest(world, clock, boot_seconds=0.2, command_seconds=1.0)
    guest.script(once("exit 3"), exit_code=3, seconds=0.1)
    if failing:
        error = BackendFailed(f"the host did not {failing}", detail="it was told to fail", remedy="tell it otherwise")
        world.faults.fail(failing, error=error, times=99)
    return Parts(
        hypervisor=world,
        gangs=FakeGangs(world, clock),
        suspension=world,
        states=FakeStateStore(world),
        guest=guest,
        names=FakeNames(),
        batch_system=FakeBatchSystem(world),
        images=FakeImages(clock, recipes=("busybox", "debian", "slow")),
        diagnostics=world,
        ledger=FakeLedger(),
        journal=FakeJournal(),
        inventory=FakeInventory(),
        history=FakeHistory(),
        clock=clock,
        snapshots=FakeSnapshots(world),
        adoption=FakeAdoption(world),
        provisions=AddressPool("10.9.0.0/24"),
    )


class AppOnFakes:
    """What `torpor.wiring` builds, with a host that is forgotten when the daemon ends."""

    def __init__(
        self, config: Config, failing: str | None, shared: bool = False, bytes_per_second: float = 1e9
    ) -> None:
        settings = Settings(
            policy=Policy(0.0, max_victims=8, overhead_mb=OVERHEAD_MB),
            subnet="10.9.0.0/24",
            zone="test.internal",
            stop_grace=1.0,
            boot_grace=30.0,
            max_attempts=1,
            console_log=str(config.state_dir / "console.log"),
        )
        parts = parts_on_fakes(RealClock(), failing, shared, bytes_per_second)
        records = Records(parts)
        executor = Executor(parts, records, settings)
        self._queue = Queue(parts, records, settings, executor)
        self._loop = Loop(parts, self._queue, GuestWatch(parts, records, settings), Scrub(parts, records, executor))
        reader = Reader(parts, records, settings, executor, self._queue)
        self.service = Service(
            parts, records, settings, self._loop, reader, StateKeeper(parts, records, settings, executor)
        )
        self._parts = parts
        self._state_dir = config.state_dir

    def start(self) -> None:
        self._parts.names.ensure()
        self._queue.start()
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def remove_network(self) -> None:
        (self._state_dir / "network-removed").touch()


class CannedApp:
    """A service that can only be read."""

    def __init__(self) -> None:
        self.service: Service = CannedService()

    def start(self) -> None:
        """There is nothing to recover."""

    def stop(self) -> None:
        """There is nothing under way."""

    def remove_network(self) -> None:
        """There is none."""


def build_for(options: list[str]) -> daemon.Build:
    if options == ["--canned"]:
        return lambda config: CannedApp()
    failing = options[1] if options[:1] == ["--fail"] else None
    speed = 4e8 if options == ["--slow"] else 1e9
    return lambda config: AppOnFakes(config, failing, options == ["--shared"], speed)


def main(arguments: list[str]) -> int:
    log.configure()
    daemon.serve(load(Path(arguments[0])), build_for(arguments[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
