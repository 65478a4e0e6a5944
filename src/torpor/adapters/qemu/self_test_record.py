"""The self-test's result: which QEMU, kernel and accelerator have saved and restored a guest's memory unharmed here."""

import json
import os
import time
from pathlib import Path

from torpor.adapters.qemu.installed import Accelerator
from torpor.files import write_durably


def passed_here(path: Path, qemu: str, accelerator: Accelerator) -> bool:
    """Whether the self-test passed with just this QEMU, kernel and accelerator."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("passed") is True and record.get("with") == _with(qemu, accelerator)


def record_result(path: Path, qemu: str, accelerator: Accelerator, passed: bool) -> None:
    """Durable on return. Raises OSError."""
    record = {"passed": passed, "with": _with(qemu, accelerator), "at": time.time()}
    write_durably(path, json.dumps(record, indent=1).encode())


def _with(qemu: str, accelerator: Accelerator) -> dict[str, str]:
    return {"qemu": qemu, "kernel": os.uname().release, "accelerator": str(accelerator)}
