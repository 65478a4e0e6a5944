"""Images by name: the `Images` port."""

from collections.abc import Callable, Iterable, Sequence

from torpor.domain.errors import Conflict, Invalid, NotFound
from torpor.domain.image import Image, ImageKind
from torpor.ports import Clock


class FakeImages:
    """Images by name. A path that ends in .qcow2, .raw or .img counts as a disk image."""

    def __init__(
        self, clock: Clock, names: Iterable[str] = ("test",), recipes: Iterable[str] = ("busybox", "debian")
    ) -> None:
        """The recipe `slow`, where there is one, takes half a minute."""
        self._clock = clock
        self._recipes = frozenset(recipes)
        self._images = {name: self._image(name, "qcow2") for name in names}

    def list(self) -> "Sequence[Image]":
        return tuple(image for _, image in sorted(self._images.items()))

    def get(self, name: str) -> Image:
        if name not in self._images:
            raise NotFound(f"there is no image {name!r}", remedy="see `torpor image ls`")
        return self._images[name]

    def add(self, name: str, path: str) -> Image:
        suffix = path.rpartition(".")[2]
        if suffix not in ("qcow2", "raw", "img"):
            raise Invalid(f"{path} is not a disk image", remedy="give a qcow2 or raw image")
        return self._keep(self._image(name, "qcow2" if suffix == "qcow2" else "raw"))

    def build(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        if recipe not in self._recipes:
            raise Invalid(f"there is no recipe {recipe!r}", remedy=f"choose from {', '.join(sorted(self._recipes))}")
        progress(f"building {name}")
        if recipe == "slow":
            self._clock.sleep(30.0)
        return self._keep(self._image(name, "qcow2"))

    def remove(self, name: str) -> None:
        self.get(name)
        del self._images[name]

    def _keep(self, image: Image) -> Image:
        if image.name in self._images:
            raise Conflict(f"there is an image {image.name!r} already", remedy="choose another name")
        self._images[image.name] = image
        return image

    def _image(self, name: str, format: str) -> Image:
        return Image(name, ImageKind.DISK, format, 1 << 20, 1 << 30, "0" * 64, self._clock.now())
