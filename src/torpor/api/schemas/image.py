"""Images, and how they are asked for."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torpor.api.schemas.problem import ProblemSchema
from torpor.domain.image import Image, ImageKind

Name = Annotated[str, Field(min_length=1, max_length=255)]


class AddBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """Of a qcow2 or raw disk on the daemon's host; it is copied."""


class BuildBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    recipe: Name


class ImageSchema(BaseModel):
    name: str
    kind: ImageKind
    format: str
    size_bytes: int
    virtual_bytes: int
    sha256: str
    created_at: float

    @classmethod
    def of(cls, image: Image) -> "ImageSchema":
        return cls(
            name=image.name,
            kind=image.kind,
            format=image.format,
            size_bytes=image.size_bytes,
            virtual_bytes=image.virtual_bytes,
            sha256=image.sha256,
            created_at=image.created_at,
        )


class ImagesSchema(BaseModel):
    images: list[ImageSchema]


class BuildLine(BaseModel):
    """One line of the answer to a build; the last one has an image or a problem."""

    progress: str | None = None
    image: ImageSchema | None = None
    problem: ProblemSchema | None = None
