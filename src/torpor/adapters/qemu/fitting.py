"""What a saved state needs of the QEMU that takes it up, and whether that can be had here."""

import time
from functools import partial

from torpor.adapters.qemu import transfer
from torpor.adapters.qemu.command_line import (
    FREE_PAGE_REPORTING,
    NO_PREAMBLE,
    Machine,
    guest_visible,
    reports_free_pages,
)
from torpor.adapters.qemu.installed import Accelerator, host_cpu
from torpor.adapters.qemu.state_files import Manifest, Writer
from torpor.adapters.qemu.vms import Vm, Vms
from torpor.domain.errors import MissingPart, StateDamaged
from torpor.domain.instance import InstanceSpec, Mechanism


def running_machine(vms: Vms, vm: Vm, spec: InstanceSpec) -> Machine:
    """The machine as the VM was started, whatever is installed by now."""
    type = str(vm.execute("qom-get", {"path": "/machine", "property": "type"})).removesuffix("-machine")
    return vms.machine(spec, type, vm.process.was_told(FREE_PAGE_REPORTING))


def manifest_of(
    vm: Vm, machine: Machine, number: int, mechanism: Mechanism, sizes: dict[str, int], written: transfer.Written
) -> Manifest:
    """The manifest of a state that was written of this VM."""
    return Manifest(
        instance=machine.spec.id,
        generation=number,
        mechanism=mechanism,
        created_at=time.time(),
        writer=Writer(vm.process.pid, vm.process.started),
        qemu=_series(vm),
        machine=machine.type,
        accelerator=machine.accelerator,
        cpu=host_cpu() if machine.accelerator is Accelerator.KVM else "",
        arguments=tuple(guest_visible(machine)),
        blocks=sizes,
        parts=written.parts,
        base=written.base,
        device_checksum=written.device_checksum,
        memory_bytes=written.memory_bytes,
        written_bytes=written.written_bytes,
        bare=mechanism is Mechanism.STREAM and vm.process.was_told(NO_PREAMBLE),
    )


def fitting_machine(vms: Vms, spec: InstanceSpec, manifest: Manifest) -> Machine:
    """The machine that the state was saved from. Raises MissingPart, StateDamaged when it can't be had here."""
    qemu = vms.installed.qemu()
    machine = vms.machine(spec, manifest.machine, reports_free_pages(manifest.arguments))
    refuse = partial(_refuse, spec, manifest)
    if qemu.series != manifest.qemu or manifest.machine not in qemu.machines:
        raise refuse(f"QEMU {manifest.qemu} with {manifest.machine}", f"QEMU {qemu.version}")
    if machine.accelerator != manifest.accelerator:
        raise refuse(f"accelerator {manifest.accelerator}", f"accelerator {machine.accelerator}")
    if manifest.cpu and manifest.cpu != host_cpu():
        raise refuse("the CPU model and flags that it was saved on", "another CPU")
    arguments = tuple(guest_visible(machine))
    if arguments != manifest.arguments:
        ours, theirs = set(arguments) - set(manifest.arguments), set(manifest.arguments) - set(arguments)
        raise StateDamaged(
            f"saved state {manifest.generation} of {spec.name} does not fit the machine",
            detail=f"saved with {' '.join(sorted(theirs)) or 'less'}, now {' '.join(sorted(ours)) or 'less'}",
            remedy="go back to the settings that it was saved with",
        )
    return machine


def _series(vm: Vm) -> str:
    version = vm.execute("query-version")["qemu"]
    return f"{version['major']}.{version['minor']}"


def _refuse(spec: InstanceSpec, manifest: Manifest, needed: str, found: str) -> MissingPart:
    return MissingPart(
        f"saved state {manifest.generation} of {spec.name} can't be restored here",
        detail=f"it needs {needed}, here is {found}",
        remedy="bring that back; the state is kept",
    )
