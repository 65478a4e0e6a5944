"""What it costs a guest to be suspendable, and to have been restored: random accesses to its memory, beside plain QEMU.

The plain guest stands by all the time and is asked right after each other one, so that both sides of a ratio are of the
same seconds of the machine.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from benchmark.states.contender import WORK_COUNT, Bench, Turn
from benchmark.states.plain_vm import PlainVm
from benchmark.states.record import Cell, Measure
from benchmark.states.talk import Talk
from benchmark.states.torpor_vm import TorporGuest
from torpor.domain.instance import Codec

FRESH, DEFAULT = "torpor, fresh", "torpor, fresh, by default"
"""As one that may be restored lazily; as the configuration makes it unless told otherwise, with free page reporting."""
EAGER, LAZY = "torpor, restored eagerly", "torpor, restored lazily"
PLAIN = "plain QEMU"
_TIMES = 2
"""In turn with the plain guest; the median counts, for others may use the machine."""


def beside(contender: str) -> str:
    """The plain guest, asked in turn with this one."""
    return f"{PLAIN} beside {contender}"


def measure_running_costs(bench: Bench, cell: Cell) -> None:
    """Into the bench's record. Three guests of this size are in memory at the same time."""
    with ExitStack() as guests:
        plain = guests.enter_context(closing(PlainVm(bench, cell)))
        for_lazy = guests.enter_context(closing(TorporGuest(bench, cell.memory_mb)))
        default = guests.enter_context(closing(TorporGuest(bench, cell.memory_mb)))
        plain.boot()
        for_lazy.boot(cell.data_mb)
        default.boot(cell.data_mb, lazy=False)
        for one in (plain, for_lazy, default):
            one.talk.ask("tick-stop")  # who stands by is to take nothing from who is measured
        turns = [Turn(bench.record, cell, number) for number in range(bench.repeat)]
        for turn in turns:
            for name, guest in ((FRESH, for_lazy), (DEFAULT, default)):
                _work(turn, name, guest.talk, plain.talk)
        _huge_pages(turns[0], FRESH, for_lazy.pid)
        _huge_pages(turns[0], DEFAULT, default.pid)
        _huge_pages(turns[0], PLAIN, plain.pid)
        for guest in (for_lazy, default):
            guest.use(Codec.NONE, lazy=guest is for_lazy)
            guest.sleep()
        for turn in turns:
            _restored(turn, LAZY, for_lazy, plain)
            _restored(turn, EAGER, default, plain)


def _restored(turn: Turn, name: str, guest: TorporGuest, plain: PlainVm) -> None:
    """The second pass is one after all of a lazily restored guest's state was read behind it."""
    guest.go_on()
    _work(turn, name, guest.talk, plain.talk, guest.await_scrub)
    _huge_pages(turn, name, guest.pid)
    guest.talk.ask("verify")
    guest.revert()


def _work(turn: Turn, name: str, ours: Talk, plain: Talk, between: Callable[[], object] | None = None) -> None:
    turn.add(name, Measure.WORK, _asked(ours)["first"])
    turn.add(beside(name), Measure.WORK, _asked(plain)["first"])
    if between:
        between()
    for _ in range(_TIMES):
        turn.add(name, Measure.WORK_AGAIN, _asked(ours)["second"])
        turn.add(beside(name), Measure.WORK_AGAIN, _asked(plain)["second"])


def _asked(guest: Talk) -> dict[str, float]:
    done: dict[str, float] = guest.ask(f"work {WORK_COUNT}")
    return done


def _huge_pages(turn: Turn, name: str, pid: int) -> None:
    rollup = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    for key, measure in (("Anonymous", Measure.ANONYMOUS), ("AnonHugePages", Measure.HUGE_PAGES)):
        turn.add(name, measure, int(rollup[key].split()[0]) * 1024)
