"""The laws under random requests, faults, deaths and reboots: engine, real SQL ledger, fake world."""

import random
import tempfile
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import URL
from tests.engine_on_fakes import Death, EngineOnFakes

from torpor.adapters.fakes.hypervisor import ABLE, CLOUD, SHARED
from torpor.adapters.sql import Database, SqlHistory, SqlInventory, SqlJournal, SqlLedger
from torpor.domain.adoption import Mark
from torpor.domain.errors import TorporError
from torpor.domain.instance import BackendState
from torpor.domain.operation import Operation
from torpor.domain.workload import Flavor, WorkloadState
from torpor.engine.views import CloneRequest

NAMES = st.sampled_from(["ant", "bee", "cow", "doe"])
SNAPSHOTS = st.sampled_from(["red", "blue"])
CALLS = st.sampled_from(
    [
        "boot", "pause", "run_on", "stop", "erase", "save", "release", "restore", "spend", "revert", "drop", "settle",
        "take", "take_one", "remove_snapshot", "verify_snapshot", "lay_down", "take_identity",
    ]
)  # fmt: skip


def _ids() -> Callable[[], uuid.UUID]:
    dice = random.Random(0)
    return lambda: uuid.UUID(int=dice.getrandbits(128), version=4)


def url(file: Path) -> URL:
    return URL.create("sqlite", database=str(file))


