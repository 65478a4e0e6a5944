"""The disk's part of a saved state: a snapshot inside the overlay, made while the VM is paused."""

from torpor.adapters.qemu import disks
from torpor.adapters.qemu.command_line import DISK_NODE
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, Conflict

_SNAPSHOT_SECONDS = 60.0


def take(vm: Vm, generation: int) -> None:
    """Keep the disk's contents of this instant, durable on return. Does nothing without a disk."""
    if not vm.folder.disk.exists():
        return
    if _gave_up_disk(vm):
        raise Conflict(
            "the disk can't be saved once more",
            detail="QEMU gave it up when it wrote its stream",
            remedy="let the instance run on first",
        )
    if generation in _of_running(vm):
        _delete_from_running(vm, generation)  # left by a save that did not end
    keep_named(vm, disks.snapshot_name(generation))
    disks.sync_file(vm.folder.disk)


def keep_named(vm: Vm, name: str) -> None:
    """As `take`, under any name, and durable only once the file is synced."""
    if vm.folder.disk.exists():
        vm.execute("blockdev-snapshot-internal-sync", {"device": DISK_NODE, "name": name}, timeout=_SNAPSHOT_SECONDS)


def delete_named(folder: InstanceFolder, vm: Vm | None, name: str) -> None:
    """Give up the disk's contents of that name. Converges."""
    if not folder.disk.exists():
        return
    if vm is None:
        if name in disks.named_snapshots(folder.disk):
            disks.delete_named(folder.disk, name)
    elif name in _names_of_running(vm):
        _delete_named_from_running(vm, name)


def keep_only(folder: InstanceFolder, vm: Vm | None, generations: set[int]) -> None:
    """Give up the snapshots of all other states. Converges; at a later call, where QEMU can't do it now."""
    if not folder.disk.exists() or (vm and _gave_up_disk(vm)):
        return
    there = _of_running(vm) if vm else disks.snapshots(folder.disk)
    for generation in set(there) - generations:
        if vm:
            _delete_from_running(vm, generation)
        else:
            disks.delete_snapshot(folder.disk, generation)


def take_back(folder: InstanceFolder, generation: int) -> None:
    """The disk as it was when that state was saved. No process may have it open. Raises BackendFailed."""
    if not folder.disk.exists():
        return
    if generation not in disks.snapshots(folder.disk):
        raise BackendFailed(
            f"the disk can't be taken back to saved state {generation}", detail=f"{folder.disk} has no such snapshot"
        )
    disks.apply_snapshot(folder.disk, generation)


def _gave_up_disk(vm: Vm) -> bool:
    """After its stream QEMU takes its disks for somebody else's, until it runs on; a write would be its end."""
    return vm.status() == "postmigrate"


def _of_running(vm: Vm) -> list[int]:
    found = (disks.snapshot_generation(name) for name in _names_of_running(vm))
    return [generation for generation in found if generation is not None]


def _names_of_running(vm: Vm) -> list[str]:
    for node in vm.execute("query-named-block-nodes", {"flat": True}):
        if node.get("node-name") == DISK_NODE:
            return [str(snapshot["name"]) for snapshot in node["image"].get("snapshots", [])]
    return []


def _delete_from_running(vm: Vm, generation: int) -> None:
    _delete_named_from_running(vm, disks.snapshot_name(generation))


def _delete_named_from_running(vm: Vm, name: str) -> None:
    vm.execute("blockdev-snapshot-delete-internal-sync", {"device": DISK_NODE, "name": name}, timeout=_SNAPSHOT_SECONDS)
