"""What servers say of themselves in their metadata, and how it is read.

Keys: `torpor:workload` (which workload it belongs to; without it a server is left alone), `torpor:priority`,
`torpor:preemptible` and `torpor:protect` (yes or no); and `torpor:instance` on servers that Torpor made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torpor.domain.adoption import Mark

WORKLOAD = "torpor:workload"
PRIORITY = "torpor:priority"
PREEMPTIBLE = "torpor:preemptible"
PROTECT = "torpor:protect"
INSTANCE = "torpor:instance"
KEYS = (WORKLOAD, PRIORITY, PREEMPTIBLE, PROTECT)
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")


@dataclass(frozen=True, slots=True)
class Said:
    """The mark, or why there is none although there should be one."""

    mark: Mark | None
    defect: str = ""


def mark_in(metadata: Mapping[str, str]) -> Said:
    """What it says of itself; no mark and no defect where it says nothing."""
    if WORKLOAD not in metadata:
        return Said(None)
    try:
        return Said(
            Mark(
                metadata[WORKLOAD],
                int(metadata.get(PRIORITY) or "0"),
                _truth(metadata, PREEMPTIBLE),
                _truth(metadata, PROTECT),
            )
        )
    except ValueError as error:
        return Said(None, f"its metadata can't be understood ({error})")


def written(mark: Mark) -> dict[str, str]:
    """The metadata that say so."""
    return {
        WORKLOAD: mark.workload,
        PRIORITY: str(mark.priority),
        PREEMPTIBLE: _YES[0] if mark.preemptible else _NO[0],
        PROTECT: _YES[0] if mark.protect else _NO[0],
    }


def _truth(metadata: Mapping[str, str], key: str) -> bool:
    value = metadata.get(key, "").strip().lower()
    if value not in (*_YES, *_NO):
        raise ValueError(f"{key} is {value[:40]!r}, and must be yes or no")
    return value in _YES
