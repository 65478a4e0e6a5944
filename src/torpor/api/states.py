"""Saved states: list, verify, remove, collect."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from torpor.api.problems import problem_of
from torpor.api.schemas.problem import ProblemSchema
from torpor.api.schemas.state import (
    CheckedSchema,
    CollectedSchema,
    RemovedSchema,
    StateSchema,
    StatesSchema,
    VerifyBody,
    VerifyLine,
)
from torpor.api.streaming import NDJSON, Report, Streams
from torpor.engine.service import Service
from torpor.engine.views import StateCheck

STREAM_DOC: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {}}, "model": VerifyLine, "description": "One VerifyLine a line."}
}
Workload = Annotated[str | None, Query(description="Only of this workload.")]


def routes(service: Service, streams: Streams) -> APIRouter:
    router = APIRouter(tags=["states"])

    @router.get("/states")
    def list_states(workload: Workload = None) -> StatesSchema:
        return StatesSchema(states=[StateSchema.from_view(view) for view in service.states(workload)])

    @router.post("/states/verify", response_class=StreamingResponse, responses=STREAM_DOC)
    def verify_states(body: VerifyBody) -> StreamingResponse:
        """Read every byte of saved states and compare it with its checksums."""

        def work(report: Report) -> BaseModel:
            checked = service.verify_states(body.workload, lambda check: report(_line(check)))
            return VerifyLine(checked=[CheckedSchema.of(check) for check in checked])

        return streams.begin(work, lambda error: VerifyLine(problem=ProblemSchema.of(problem_of(error))))

    @router.post("/states/collect")
    def collect_states() -> CollectedSchema:
        """Remove leftovers that nobody needs any more."""
        return CollectedSchema(freed_bytes=service.collect_states())

    @router.delete("/workloads/{name}/states/{generation}")
    def remove_state(name: str, generation: int) -> RemovedSchema:
        """Remove a spent state of every instance of the workload."""
        return RemovedSchema.of(service.remove_states(name, generation))

    return router


def _line(check: StateCheck) -> VerifyLine:
    return VerifyLine(
        instance=check.instance,
        generation=check.generation,
        bytes_done=check.bytes_done,
        bytes_total=check.bytes_total,
    )
