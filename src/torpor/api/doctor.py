"""What is wrong with this installation."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from torpor.api.problems import problem_of
from torpor.api.schemas.doctor import CheckSchema, ChecksSchema, SelfTestLine
from torpor.api.schemas.problem import ProblemSchema
from torpor.api.streaming import NDJSON, Report, Streams
from torpor.engine.service import Service

STREAM_DOC: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {}}, "model": SelfTestLine, "description": "One SelfTestLine a line."}
}


def routes(service: Service, streams: Streams) -> APIRouter:
    router = APIRouter(tags=["doctor"])

    @router.get("/doctor")
    def run_checks() -> ChecksSchema:
        return ChecksSchema(checks=[CheckSchema.of(check) for check in service.checks()])

    @router.post("/doctor/self-test", response_class=StreamingResponse, responses=STREAM_DOC)
    def run_self_test() -> StreamingResponse:
        """Suspend, restore and checksum a guest on this host."""

        def work(report: Report) -> BaseModel:
            check = service.self_test(lambda text: report(SelfTestLine(progress=text)))
            return SelfTestLine(check=CheckSchema.of(check))

        return streams.begin(work, lambda error: SelfTestLine(problem=ProblemSchema.of(problem_of(error))))

    return router
