"""Long work whose progress is answered line by line, one JSON document a line."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from torpor.domain.errors import DaemonUnreachable

NDJSON = "application/x-ndjson"
Report = Callable[[BaseModel], None]
Failed = Callable[[Exception], BaseModel]
_Lines = SimpleQueue[BaseModel | None]


class Streams:
    """The answers under way. Thread-safe."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[_Lines, Failed]] = {}
        self._ended = False
        self._lock = threading.Lock()

    def begin(self, work: Callable[[Report], BaseModel], failed: Failed) -> StreamingResponse:
        """Answer with what `work` reports, then with what it returns, or with what `failed` makes of its error.

        The work goes on to its end in a thread of its own, even when the client hangs up.
        """
        lines: _Lines = SimpleQueue()

        def labour() -> None:
            try:
                lines.put(work(lines.put))
            except Exception as error:  # nobody else is there to tell; the client is told
                lines.put(failed(error))
            finally:
                lines.put(None)

        def answer() -> Iterator[str]:
            self._enter(lines, failed)
            threading.Thread(target=labour, name="streamed-work", daemon=True).start()
            try:
                while (line := lines.get()) is not None:
                    yield line.model_dump_json(exclude_none=True) + "\n"
            finally:
                self._open.pop(id(lines), None)

        return StreamingResponse(answer(), media_type=NDJSON)

    def end(self) -> None:
        """The daemon ends, and the work with it: tell all who wait for it."""
        with self._lock:
            self._ended = True
            for lines, failed in list(self._open.values()):
                _end(lines, failed)

    def _enter(self, lines: _Lines, failed: Failed) -> None:
        with self._lock:
            self._open[id(lines)] = (lines, failed)
            if self._ended:
                _end(lines, failed)


def _end(lines: _Lines, failed: Failed) -> None:
    lines.put(
        failed(DaemonUnreachable("the work was not finished", detail="the daemon was ended", remedy="do it again"))
    )
    lines.put(None)
