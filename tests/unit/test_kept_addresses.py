"""A workload that is run again under its name: whether it has the address and the MAC that it had, and who else may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.engine_on_fakes import EngineOnFakes

from torpor.adapters.address_pool import AddressPool
from torpor.adapters.fakes import CLOUD, SHARED
from torpor.adapters.fakes.records import FakeHistory, FakeInventory, FakeJournal, FakeLedger
from torpor.adapters.sql import open_records
from torpor.domain.adoption import Mark
from torpor.domain.errors import AddressPoolEmpty, BackendFailed, Conflict
from torpor.domain.instance import Instance
from torpor.domain.workload import Flavor, Workload, WorkloadState
from torpor.engine.views import CloneRequest, RunRequest

OF_FIVE = "10.9.0.0/29"
"""A subnet in which instances get .2 to .6."""


def has(engine: EngineOnFakes, name: str) -> list[tuple[str, str]]:
    """Address and MAC of each instance."""
    return [(v.instance.address, v.instance.mac) for v in engine.service.workload(name).instances]


def address(engine: EngineOnFakes, name: str) -> str:
    ((found, _),) = has(engine, name)
    return found


def deleted(engine: EngineOnFakes, *names: str) -> None:
    for name in names:
        engine.service.delete(name)
        engine.settle(2)


def with_web_deleted(engine: EngineOnFakes) -> list[tuple[str, str]]:
    """What it had; its addresses are not the lowest."""
    engine.run("first", memory=256)
    engine.run("web", memory=256, count=2)
    engine.settle(3)
    had = has(engine, "web")
    deleted(engine, "web", "first")
    return had


def test_who_asks_for_it_has_the_address_and_mac_of_before_and_the_name_leads_there() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    engine.run("web", memory=256, count=2, keep_address=True)
    assert has(engine, "web") == had
    assert [engine.names.lookup(name) for name in ("web-0", "web-1")] == [found for found, _ in had]
    engine.settle(3)
    assert engine.state("web") is WorkloadState.ACTIVE
    engine.check_laws()


def test_who_does_not_ask_gets_a_mac_of_its_own() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    engine.run("web", memory=256, count=2)
    assert not {mac for _, mac in has(engine, "web")} & {mac for _, mac in had}


def test_each_hostname_has_its_own_and_one_that_is_new_gets_one_as_usual() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    engine.run("web", memory=256, count=3, keep_address=True)
    kept, (new, mac) = has(engine, "web")[:2], has(engine, "web")[2]
    assert kept == had
    assert new not in {found for found, _ in had}
    assert mac
    engine.run("other", keep_address=True)
    assert address(engine, "other")


def test_it_is_kept_time_after_time() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    for _ in range(3):
        engine.run("web", memory=256, count=2, keep_address=True)
        assert has(engine, "web") == had
        deleted(engine, "web")


def test_the_records_remember_it_over_a_restart(tmp_path: Path) -> None:
    engine = EngineOnFakes(records=open_records(tmp_path))
    had = with_web_deleted(engine)
    engine.ledger, engine.journal, engine.inventory, engine.history = open_records(tmp_path)
    engine.start()
    engine.run("web", memory=256, count=2, keep_address=True)
    assert has(engine, "web") == had


def test_others_get_it_only_once_nothing_else_is_free_and_who_was_deleted_first_loses_it_first() -> None:
    engine = EngineOnFakes(provisions=AddressPool(OF_FIVE))
    for name in ("a", "b"):
        engine.run(name)
    deleted(engine, "b", "a")
    given = []
    for name in ("c", "d", "e", "f", "g"):
        engine.run(name)
        given.append(address(engine, name))
    assert given == [f"10.9.0.{last}" for last in (4, 5, 6, 3, 2)]
    with pytest.raises(AddressPoolEmpty):
        engine.run("h")


def test_it_is_not_kept_from_its_own_hostname() -> None:
    engine = EngineOnFakes()
    engine.run("a")
    had = address(engine, "a")
    deleted(engine, "a")
    engine.run("a")
    assert address(engine, "a") == had


def test_what_somebody_else_has_by_now_is_refused_and_nothing_is_changed() -> None:
    engine = EngineOnFakes(vcpus=8, provisions=AddressPool(OF_FIVE))
    engine.run("a")
    had = has(engine, "a")
    deleted(engine, "a")
    engine.run("all", memory=32, count=5)
    words = r"a can't keep the address 10\.9\.0\.2: instance all-4 has it now; leave --keep-address out, or delete the"
    with pytest.raises(Conflict, match=words):
        engine.service.plan(RunRequest("a", "test", Flavor(1, 64), keep_address=True))
    with pytest.raises(Conflict, match=words):
        engine.run("a", keep_address=True)
    assert [v.workload.name for v in engine.service.workloads()] == ["all"]
    assert engine.names.lookup("a") is None
    deleted(engine, "all")
    engine.run("a", keep_address=True)
    assert has(engine, "a") == had


def test_an_address_of_a_subnet_that_is_used_no_more_is_refused() -> None:
    engine = EngineOnFakes()
    engine.run("a")
    deleted(engine, "a")
    engine.provisions = AddressPool("10.9.1.0/24")
    engine.start()
    with pytest.raises(Conflict, match=r"a can't keep the address 10\.9\.0\.2: it is none of 10\.9\.1\.0/24 any more"):
        engine.run("a", keep_address=True)
    engine.run("a")
    assert address(engine, "a") == "10.9.1.2"


def test_a_name_that_is_there_is_taken_as_before() -> None:
    engine = EngineOnFakes()
    engine.run("web")
    with pytest.raises(Conflict, match="the name 'web' is taken"):
        engine.run("web", keep_address=True)
    engine.service.delete("web")
    with pytest.raises(Conflict, match="the name 'web' is taken"):
        engine.run("web", keep_address=True)


def test_what_was_not_accepted_after_all_is_not_remembered() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    engine.names.faults.fail("publish")
    with pytest.raises(BackendFailed):
        engine.run("web", memory=256, count=2)
    engine.run("web", memory=256, count=2, keep_address=True)
    assert has(engine, "web") == had


def test_a_clone_has_an_address_of_its_own_whatever_its_name_had() -> None:
    engine = EngineOnFakes()
    had = with_web_deleted(engine)
    engine.run("job", memory=256, count=2)
    engine.settle(3)
    engine.service.snapshots.create("job", "s1")
    engine.settle(2)
    engine.service.snapshots.clone(CloneRequest("web", "job", "s1"))
    assert not {mac for _, mac in has(engine, "web")} & {mac for _, mac in had}


def test_what_a_vm_of_others_has_is_its_owners_when_it_is_let_go() -> None:
    engine = EngineOnFakes(capabilities=SHARED)
    id = engine.owner.define("web", Flavor(1, 256), "192.0.2.9", Mark("herd"))
    engine.owner.start(id)
    engine.settle(10)
    assert address(engine, "herd") == "192.0.2.9"
    engine.adoption.unmark(id)
    engine.settle(3)
    assert not engine.service.workloads()
    assert not engine.inventory.last_addresses()


class Ports(AddressPool):
    """Addresses that are given back, as ports are, and which workloads were in the records then."""

    def __init__(self, inventory: FakeInventory) -> None:
        super().__init__("10.9.0.0/24")
        self._inventory = inventory
        self.known: list[str] = []

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        self.known = [each.name for each in self._inventory.workloads()]


def test_a_port_is_free_before_the_name_is() -> None:
    """Else who asks for both at once would find the address taken by a workload that is gone."""
    inventory = FakeInventory()
    records = (FakeLedger(), FakeJournal(), inventory, FakeHistory())
    ports = Ports(inventory)
    engine = EngineOnFakes(records=records, capabilities=CLOUD, provisions=ports)
    engine.run("web")
    engine.settle(3)
    deleted(engine, "web")
    assert ports.known == ["web"]
    assert not engine.service.workloads()
