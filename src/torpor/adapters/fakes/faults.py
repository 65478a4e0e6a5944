"""Faults that a test scripts for the fakes: which call fails, for whom, how often, before or after its act."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId


@dataclass(slots=True)
class _Fault:
    call: str
    instance: InstanceId | None
    error: BaseException
    times: int
    after_act: bool


class Faults:
    """A script of failures; fakes that share one are scripted together."""

    def __init__(self) -> None:
        self.disk_full = False
        """While true, every save fails for want of room."""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def fail(
        self,
        call: str,
        instance: InstanceId | None = None,
        error: BaseException | None = None,
        times: int = 1,
        after_act: bool = False,
    ) -> None:
        """Let the next `times` calls of the port method `call` raise `error` (default: BackendFailed).

        Without an `instance` the next call for whichever instance fails. With `after_act` the
        act happens first: a call that timed out and yet succeeded. An error that is no
        `Exception` stands for the death of the caller; the fakes then tidy nothing up.
        """
        problem = error or BackendFailed(f"{call} failed", detail="a fault was scripted", remedy="try again")
        with self._lock:
            self._faults.append(_Fault(call, instance, problem, times, after_act))

    def clear(self) -> None:
        """Forget every fault that has not struck yet."""
        with self._lock:
            self._faults.clear()
            self.disk_full = False

    @property
    def pending(self) -> int:
        """How many failures are still to come."""
        with self._lock:
            return sum(fault.times for fault in self._faults)

    @contextmanager
    def around(self, call: str, instance: InstanceId | None = None) -> Iterator[None]:
        """Strike before, or after, the act that is the body."""
        self._strike(call, instance, after_act=False)
        yield
        self._strike(call, instance, after_act=True)

    def strike_within(self, call: str, instance: InstanceId | None = None) -> None:
        """Strike in the midst of an act: between two of its parts."""
        self._strike(call, instance, after_act=False)

    def _strike(self, call: str, instance: InstanceId | None, after_act: bool) -> None:
        with self._lock:
            for fault in self._faults:
                if fault.call != call or fault.after_act is not after_act:
                    continue
                if fault.instance is not None and fault.instance != instance:
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                raise fault.error
