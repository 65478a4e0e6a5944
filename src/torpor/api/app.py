"""The application: every route, under /v1."""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from torpor.api import (
    adoption,
    daemon,
    doctor,
    events,
    hosts,
    images,
    instances,
    names,
    operations,
    problems,
    snapshots,
    states,
    workloads,
)
from torpor.api.daemon import Lifecycle
from torpor.api.schemas.problem import ProblemSchema
from torpor.api.streaming import Streams
from torpor.engine.service import Service

FAILURE: dict[int | str, dict[str, Any]] = {
    "default": {"model": ProblemSchema, "description": "What did not happen, why, and what to do."}
}


def _operation_id(route: APIRoute) -> str:
    return route.name


def create_app(service: Service, lifecycle: Lifecycle, streams: Streams) -> FastAPI:
    """The API in front of `service`. Its description is at /openapi.json; there is no other page."""
    app = FastAPI(
        title="Torpor",
        version="1",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    problems.translate(app)
    v1 = APIRouter(prefix="/v1", responses=FAILURE)
    for noun in (workloads, adoption, instances, hosts, names, events, operations, snapshots):
        v1.include_router(noun.routes(service))
    for slow in (images, states, doctor):
        v1.include_router(slow.routes(service, streams))
    v1.include_router(daemon.routes(service, lifecycle))
    app.include_router(v1)
    return app
