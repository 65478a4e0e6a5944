"""How fast a guest's memory goes to disk and comes back, beside what `dd` makes of the same disk in the same run."""

import re
import subprocess
from pathlib import Path

from tests.api import Api, Document, seconds_of, step_seconds
from tests.installation import Installation, installation

from benchmark.samples import Measurement

NUMBER = 45
OVERHEAD_MB = 64
SYSTEM_MB = 96
"""Guest memory beside the data."""
PATIENCE = 600.0
_RATE = re.compile(r"(\d+) bytes .* copied, ([\d.e+-]+) s")


def measure(megabytes: int, runs: int) -> Measurement:
    """`runs` suspensions and resumptions of one guest with `megabytes` of random data, and as many `dd`s."""
    memory_mb = 2 * megabytes + SYSTEM_MB  # its tmpfs takes half
    measurement = Measurement("suspend", {"MB of data": megabytes, "guest MiB": memory_mb, "runs": runs})
    with installation(number=NUMBER, memory_mb=memory_mb + OVERHEAD_MB) as torpor, Api(torpor.socket) as api:
        address = _filled(torpor, api, megabytes, memory_mb)
        rounds = [_round(torpor, api) for _ in range(runs)]
        assert torpor.ask(address, "verify", PATIENCE)["ok"] is True
    for name, unit in rounds[0]:
        measurement.add(name, unit, [samples[name, unit] for samples in rounds])
    return measurement


def _filled(torpor: Installation, api: Api, megabytes: int, memory_mb: int) -> str:
    body = {"name": "bench", "image": "tiny", "memory_mb": memory_mb, "preemptible": True}
    address = str(api.post("/workloads", body)["workload"]["instances"][0]["address"])
    torpor.wait_guest(address, PATIENCE)
    filled = torpor.ask(address, f"fill {megabytes}", PATIENCE)
    assert filled["ok"], filled
    return address


def _round(torpor: Installation, api: Api) -> dict[tuple[str, str], float]:
    api.post("/workloads/bench/suspend")
    state = api.wait_at_rest("bench", "suspended", PATIENCE)["instances"][0]["states"][0]
    asleep = api.last_operation("bench", "suspend")
    api.post("/workloads/bench/resume")
    api.wait_at_rest("bench", "active", PATIENCE)
    awake = api.last_operation("bench", "resume")
    moved = state["memory_bytes"] / 1e6
    written, read = _dd(torpor.state_dir / "dd", int(moved))
    return {
        ("state on disk", "MB"): state["stored_bytes"] / 1e6,
        ("suspend", "s"): seconds_of(asleep),
        ("suspend, without writing memory", "s"): seconds_of(asleep) - step_seconds(asleep, "save"),
        ("save: memory to disk", "MB/s"): moved / step_seconds(asleep, "save"),
        ("dd to the same disk", "MB/s"): written,
        ("resume", "s"): seconds_of(awake),
        ("resume, without filling a QEMU", "s"): seconds_of(awake) - step_seconds(awake, "restore"),
        ("restore: QEMU started and filled", "MB/s"): moved / step_seconds(awake, "restore"),
        ("dd from the same disk", "MB/s"): read,
        ("suspend, predicted / measured", ""): _prediction(asleep),
        ("resume, predicted / measured", ""): _prediction(awake),
    }


def _prediction(operation: Document) -> float:
    return float(operation["predicted_seconds"] or 0.0) / seconds_of(operation)


def _dd(file: Path, megabytes: int) -> tuple[float, float]:
    """MB/s to and from a file of random data that is as large as the state, past the page cache."""
    source = file.with_suffix(".source")
    try:
        _run("if=/dev/urandom", f"of={source}", "bs=1M", f"count={megabytes}", "conv=fsync")
        written = _run(f"if={source}", f"of={file}", "bs=4M", "oflag=direct", "conv=fsync")
        return written, _run(f"if={file}", "of=/dev/null", "bs=4M", "iflag=direct")
    finally:
        for each in (source, file):
            each.unlink(missing_ok=True)


def _run(*operands: str) -> float:
    said = subprocess.run(
        ["dd", *operands], capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    ).stderr
    found = _RATE.search(said)
    assert found, said
    return int(found[1]) / 1e6 / float(found[2])
