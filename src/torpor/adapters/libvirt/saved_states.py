"""Saved states of one domain: Torpor's manifests beside what libvirt, and whoever uses it, has done with the images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.domains import Vm
from torpor.adapters.libvirt.failures import reason
from torpor.adapters.libvirt.managed_saves import Image, check, damaged
from torpor.adapters.libvirt.manifests import BEGUN, Manifest, Manifests
from torpor.domain.instance import StateStatus
from torpor.ports import Progress


@dataclass(frozen=True, slots=True)
class SavedStates:
    """A domain's image is its newest whole state; what has no image any more is spent, whatever the manifest says."""

    image: Image
    manifests: Manifests
    version: Callable[[], int]
    """Of libvirt, as it counts itself."""

    def all(self) -> Sequence[Manifest]:
        """Newest first; a whole image that is in no manifest counts as the newest, with a checksum that is empty."""
        known = list(self.manifests.all())
        whole = self.image.is_whole()
        known_image = bool(known) and whole and self.image.is_the_one(known[0].identity, not known[0].spent)
        if known and not known_image:
            known[0] = replace(known[0], status=StateStatus.SPENT)  # somebody else let it run on
        if whole and not known_image:
            known.insert(0, self._described(known[0].generation + 1 if known else 1, "", 0))
        # Of older ones nothing can be left: libvirt keeps one image.
        return [known[0], *(replace(m, status=StateStatus.SPENT) for m in known[1:])] if known else []

    def newest(self) -> Manifest | None:
        return next(iter(self.all()), None)

    def whole(self) -> Manifest | None:
        """The newest state, if the domain has not run since."""
        newest = self.newest()
        return None if newest is None or newest.spent else newest

    def record(self, memory_bytes: int, progress: Progress) -> Manifest:
        """Read the image, make it durable and note it as the newest state."""
        newest = self.newest()
        # An image that is in no manifest was counted in already.
        number = 1 if newest is None else newest.generation + (1 if newest.spent else 0)
        self.image.sync()
        manifest = self._described(number, self.image.checksum(progress), memory_bytes)
        self.manifests.write(manifest)
        return manifest

    def spend(self, manifest: Manifest) -> None:
        """Durably; the image is another matter. Converges."""
        self.manifests.write(replace(manifest, status=StateStatus.SPENT, restored=""))

    def begin_restore(self, manifest: Manifest) -> None:
        """From here on a paused process of the domain's may be the one that was filled from this state."""
        self.manifests.write(replace(manifest, restored=BEGUN))

    def end_restore(self, manifest: Manifest, process: str) -> None:
        """It is this process."""
        self.manifests.write(replace(manifest, restored=process))

    def _described(self, generation: int, checksum: str, memory_bytes: int) -> Manifest:
        identity = self.image.identity()
        return Manifest(
            generation,
            StateStatus.WHOLE,
            self.image.modified_at() if not checksum else time.time(),
            str(self.image.path),
            identity,
            checksum,
            self.image.stored_bytes(),
            memory_bytes or identity.size,
            self.image.format(),
            self.version(),
        )


def saved_states(vm: Vm, save_dir: Path) -> SavedStates:
    """Of a domain that is there."""

    def version() -> int:
        with vm.connection.call("libvirt can't be asked for its version") as host:
            return int(host.getLibVersion())

    return SavedStates(Image(save_dir / f"{vm.name}.save"), Manifests(vm.folder.states), version)


def read_through(vm: Vm, states: SavedStates, manifest: Manifest, progress: Progress) -> Manifest:
    """Read the newest state to its end; return its manifest, which one that others wrote gets thereby.

    Raises StateDamaged.
    """
    if manifest.checksum:
        check(states.image, manifest.checksum, progress)
        return manifest
    with vm.connection.call(f"{states.image.path} can't be read") as host:
        try:
            host.saveImageGetXMLDesc(str(states.image.path))
        except libvirt.libvirtError as error:
            raise damaged(states.image, reason(error)) from error
    return states.record(manifest.memory_bytes, progress)


def remove_image(vm: Vm, image: Image) -> None:
    """By libvirt, so that it knows, and then for certain. Converges."""
    with vm.connection.call(f"the saved image of domain {vm.name} can't be removed"):
        if vm.domain.hasManagedSaveImage():
            vm.domain.managedSaveRemove()
    image.remove()
