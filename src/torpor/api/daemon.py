"""The daemon: is it there, and asking it to end."""

import os
from typing import Protocol

from fastapi import APIRouter

from torpor import __version__
from torpor.api.schemas.daemon import AcknowledgedSchema, HealthSchema, ShutdownBody
from torpor.engine.service import Service


class Lifecycle(Protocol):
    """What the API needs of the process that it runs in."""

    @property
    def started_at(self) -> float: ...

    @property
    def configuration(self) -> str:
        """Digest of the one that it was started with."""
        ...

    def stop(self, network: bool) -> None:
        """Begin to stop; `network`: take name server and network down too. Raises Conflict while a VM runs, or an
        image is made, then.
        """
        ...


def routes(service: Service, lifecycle: Lifecycle) -> APIRouter:
    router = APIRouter(tags=["daemon"])

    @router.get("/health")
    def show_health() -> HealthSchema:
        return HealthSchema(
            status="ok",
            version=__version__,
            pid=os.getpid(),
            started_at=lifecycle.started_at,
            configuration=lifecycle.configuration,
        )

    @router.post("/suspend-all", status_code=202)
    def suspend_all() -> AcknowledgedSchema:
        """Suspend every active workload, and start nothing until the daemon's next start."""
        service.suspend_all()
        return AcknowledgedSchema()

    @router.post("/shutdown", status_code=202)
    def shut_down(body: ShutdownBody) -> AcknowledgedSchema:
        """End the daemon. VMs run on."""
        lifecycle.stop(body.network)
        return AcknowledgedSchema()

    return router
