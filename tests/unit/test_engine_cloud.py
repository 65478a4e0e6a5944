"""A cloud whose scheduler has the books: what is released, others may take at once; to pause is to save."""

from collections.abc import Sequence

from tests.engine_on_fakes import EngineOnFakes

from torpor.adapters.address_pool import AddressPool
from torpor.adapters.fakes import CLOUD
from torpor.adapters.fakes.records import FakeHistory, FakeInventory, FakeJournal, FakeLedger
from torpor.domain.adoption import Mark
from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.errors import NoCapacity
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance
from torpor.domain.operation import OperationKind, StepKind
from torpor.domain.workload import Flavor, Workload, WorkloadState

THEIRS = InstanceId("theirs")


class Reservations(AddressPool):
    """Addresses that are kept for an instance until they are given back, as ports are."""

    def __init__(self) -> None:
        super().__init__("10.9.0.0/24")
        self.kept: set[InstanceId] = set()

    def reserve(self, workload: Workload, instances: Sequence[Instance]) -> Sequence[Instance]:
        self.kept |= {instance.id for instance in instances}
        return super().reserve(workload, instances)

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        self.kept -= {instance.id for instance in instances}


class WithCompetitor(FakeLedger):
    """Books in which somebody else takes vCPUs in the moment in which they are free."""

    def __init__(self) -> None:
        super().__init__()
        self.hungry = False

    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        super().release(consumers, kinds)
        for host in self.hosts():
            if self.hungry and ClaimKind.COMPUTE in kinds and host.free.vcpus:
                super().claim([Claim(THEIRS, ClaimKind.COMPUTE, host.id, Resources(host.free.vcpus))])

    def leave(self) -> None:
        self.hungry = False
        super().release([THEIRS], [ClaimKind.COMPUTE])


def cloud() -> tuple[EngineOnFakes, WithCompetitor]:
    """A gang of two that fills the cloud."""
    ledger = WithCompetitor()
    records = (ledger, FakeJournal(), FakeInventory(), FakeHistory())
    engine = EngineOnFakes(vcpus=4, memory_mb=3 * 1024, records=records, capabilities=CLOUD)
    engine.run("batch", memory=1024, cpus=2, count=2, priority=1, preemptible=True)
    engine.settle(3)
    return engine, ledger


def steps_of(engine: EngineOnFakes, kind: OperationKind) -> list[StepKind]:
    operation = next(o for o in engine.journal.recent(100) if o.kind is kind)
    return [step.kind for step in operation.steps]


def test_what_an_ended_workload_held_goes_to_whoever_comes_back_and_to_nobody_else() -> None:
    engine, ledger = cloud()
    nonces = engine.nonces("batch")
    engine.run("urgent", memory=1024, cpus=4, priority=9)
    engine.settle(10)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    ledger.hungry = True
    engine.service.delete("urgent")
    engine.settle(10)
    assert StepKind.PASS_ON in steps_of(engine, OperationKind.DELETE)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert THEIRS not in {claim.consumer for claim in ledger.claims()}
    engine.check_laws()


def test_a_workload_whose_time_is_over_hands_its_room_over_too() -> None:
    engine, ledger = cloud()
    engine.run("urgent", memory=1024, cpus=4, priority=9, duration=8.0)
    engine.settle(4)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    ledger.hungry = True
    engine.settle(15)
    assert engine.state("urgent") is WorkloadState.DONE
    assert engine.state("batch") is WorkloadState.ACTIVE


def test_a_race_that_is_lost_leaves_the_priority_workload_waiting_and_nothing_overcommitted() -> None:
    engine, ledger = cloud()
    nonces = engine.nonces("batch")
    ledger.hungry = True
    engine.run("urgent", memory=1024, cpus=4, priority=9)
    engine.settle(20)
    assert engine.state("urgent") is WorkloadState.PENDING
    assert engine.workload("urgent").attempts == 0
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    ledger.leave()
    engine.settle(15)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    engine.service.delete("urgent")
    engine.settle(15)
    assert engine.nonces("batch") == nonces


def test_the_address_that_was_promised_is_kept_through_a_lost_race_and_given_back_at_the_end() -> None:
    ports = Reservations()
    engine = EngineOnFakes(capabilities=CLOUD, provisions=ports)
    engine.world.faults.fail("boot", error=NoCapacity("somebody else was sooner"))
    engine.run("urgent", memory=1024, cpus=2)
    engine.queue.tick()
    assert engine.state("urgent") is WorkloadState.PENDING
    assert ports.kept == set(engine.ids("urgent"))
    engine.settle(15)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    engine.service.delete("urgent")
    engine.settle(5)
    assert not ports.kept


def test_a_gang_of_which_one_is_not_suspended_runs_on_as_a_whole() -> None:
    engine, ledger = cloud()
    nonces = engine.nonces("batch")
    engine.world.faults.fail("pause", engine.ids("batch")[1])
    engine.service.suspend("batch")
    engine.queue.tick()
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert {c.consumer for c in ledger.claims() if c.kind is ClaimKind.COMPUTE} == set(engine.ids("batch"))
    engine.check_laws()


def test_what_its_owner_shuts_down_keeps_its_room_for_nobody_asks_when_it_is_started() -> None:
    engine = EngineOnFakes(vcpus=4, memory_mb=3 * 1024, capabilities=CLOUD)
    id = engine.owner.define("theirs", Flavor(2, 256), "192.0.2.9", Mark("herd", preemptible=True))
    engine.owner.start(id)
    engine.settle(3)
    assert engine.state("herd") is WorkloadState.ACTIVE
    engine.owner.shut_down(id)
    engine.settle(5)
    assert engine.state("herd") is WorkloadState.DONE
    assert id in {c.consumer for c in engine.ledger.claims() if c.kind is ClaimKind.COMPUTE}
    engine.owner.start(id)
    engine.settle(5)
    assert engine.state("herd") is WorkloadState.ACTIVE
    engine.check_laws()


def test_the_room_of_a_state_is_given_back_when_it_is_used_up() -> None:
    engine, ledger = cloud()
    engine.service.suspend("batch")
    engine.settle(3)
    assert {c.kind for c in ledger.claims()} >= {ClaimKind.STATE}
    engine.service.resume("batch")
    engine.settle(3)
    states = sum(s.stored_bytes for i in engine.ids("batch") for s in engine.world.states(i))
    claimed = sum(c.resources.disk_mb for c in ledger.claims() if c.kind is ClaimKind.STATE)
    assert claimed << 20 <= states + (2 << 20)
