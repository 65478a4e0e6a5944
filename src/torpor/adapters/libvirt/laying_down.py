"""Going back to a snapshot: its memory becomes the domain's managed save image, its disks go on in new layers."""

import os
from pathlib import Path

import libvirt
import xxhash

from torpor.adapters.libvirt.chains import image_xml, lasting_xml, set_lasting_disk
from torpor.adapters.libvirt.domains import Vm
from torpor.adapters.libvirt.layers import Layer, Layers, new_path
from torpor.adapters.libvirt.layout import free_bytes
from torpor.adapters.libvirt.managed_saves import Image
from torpor.adapters.libvirt.overlay import create_layer
from torpor.adapters.libvirt.saved_states import SavedStates
from torpor.adapters.libvirt.snapshot_files import FrozenDisk, Laid, SnapshotFiles, SnapshotFolder, SnapshotManifest
from torpor.adapters.libvirt.snapshot_xml import FileDisk, sources_of, with_disks
from torpor.domain.errors import Conflict, NoRoomForState, StateDamaged
from torpor.files import sync_folder

_CHUNK = 1 << 20
_HEAD_ROOM = 16 << 20


def lay(vm: Vm, states: SavedStates, found: SnapshotFolder) -> None:
    """Make it the newest, whole state. The snapshot stays as it is. Converges.

    The image is put in place, by a rename, only once it is complete and its layers are there; so whoever starts the
    domain before gets what was there before, and whoever starts it afterwards gets the snapshot.
    Raises StateDamaged, Conflict, NoRoomForState, BackendFailed, OSError.
    """
    manifest, files = found.manifest(), SnapshotFiles(vm.folder)
    laid = files.laid()
    if laid is None or not _is_in_place(states, laid, manifest):
        check_disks(manifest)
        _refuse_other_disks(vm, manifest)
        disks = _new_layers(vm, manifest)
        partial = _copied(found, manifest, partial_image(states.image))
        _redefine(vm, partial, disks)
        targets = tuple((disk.target, str(disk.path)) for disk in disks)
        laid = Laid(manifest.name, manifest.created_at, partial.identity(), targets)
        files.note_laid(laid)
        partial.path.replace(states.image.path)
        sync_folder(states.image.path.parent)
    newest = states.whole()
    if newest is None or not newest.checksum:
        states.record(manifest.memory_bytes, lambda done, total: None)
    for target, path in laid.disks:
        set_lasting_disk(vm, FileDisk(target, Path(path), "qcow2"))


def partial_image(image: Image) -> Path:
    """Where an image is made that is to be put in this place."""
    return image.path.with_name(f".{image.path.stem}.torpor-partial")


def check_disks(manifest: SnapshotManifest) -> None:
    """Raises StateDamaged where a frozen file is gone or was written to."""
    for disk in manifest.disks:
        defect = disk.defect()
        if defect:
            raise StateDamaged(
                f"snapshot {manifest.name} can't be used",
                detail=defect,
                remedy="bring the file back from a backup, or remove the snapshot and take another",
            )


def _is_in_place(states: SavedStates, laid: Laid, manifest: SnapshotManifest) -> bool:
    return (
        (laid.name, laid.created_at) == (manifest.name, manifest.created_at)
        and states.image.is_whole()
        and states.image.is_the_one(laid.image, perhaps_damaged=True)
        and all(Path(path).exists() for _, path in laid.disks)
    )


def _refuse_other_disks(vm: Vm, manifest: SnapshotManifest) -> None:
    """Raises Conflict where its owner gave the domain other disks since: they are not ours to take away."""
    layers, now = Layers(vm.folder.layers).all(), sources_of(lasting_xml(vm))
    own = {path for layer in layers for path in (layer.path, layer.parent)} | {Path(d.path) for d in manifest.disks}
    for disk in manifest.disks:
        if now.get(disk.target) not in own:
            raise Conflict(
                f"{vm.name} can't go back to snapshot {manifest.name}",
                detail=f"its disk {disk.target}, {now.get(disk.target, 'gone')} now, is none that the snapshot knows",
                remedy="give it back the disk that it had",
            )


def _new_layers(vm: Vm, manifest: SnapshotManifest) -> list[FileDisk]:
    """An empty one on every frozen disk."""
    account = Layers(vm.folder.layers)
    new: list[tuple[Layer, FrozenDisk]] = []
    for disk in manifest.disks:
        taken = {layer.path for layer in account.all()} | {layer.path for layer, _ in new}
        path = new_path(Path(disk.path), manifest.name, taken)
        new.append((Layer(disk.target, path, Path(disk.path), disk.format), disk))
    account.enter([layer for layer, _ in new])
    for layer, disk in new:
        create_layer(layer.path, layer.parent, disk.format)
    return [FileDisk(layer.target, layer.path, "qcow2") for layer, _ in new]


def _copied(found: SnapshotFolder, manifest: SnapshotManifest, to: Path) -> Image:
    """The memory, read and compared as it is copied. Raises StateDamaged, NoRoomForState."""
    to.unlink(missing_ok=True)
    size, free = found.memory.stored_bytes(), free_bytes(to.parent)
    if size + _HEAD_ROOM > free:
        raise NoRoomForState(
            f"snapshot {manifest.name} can't be gone back to",
            detail=f"its memory takes {size >> 20} MiB, {free >> 20} MiB are free in {to.parent}",
            remedy=f"make room in {to.parent}",
        )
    digest = xxhash.xxh3_128()
    fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with found.memory.path.open("rb") as source, os.fdopen(fd, "wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != manifest.checksum:
        to.unlink()
        raise StateDamaged(
            f"snapshot {manifest.name} can't be used",
            detail=f"{found.memory.path} does not match its checksum",
            remedy="bring the file back from a backup, or remove the snapshot and take another",
        )
    return Image(to)


def _redefine(vm: Vm, image: Image, disks: list[FileDisk]) -> None:
    """The image's own description has the new layers; the guest runs when somebody just starts it."""
    xml = with_disks(image_xml(vm, image), {disk.target: disk for disk in disks})
    with vm.connection.call(f"the image of domain {vm.name} can't be given its disks") as host:
        host.saveImageDefineXML(str(image.path), xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
    image.sync()
