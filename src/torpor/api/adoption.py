"""VMs of others: list, adopt, release."""

from fastapi import APIRouter

from torpor.api.schemas.adoption import AdoptBody, ReleasedSchema, StrangerSchema, StrangersSchema
from torpor.api.schemas.workload import WorkloadSchema
from torpor.engine.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["adoption"])

    @router.get("/strangers")
    def list_strangers() -> StrangersSchema:
        """VMs of the host that Torpor did not make, marked or not."""
        return StrangersSchema(vms=[StrangerSchema.of(stranger) for stranger in service.strangers()])

    @router.post("/adopted", status_code=201)
    def adopt(body: AdoptBody) -> WorkloadSchema:
        return WorkloadSchema.of(service.adopt(body.vms, body.mark()))

    @router.delete("/adopted/{name}")
    def release(name: str) -> ReleasedSchema:
        service.release(name)
        return ReleasedSchema(released=name)

    return router
