"""Names."""

from fastapi import APIRouter

from torpor.api.schemas.name import NameSchema, NamesSchema
from torpor.engine.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["names"])

    @router.get("/names")
    def list_names() -> NamesSchema:
        return NamesSchema(names=[NameSchema.of(view) for view in service.names()])

    return router
