"""Long work whose progress is answered line by line, one JSON document a line."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

NDJSON = "application/x-ndjson"
Report = Callable[[BaseModel], None]


def stream(work: Callable[[Report], BaseModel], failed: Callable[[Exception], BaseModel]) -> StreamingResponse:
    """Answer with what `work` reports, then with what it returns, or with what `failed` makes of its error.

    The work goes on to its end in a thread of its own, even when the client hangs up.
    """
    lines: SimpleQueue[BaseModel | None] = SimpleQueue()

    def labour() -> None:
        try:
            lines.put(work(lines.put))
        except Exception as error:  # nobody else is there to tell; the client is told
            lines.put(failed(error))
        finally:
            lines.put(None)

    def answer() -> Iterator[str]:
        threading.Thread(target=labour, name="streamed-work", daemon=True).start()
        while (line := lines.get()) is not None:
            yield line.model_dump_json(exclude_none=True) + "\n"

    return StreamingResponse(answer(), media_type=NDJSON)
