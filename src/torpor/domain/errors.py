"""Everything that can go wrong, as data: what happened, detail, remedy, retryable.

`TorporError.sentence` is what a person reads; `code` is what a program reads.
Codes are part of the API: they are never renamed and never reused.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """A failure in the form in which it is stored, sent and shown."""

    code: str
    what: str
    detail: str = ""
    remedy: str = ""
    retryable: bool = False

    @property
    def sentence(self) -> str:
        """One sentence: what happened, why, and what to do."""
        text = self.what
        if self.detail:
            text += f": {self.detail}"
        if self.remedy:
            text += f"; {self.remedy}"
        return text + "."


class TorporError(Exception):
    """Base of all errors that a user may see.

    `what` says what did not happen, `detail` why, `remedy` what to do about it
    (an instruction in lower case), each without a full stop.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, detail: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.detail = detail
        self.remedy = remedy

    @property
    def problem(self) -> Problem:
        return Problem(self.code, self.what, self.detail, self.remedy, self.retryable)

    def __str__(self) -> str:
        return self.problem.sentence


class Invalid(TorporError):
    """The request can't be carried out as it was written."""

    code = "invalid"
    exit_code = 2


class NotFound(TorporError):
    """There is no such workload, instance, image or operation."""

    code = "not-found"
    exit_code = 3


class Conflict(TorporError):
    """The thing is there, but not in a state in which this can be done."""

    code = "conflict"
    exit_code = 4


class Refused(TorporError):
    """A safety rule forbids the plan."""

    code = "refused"
    exit_code = 5


class NoCapacity(TorporError):
    """The books have no room for the claim."""

    code = "no-capacity"
    exit_code = 6
    retryable = True


class AddressPoolEmpty(NoCapacity):
    """Every address of the network is bound to an instance."""

    code = "address-pool-empty"


class MissingPart(TorporError):
    """A program, kernel feature, user or permission that is needed is not there."""

    code = "missing-part"
    exit_code = 7


class BackendFailed(TorporError):
    """The hypervisor, the name server or the network did not do what was asked."""

    code = "backend-failed"
    exit_code = 8
    retryable = True


class AgentRefused(BackendFailed):
    """A guest's agent is there and says no: an unknown or switched-off command, or one that failed in the guest."""


class AgentSilent(BackendFailed):
    """Nobody answers: no agent in the guest, a guest that still boots or stands still, or no guest."""


class NoRoomForState(BackendFailed):
    """The disk has no room (any more) for a saved state."""

    code = "no-room-for-state"


class StateDamaged(TorporError):
    """A saved state does not match its checksums, or does not fit this host."""

    code = "state-damaged"
    exit_code = 9


class InstanceGone(TorporError):
    """The VM's process ended behind Torpor's back."""

    code = "instance-gone"
    exit_code = 8
    retryable = True


class DaemonUnreachable(TorporError):
    """The daemon does not answer and could not be started."""

    code = "daemon-unreachable"
    exit_code = 10


class TimedOut(TorporError):
    """What was waited for did not happen in time; it may still happen."""

    code = "timed-out"
    exit_code = 11
    retryable = True
