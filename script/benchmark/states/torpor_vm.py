"""Torpor's embedded backend, driven through its ports."""

import threading
import time
import uuid
from collections.abc import Sequence

from benchmark.states.contender import CHANGED_PERCENT, TB_SIZE_MB, Bench, Turn
from benchmark.states.pauses import watched_gaps
from benchmark.states.record import Cell, Measure
from benchmark.states.talk import GuestFailed, Talk, seconds, until_first_tick
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.qemu import QemuBackend, QemuSettings, make_backend
from torpor.config import QemuConfig
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import Codec, Execution, InstanceSpec, NetworkConfig, SavedState
from torpor.domain.workload import Flavor
from torpor.engine.loop import SCRUB_SECONDS
from torpor.ports import StateStore


def name_of(codec: Codec) -> str:
    return f"torpor {codec}"


def new_spec(memory_mb: int) -> InstanceSpec:
    """An instance that nobody has seen before, on no network."""
    id = InstanceId(str(uuid.uuid4()))
    mac = "52:54:00:" + ":".join(id[at : at + 2] for at in (0, 2, 4))
    network = NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "bench.internal")
    return InstanceSpec(id, f"bench-{memory_mb}", "bench", Flavor(1, memory_mb, 0), mac, network)


class _Shell:
    def __init__(self, id: InstanceId, guest: AgentGuest) -> None:
        self._id = id
        self._guest = guest

    def execute(self, command: str) -> int:
        return self._guest.execute(self._id, command)

    def execution(self, pid: int) -> Execution:
        return self._guest.execution(self._id, pid)


class _Stopped(Exception):
    """What is left of the state need not be read."""


