"""The contract of `ports.Ledger`, on the database and on the fake, and that the two agree on anything."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from torpor.adapters.fakes.records import FakeLedger
from torpor.adapters.sql import Database, SqlLedger
from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.errors import Conflict, Invalid, NoCapacity, NotFound, TorporError
from torpor.domain.ids import HostId, InstanceId
from torpor.ports import Ledger

LOCAL = HostId("local")
A, B = InstanceId("a"), InstanceId("b")


@pytest.fixture(params=["fake", "sql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "fake":
        yield FakeLedger()
        return
    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    yield SqlLedger(database)
    database.close()


def compute(consumer: InstanceId, vcpus: int, memory_mb: int, host: HostId = LOCAL) -> Claim:
    return Claim(consumer, ClaimKind.COMPUTE, host, Resources(vcpus, memory_mb))


def disk(consumer: InstanceId, disk_mb: int, kind: ClaimKind = ClaimKind.DISK) -> Claim:
    return Claim(consumer, kind, LOCAL, Resources(disk_mb=disk_mb))


def test_a_new_ledger_is_empty(ledger: Ledger) -> None:
    assert list(ledger.hosts()) == []
    assert list(ledger.claims()) == []


def test_claims_of_all_kinds_add_up_on_their_host(ledger: Ledger) -> None:
    total = Resources(4, 1024, 100)
    ledger.set_host(LOCAL, total)
    entered = [compute(A, 2, 512), disk(A, 10), disk(A, 20, ClaimKind.STATE), compute(B, 2, 512)]
    ledger.claim(entered)
    assert list(ledger.hosts()) == [Host(LOCAL, total, Resources(4, 1024, 30))]
    assert sorted(ledger.claims(), key=str) == sorted(entered, key=str)


def test_a_claim_takes_the_place_of_the_consumers_claim_of_that_kind(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 3, 1000)])
    ledger.claim([compute(A, 4, 24)])
    assert list(ledger.claims()) == [compute(A, 4, 24)]
    assert ledger.hosts()[0].used == Resources(4, 24)


def test_of_two_claims_of_one_kind_the_last_counts(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 4, 1024), compute(A, 1, 1)])
    assert list(ledger.claims()) == [compute(A, 1, 1)]


def test_what_is_given_back_in_the_same_call_makes_room(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 1, 24), compute(B, 3, 1000)])
    ledger.claim([compute(A, 3, 1000), compute(B, 1, 24)])
    assert ledger.hosts()[0].free == Resources()


def test_a_claim_can_move_to_another_host(ledger: Ledger) -> None:
    far = HostId("far")
    ledger.set_host(LOCAL, Resources(1, 10))
    ledger.set_host(far, Resources(1, 10))
    ledger.claim([compute(A, 1, 10)])
    ledger.claim([compute(A, 1, 10, far)])
    assert {host.id: host.used.vcpus for host in ledger.hosts()} == {LOCAL: 0, far: 1}


def test_a_refusal_names_what_is_short_where_and_enters_nothing(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 1, 512)])
    with pytest.raises(NoCapacity, match="host local has 512 MiB of memory free and 768 are needed") as refusal:
        ledger.claim([compute(B, 1, 768)])
    assert "vCPU" not in str(refusal.value)
    assert list(ledger.claims()) == [compute(A, 1, 512)]


def test_a_refused_gang_leaves_the_replaced_claims_as_they_were(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 1, 512)])
    with pytest.raises(NoCapacity, match="has 4 vCPUs free and 5 are needed"):
        ledger.claim([compute(A, 2, 100), compute(B, 3, 1)])
    assert list(ledger.claims()) == [compute(A, 1, 512)]
    assert ledger.hosts()[0].used == Resources(1, 512)


def test_a_claim_on_an_unknown_host_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="host local is not in the books"):
        ledger.claim([compute(A, 1, 1)])


def test_less_than_nothing_is_no_claim(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    with pytest.raises(Invalid):
        ledger.claim([compute(A, 1, -1)])
    assert list(ledger.claims()) == []


def test_release_gives_back_only_the_kinds_that_are_named(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024, 100))
    ledger.claim([compute(A, 1, 512), disk(A, 10), compute(B, 1, 256)])
    ledger.release([A, B], [ClaimKind.COMPUTE])
    assert list(ledger.claims()) == [disk(A, 10)]
    assert ledger.hosts()[0].used == Resources(disk_mb=10)


def test_release_of_what_is_not_claimed_changes_nothing(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 1, 512)])
    ledger.release([B], list(ClaimKind))
    ledger.release([], list(ClaimKind))
    ledger.release([A], [])
    assert list(ledger.claims()) == [compute(A, 1, 512)]


def test_no_claims_at_all_is_no_change(ledger: Ledger) -> None:
    ledger.claim([])
    assert list(ledger.claims()) == []


def test_a_host_can_grow_and_shrink_down_to_what_is_claimed(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 2, 512)])
    ledger.set_host(LOCAL, Resources(8, 2048))
    ledger.set_host(LOCAL, Resources(2, 512))
    assert list(ledger.hosts()) == [Host(LOCAL, Resources(2, 512), Resources(2, 512))]


def test_a_host_cannot_shrink_below_what_is_claimed(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(4, 1024))
    ledger.claim([compute(A, 2, 512)])
    with pytest.raises(Conflict, match="it has 511 MiB of memory and 512 are claimed"):
        ledger.set_host(LOCAL, Resources(2, 511))
    assert ledger.hosts()[0].total == Resources(4, 1024)


@pytest.mark.parametrize("amount", [-1, 2**63])
def test_a_host_with_an_impossible_amount_is_invalid(ledger: Ledger, amount: int) -> None:
    with pytest.raises(Invalid):
        ledger.set_host(LOCAL, Resources(1, amount))
    assert list(ledger.hosts()) == []


def test_of_many_threads_only_as_many_get_room_as_there_is(ledger: Ledger) -> None:
    ledger.set_host(LOCAL, Resources(5, 1024))

    def try_to_claim(number: int) -> bool:
        try:
            ledger.claim([compute(InstanceId(f"i{number}"), 1, 1)])
        except NoCapacity:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(try_to_claim, range(24)))
    assert outcomes.count(True) == 5
    assert ledger.hosts()[0].used == Resources(5, 5)
    assert len(ledger.claims()) == 5


HOSTS = st.sampled_from([HostId("h1"), HostId("h2")])
CONSUMERS = st.sampled_from([InstanceId(f"i{n}") for n in range(4)])
KINDS = st.sampled_from(list(ClaimKind))
CLAIMS = st.builds(
    Claim,
    CONSUMERS,
    KINDS,
    HOSTS,
    st.builds(Resources, st.integers(-1, 4), st.integers(0, 40), st.integers(0, 40)),
)


class LedgersAgree(RuleBasedStateMachine):
    """The fake and the database, given the same commands, answer alike."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.database = Database(f"sqlite:///{self.folder.name}/torpor.db")
        self.database.migrate()
        self.sql: Ledger = SqlLedger(self.database)
        self.fake: Ledger = FakeLedger()

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def both(self, command: Callable[[Ledger], None]) -> None:
        assert outcome(command, self.sql) == outcome(command, self.fake)

    @rule(host=HOSTS, vcpus=st.integers(-1, 8), memory_mb=st.integers(0, 100), disk_mb=st.integers(0, 100))
    def set_host(self, host: HostId, vcpus: int, memory_mb: int, disk_mb: int) -> None:
        self.both(lambda ledger: ledger.set_host(host, Resources(vcpus, memory_mb, disk_mb)))

    @rule(claims=st.lists(CLAIMS, max_size=4))
    def claim(self, claims: Sequence[Claim]) -> None:
        self.both(lambda ledger: ledger.claim(claims))

    @rule(consumers=st.lists(CONSUMERS, max_size=3), kinds=st.lists(KINDS, max_size=3))
    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        self.both(lambda ledger: ledger.release(consumers, kinds))

    @invariant()
    def the_books_are_the_same(self) -> None:
        assert list(self.sql.hosts()) == list(self.fake.hosts())
        assert list(self.sql.claims()) == list(self.fake.claims())

    @invariant()
    def the_claims_fit(self) -> None:
        for host in self.sql.hosts():
            held = [claim.resources for claim in self.sql.claims() if claim.host == host.id]
            assert host.used == sum(held, Resources())
            assert host.used.fits_in(host.total)


def outcome(command: Callable[[Ledger], None], ledger: Ledger) -> str:
    try:
        command(ledger)
    except TorporError as error:
        return f"{error.code}: {error}"
    return "done"


TestLedgersAgree = LedgersAgree.TestCase
TestLedgersAgree.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
