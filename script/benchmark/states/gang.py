"""A gang of two real guests, suspended and resumed: how near to one instant, and how right their clocks are then."""

import time
from statistics import median

from benchmark.states.contender import Bench, Turn
from benchmark.states.record import Cell, Measure, Record, Side
from benchmark.states.torpor_vm import TorporGuest
from torpor.adapters.guest.agent import over_socket

GANG = "torpor, a gang of two"
CELL = Cell(128, 12)
_SIZE = 2
_ASLEEP_SECONDS = 1.0
"""At least, so that a clock which nobody sets is far off."""
_QUESTIONS = 5


def measure_gang(bench: Bench, record: Record, rounds: int) -> None:
    """Default configuration, agent in the guests."""
    guests: list[TorporGuest] = []
    try:
        for _ in range(_SIZE):
            guests.append(TorporGuest(bench, CELL.memory_mb, beside=guests[0] if guests else None))
            guests[-1].boot(CELL.data_mb, lazy=False)
        for number in range(rounds):
            _round(Turn(record, CELL, number), guests)
    finally:
        for guest in reversed(guests):
            guest.close()


def figures(record: Record) -> dict[str, float | None]:
    """Medians, and the largest of all, in milliseconds; None where nothing was measured."""
    found: dict[str, float | None] = {}
    for key, measure in (
        ("gang_pause_skew", Measure.PAUSE_SKEW),
        ("gang_run_on_skew", Measure.RUN_ON_SKEW),
        ("clock_off", Measure.CLOCK_OFF),
    ):
        values = record.values(CELL, Side(GANG, measure))
        found[f"{key}_ms"] = median(values) if values else None
        found[f"{key}_worst_ms"] = max(values, default=None)
    return found


def _round(turn: Turn, guests: list[TorporGuest]) -> None:
    ids = [guest.spec.id for guest in guests]
    gangs = guests[0].backend.gangs
    _add(turn, Measure.PAUSE_SKEW, gangs.pause(ids))
    for guest in guests:
        guest.save_and_release()
    time.sleep(_ASLEEP_SECONDS)
    for guest in guests:
        guest.restore_and_spend()
    _add(turn, Measure.RUN_ON_SKEW, gangs.run_on(ids))
    for guest in guests:
        gap = guest.agent.set_clock(guest.spec.id, time.time())
        turn.add(GANG, Measure.CLOCK_BEHIND, gap.behind * 1000)
        turn.add(GANG, Measure.CLOCK_OFF, abs(_behind(guest)) * 1000)
    for guest in guests:
        guest.talk.ask("verify")


def _add(turn: Turn, measure: Measure, skew: float | None) -> None:
    assert skew is not None, "the gang was not whole"
    turn.add(GANG, measure, skew * 1000)


def _behind(guest: TorporGuest) -> float:
    """Seconds that the guest's clock is behind the host's, by the quickest of a few answers: right to half its time."""
    answers = []
    with over_socket(lambda id: guest.folder.agent_socket)(guest.spec.id) as talk:
        for _ in range(_QUESTIONS):
            asked = time.time()
            told = int(talk.ask("guest-get-time", 5.0)) / 1e9
            answered = time.time()
            answers.append((answered - asked, (asked + answered) / 2 - told))
    return min(answers)[1]