@lru_cache(maxsize=1)
def migrated() -> bytes:
    """An empty database, made once: migrating takes longer than the life that is led in it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "torpor.db")
        database = Database(url(file))
        database.migrate()
        database.close()
        return file.read_bytes()


def fresh_database(folder: Path) -> Database:
    file = folder / "torpor.db"
    file.write_bytes(migrated())
    return Database(url(file))


class OneAtATime(SqlJournal):
    """The journal, in which a workload never has two operations that are open."""

    def begin(self, operation: Operation) -> None:
        assert operation.workload not in {o.workload for o in self.open()}
        super().begin(operation)


class Laws(RuleBasedStateMachine):
    """Random life. What was suspended, or runs, is always the guest that was booted first."""

    capabilities = ABLE

    def __init__(self) -> None:
        super().__init__()
        self._ids = patch("uuid.uuid4", _ids())  # what is drawn from sorted ids is the same when a life is led again
        self._ids.start()
        self._folder = tempfile.TemporaryDirectory()
        self._database = fresh_database(Path(self._folder.name))
        records = (
            SqlLedger(self._database),
            OneAtATime(self._database),
            SqlInventory(self._database),
            SqlHistory(self._database),
        )
        self.engine = EngineOnFakes(vcpus=4, memory_mb=3000, records=records, capabilities=self.capabilities)
        self.nonces: dict[Any, int] = {}
        self.touched: set[Any] = set()
        """Instances whose process was killed by fate: a new boot or a step back is no breach."""
        self.started_by_others: set[Any] = set()

    def teardown(self) -> None:
        self._ids.stop()
        self._database.close()
        self._folder.cleanup()

    def attempt(self, act: Any) -> None:
        """A request may be refused, and the daemon may die of it; it is then started again."""
        try:
            act()
        except TorporError:
            pass
        except Death:
            self.restart()

    def restart(self) -> None:
        self.engine.counter.die_before = self.engine.counter.die_after = None
        self.engine.start()

    @rule(
        name=NAMES,
        memory=st.sampled_from([512, 1024, 2048]),
        count=st.integers(1, 2),
        priority=st.integers(0, 3),
        preemptible=st.booleans(),
        duration=st.sampled_from([None, 20.0]),
    )
    def run(self, **request: Any) -> None:
        self.attempt(lambda: self.engine.run(**request))

    @rule(name=NAMES)
    def suspend(self, name: str) -> None:
        self.attempt(lambda: self.engine.service.suspend(name))

    @rule(name=NAMES)
    def resume(self, name: str) -> None:
        self.attempt(lambda: self.engine.service.resume(name))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        def act() -> None:
            if not self.engine.journal.open():  # else it would wait in real time
                self.engine.service.delete(name)

        self.attempt(act)

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def snapshot(self, name: str, snapshot: str) -> None:
        self.attempt(lambda: self.engine.service.snapshots.create(name, snapshot))

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def restore_snapshot(self, name: str, snapshot: str) -> None:
        self.attempt(lambda: self.engine.service.snapshots.restore(name, snapshot))

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def remove_snapshot(self, name: str, snapshot: str) -> None:
        self.attempt(lambda: self.engine.service.snapshots.remove(name, snapshot))

    @rule(name=NAMES, snapshot=SNAPSHOTS, copy=NAMES, priority=st.integers(0, 3), preemptible=st.booleans())
    def clone(self, name: str, snapshot: str, copy: str, priority: int, preemptible: bool) -> None:
        request = CloneRequest(copy, name, snapshot, priority, preemptible)
        self.attempt(lambda: self.engine.service.snapshots.clone(request))

    @rule(rounds=st.integers(1, 6))
    def time_goes_by(self, rounds: int) -> None:
        self.attempt(lambda: self.engine.settle(rounds))

    @rule(call=CALLS, after=st.booleans())
    def a_call_will_fail(self, call: str, after: bool) -> None:
        self.engine.world.faults.fail(call, after_act=after)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.engine.world.faults.disk_full = full

    @rule(acts=st.integers(1, 30), before=st.booleans())
    def death_is_near(self, acts: int, before: bool) -> None:
        when = self.engine.counter.count + acts
        if before:
            self.engine.counter.die_before = when
        else:
            self.engine.counter.die_after = when

    @rule()
    def daemon_restarts(self) -> None:
        self.attempt(self.restart)

    @precondition(lambda self: any(o.pid for o in self.engine.world.observe().values()))
    @rule(data=st.data())
    def a_process_is_killed(self, data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(self.alive()))
        self.touched.add(victim)
        self.engine.world.faults.kill(victim)

    def alive(self) -> list[Any]:
        return sorted(i for i, o in self.engine.world.observe().items() if o.pid is not None)

    @invariant()
    def the_world_has_nothing_to_complain_of(self) -> None:
        assert self.engine.world.violations == []
        assert self.engine.batch.violations == []

    @invariant()
    def the_books_fit_the_hosts(self) -> None:
        held: dict[str, list[int]] = {}
        for claim in self.engine.ledger.claims():
            total = held.setdefault(claim.host, [0, 0, 0])
            total[0] += claim.resources.vcpus
            total[1] += claim.resources.memory_mb
            total[2] += claim.resources.disk_mb
        for host in self.engine.ledger.hosts():
            used = held.get(host.id, [0, 0, 0])
            assert used == [host.used.vcpus, host.used.memory_mb, host.used.disk_mb]
            assert host.used.fits_in(host.total)

    @invariant()
    def every_process_is_in_the_books(self) -> None:
        claimed = {c.consumer for c in self.engine.ledger.claims() if c.kind == "compute"}
        assert set(self.alive()) - self.started_by_others <= claimed

    @invariant()
    def guests_are_never_booted_anew(self) -> None:
        for instance, seen in self.engine.world.observe().items():
            if seen.state is BackendState.RUNNING and self.engine.world.states(instance):
                nonce = self.engine.world.nonce(instance)
                assert self.nonces.setdefault(instance, nonce) == nonce

    def finish(self) -> None:
        """In the end, with no more faults, everything comes to rest and every law holds."""
        self.engine.world.faults.clear()
        self.restart()
        self.engine.settle(50, step=6.0)
        assert not self.engine.journal.open()
        self.engine.check_laws(self.started_by_others)
        for view in self.engine.service.workloads():
            assert view.workload.state not in (WorkloadState.SUSPENDING, WorkloadState.RESUMING)


class LawsThatComeToRest(Laws):
    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            super().teardown()


class SharedLaws(LawsThatComeToRest):
    """The same on a host that is shared: others save, start and pause VMs, ours and theirs, whenever they like."""

    capabilities = SHARED

    def __init__(self) -> None:
        super().__init__()
        for index, mark in enumerate([Mark("herd", preemptible=True), Mark("herd", preemptible=True), None]):
            self.engine.owner.start(
                self.engine.owner.define(f"theirs-{index}", Flavor(1, 256), f"192.0.2.{index}", mark)
            )
        self.engine.settle(2)

    def idle(self) -> list[Any]:
        """Instances that no operation is changing: an owner who acts in its midst is `test_engine_owners`' business."""
        open_for = {o.workload for o in self.engine.journal.open()}
        return [i.id for i in self.engine.inventory.instances() if i.workload not in open_for]

    @rule(data=st.data())
    def somebody_saves(self, data: st.DataObject) -> None:
        if victims := [i for i in self.alive() if i in self.idle()]:
            self.engine.owner.save(data.draw(st.sampled_from(victims)))

    @rule(data=st.data())
    def somebody_starts(self, data: st.DataObject) -> None:
        world = self.engine.world.model.vms
        asleep = [i for i in self.idle() if i in world and world[i].pid is None and world[i].whole]
        if asleep:
            started = data.draw(st.sampled_from(asleep))
            self.started_by_others.add(started)
            self.engine.owner.start(started)

    @rule(data=st.data())
    def somebody_pauses(self, data: st.DataObject) -> None:
        if victims := [i for i in self.alive() if i in self.idle()]:
            self.engine.owner.pause(data.draw(st.sampled_from(victims)))

    def finish(self) -> None:
        for vm in self.engine.world.model.vms.values():
            if vm.pid is not None:
                self.engine.world.model.set_running(vm)  # whoever paused it lets it run on
        super().finish()


class CloudLaws(SharedLaws):
    """The same in a cloud: to pause is to save, and what is released can be taken by others."""

    capabilities = CLOUD

    def __init__(self) -> None:
        super().__init__()
        self.engine.enter_host()


RANDOM = settings(max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestLaws = LawsThatComeToRest.TestCase
TestLaws.settings = RANDOM
TestSharedLaws = SharedLaws.TestCase
TestSharedLaws.settings = RANDOM
TestCloudLaws = CloudLaws.TestCase
TestCloudLaws.settings = RANDOM
