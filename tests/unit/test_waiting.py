"""Waiting for a workload, as the daemon's answers come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from torpor.cli.session import Session
from torpor.cli.waiting import Wait, active
from torpor.domain.errors import StateDamaged

SEEN_BEFORE = {"state": "suspended", "held": False, "operation": None, "problem": None, "waiting_for": "", "reason": ""}
PROBLEM = {"code": "state-damaged", "what": "saved memory is damaged", "detail": "", "remedy": "", "retryable": False}


class Answers:
    """A daemon whose operation ends between two questions: the workload is seen as it was before it, then after."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        if path.endswith("/operations"):
            undone = {"id": "1", "workload": "job", "kind": "resume", "status": "undone", "problem": PROBLEM}
            return {"operations": [undone]}
        self.asked += 1
        return {**SEEN_BEFORE, "held": self.asked > 1}


def test_a_failure_that_is_final_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    session = cast(Session, SimpleNamespace(daemon=Answers(), err=Console(stderr=True)))
    with pytest.raises(StateDamaged):
        Wait(session, "job").until(active)
    assert "was undone" not in capsys.readouterr().err
