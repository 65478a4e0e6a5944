"""Torpor's embedded backend, driven through its ports."""

import uuid
from collections.abc import Sequence
from typing import Any

from benchmark.states.contender import CHANGED_PERCENT, TB_SIZE_MB, WORK_COUNT, Bench, Turn
from benchmark.states.pauses import watched_gaps
from benchmark.states.record import Cell, Measure
from benchmark.states.talk import GuestFailed, Talk, drop_caches, seconds, until_first_tick
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.qemu import QemuSettings, make_backend
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import Codec, Execution, InstanceSpec, NetworkConfig, SavedState
from torpor.domain.workload import Flavor

FRESH, EAGER, LAZY = "torpor, fresh", "torpor, restored eagerly", "torpor, restored lazily"


def name_of(codec: Codec) -> str:
    return f"torpor {codec}"


def new_spec(memory_mb: int) -> InstanceSpec:
    """An instance that nobody has seen before, on no network."""
    id = InstanceId(str(uuid.uuid4()))
    mac = "52:54:00:" + ":".join(id[at : at + 2] for at in (0, 2, 4))
    network = NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "bench.internal")
    return InstanceSpec(id, f"bench-{memory_mb}", "bench", Flavor(1, memory_mb, 0), mac, network)


class _Shell:
    def __init__(self, folder: InstanceFolder) -> None:
        self._id = folder.id
        self._guest = AgentGuest(over_socket(lambda id: folder.agent_socket), lambda _: Ethernet("lo", "127.0.0.1"))

    def execute(self, command: str) -> int:
        return self._guest.execute(self._id, command)

    def execution(self, pid: int) -> Execution:
        return self._guest.execution(self._id, pid)


class TorporGuest:
    """One guest of one backend, whose settings may change while the guest sleeps."""

    def __init__(self, bench: Bench, memory_mb: int) -> None:
        self.spec = new_spec(memory_mb)
        self._bench = bench
        self._use(Codec.NONE, lazy=True)
        self.folder = self._backend.layout.instance(self.spec.id)
        self.talk = Talk(_Shell(self.folder))

    def use(self, codec: Codec, lazy: bool) -> None:
        """Not while it runs on a lazy restore, which the backend that restored it may still look after."""
        self._backend.close()
        self._use(codec, lazy)

    def boot(self, data_mb: int) -> None:
        """As one that may be restored lazily: without a device that reports free memory, as the other contenders'."""
        self.use(Codec.NONE, lazy=True)
        self._backend.hypervisor.boot(self.spec)
        self.talk.await_boot()
        self.talk.ask(f"fill {data_mb}")

    def sleep(self) -> tuple[float, SavedState]:
        """Seconds from the pause until its state is durable and its process is gone; the state."""
        taken = seconds(self._sleep)
        state = self._backend.suspension.states(self.spec.id)[0]
        self._backend.suspension.settle(self.spec.id)
        return taken, state

    def wake(self) -> float:
        """Seconds until its first tick, from a cold cache. Raises GuestFailed where a lazy restore was an eager one."""
        drop_caches()
        taken = until_first_tick(self._wake, self.folder.console_log)
        if self._lazy and not self._backend.states.mapped(self.spec.id):
            raise GuestFailed("the guest was not restored lazily")
        return taken

    def forget_states(self) -> None:
        """Of a guest that was restored eagerly and runs on: its next suspension is a first one again."""
        for state in self._backend.suspension.states(self.spec.id):
            self._backend.states.remove(self.spec.id, state.generation)

    def revert(self) -> None:
        """Asleep again, as it was before it was woken."""
        self._backend.suspension.revert(self.spec.id)

    @property
    def backend(self) -> Any:
        return self._backend

    def close(self) -> None:
        self._backend.hypervisor.erase(self.spec.id)
        self._backend.close()

    def _use(self, codec: Codec, lazy: bool) -> None:
        settings = QemuSettings(
            self._bench.folder / "t",
            HostId("local"),
            accelerator="tcg",
            tb_size_mb=TB_SIZE_MB,
            codec=codec.value,
            restore="lazy" if lazy else "eager",
        )
        self._lazy = lazy
        self._backend = make_backend(settings, self._bench.image, config_drive_image)

    def _sleep(self) -> None:
        self._backend.hypervisor.pause(self.spec.id)
        self._backend.suspension.save(self.spec, lambda done, total: None)
        self._backend.suspension.release(self.spec.id)

    def _wake(self) -> None:
        self._backend.suspension.restore(self.spec, lambda done, total: None)
        self._backend.suspension.spend(self.spec.id)
        self._backend.hypervisor.run_on(self.spec.id)


