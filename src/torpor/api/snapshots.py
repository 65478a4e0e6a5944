"""Snapshots: take, list, show, restore, remove, clone. What changes something answers with its operation."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from torpor.api.schemas.operation import OperationSchema
from torpor.api.schemas.plan import PlanSchema
from torpor.api.schemas.snapshot import CloneBody, SnapshotBody, SnapshotSchema, SnapshotsSchema
from torpor.api.schemas.workload import OutcomeSchema
from torpor.engine.service import Service

DryRun = Annotated[bool, Query(description="Only answer with the plan; change nothing.")]
_ONE = "/workloads/{workload}/snapshots/{name}"


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["snapshots"])
    _read(router, service)
    _change(router, service)
    return router


def _read(router: APIRouter, service: Service) -> None:
    @router.get("/snapshots")
    def list_snapshots(workload: str | None = None) -> SnapshotsSchema:
        """Of one workload or of all."""
        return SnapshotsSchema(snapshots=[SnapshotSchema.of(view) for view in service.snapshots.list(workload)])

    @router.get(_ONE)
    def show_snapshot(workload: str, name: str) -> SnapshotSchema:
        return SnapshotSchema.of(service.snapshots.show(workload, name))


def _change(router: APIRouter, service: Service) -> None:
    @router.post("/workloads/{workload}/snapshots", status_code=202)
    def create_snapshot(workload: str, body: SnapshotBody) -> OperationSchema:
        return OperationSchema.of(service.snapshots.create(workload, body.name))

    @router.post(f"{_ONE}/restore", status_code=202)
    def restore_snapshot(workload: str, name: str) -> OperationSchema:
        return OperationSchema.of(service.snapshots.restore(workload, name))

    @router.delete(_ONE, status_code=202)
    def remove_snapshot(workload: str, name: str) -> OperationSchema:
        return OperationSchema.of(service.snapshots.remove(workload, name))

    @router.post(f"{_ONE}/clone", status_code=202)
    def clone_snapshot(
        workload: str, name: str, body: CloneBody, response: Response, dry_run: DryRun = False
    ) -> OutcomeSchema:
        request = body.request(workload, name)
        if dry_run:
            response.status_code = 200
            return OutcomeSchema(plan=PlanSchema.of(service.snapshots.plan_clone(request)))
        return OutcomeSchema.accepted(service.snapshots.clone(request))
