"""Every failure as the same JSON body, with a status that fits."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor.api.schemas.problem import ProblemSchema
from torpor.domain.errors import Problem, TorporError

log = logging.getLogger(__name__)

STATUS_OF_CODE = {
    "invalid": 400,
    "not-found": 404,
    "conflict": 409,
    "refused": 409,
    "instance-gone": 409,
    "backend-failed": 502,
    "missing-part": 503,
    "no-capacity": 503,
    "address-pool-empty": 503,
    "timed-out": 504,
    "no-room-for-state": 507,
}
"""Codes that are not listed are answered with 500."""


def problem_of(error: Exception) -> Problem:
    """What is told of `error`; one that is not ours is logged with its traceback."""
    if isinstance(error, TorporError):
        return error.problem
    log.error("unexpected error", exc_info=error)
    return Problem(
        "internal",
        "something went wrong that Torpor did not expect",
        detail=type(error).__name__,
        remedy="look at the daemon's log",
    )


def answer(problem: Problem, status: int | None = None) -> JSONResponse:
    code = status or STATUS_OF_CODE.get(problem.code, 500)
    return JSONResponse(ProblemSchema.of(problem).model_dump(mode="json"), status_code=code)


def _complaint(errors: Sequence[Any]) -> Problem:
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        return Problem("invalid", "the request is not JSON", detail=str(first.get("ctx", {}).get("error", "")))
    message = str(first["msg"])
    return Problem(
        "invalid",
        f"the request is wrong at {'.'.join(place) or 'its top'}",
        detail=message[:1].lower() + message[1:],
        remedy="send what /openapi.json describes",
    )


def _no_route(error: HTTPException, request: Request) -> Problem:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return Problem("not-found", f"there is no {where}", remedy="see /openapi.json")
    return Problem("invalid", f"{where} was not accepted", detail=str(error.detail), remedy="see /openapi.json")


class Unexpected:
    """Answers errors that are not ours, in the place of Starlette's own handler, which would hang up as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:
                raise
            await answer(problem_of(error))(scope, receive, send)


def translate(app: FastAPI) -> None:
    """Have every failure of `app` answered as a ProblemSchema."""

    @app.exception_handler(TorporError)
    def ours(request: Request, error: TorporError) -> JSONResponse:
        return answer(error.problem)

    @app.exception_handler(RequestValidationError)
    def request_wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(_complaint(error.errors()))

    @app.exception_handler(HTTPException)
    def route_wrong(request: Request, error: HTTPException) -> JSONResponse:
        return answer(_no_route(error, request), error.status_code)

    app.add_middleware(Unexpected)
