"""Images are Glance's: implements the `Images` port, which only looks."""

from collections.abc import Callable, Sequence
from datetime import datetime

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.domain.errors import NotFound, Refused
from torpor.domain.image import Image, ImageKind


class GlanceImages:
    """What the configured project, or the service account's own, can see."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def list(self) -> Sequence[Image]:
        return [_image(each) for each in self._documents() if each["container_format"] not in ("aki", "ari")]

    def get(self, name: str) -> Image:
        for image in self._documents():
            if name in (image["name"], image["id"]) and image["status"] == "active":
                return _image(image)
        raise NotFound(f"there is no image {name!r}", remedy="see `torpor image ls`")

    def add(self, name: str, path: str) -> Image:
        raise _theirs()

    def build(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        raise _theirs()

    def remove(self, name: str) -> None:
        raise _theirs()

    def _documents(self) -> Sequence[Document]:
        found: list[Document] = []
        seen: set[str] = set()
        for project in ("", *self._cloud.projects()):
            path = "/images"
            while path:
                answer = self._cloud.ask("image", "GET", path, "the images can't be listed", project=project)
                found += [each for each in answer["images"] if each["id"] not in seen]
                seen |= {each["id"] for each in answer["images"]}
                path = str(answer.get("next", "")).removeprefix("/v2")
        return sorted(found, key=lambda each: str(each["name"]))


def _image(told: Document) -> Image:
    virtual = max(int(told.get("virtual_size") or 0), int(told.get("min_disk") or 0) << 30)
    made = datetime.fromisoformat(told["created_at"].replace("Z", "+00:00"))
    size = int(told.get("size") or 0)
    digest = told.get("os_hash_value") or told.get("checksum") or ""
    return Image(
        told["name"] or told["id"], ImageKind.DISK, told["disk_format"] or "", size, virtual, digest, made.timestamp()
    )


def _theirs() -> Refused:
    return Refused(
        "the images are left alone",
        detail="under OpenStack they are Glance's",
        remedy="use `openstack image create` and `openstack image delete`",
    )
