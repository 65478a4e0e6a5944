"""What was seen before and after, and whether the two agree."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demonstration.cloud.findings import CloudFindings

Json = dict[str, Any]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A name server's answer, as it was given to somebody."""

    name: str
    address: str | None
    asked_from: str
    when: str


@dataclass(slots=True)
class Findings:
    """Filled step by step. `before` and `after` are the guests' own words, by instance."""

    seconds: dict[str, float] = field(default_factory=dict)
    before: dict[str, Json] = field(default_factory=dict)
    after: dict[str, Json] = field(default_factory=dict)
    verified: dict[str, Json] = field(default_factory=dict)
    """Answers to `verify` after the restoration."""
    addresses: dict[str, str] = field(default_factory=dict)
    """By instance, as the records had it when it was accepted."""
    answers: list[Answer] = field(default_factory=list)
    fits_without_victims: bool | None = None
    victims: list[str] = field(default_factory=list)
    predicted_suspend_seconds: float | None = None
    memory_before: int = 0
    """Bytes of the batch VMs' QEMU processes, page cache not counted."""
    memory_after: int = 0
    processes_after: int = 0
    """QEMU processes of the batch VMs while they were suspended."""
    state_bytes: int = 0
    exit_codes: dict[str, int | None] = field(default_factory=dict)
    """Of the priority workload's command, by instance."""
    priority_verified: dict[str, bool] = field(default_factory=dict)
    """Whether they found whole what they had filled, where no command can be given to them."""
    priority_uptimes: dict[str, float] = field(default_factory=dict)
    answer_after_deletion: str | None = None
    """What the name server said of a priority VM right after its deletion was asked for."""
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the start, bytes of batch processes, bytes of priority processes."""
    left_behind: list[str] = field(default_factory=list)
    cloud: CloudFindings | None = None
    """Where the VMs are servers of a cloud."""

    def checksum_ok(self) -> bool:
        """The random data is what it was, and the guest's own sum of it is too."""
        return bool(self.verified) and all(
            v["ok"] and v["found"] == v["expected"] == self.before[name]["fill_sum"]
            for name, v in self.verified.items()
        )

    def tcp_survived(self) -> bool:
        """The same connection, by its local port, has gone on after the restoration."""
        tied = [name for name, status in self.before.items() if status["tcp"]]
        return bool(tied) and all(
            _went_on(self.before[name]["tcp"], self.after.get(name, {}).get("tcp")) for name in tied
        )

    def released_mb(self) -> int:
        return (self.memory_before - self.memory_after) // MIB

    def complaints(self) -> list[str]:
        """What does not agree, one clause each; empty when all is well."""
        found = [self._of_instance(name) for name in sorted(self.before)]
        problems = [problem for problems in found for problem in problems]
        checks = {
            "the dry run did not need anybody to be suspended": not self.victims or self.fits_without_victims,
            "a batch VM still had a process while it was suspended": self.processes_after > 0,
            "suspending the batch VMs released no memory": self.released_mb() <= 0,
            "no saved state was found on disk": self.state_bytes <= 0,
            "the random data in the batch VMs' memory is not what it was": not self.checksum_ok(),
            "the TCP connection between the batch VMs did not survive": not self.tcp_survived(),
            "a deleted VM's name still answered": self.answer_after_deletion is not None,
            "the priority VMs did not finish their task": not self._priority_done(),
        }
        problems += [sentence for sentence, wrong in checks.items() if wrong]
        problems += self.cloud.complaints() if self.cloud else []
        problems += [
            f"{a.name} was {a.address or 'unknown'} instead of {self.addresses[a.name]} when asked from {a.asked_from} "
            f"{a.when}"
            for a in self.answers
            if a.address != self.addresses[a.name]
        ]
        return problems + [f"{thing} was left behind" for thing in self.left_behind]

    def _priority_done(self) -> bool:
        if self.cloud:
            return bool(self.priority_verified) and all(self.priority_verified.values())
        return bool(self.exit_codes) and all(code == 0 for code in self.exit_codes.values())

    def _of_instance(self, name: str) -> list[str]:
        before, after = self.before[name], self.after.get(name)
        if after is None:
            return [f"{name} did not answer after the restoration"]
        wrong = [
            f"{what} of {name} changed from {before[key]} to {after[key]}"
            for key, what in (("nonce", "the nonce"), ("hostname", "the hostname"), ("address", "the address"))
            if before[key] != after[key]
        ]
        if after["counter"] <= before["counter"]:
            wrong.append(f"the counter of {name} went from {before['counter']} to {after['counter']}")
        if not job_is_right(before["job"]) or not job_is_right(after["job"]):
            wrong.append(f"the job of {name} has a wrong result")
        elif after["job"]["step"] <= before["job"]["step"] or after["job"]["seed"] != before["job"]["seed"]:
            wrong.append(f"the job of {name} did not go on where it was")
        return wrong

    def as_json(self) -> Json:
        def by_instance(source: Mapping[str, Json], key: str) -> Json:
            return {name: status[key] for name, status in source.items()}

        return {
            "ok": not self.complaints(),
            "problems": self.complaints(),
            "counter_before": by_instance(self.before, "counter"),
            "counter_after": by_instance(self.after, "counter"),
            "nonce_before": by_instance(self.before, "nonce"),
            "nonce_after": by_instance(self.after, "nonce"),
            "address_before": by_instance(self.before, "address"),
            "address_after": by_instance(self.after, "address"),
            "hostname_before": by_instance(self.before, "hostname"),
            "hostname_after": by_instance(self.after, "hostname"),
            "job_before": by_instance(self.before, "job"),
            "job_after": by_instance(self.after, "job"),
            "checksum_ok": self.checksum_ok(),
            "tcp_before": by_instance(self.before, "tcp"),
            "tcp_after": by_instance(self.after, "tcp"),
            "tcp_connection_survived": self.tcp_survived(),
            "names_resolved": [
                {"name": a.name, "address": a.address, "asked_from": a.asked_from, "when": a.when} for a in self.answers
            ],
            "name_answered_after_deletion": self.answer_after_deletion is not None,
            "dry_run_fits_without_victims": self.fits_without_victims,
            "dry_run_victims": self.victims,
            "predicted_suspend_seconds": self.predicted_suspend_seconds,
            "host_memory_before_mb": self.memory_before // MIB,
            "host_memory_after_mb": self.memory_after // MIB,
            "host_memory_released_mb": self.released_mb(),
            "suspended_state_bytes": self.state_bytes,
            "priority_exit_codes": self.exit_codes,
            "priority_uptimes": self.priority_uptimes,
            **({"priority_verified": self.priority_verified, **self.cloud.as_json()} if self.cloud else {}),
            "seconds": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
        }


def _went_on(before: Json, after: Json | None) -> bool:
    return bool(
        after is not None
        and before["connected"]
        and after["connected"]
        and after["local_port"] == before["local_port"]
        and after["rounds"] > before["rounds"]
    )


def job_is_right(job: Json | None) -> bool:
    """Compute the job's chain anew: hash(0) is the seed, hash(n) = sha256 of "hash(n-1) n" and a line feed, in hex."""
    if job is None:
        return False
    link = str(job["seed"])
    for step in range(1, int(job["step"]) + 1):
        link = hashlib.sha256(f"{link} {step}\n".encode()).hexdigest()
    return link == str(job["hash"])
