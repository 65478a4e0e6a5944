"""What is to be seen of a cloud besides: its books, who else wanted the room, and what of the time was ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Amounts = Mapping[str, int]
"""By resource class, as Placement calls them."""
NO_PLACE = "no valid host"


@dataclass(slots=True)
class CloudFindings:
    """Filled step by step."""

    capacity: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    """The most that was booked of each at any moment, as Placement had it."""
    samples: int = 0
    """How often the books were looked at."""
    violations: list[str] = field(default_factory=list)
    by_step: dict[str, dict[str, int]] = field(default_factory=dict)
    """What was booked at the end of each step."""
    guests_at_most: int = 0
    """Servers that had a process at the same moment, whatever the books said."""
    refusal: str = ""
    """What Nova said to an ordinary boot while the host was full."""
    outside: dict[str, int] = field(default_factory=dict)
    """Rounds of the TCP connection from outside to a suspended server, by `before` and `after`; and its local port."""
    own_suspend_seconds: float | None = None
    own_resume_seconds: float | None = None
    step_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each of these operations what its steps took, those of both servers together; the gaps are not in it."""
    competing: bool = False
    attempts: int = 0
    """Boots that the competitor has asked for."""
    wins: int = 0
    told: str = ""
    """What the priority workload said of itself while the competitor had the room."""

    def see(self, used: Amounts, capacity: Amounts, when: str) -> None:
        """One look at the books."""
        self.samples += 1
        self.capacity = dict(capacity)
        for kind, amount in used.items():
            self.peaks[kind] = max(self.peaks.get(kind, 0), amount)
            if amount > capacity.get(kind, 0):
                self.violations.append(f"{amount} of {capacity.get(kind, 0)} {kind} were booked {when}")

    def outside_survived(self) -> bool:
        """The same connection: its port did not change, and it has been used since."""
        return (
            self.outside.get("after", 0) > self.outside.get("before", 0) > 0
            and self.outside["port_after"] == self.outside["port_before"] > 0
        )

    def complaints(self) -> list[str]:
        """As those of the findings that every backend has."""
        checks = {
            "the books of Placement were not looked at": self.samples == 0,
            f"{self.guests_at_most} servers had a process at once, on a host for {self.capacity.get('VCPU', 0)}":
                self.guests_at_most == 0 or self.guests_at_most > self.capacity.get("VCPU", 0),
            f"an ordinary boot on the full host was not refused ({self.refusal or 'Nova said nothing'})":
                NO_PLACE not in self.refusal.lower(),
            "the TCP connection from outside did not survive": not self.outside_survived(),
            "it is not known what of the time was Torpor's own":
                None in (self.own_suspend_seconds, self.own_resume_seconds),
            "the competitor never won the race": self.competing and self.wins == 0,
            "the priority workload was not told that it waits": self.competing and not self.told,
        }  # fmt: skip
        return [*dict.fromkeys(self.violations), *(sentence for sentence, wrong in checks.items() if wrong)]

    def as_json(self) -> dict[str, Any]:
        return {
            "placement_capacity": self.capacity,
            "placement_peaks": self.peaks,
            "placement_samples": self.samples,
            "placement_violations": len(self.violations),
            "placement_by_step": self.by_step,
            "guests_at_most": self.guests_at_most,
            "no_valid_host": self.refusal,
            "outside_tcp": self.outside,
            "outside_tcp_connection_survived": self.outside_survived(),
            "own_suspend_seconds": self.own_suspend_seconds,
            "own_resume_seconds": self.own_resume_seconds,
            "step_seconds": self.step_seconds,
            "competitor_attempts": self.attempts,
            "competitor_wins": self.wins,
            "told_while_queued": self.told,
        }


def own_seconds(steps: Iterable[Mapping[str, Any]], of_nova: str) -> float:
    """From the operation's first step to the end of its last, without the step in which Nova acts."""
    done = [step for step in steps if step["started_at"] is not None and step["ended_at"] is not None]
    whole = max(step["ended_at"] for step in done) - min(step["started_at"] for step in done)
    return float(whole - sum(step["ended_at"] - step["started_at"] for step in done if step["kind"] == of_nova))


def seconds_by_kind(steps: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the steps took, by kind."""
    found: dict[str, float] = {}
    for step in steps:
        if step["started_at"] is not None and step["ended_at"] is not None:
            found[step["kind"]] = round(found.get(step["kind"], 0.0) + step["ended_at"] - step["started_at"], 2)
    return found
