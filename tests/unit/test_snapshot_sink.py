"""A live snapshot's stream: nobody takes it in before it is said, and all of it is taken in afterwards."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import xxhash

from torpor.adapters.qemu.drain import Pace
from torpor.adapters.qemu.sink import Sink

ROOT = Path(__file__).parents[2]
STREAM = os.urandom(9 << 20) + b"the end"
DIES = """
import os, sys
from pathlib import Path
from torpor.adapters.qemu.sink import Sink
sink = Sink(Path(sys.argv[1]), 8 << 20)
writer = os.dup(sink.writer)
if os.fork():
    os._exit(9)
sink.close_writer()  # the child is who writes, as QEMU does
os.close(sink._hold)
os.write(writer, b"written by who outlives it")
"""


def write(pipe: int) -> None:
    """All of the stream, and its end."""
    with os.fdopen(pipe, "wb") as file:
        file.write(STREAM)


def test_who_writes_waits_until_the_sink_is_let_go(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "stream", 8 << 20)
    writer = threading.Thread(target=write, args=(os.dup(sink.writer),))
    sink.close_writer()
    writer.start()
    writer.join(0.3)
    assert writer.is_alive(), "the pipe is full, and nobody empties it"
    sink.let_go()
    sink.let_go()
    assert sink.finish() == xxhash.xxh3_128(STREAM).hexdigest()
    writer.join(10)
    assert (tmp_path / "stream").read_bytes() == STREAM


def test_a_sink_that_nobody_wants_any_more_takes_in_what_still_comes(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "stream", 8 << 20)
    writer = threading.Thread(target=write, args=(os.dup(sink.writer),))
    writer.start()
    sink.abandon()
    writer.join(10)
    assert not writer.is_alive()


def test_the_death_of_who_holds_it_lets_it_go(tmp_path: Path) -> None:
    """A guest's writer must not wait for ever."""
    file = tmp_path / "stream"
    ended = subprocess.run(
        [sys.executable, "-c", DIES, str(file)], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False
    )
    assert ended.returncode == 9
    wait_for(file, b"written by who outlives it")


@pytest.mark.parametrize("size", [0, 1, 4096])
def test_a_short_stream_is_all_that_is_written(tmp_path: Path, size: int) -> None:
    sink = Sink(tmp_path / "stream", 8 << 20)
    sink.let_go()
    os.write(sink.writer, STREAM[:size])
    assert sink.finish() == xxhash.xxh3_128(STREAM[:size]).hexdigest()
    assert (tmp_path / "stream").read_bytes() == STREAM[:size]


def test_the_pace_is_kept_and_what_was_missed_is_no_burst() -> None:
    pace, now = Pace(1000.0), 50.0
    for _ in range(100):
        now += pace.delay(10, now)
    assert now == pytest.approx(51.0, abs=0.01), "ten bytes take ten milliseconds"
    now += 5.0
    delays = [pace.delay(10, now) for _ in range(3)]
    assert delays == [pytest.approx(late) for late in (0.007, 0.017, 0.027)]
    assert Pace(1e12).delay(10, now) > 0, "nor is it asked again at once"


def wait_for(file: Path, content: bytes) -> None:
    give_up = time.monotonic() + 20
    while not (file.exists() and file.read_bytes() == content):
        assert time.monotonic() < give_up, f"{file} is not written"
        time.sleep(0.01)
