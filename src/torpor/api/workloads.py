"""Workloads: run, show, suspend, resume, delete, and the queue."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from torpor.api.schemas.plan import PlanSchema, PlansSchema
from torpor.api.schemas.workload import DeletedSchema, OutcomeSchema, RunBody, WorkloadSchema, WorkloadsSchema
from torpor.engine.service import Service

DryRun = Annotated[bool, Query(description="Only answer with the plan; change nothing.")]


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["workloads"])
    _read(router, service)
    _run_and_delete(router, service)
    _suspend_and_resume(router, service)
    return router


def _read(router: APIRouter, service: Service) -> None:
    @router.get("/workloads")
    def list_workloads() -> WorkloadsSchema:
        return WorkloadsSchema(workloads=[WorkloadSchema.of(view) for view in service.workloads()])

    @router.get("/workloads/{name}")
    def show_workload(name: str) -> WorkloadSchema:
        return WorkloadSchema.of(service.workload(name))

    @router.get("/queue")
    def show_queue() -> PlansSchema:
        """A plan for every workload that waits."""
        return PlansSchema(plans=[PlanSchema.of(plan) for plan in service.queue()])


def _run_and_delete(router: APIRouter, service: Service) -> None:
    @router.post("/workloads", status_code=202)
    def run_workload(body: RunBody, response: Response, dry_run: DryRun = False) -> OutcomeSchema:
        if dry_run:
            response.status_code = 200
            return OutcomeSchema(plan=PlanSchema.of(service.plan(body.request())))
        return OutcomeSchema.accepted(service.run(body.request()))

    @router.delete("/workloads/{name}", status_code=202)
    def delete_workload(name: str) -> DeletedSchema:
        service.delete(name)
        return DeletedSchema(deleting=name)


def _suspend_and_resume(router: APIRouter, service: Service) -> None:
    @router.post("/workloads/{name}/suspend", status_code=202)
    def suspend_workload(name: str, response: Response, dry_run: DryRun = False) -> OutcomeSchema:
        if dry_run:
            response.status_code = 200
            return OutcomeSchema(plan=PlanSchema.of(service.plan_suspend(name)))
        return OutcomeSchema(workload=WorkloadSchema.of(service.suspend(name)))

    @router.post("/workloads/{name}/resume", status_code=202)
    def resume_workload(name: str, response: Response, dry_run: DryRun = False) -> OutcomeSchema:
        if dry_run:
            response.status_code = 200
            return OutcomeSchema(plan=PlanSchema.of(service.plan_resume(name)))
        return OutcomeSchema(workload=WorkloadSchema.of(service.resume(name)))
