"""Operations, with their steps."""

from typing import Annotated

from fastapi import APIRouter, Query

from torpor.api.schemas.operation import OperationSchema, OperationsSchema
from torpor.engine.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/operations")
    def list_operations(limit: Annotated[int, Query(ge=1, le=10_000)] = 20) -> OperationsSchema:
        return OperationsSchema(operations=[OperationSchema.of(view) for view in service.operations(limit)])

    @router.get("/operations/{id}")
    def show_operation(id: str) -> OperationSchema:
        return OperationSchema.of(service.operation(id))

    return router