class TorporVm:
    """Implements `Contender`.

    A codec's turn: a first suspension, of a guest that was booted or was restored eagerly and has lost its states;
    then suspensions after a lazy and an eager restore, with the same 1 % of its pages changed.
    """

    def __init__(self, bench: Bench, cell: Cell, codecs: Sequence[Codec]) -> None:
        self._bench = bench
        self._cell = cell
        self._codecs = codecs
        self._guest = TorporGuest(bench, cell.memory_mb)
        self._asleep = False
        self.first_bytes = 0
        """Of the last first suspension without a codec."""

    def take_turn(self, turn: Turn) -> None:
        for codec in self._codecs:
            self._first(turn, codec)
            if codec is Codec.NONE:
                self._second_lazy(turn)
                self._read_all_lazy(turn)
            self._second_eager(turn, codec)

    def close(self) -> None:
        self._guest.close()

    def _first(self, turn: Turn, codec: Codec) -> None:
        guest = self._guest
        if self._asleep:
            guest.use(codec, lazy=False)
            guest.wake()
            guest.forget_states()
            if codec is Codec.NONE:
                self._work(turn, EAGER)
        else:
            guest.boot(self._cell.data_mb)
            guest.use(codec, lazy=False)
            for _ in range(self._bench.repeat):
                self._work(turn, FRESH)
        if codec is Codec.NONE:
            self._snapshot(turn)
        taken, state = guest.sleep()
        self._asleep = True
        turn.add(name_of(codec), Measure.SUSPEND, taken)
        turn.add(name_of(codec), Measure.SUSPEND_BYTES, _written(state))
        if codec is Codec.NONE:
            self.first_bytes = _written(state)

    def _second_lazy(self, turn: Turn) -> None:
        self._guest.use(Codec.NONE, lazy=True)
        turn.add(name_of(Codec.NONE), Measure.LAZY_RESTORE, self._guest.wake())
        self._guest.talk.ask(f"change {CHANGED_PERCENT}")
        taken, state = self._guest.sleep()
        turn.add(name_of(Codec.NONE), Measure.RESUSPEND_LAZY, taken)
        turn.add(name_of(Codec.NONE), Measure.RESUSPEND_LAZY_BYTES, _written(state))

    def _read_all_lazy(self, turn: Turn) -> None:
        guest = self._guest

        guest.use(Codec.NONE, lazy=True)
        waking = guest.wake()  # whose own time is without the dropping of caches
        reading = seconds(lambda: guest.talk.ask("read"))
        turn.add(name_of(Codec.NONE), Measure.LAZY_READ_ALL, waking + reading)
        guest.talk.ask("verify")
        self._work(turn, LAZY)
        guest.revert()

    def _second_eager(self, turn: Turn, codec: Codec) -> None:
        guest = self._guest
        guest.use(codec, lazy=False)
        turn.add(name_of(codec), Measure.RESTORE, guest.wake())
        guest.talk.ask("verify")
        guest.talk.ask(f"change {CHANGED_PERCENT}")
        taken, state = guest.sleep()
        turn.add(name_of(codec), Measure.RESUSPEND_EAGER, taken)
        turn.add(name_of(codec), Measure.RESUSPEND_EAGER_BYTES, _written(state))

    def _work(self, turn: Turn, contender: str) -> None:
        done = self._guest.talk.ask(f"work {WORK_COUNT}")
        turn.add(contender, Measure.WORK, done["first"])
        turn.add(contender, Measure.WORK_AGAIN, done["second"])

    def _snapshot(self, turn: Turn) -> None:
        if not self._guest.backend.hypervisor.capabilities().snapshots:
            return
        snapshots = self._guest.backend.snapshots
        contender, spec = name_of(Codec.NONE), self._guest.spec
        snapshot = watched_gaps(
            self._guest.talk,
            self._guest.folder.console_socket,
            lambda: snapshots.take([spec], "bench", lambda done, total: None),
        )
        (told,) = snapshots.list(spec.id)
        snapshots.remove(spec.id, "bench")
        plain = watched_gaps(self._guest.talk, self._guest.folder.console_socket, snapshot.wait_as_long)
        turn.add(contender, Measure.SNAPSHOT, snapshot.seconds)
        turn.add(contender, Measure.SNAPSHOT_GAP, snapshot.largest_ms)
        turn.add(contender, Measure.SNAPSHOT_TOLD, told.pause_seconds * 1000)
        turn.add(contender, Measure.SNAPSHOT_GUEST_GAP, snapshot.guest_largest_ms)
        turn.add(contender, Measure.PLAIN_GAP, plain.largest_ms)
        turn.add(contender, Measure.PLAIN_GUEST_GAP, plain.guest_largest_ms)


def _written(state: SavedState) -> int:
    return state.written_bytes or state.stored_bytes
