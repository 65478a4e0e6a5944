"""The daemon dies before or after every single act of a whole story, on the fakes."""

from typing import Any

import pytest
from tests.engine_on_fakes import Death, EngineOnFakes

from torpor.adapters.fakes.hypervisor import ABLE, CLOUD, SHARED
from torpor.domain.capacity import ClaimKind
from torpor.domain.workload import WorkloadState
from torpor.engine.views import CloneRequest
from torpor.ports import Capabilities


def story(engine: EngineOnFakes) -> None:
    """A gang runs, gives way, comes back. Every request is made only if it was not made before the crash."""
    known = {v.workload.name for v in engine.service.workloads()}
    if "urgent" not in known:
        engine.run("urgent", memory=2048, cpus=2, priority=50, duration=6)
    engine.settle(25)


def prepared(capabilities: Capabilities = ABLE) -> tuple[EngineOnFakes, list[int]]:
    engine = EngineOnFakes(vcpus=4, memory_mb=3 * 1024, capabilities=capabilities)
    engine.run("batch", memory=1024, cpus=2, count=2, priority=10, preemptible=True)
    engine.settle(3)
    return engine, engine.nonces("batch")


def snapshot_story(engine: EngineOnFakes) -> None:
    """A gang is kept at an instant, taken back to it, and cloned; in the end the snapshot goes."""
    ask = engine.service.snapshots
    done = {str(e.kind) for e in engine.history.events(1000)}
    if "copy" not in {v.workload.name for v in engine.service.workloads()}:
        engine.settle(5)
        if not ask.list("batch") and "snapshot-succeeded" not in done:
            ask.create("batch", "s1")
            engine.settle(5)
        if "restore-snapshot-succeeded" not in done:
            ask.restore("batch", "s1")
            engine.settle(5)
        ask.clone(CloneRequest("copy", "batch", "s1"))
    engine.settle(5)
    if ask.list("batch"):
        ask.remove("batch", "s1")
    engine.settle(20)


def roomy() -> tuple[EngineOnFakes, list[int]]:
    engine = EngineOnFakes(vcpus=4, memory_mb=5 * 1024)
    engine.run("batch", memory=1024, cpus=1, count=2)
    engine.settle(3)
    return engine, engine.nonces("batch")


def check_snapshot_story(engine: EngineOnFakes, nonces: list[int]) -> None:
    engine.check_laws()
    assert engine.state("batch") is engine.state("copy") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == engine.nonces("copy") == nonces
    assert [engine.world.memory(i).owner for i in engine.ids("copy")] == engine.ids("copy")
    assert not engine.journal.open()
    assert not engine.service.snapshots.list()
    assert not [c for c in engine.ledger.claims() if c.kind is ClaimKind.SNAPSHOT]


def acts_of_the_snapshot_story() -> int:
    engine, nonces = roomy()
    before = engine.counter.count
    snapshot_story(engine)
    check_snapshot_story(engine, nonces)
    return engine.counter.count - before


SNAPSHOT_STORY_ACTS = acts_of_the_snapshot_story()


def acts_of_the_story(capabilities: Capabilities) -> int:
    engine, _ = prepared(capabilities)
    before = engine.counter.count
    story(engine)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.state("urgent") is WorkloadState.DONE
    return engine.counter.count - before


KINDS = {"own": ABLE, "shared": SHARED, "cloud": CLOUD}
BACKENDS = pytest.mark.parametrize("capabilities", KINDS.values(), ids=KINDS)


def every_act(step: int = 1) -> list[Any]:
    """Of the story, on each kind of backend."""
    return [
        pytest.param(able, act, id=f"{name}-{act}")
        for name, able in KINDS.items()
        for act in range(1, acts_of_the_story(able) + 1, step)
    ]


def test_the_story_has_every_kind_of_act() -> None:
    engine, _ = prepared()
    story(engine)
    missing = {"begin", "intend", "record", "finish", "claim", "release"} - set(engine.counter.calls)
    assert not missing
    assert {"pause", "save", "boot", "restore", "spend", "run_on", "stop", "settle"} <= set(engine.counter.calls)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("capabilities", "act"), every_act())
def test_death_at_any_act_loses_nothing(act: int, moment: str, capabilities: Capabilities) -> None:
    engine, nonces = prepared(capabilities)
    if moment == "before":
        engine.counter.die_before = engine.counter.count + act
    else:
        engine.counter.die_after = engine.counter.count + act
    with pytest.raises(Death):
        story(engine)
    engine.start()
    story(engine)
    engine.check_laws()
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.state("urgent") is WorkloadState.DONE
    assert engine.nonces("batch") == nonces, "the gang is the very one that was suspended"
    assert not engine.journal.open()


