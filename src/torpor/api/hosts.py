"""Hosts."""

from fastapi import APIRouter

from torpor.api.schemas.host import HostSchema, HostsSchema
from torpor.engine.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["hosts"])

    @router.get("/hosts")
    def list_hosts() -> HostsSchema:
        return HostsSchema(hosts=[HostSchema.of(view) for view in service.hosts()])

    return router
