"""The contract of `ports.Inventory`, on the database and on the fake."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from torpor.adapters.fakes.records import FakeInventory
from torpor.adapters.sql import Database, SqlInventory
from torpor.domain.addressing import LastAddress
from torpor.domain.errors import Conflict, Invalid, NotFound, Problem
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import AddressState, Instance
from torpor.domain.workload import Flavor, Origin, ServerOptions, Workload, WorkloadState
from torpor.ports import Inventory

Make = Callable[[int], Inventory]


@pytest.fixture(params=["fake", "sql"])
def inventory_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes an inventory that remembers so many names."""
    if request.param == "fake":
        yield lambda keep: FakeInventory(keep=keep)
        return
    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    yield lambda keep: SqlInventory(database, keep=keep)
    database.close()


@pytest.fixture
def inventory(inventory_of: Make) -> Inventory:
    return inventory_of(10_000)


def workload(name: str = "batch", count: int = 2) -> Workload:
    return Workload(
        id=WorkloadId(f"id-{name}"),
        name=name,
        image="debian",
        flavor=Flavor(2, 512, 4096),
        count=count,
        priority=5,
        created_at=1.5,
    )


def instances(name: str = "batch", count: int = 2, net: int = 1) -> list[Instance]:
    return [
        Instance(
            id=InstanceId(f"id-{name}-{n}"),
            workload=WorkloadId(f"id-{name}"),
            name=f"{name}-{n}",
            index=n,
            address=f"10.0.{net}.{n}",
            mac=f"52:54:00:00:{net:02x}:{n:02x}",
        )
        for n in range(count)
    ]