@pytest.mark.parametrize(("capabilities", "act"), every_act(3))
def test_death_twice_in_a_row_loses_nothing(act: int, capabilities: Capabilities) -> None:
    engine, nonces = prepared(capabilities)
    engine.counter.die_after = engine.counter.count + act
    with pytest.raises(Death):
        story(engine)
    engine.counter.die_after = engine.counter.count + 2
    with pytest.raises(Death):
        engine.start()
        story(engine)
        raise Death("the story was over before the second death")
    engine.counter.die_after = None
    engine.start()
    story(engine)
    engine.check_laws()
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces


@pytest.mark.parametrize("call", ["save", "pause", "settle", "release", "restore", "spend", "run_on", "boot", "stop"])
@pytest.mark.parametrize("after_act", [False, True])
@BACKENDS
def test_any_call_may_fail_once(call: str, after_act: bool, capabilities: Capabilities) -> None:
    engine, nonces = prepared(capabilities)
    engine.world.faults.fail(call, after_act=after_act)
    story(engine)
    engine.settle(40)
    engine.check_laws()
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.state("urgent") is WorkloadState.DONE
    assert engine.nonces("batch") == nonces


def test_the_snapshot_story_has_every_kind_of_act() -> None:
    engine, _ = roomy()
    snapshot_story(engine)
    assert {"take", "remove", "verify", "lay_down", "take_identity"} <= set(engine.counter.calls)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("act", range(1, SNAPSHOT_STORY_ACTS + 1))
def test_death_at_any_act_upon_snapshots_loses_nothing(act: int, moment: str) -> None:
    engine, nonces = roomy()
    if moment == "before":
        engine.counter.die_before = engine.counter.count + act
    else:
        engine.counter.die_after = engine.counter.count + act
    with pytest.raises(Death):
        snapshot_story(engine)
    engine.start()
    engine.settle(5)
    snapshot_story(engine)
    check_snapshot_story(engine, nonces)


@pytest.mark.parametrize("after_act", [False, True])
@pytest.mark.parametrize(
    "call", ["lay_down", "remove_snapshot", "stop", "settle", "restore", "spend", "run_on", "take_identity"]
)
def test_any_call_about_snapshots_may_fail_once(call: str, after_act: bool) -> None:
    engine, nonces = roomy()
    ask = engine.service.snapshots
    ask.create("batch", "s1")
    engine.settle(2)
    engine.world.faults.fail(call, after_act=after_act)
    ask.restore("batch", "s1")
    engine.settle(40)
    ask.clone(CloneRequest("copy", "batch", "s1"))
    engine.settle(40)
    ask.remove("batch", "s1")
    engine.settle(40)
    assert engine.world.faults.pending == 0
    check_snapshot_story(engine, nonces)


def deletion(engine: EngineOnFakes) -> None:
    """Asked for again only where the crash was sooner."""
    engine.settle(3)
    if "web" in {v.workload.name for v in engine.service.workloads()}:
        engine.service.delete("web")
        engine.settle(3)


def to_be_deleted(capabilities: Capabilities) -> tuple[EngineOnFakes, list[tuple[str, str]]]:
    """With addresses and MACs of a workload that runs."""
    engine = EngineOnFakes(capabilities=capabilities)
    engine.run("web", memory=1024, count=2)
    engine.settle(3)
    return engine, addresses_of_web(engine)


def addresses_of_web(engine: EngineOnFakes) -> list[tuple[str, str]]:
    return [(v.instance.address, v.instance.mac) for v in engine.service.workload("web").instances]


def every_act_of_the_deletion() -> list[Any]:
    found = []
    for name, able in KINDS.items():
        engine, _ = to_be_deleted(able)
        before = engine.counter.count
        deletion(engine)
        acts = range(1, engine.counter.count - before + 1)
        found += [pytest.param(able, act, id=f"{name}-{act}") for act in acts]
    return found


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("capabilities", "act"), every_act_of_the_deletion())
def test_death_at_any_act_of_a_deletion_leaves_its_addresses_to_its_name(
    act: int, moment: str, capabilities: Capabilities
) -> None:
    engine, had = to_be_deleted(capabilities)
    if moment == "before":
        engine.counter.die_before = engine.counter.count + act
    else:
        engine.counter.die_after = engine.counter.count + act
    with pytest.raises(Death):
        deletion(engine)
    engine.start()
    deletion(engine)
    engine.run("other")
    assert not {i.instance.address for i in engine.service.workload("other").instances} & {found for found, _ in had}
    engine.run("web", memory=1024, count=2, keep_address=True)
    assert addresses_of_web(engine) == had
    engine.settle(3)
    assert engine.state("web") is WorkloadState.ACTIVE
    engine.check_laws()
