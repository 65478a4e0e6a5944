"""The composition root: the only importer of adapters. Reads the configuration, binds ports, starts threads.

Each backend has a module here that binds the ports; what another one needs is a module beside them and a key in the
configuration.
"""

import importlib
import logging
from dataclasses import dataclass

from torpor.config import Config
from torpor.domain.errors import MissingPart, TorporError
from torpor.domain.plan import Policy
from torpor.engine.execute import Executor
from torpor.engine.guests import GuestWatch
from torpor.engine.loop import Loop
from torpor.engine.parts import Settings
from torpor.engine.queue import Queue
from torpor.engine.reading import Reader
from torpor.engine.records import Records
from torpor.engine.scrub import Scrub
from torpor.engine.service import Service
from torpor.engine.states import StateKeeper
from torpor.wiring.bound import Bound

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """The daemon's inside: what it starts, stops and offers."""

    service: Service
    _loop: Loop
    _bound: Bound

    def start(self) -> None:
        """Recover what a crash left, then begin to act."""
        for ensure in (self._bound.network.ensure, self._bound.parts.names.ensure):
            try:
                ensure()
            except TorporError as error:
                # VMs and their states are looked after all the same; `torpor doctor` tells.
                log.warning("%s", error)
        self._loop.queue.start()
        self._loop.start()
        self._bound.listen(self._loop.wake)

    def stop(self) -> None:
        """Come to rest: the operation under way ends, or goes on at the next start where it takes too long."""
        self._loop.stop()

    def remove_network(self) -> None:
        """End the name server and remove the guests' network. Converges."""
        self._bound.stop_names()
        self._bound.network.remove()


def build(config: Config) -> App:
    """Everything, bound and at rest. Raises MissingPart, Conflict, StateDamaged."""
    return assemble(config, bind(config))


def bind(config: Config) -> Bound:
    """The ports on the configured backend. Raises MissingPart, Conflict, StateDamaged."""
    try:
        module = importlib.import_module(f"torpor.wiring.{config.backend}")
    except ModuleNotFoundError as error:
        raise MissingPart(
            f"the {config.backend} backend can't be used",
            detail=f"Python's module {error.name} is not there",
            remedy=f"run `script/setup {config.backend}`, or install torpor[{config.backend}]",
        ) from error
    bound: Bound = module.bind(config)
    return bound


def assemble(config: Config, bound: Bound) -> App:
    """The engine on these ports."""
    parts, settings = bound.parts, _settings(config)
    records = Records(parts)
    executor = Executor(parts, records, settings)
    queue = Queue(parts, records, settings, executor)
    loop = Loop(parts, queue, GuestWatch(parts, records, settings), Scrub(parts, records, executor))
    reader = Reader(parts, records, settings, executor, queue)
    service = Service(parts, records, settings, loop, reader, StateKeeper(parts, records, settings, executor))
    return App(service, loop, bound)


def _settings(config: Config) -> Settings:
    policy = config.policy
    return Settings(
        policy=Policy(policy.min_run_seconds, policy.max_victims, config.overhead_mb, config.host.states_mb),
        subnet=str(config.network.subnet),
        zone=config.network.zone,
        stop_grace=policy.stop_grace_seconds,
        boot_grace=policy.boot_grace_seconds,
        max_attempts=policy.max_attempts,
        console_log=str(config.state_dir / "instances" / "{instance}" / "console.log"),
        ssh_keys=config.ssh_authorized_keys,
        unplanned_start=(config.openstack if config.backend == "openstack" else config.libvirt).unplanned_start,
    )
