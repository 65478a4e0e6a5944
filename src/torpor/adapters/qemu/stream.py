"""The fallback: QEMU's own migration stream into a file, hashed on its way."""

import os
import threading
import time
from pathlib import Path

import xxhash

from torpor.adapters.qemu.ram import PAGE
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, StateDamaged
from torpor.ports import Progress

_CHUNK = 1 << 20
_UNLIMITED = 1 << 40
"""Bytes a second; QEMU's own default would be 128 MiB."""
_STALL_SECONDS = 120.0
_NAME = "torpor-stream"


def write_stream(vm: Vm, path: Path, progress: Progress) -> tuple[str, int]:
    """Write the paused VM's stream to a new file, durable on return.

    Returns its checksum (xxh3_128, hex) and the bytes of guest memory in it. The VM stays paused.
    Raises OSError of the file's, BackendFailed, InstanceGone.
    """
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        reader, writer = os.pipe()
        sink = _Sink(reader, file.fileno())
        try:
            vm.execute("getfd", {"fdname": _NAME}, fd=writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        sink.start()
        try:
            memory = _migrate(vm, sink, progress)
        finally:
            sink.finish()
        os.fsync(file.fileno())
        return sink.digest.hexdigest(), memory


def check_stream(path: Path, expected: str, progress: Progress) -> None:
    """Raises StateDamaged when the file is not what was written."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done // 2, size)
    if digest.hexdigest() != expected:
        raise StateDamaged(
            "the saved stream is damaged",
            detail=f"{path} does not match its checksum",
            remedy="bring the file back from a backup, or delete the workload",
        )


class _Sink(threading.Thread):
    """Takes what QEMU writes into the pipe to the file."""

    def __init__(self, reader: int, target: int) -> None:
        super().__init__(name="stream", daemon=True)
        self._reader = reader
        self._target = target
        self.digest = xxhash.xxh3_128()
        self.failure: OSError | None = None

    def run(self) -> None:
        try:
            while chunk := os.read(self._reader, _CHUNK):
                self.digest.update(chunk)
                _write_all(self._target, chunk)
        except OSError as error:
            self.failure = error
        finally:
            os.close(self._reader)  # what QEMU writes now fails, and the migration with it

    def finish(self) -> None:
        """Wait until everything is written. Raises what the file did."""
        self.join(_STALL_SECONDS)
        if self.failure:
            raise self.failure
        if self.is_alive():
            raise BackendFailed("QEMU did not end its stream")


def _migrate(vm: Vm, sink: _Sink, progress: Progress) -> int:
    """Let QEMU write its stream; return the bytes of guest memory in it."""
    vm.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
    vm.execute("migrate", {"uri": f"fd:{_NAME}"})
    last, moved_at = -1, time.monotonic()
    while True:
        answer = vm.execute("query-migrate")
        status, ram = answer.get("status"), answer.get("ram", {})
        if status == "completed":
            return int(ram.get("normal", 0)) * PAGE
        if status in ("failed", "cancelled"):
            if sink.failure:
                raise sink.failure
            raise BackendFailed("QEMU could not write its stream", detail=answer.get("error-desc", "no reason given"))
        done = int(ram.get("transferred", 0))
        if done != last:
            last, moved_at = done, time.monotonic()
        elif time.monotonic() - moved_at > _STALL_SECONDS:
            vm.execute("migrate_cancel")
            raise BackendFailed("QEMU's stream stands still", detail=f"nothing was written for {_STALL_SECONDS:g} s")
        progress(done, max(done, int(ram.get("total", 0)) - int(ram.get("duplicate", 0)) * PAGE))
        time.sleep(0.02)


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