def test_what_was_added_is_read_back_whole(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    assert list(inventory.workloads()) == [workload()]
    assert inventory.workload(workload().id) == workload()
    assert list(inventory.instances()) == instances()


def test_a_workload_may_have_many_instances(inventory: Inventory) -> None:
    many = [
        replace(i, address=f"10.1.{i.index // 256}.{i.index % 256}", mac=f"m{i.index}") for i in instances(count=2000)
    ]
    inventory.add(workload(count=2000), many)
    assert list(inventory.instances(workload().id)) == many


def test_workloads_and_instances_come_oldest_first(inventory: Inventory) -> None:
    """By the order in which they were added: a clock may be set back."""
    for net, name in enumerate(["c", "a", "b"]):
        inventory.add(replace(workload(name), created_at=10.0 - net), list(reversed(instances(name, net=net))))
    assert [w.name for w in inventory.workloads()] == ["c", "a", "b"]
    assert [i.name for i in inventory.instances()] == ["c-0", "c-1", "a-0", "a-1", "b-0", "b-1"]
    assert [i.name for i in inventory.instances(WorkloadId("id-a"))] == ["a-0", "a-1"]
    assert list(inventory.instances(WorkloadId("nobody"))) == []


def test_a_taken_workload_name_is_a_conflict(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    with pytest.raises(Conflict, match="the name batch is taken"):
        inventory.add(replace(workload(), id=WorkloadId("other")), [])
    assert list(inventory.workloads()) == [workload()]


def test_a_taken_workload_id_is_a_conflict(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    with pytest.raises(Conflict, match="workload id id-batch is taken"):
        inventory.add(replace(workload(), name="other"), [])


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("name", "hostname batch-1 is taken"),
        ("address", "address 10.0.1.1 is taken"),
        ("mac", "MAC address 52:54:00:00:01:01 is taken"),
        ("id", "instance id id-batch-1 is taken"),
    ],
)
def test_a_conflict_says_what_is_taken_and_by_whom_and_adds_nothing(
    inventory: Inventory, field: str, words: str
) -> None:
    inventory.add(workload(), instances())
    newcomers = instances("new", net=2)
    newcomers[1] = replace(newcomers[1], **{field: getattr(instances()[1], field)})
    with pytest.raises(Conflict, match=words) as conflict:
        inventory.add(workload("new"), newcomers)
    assert "instance batch-1 of workload batch has it" in str(conflict.value)
    assert list(inventory.workloads()) == [workload()]
    assert list(inventory.instances()) == instances()


@pytest.mark.parametrize("field", ["name", "address", "mac", "id", "index"])
def test_instances_added_together_may_not_clash_either(inventory: Inventory, field: str) -> None:
    first, second = instances()
    with pytest.raises(Conflict):
        inventory.add(workload(), [first, replace(second, **{field: getattr(first, field)})])
    assert list(inventory.workloads()) == []


def test_any_number_of_instances_may_be_without_address_and_mac(inventory: Inventory) -> None:
    bare = [replace(i, address="", mac="") for i in instances()]
    inventory.add(workload(), bare)
    assert list(inventory.instances()) == bare
    inventory.update_instance(replace(bare[0], address="10.0.1.1"))
    assert [i.address for i in inventory.instances()] == ["10.0.1.1", ""]


def test_an_instance_of_another_workload_is_invalid(inventory: Inventory) -> None:
    with pytest.raises(Invalid, match="batch-0 does not belong to workload new"):
        inventory.add(workload("new"), instances())


def test_an_update_changes_that_workload_only(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    inventory.add(workload("other"), instances("other", net=2))
    changed = replace(
        workload(),
        state=WorkloadState.FAILED,
        held=True,
        running_since=7.25,
        ran_for=3.5,
        problem=Problem("internal", "it broke", "somehow", "look", retryable=True),
        attempts=2,
    )
    inventory.update(changed)
    assert list(inventory.workloads()) == [changed, workload("other")]
    inventory.update(workload())
    assert inventory.workload(workload().id) == workload()


def test_an_update_of_an_instance_changes_that_one_only(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    first, second = instances()
    changed = replace(
        first,
        host=HostId("local"),
        address_state=AddressState.MISMATCH,
        address_detail="it has 10.9.9.9",
        command_pid=77,
        exit_code=0,
        problem=Problem("internal", "it broke"),
    )
    inventory.update_instance(changed)
    assert list(inventory.instances()) == [changed, second]


def test_an_update_cannot_take_what_another_one_has(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    inventory.add(workload("other"), instances("other", net=2))
    with pytest.raises(Conflict, match="the name other is taken"):
        inventory.update(replace(workload(), name="other"))
    with pytest.raises(Conflict, match=r"address 10\.0\.2\.1 is taken"):
        inventory.update_instance(replace(instances()[0], address="10.0.2.1"))
    with pytest.raises(Conflict, match="is taken"):
        inventory.update_instance(replace(instances()[0], index=1))
    assert list(inventory.instances(workload().id)) == instances()


def test_what_is_unknown_is_not_found(inventory: Inventory) -> None:
    with pytest.raises(NotFound):
        inventory.workload(WorkloadId("nobody"))
    with pytest.raises(NotFound):
        inventory.update(workload())
    with pytest.raises(NotFound):
        inventory.update_instance(instances()[0])


def test_a_removed_workload_leaves_its_names_and_addresses_to_others(inventory: Inventory) -> None:
    inventory.add(workload(), instances())
    inventory.remove(workload().id)
    inventory.remove(workload().id)
    assert list(inventory.workloads()) == []
    assert list(inventory.instances()) == []
    inventory.add(workload(), instances())


def last(name: str, net: int, count: int = 2) -> list[tuple[str, LastAddress]]:
    """What is remembered of `instances(name, count, net)`."""
    return [(i.name, LastAddress(i.address, i.mac, i.network)) for i in instances(name, count, net)]


def test_what_was_removed_to_be_remembered_is_remembered_and_nothing_else(inventory: Inventory) -> None:
    for net, name in enumerate(["a", "b"]):
        inventory.add(workload(name), instances(name, net=net))
    assert not inventory.last_addresses()
    inventory.remove(workload("a").id)
    inventory.remove(workload("b").id, remember=True)
    inventory.remove(workload("b").id, remember=True)
    inventory.remove(WorkloadId("nobody"), remember=True)
    assert list(inventory.last_addresses().items()) == last("b", net=1)
    assert list(inventory.workloads()) == []


def test_what_a_hostname_had_last_is_remembered_in_the_order_of_removal(inventory: Inventory) -> None:
    for net, name in enumerate(["a", "b", "c", "a"]):
        inventory.add(workload(name), list(reversed(instances(name, net=net))))
        inventory.remove(workload(name).id, remember=True)
    assert list(inventory.last_addresses().items()) == last("b", net=1) + last("c", net=2) + last("a", net=3)


def test_hostnames_may_have_had_one_address_after_another(inventory: Inventory) -> None:
    for name in ("a", "b"):
        inventory.add(workload(name), [replace(i, network="one") for i in instances(name)])
        inventory.remove(workload(name).id, remember=True)
    before = inventory.last_addresses()
    assert before["a-0"] == before["b-0"] == LastAddress("10.0.1.0", "52:54:00:00:01:00", "one")


def test_who_had_no_address_or_no_mac_is_not_remembered(inventory: Inventory) -> None:
    first, second, third = instances(count=3)
    inventory.add(workload(count=3), [replace(first, address=""), replace(second, mac=""), third])
    inventory.remove(workload().id, remember=True)
    assert list(inventory.last_addresses()) == ["batch-2"]


def test_of_those_that_are_remembered_the_oldest_are_forgotten(inventory_of: Make) -> None:
    inventory = inventory_of(3)
    for name in ("a", "b", "a", "c"):
        inventory.add(workload(name), instances(name, count=1))
        inventory.remove(workload(name).id, remember=True)
    assert list(inventory.last_addresses()) == ["b-0", "a-0", "c-0"]
    inventory.add(workload("d"), instances("d"))
    inventory.remove(workload("d").id, remember=True)
    assert list(inventory.last_addresses()) == ["c-0", "d-0", "d-1"]


def test_of_threads_that_want_one_address_one_gets_it(inventory: Inventory) -> None:
    def try_to_add(number: int) -> bool:
        wanted = replace(instances(f"w{number}", count=1, net=number)[0], address="10.0.0.9")
        try:
            inventory.add(workload(f"w{number}", count=1), [wanted])
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(try_to_add, range(16)))
    assert outcomes.count(True) == 1
    assert len(inventory.workloads()) == len(inventory.instances()) == 1


def test_every_field_is_kept(inventory: Inventory) -> None:
    problem = Problem("internal", "it broke", "somehow", "look", retryable=True)
    full = Workload(
        id=WorkloadId("w"),
        name="batch",
        image="debian",
        flavor=Flavor(2, 512, 4096),
        count=3,
        priority=-5,
        created_at=1 / 3,
        preemptible=True,
        protect=True,
        duration=0.0,
        command="echo 'it'\"s\" %s :x",
        user_data="#cloud-config\nü: {}\n",
        state=WorkloadState.FAILED,
        running_since=0.0,
        ran_for=2.5e9 + 1 / 3,
        held=True,
        reason="because",
        problem=problem,
        attempts=2,
        origin=Origin(WorkloadId("v"), 'it\'s "so"'),
        adopted=True,
        options=ServerOptions("project", "flavor", ("one", "two"), "key", ("default",)),
    )
    its_instance = Instance(
        id=InstanceId("i"),
        workload=full.id,
        name="batch-2",
        index=2,
        address="10.0.0.1",
        mac="52:54:00:00:00:01",
        host=HostId("local"),
        address_state=AddressState.MISMATCH,
        address_detail="it has 10.9.9.9",
        command_pid=77,
        exit_code=0,
        problem=problem,
        clock_off=-0.25,
        clock_detail='it\'s "behind"',
        network="one",
    )
    assert_nothing_is_default(full)
    assert_nothing_is_default(its_instance)
    inventory.add(full, [its_instance])
    assert inventory.workload(full.id) == full
    assert list(inventory.instances()) == [its_instance]


def assert_nothing_is_default(example: Workload | Instance) -> None:
    """So that a field that is added later has to be thought of here."""
    assert [f.name for f in fields(example) if getattr(example, f.name) == f.default] == []
