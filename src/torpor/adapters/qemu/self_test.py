"""The self-test: a guest of its own is saved, ended, restored, compared byte by byte, and must run on."""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torpor.adapters.qemu import ram
from torpor.adapters.qemu.command_line import RAM
from torpor.adapters.qemu.machine import QemuHypervisor
from torpor.adapters.qemu.memory import LARGEST
from torpor.adapters.qemu.pages import checksum
from torpor.adapters.qemu.suspension import QemuSuspension
from torpor.adapters.qemu.vms import Vms
from torpor.domain.errors import BackendFailed, NotFound, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, Mechanism, NetworkConfig
from torpor.domain.workload import Flavor
from torpor.files import remove_tree

IMAGE = "tiny"
_FLAVOR = Flavor(vcpus=1, memory_mb=128)
_BOOT_SECONDS = 120.0
_TICK_SECONDS = 60.0
_READY = "guest ready"
_NETWORK = NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "self-test.invalid")


def run_self_test(vms: Vms, config_drive: Callable[[InstanceSpec], bytes], progress: Callable[[str], None]) -> str:
    """What was found, in one clause. Raises TorporErrors: StateDamaged when memory came back changed."""
    apart = vms.apart(replace(vms.settings, state_dir=vms.layout.state_dir / "self-test"))
    spec = InstanceSpec(InstanceId(str(uuid.uuid4())), "self-test", IMAGE, _FLAVOR, "52:54:00:00:00:01", _NETWORK)
    hypervisor = QemuHypervisor(apart, config_drive)
    suspension = QemuSuspension(apart, config_drive, Mechanism.MEMORY)
    with vms.exclusive(InstanceId("self-test")):
        _remove_all(apart)  # of a self-test that was killed
        try:
            return _suspend_and_resume(apart, hypervisor, suspension, spec, progress)
        except NotFound as error:
            raise NotFound(
                "the self-test has no guest",
                detail=error.what,
                remedy=f"run `torpor image build {IMAGE} --recipe {IMAGE}`",
            ) from error
        finally:
            _remove_all(apart)


def _remove_all(vms: Vms) -> None:
    for vm in vms.all():
        vm.end()
    remove_tree(vms.layout.state_dir)


def _suspend_and_resume(
    vms: Vms,
    hypervisor: QemuHypervisor,
    suspension: QemuSuspension,
    spec: InstanceSpec,
    progress: Callable[[str], None],
) -> str:
    console = vms.layout.instance(spec.id).console_log
    progress("booting a guest without network")
    hypervisor.boot(spec)
    _await_console(console, lambda text: _READY in text and "tick" in text.rpartition(_READY)[2], _BOOT_SECONDS)
    hypervisor.pause(spec.id)
    before = guest_memory(vms, spec)
    progress("saving its memory, ending its process")
    began = time.monotonic()
    state = suspension.save(spec, _ignore)
    suspension.release(spec.id)
    saved = time.monotonic()
    progress("restoring it")
    suspension.restore(spec, _ignore)
    restored = time.monotonic()
    if guest_memory(vms, spec) != before:
        raise StateDamaged("the guest's memory came back changed", remedy='keep to "stream" and report it')
    nonce = _nonce(console.read_text(errors="replace"))
    ticks = console.read_text(errors="replace").count("tick")
    suspension.spend(spec.id)
    hypervisor.run_on(spec.id)
    progress("waiting for it to go on")
    _await_console(console, lambda text: text.count("tick") > ticks + 1, _TICK_SECONDS)
    if _nonce(console.read_text(errors="replace")) != nonce:
        raise BackendFailed("the guest did not go on but booted anew")
    return (
        f"{state.memory_bytes >> 20} MiB of a guest's memory came back the same and it went on "
        f"(saved in {saved - began:.1f} s, restored in {restored - saved:.1f} s)"
    )


def guest_memory(vms: Vms, spec: InstanceSpec) -> Sequence[str]:
    """Checksums of a paused guest's whole memory, 4 MiB each, absent pages counted as zeros."""
    vm = vms.require(spec.id)
    size, address = spec.flavor.memory_mb << 20, vm.address_of(RAM, 0)
    source = ram.open_memory(vm.process.pid, os.O_RDONLY)
    try:
        return [checksum(os.pread(source, LARGEST, address + at)) for at in range(0, size, LARGEST)]
    finally:
        os.close(source)


def _await_console(console: Path, enough: Callable[[str], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not enough(console.read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise BackendFailed("the guest of the self-test does not go on", detail=f"nothing within {seconds:g} s")
        time.sleep(0.1)


def _nonce(console: str) -> str:
    return console.rpartition("nonce ")[2].split()[0]


def _ignore(done: int, total: int) -> None:
    """Nobody watches."""