class _Scrub:
    """What the daemon does behind a lazily restored guest: its state is read through, and compared.

    The daemon looks for such guests every SCRUB_SECONDS; this one begins after half of that, the mean.
    """

    def __init__(self, states: StateStore, id: InstanceId, generation: int) -> None:
        self.seconds = 0.0
        self._states, self._id, self._generation = states, id, generation
        self._left = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Raises what the verification raised."""
        self._thread.join()
        if self._failure:
            raise self._failure

    def leave(self) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.perf_counter()
        if self._left.wait(SCRUB_SECONDS / 2):
            return
        try:
            self._states.verify(self._id, self._generation, self._progress)
        except _Stopped:
            return
        except Exception as error:
            self._failure = error
        self.seconds = time.perf_counter() - began

    def _progress(self, done: int, total: int) -> None:
        if self._left.is_set():
            raise _Stopped


class TorporGuest:
    """One guest of a backend of its own, whose settings may change while the guest sleeps.

    One that is made `beside` another shares that one's backend, and is told what that one is told.
    """

    def __init__(self, bench: Bench, memory_mb: int, beside: "TorporGuest | None" = None) -> None:
        self.spec = new_spec(memory_mb)
        self._beside = beside
        self._bench = bench
        self._state_dir = bench.folder / f"t-{self.spec.id[:4]}"
        self._lazy = beside is None
        self._backend: QemuBackend = beside._backend if beside else self._made(Codec.NONE)
        self.folder = self._backend.layout.instance(self.spec.id)
        self.agent = AgentGuest(over_socket(lambda id: self.folder.agent_socket), lambda _: Ethernet("lo", "127.0.0.1"))
        self.talk = Talk(_Shell(self.spec.id, self.agent))
        self._scrub: _Scrub | None = None

    def use(self, codec: Codec, lazy: bool) -> None:
        """Not while it runs on a lazy restore, which the backend that restored it may still look after."""
        if self._beside is None:
            self._backend.close()
            self._lazy = lazy
            self._backend = self._made(codec)
            self._backend.vms.installed.qemu()  # a daemon that has saved a guest knows it

    def boot(self, data_mb: int, *, lazy: bool = True) -> None:
        """As one that may be restored lazily: without a device that reports free memory, as the other contenders'.

        Not `lazy`: as one has it by default, with that device.
        """
        self.use(Codec.NONE, lazy)
        self._backend.hypervisor.boot(self.spec)
        self.talk.await_boot()
        self.talk.ask(f"fill {data_mb}")

    def sleep(self) -> tuple[float, SavedState]:
        """Seconds from the pause until its state is durable and its process is gone; the state.

        Of a lazily restored guest, once its state was read behind it.
        """
        self.await_scrub()
        self._bench.before_suspension(self.spec.flavor.memory_mb)
        taken = seconds(self._sleep)
        state = self._backend.suspension.states(self.spec.id)[0]
        self._backend.suspension.settle(self.spec.id)
        return taken, state

    def wake(self) -> float:
        """Seconds until its first tick, from a cold cache. Raises GuestFailed where a lazy restore was an eager one.

        What a lazy restore leaves on disk is read behind the guest from now on.
        """
        self._bench.before_restore(self.spec.flavor.memory_mb)
        taken = until_first_tick(self._wake, self.folder.console_log)
        if self._lazy and not self._backend.states.mapped(self.spec.id):
            raise GuestFailed("the guest was not restored lazily")
        return taken

    def go_on(self) -> None:
        """As `wake`, of a guest that does not tick."""
        self._bench.before_restore(self.spec.flavor.memory_mb)
        self._wake()

    def await_scrub(self) -> float | None:
        """Until all of a lazily restored guest's state was read behind it; how many seconds that took in all."""
        scrub, self._scrub = self._scrub, None
        if scrub is None:
            return None
        scrub.wait()
        return scrub.seconds

    def forget_states(self) -> None:
        """Of a guest that was restored eagerly and runs on: its next suspension is a first one again."""
        for state in self._backend.suspension.states(self.spec.id):
            self._backend.states.remove(self.spec.id, state.generation)

    def revert(self) -> None:
        """Asleep again, as it was before it was woken."""
        self._leave_scrub()
        self._backend.suspension.revert(self.spec.id)

    @property
    def backend(self) -> QemuBackend:
        return self._backend

    @property
    def pid(self) -> int:
        pid = self._backend.hypervisor.observe()[self.spec.id].pid
        assert pid is not None
        return pid

    def save_and_release(self) -> None:
        self._backend.suspension.save(self.spec, lambda done, total: None)
        self._backend.suspension.release(self.spec.id)

    def restore_and_spend(self) -> None:
        self._backend.suspension.restore(self.spec, lambda done, total: None)
        self._backend.suspension.spend(self.spec.id)

    def close(self) -> None:
        self._leave_scrub()
        self._backend.hypervisor.erase(self.spec.id)
        if self._beside is None:
            self._backend.close()

    def _made(self, codec: Codec) -> QemuBackend:
        settings = QemuSettings(
            self._state_dir,
            HostId("local"),
            accelerator="tcg",
            tb_size_mb=TB_SIZE_MB,
            save_threads=QemuConfig().save_threads,
            codec=codec.value,
            restore="lazy" if self._lazy else "eager",
        )
        return make_backend(settings, self._bench.image, config_drive_image)

    def _sleep(self) -> None:
        self._backend.hypervisor.pause(self.spec.id)
        self.save_and_release()

    def _wake(self) -> None:
        self.restore_and_spend()
        self._backend.hypervisor.run_on(self.spec.id)
        if self._lazy:
            newest = self._backend.suspension.states(self.spec.id)[0]
            self._scrub = _Scrub(self._backend.states, self.spec.id, newest.generation)

    def _leave_scrub(self) -> None:
        scrub, self._scrub = self._scrub, None
        if scrub:
            scrub.leave()


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
        else:
            guest.boot(self._cell.data_mb)
            guest.use(codec, lazy=False)
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
        if (scrubbing := guest.await_scrub()) is not None:
            turn.add(name_of(Codec.NONE), Measure.SCRUB, scrubbing)
        guest.talk.ask("verify")
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
