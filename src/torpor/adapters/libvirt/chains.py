"""A domain's disks as chains of layers: kept as short as the snapshots that are left allow.

What nobody needs is removed; what only the disk's newest layer needs is merged downwards, so that an owner's disk is in
the owner's own file again. A merge writes only into files that the disk was once written to itself, never into a base
that others may share. Whatever can't be done now is left as it is, correct and complete, and tried again with the next
snapshot that is taken, removed or gone back to; a domain of Torpor's making that is erased takes all its layers along.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.domains import Domains, Vm
from torpor.adapters.libvirt.layers import Layer, Layers, mergeable, needed
from torpor.adapters.libvirt.managed_saves import Image
from torpor.adapters.libvirt.overlay import chain_of, commit
from torpor.adapters.libvirt.saved_states import saved_states
from torpor.adapters.libvirt.snapshot_files import SnapshotFiles
from torpor.adapters.libvirt.snapshot_xml import FileDisk, disk_element, disks_of, files_in, sources_of
from torpor.domain.errors import BackendFailed, TimedOut, TorporError
from torpor.files import sync_folder

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_SECURE = libvirt.VIR_DOMAIN_XML_SECURE
_LASTING = libvirt.VIR_DOMAIN_XML_INACTIVE | _SECURE


def tidy(domains: Domains, vm: Vm) -> None:
    """As far as it goes now; what does not is logged."""
    layers = Layers(vm.folder.layers)
    try:
        if not layers.all():
            return
        image = saved_states(vm, domains.settings.save_dir).image
        frozen = SnapshotFiles(vm.folder).frozen()
        _remove_unneeded(vm, layers, image, frozen)
        if image.is_there():
            return  # it names the files that its memory fits
        for target in {layer.target for layer in layers.all()}:
            _shorten(domains, vm, layers, target, frozen)
    except (TorporError, OSError) as error:
        log.warning("the disks of domain %s keep layers for now: %s", vm.name, error)


def live_xml(vm: Vm) -> str:
    """What runs, or else what would."""
    with vm.connection.call(f"domain {vm.name} can't be looked at"):
        return str(vm.domain.XMLDesc(_SECURE))


def lasting_xml(vm: Vm) -> str:
    """What the next start takes."""
    with vm.connection.call(f"domain {vm.name} can't be looked at"):
        return str(vm.domain.XMLDesc(_LASTING))


def image_xml(vm: Vm, image: Image) -> str:
    """The domain that a saved image has in it."""
    with vm.connection.call(f"the saved image {image.path} can't be read") as host:
        return str(host.saveImageGetXMLDesc(str(image.path), libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))


def set_lasting_disk(vm: Vm, disk: FileDisk) -> None:
    """From the next start on the domain has this file as that disk. Converges. Raises BackendFailed."""
    xml = lasting_xml(vm)
    if sources_of(xml).get(disk.target) == disk.path:
        return
    element = disk_element(xml, disk)
    if element is None:
        raise BackendFailed(
            f"domain {vm.name} can't be given its disk", detail=f"it has no disk {disk.target} any more"
        )
    with vm.connection.call(f"domain {vm.name} can't be given its disk {disk.path}"):
        vm.domain.updateDeviceFlags(element, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _remove_unneeded(vm: Vm, layers: Layers, image: Image, frozen: frozenset[Path]) -> None:
    """Layers that no snapshot, no saved image and no start of the domain leads to."""
    domains = [live_xml(vm), lasting_xml(vm)]
    if image.is_whole():
        domains.append(image_xml(vm, image))
    roots = set(frozen)
    for xml in domains:
        roots |= files_in(xml)
        for disk in disks_of(xml).values():  # the owner may have put overlays of their own on ours
            roots.update(chain_of(disk.path, disk.format))
    kept = needed(layers.all(), roots)
    for layer in reversed(layers.all()):
        if layer.path not in kept:
            _remove(layers, layer)


def _remove(layers: Layers, layer: Layer) -> None:
    layer.path.unlink(missing_ok=True)
    if layer.path.parent.is_dir():
        sync_folder(layer.path.parent)
    layers.forget(layer.path)


def _shorten(domains: Domains, vm: Vm, layers: Layers, target: str, frozen: frozenset[Path]) -> None:
    """Merge downwards, unless the next start has another file as that disk: then its owner is at work on it."""
    active = sources_of(live_xml(vm)).get(target)
    if active is None or active != sources_of(lasting_xml(vm)).get(target):
        return
    merged = mergeable([each for each in layers.all() if each.target == target], active, frozen)
    if not merged:
        return
    base, timeout = merged[-1], domains.settings.save_timeout
    chain = chain_of(active, "qcow2")
    if list(chain[: len(merged) + 1]) != [*(layer.path for layer in merged), base.parent]:
        raise BackendFailed(f"disk {target} of domain {vm.name} lies on other files than it was put on")
    if vm.active():
        _commit_live(vm, target, base, timeout)
    else:
        commit(active, base.parent, timeout)
        set_lasting_disk(vm, FileDisk(target, base.parent, base.parent_format))
    _forget_merged(vm, layers, merged)


def _forget_merged(vm: Vm, layers: Layers, merged: Sequence[Layer]) -> None:
    used = files_in(live_xml(vm)) | files_in(lasting_xml(vm))
    for layer in merged:
        if layer.path in used:
            raise BackendFailed(f"layer {layer.path} is still in use")
        _remove(layers, layer)


def _commit_live(vm: Vm, target: str, base: Layer, timeout: float) -> None:
    """While the domain has the disk open. One that was begun by an earlier life is brought to its end."""
    what = f"the layers of domain {vm.name} can't be merged"
    if not _job(vm, target):
        with vm.connection.call(what):
            vm.domain.blockCommit(target, str(base.parent), None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    deadline = time.monotonic() + timeout
    while True:
        job = _job(vm, target)
        if not job or job["type"] != libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT:
            raise BackendFailed(what, detail="the job ended early" if not job else "another job is at work on the disk")
        if job["end"] and job["cur"] == job["end"]:
            break
        if time.monotonic() > deadline:
            with suppress(TorporError), vm.connection.call(what):
                vm.domain.blockJobAbort(target, 0)
            raise TimedOut(what, detail=f"that takes longer than {timeout:g} s")
        time.sleep(_POLL_SECONDS)
    with vm.connection.call(what):
        vm.domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _job(vm: Vm, target: str) -> dict[str, int]:
    """libvirt's account of what goes on with the disk; empty where nothing does."""
    with vm.connection.call(f"disk {target} of domain {vm.name} can't be asked for its job"):
        return dict(vm.domain.blockJobInfo(target) or {})
