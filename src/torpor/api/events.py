"""Events."""

from typing import Annotated

from fastapi import APIRouter, Query

from torpor.api.schemas.event import EventSchema, EventsSchema
from torpor.engine.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["events"])

    @router.get("/events")
    def list_events(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        subject: Annotated[str | None, Query(description="Name of a workload, instance or host.")] = None,
    ) -> EventsSchema:
        return EventsSchema(events=[EventSchema.of(event) for event in service.events(limit, subject)])

    return router
