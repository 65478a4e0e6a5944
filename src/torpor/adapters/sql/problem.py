"""A problem as a JSON column holds it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torpor.domain.errors import Problem


def to_json(problem: Problem | None) -> dict[str, Any] | None:
    return None if problem is None else asdict(problem)


def from_json(value: Mapping[str, Any] | None) -> Problem | None:
    return None if value is None else Problem(**value)
