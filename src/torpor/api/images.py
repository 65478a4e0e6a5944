"""Images: list, add, build, remove."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from torpor.api.problems import problem_of
from torpor.api.schemas.image import AddBody, BuildBody, BuildLine, ImageSchema, ImagesSchema
from torpor.api.schemas.problem import ProblemSchema
from torpor.api.streaming import NDJSON, Report, Streams
from torpor.engine.service import Service

STREAM_DOC: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {}}, "model": BuildLine, "description": "One BuildLine a line."}
}


def routes(service: Service, streams: Streams) -> APIRouter:
    router = APIRouter(tags=["images"])

    @router.get("/images")
    def list_images() -> ImagesSchema:
        return ImagesSchema(images=[ImageSchema.of(image) for image in service.images()])

    @router.post("/images", status_code=201)
    def add_image(body: AddBody) -> ImageSchema:
        return ImageSchema.of(service.add_image(body.name, body.path))

    @router.post("/images/build", response_class=StreamingResponse, responses=STREAM_DOC)
    def build_image(body: BuildBody) -> StreamingResponse:
        def work(report: Report) -> BaseModel:
            image = service.build_image(body.name, body.recipe, lambda text: report(BuildLine(progress=text)))
            return BuildLine(image=ImageSchema.of(image))

        return streams.begin(work, lambda error: BuildLine(problem=ProblemSchema.of(problem_of(error))))

    @router.delete("/images/{name}", status_code=204)
    def remove_image(name: str) -> None:
        service.remove_image(name)

    return router
