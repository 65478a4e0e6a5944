"""Instances: what one says on its serial console."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

from torpor.domain.errors import BackendFailed, NotFound
from torpor.engine.service import Service
from torpor.engine.views import InstanceView

CHUNK = 256 * 1024
OFFSET_HEADER = "Torpor-Offset"


def _find(service: Service, name: str) -> InstanceView:
    for workload in service.workloads():
        for view in workload.instances:
            if view.instance.name == name:
                return view
    raise NotFound(f"there is no instance {name[:80]!r}", remedy="see `torpor names`")


def _read(path: Path, offset: int | None, limit: int) -> tuple[bytes, int]:
    """Up to `limit` bytes from `offset` on (None: the last ones), and where the next read goes on."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - limit) if offset is None else min(offset, size)
            file.seek(start)
            data = file.read(limit)
            return data, start + len(data)
    except FileNotFoundError:
        return b"", 0
    except OSError as error:
        raise BackendFailed("the console log can't be read", detail=str(error)) from error


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["instances"])

    @router.get("/instances/{name}/console", response_class=Response)
    def read_console(
        name: str,
        offset: Annotated[int | None, Query(ge=0, description="Left out: the last `limit` bytes.")] = None,
        limit: Annotated[int, Query(ge=1, le=CHUNK)] = CHUNK,
    ) -> Response:
        """What the guest wrote, raw. The header `Torpor-Offset` says where the next read goes on."""
        data, following = _read(Path(_find(service, name).console_log), offset, limit)
        return Response(data, media_type="application/octet-stream", headers={OFFSET_HEADER: str(following)})

    return router
