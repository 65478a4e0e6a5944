"""The ledger on the lab's Placement, with a host of its own there that no Nova knows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from lab.openstack.clouds import ADMIN, SERVICE_ACCOUNT, connect
from openstack.connection import Connection
from tests.lab_machines import LabBench

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.ledger import PlacementLedger
from torpor.adapters.openstack.placement import Placement
from torpor.adapters.openstack.servers import Servers
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.errors import NoCapacity
from torpor.domain.ids import HostId, InstanceId

DISK_MB = 2048
COMPUTE, DISK, STATE = ClaimKind.COMPUTE, ClaimKind.DISK, ClaimKind.STATE


@dataclass
class Books:
    """A host with 4 vCPUs, 4096 MB and 20 GB, and two instances of the records that have no server."""

    ledger: PlacementLedger
    admin: Connection
    host: HostId
    provider: str
    one: InstanceId
    other: InstanceId

    def compute(self, consumer: InstanceId, vcpus: int, memory_mb: int) -> Claim:
        return Claim(consumer, COMPUTE, self.host, Resources(vcpus, memory_mb))

    def disk(self, consumer: InstanceId, kind: ClaimKind, disk_mb: int) -> Claim:
        return Claim(consumer, kind, self.host, Resources(disk_mb=disk_mb))

    def held(self, consumer: InstanceId) -> dict[str, int]:
        """As Placement tells an administrator."""
        answer = self.admin.placement.get(f"/allocations/{consumer}", microversion="1.28").json()["allocations"]
        return dict(answer[self.provider]["resources"]) if answer else {}

    def claims(self) -> set[tuple[InstanceId, ClaimKind, Resources]]:
        return {(claim.consumer, claim.kind, claim.resources) for claim in self.ledger.claims()}


@pytest.fixture(params=[(1, 38), (1, 28)], ids=["1.38", "1.28"])
def books(bench: LabBench, request: pytest.FixtureRequest) -> Iterator[Books]:
    """In both forms of Placement's documents."""
    admin = connect(bench.lab, ADMIN)
    provider, host = str(uuid.uuid4()), HostId(f"test-{uuid.uuid4().hex[:8]}")
    placement = admin.placement
    assert placement.post("/resource_providers", json={"uuid": provider, "name": host}, microversion="1.28").ok
    sizes = {"VCPU": (2, 2.0), "MEMORY_MB": (4096, 1.0), "DISK_GB": (20, 1.0)}
    inventory = {cls: {"total": total, "allocation_ratio": ratio} for cls, (total, ratio) in sizes.items()}
    document = {"resource_provider_generation": 0, "inventories": inventory}
    assert placement.put(f"/resource_providers/{provider}/inventories", json=document, microversion="1.28").ok
    one, other = InstanceId(str(uuid.uuid4())), InstanceId(str(uuid.uuid4()))
    settings = OpenStackSettings(SERVICE_ACCOUNT, hosts=(host,), look_seconds=0.0)
    cloud = Cloud(settings)
    placement_of_ours = Placement(cloud, request.param)
    ledger = PlacementLedger(placement_of_ours, Servers(cloud), lambda: {one: DISK_MB, other: DISK_MB})
    yield Books(ledger, admin, host, provider, one, other)
    ledger.release([one, other], list(ClaimKind))
    assert placement.delete(f"/resource_providers/{provider}", microversion="1.28").ok


def test_a_host_offers_what_may_be_held_of_it(books: Books) -> None:
    (host,) = books.ledger.hosts()
    assert (host.id, host.total, host.used) == (books.host, Resources(4, 4096, 20 * 1024), Resources())


def test_claims_are_one_allocation_and_read_as_they_were_written(books: Books) -> None:
    wanted = [
        books.compute(books.one, 2, 512),
        books.disk(books.one, DISK, DISK_MB),
        books.disk(books.one, STATE, 600),
        books.compute(books.other, 1, 256),
    ]
    books.ledger.claim(wanted)
    assert books.held(books.one) == {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3}
    assert books.claims() == {
        (books.one, COMPUTE, Resources(2, 512)),
        (books.one, DISK, Resources(disk_mb=2048)),
        (books.one, STATE, Resources(disk_mb=1024)),
        (books.other, COMPUTE, Resources(1, 256)),
    }


def test_what_a_suspended_server_holds_is_disk_alone(books: Books) -> None:
    books.ledger.claim([books.compute(books.one, 2, 512), books.disk(books.one, DISK, DISK_MB)])
    books.ledger.claim([books.disk(books.one, STATE, 512)])
    books.ledger.release([books.one], [COMPUTE])
    assert books.held(books.one) == {"DISK_GB": 3}
    books.ledger.claim([books.compute(books.one, 2, 512)])
    books.ledger.release([books.one], [STATE])
    assert books.held(books.one) == {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 2}


def test_of_a_gang_that_does_not_fit_none_is_entered(books: Books) -> None:
    with pytest.raises(NoCapacity):
        books.ledger.claim([books.compute(books.one, 3, 512), books.compute(books.other, 2, 512)])
    assert books.claims() == set()


def test_room_goes_from_hand_to_hand_in_a_full_host(books: Books) -> None:
    books.ledger.claim([books.compute(books.one, 4, 4096), books.disk(books.one, DISK, DISK_MB)])
    with pytest.raises(NoCapacity):
        books.ledger.claim([books.compute(books.other, 4, 4096)])
    books.ledger.claim([books.compute(books.other, 4, 4096)], instead_of=[books.one])
    assert books.held(books.one) == {"DISK_GB": 2}
    assert books.held(books.other) == {"VCPU": 4, "MEMORY_MB": 4096}


def test_what_is_released_twice_or_was_never_held_is_no_matter(books: Books) -> None:
    books.ledger.release([books.one, books.other], list(ClaimKind))
    books.ledger.claim([books.compute(books.one, 1, 256)])
    for _ in range(2):
        books.ledger.release([books.one], list(ClaimKind))
    assert books.held(books.one) == {}


def test_of_many_at_once_only_as_many_get_room_as_there_is(books: Books) -> None:
    """Each writes with the generation that it read; who was second reads again."""

    def once(number: int) -> bool:
        consumer = (books.one, books.other)[number % 2]
        try:
            books.ledger.claim([books.compute(consumer, 3, 256)])
        except NoCapacity:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(once, range(6)))
    assert any(got)
    (host,) = books.ledger.hosts()
    assert host.used.vcpus == 3
