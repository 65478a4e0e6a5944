"""Having libvirt write a managed save image, watched: progress, a time limit, and what was begun by an earlier life."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress

import libvirt

from torpor.adapters.libvirt.domains import Vm
from torpor.adapters.libvirt.failures import is_code
from torpor.domain.errors import TimedOut, TorporError

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_CALL_OFF_SECONDS = 60.0
Moved = Callable[[int], None]
"""Told the bytes of guest memory that were written so far."""


def save_watched(vm: Vm, bypass_cache: bool, timeout: float, moved: Moved) -> int:
    """Have it saved, its process gone. Returns the bytes of guest memory in the image, 0 where that is not known.

    Raises NoRoomForState, TimedOut, ConnectionLost, BackendFailed; the domain is still paused then, unless the
    connection was lost.
    """
    # What the image is made of (format, and from libvirt 11.2 on sparse with parallel channels) is said by qemu.conf's
    # `save_image_format`: virDomainSaveParams could say it too, but not for a managed save.
    # PAUSED, for a domain that was to be saved as RUNNING is let run by libvirt when the save fails.
    flags = libvirt.VIR_DOMAIN_SAVE_PAUSED | (libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE if bypass_cache else 0)

    def save() -> None:
        with vm.connection.call(f"domain {vm.name} can't be saved"):
            vm.domain.managedSave(flags)

    saving = _in_a_thread(save)
    memory_bytes, called_off = _watch(vm, saving, timeout, moved)
    try:
        saving.result(_CALL_OFF_SECONDS)
    except TimeoutError as error:
        raise TimedOut(f"domain {vm.name} is still being saved", detail="libvirt does not call it off") from error
    except TorporError as error:
        if called_off:
            raise TimedOut(
                f"domain {vm.name} was not saved within {timeout:g} s",
                detail="it was called off",
                remedy="see why the disk is slow, or raise libvirt.save_timeout",
            ) from error
        raise
    return memory_bytes


def have_it_run(vm: Vm) -> None:
    """Whoever starts the domain from its image by other means gets a guest that runs, as it did before its pause.

    Where libvirt does not want to note that, such a guest is paused, and its state is as good.
    """
    try:
        with vm.connection.call(f"the saved image of domain {vm.name} can't be told to run"):
            description = vm.domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
            vm.domain.managedSaveDefineXML(description, libvirt.VIR_DOMAIN_SAVE_RUNNING)
    except TorporError as error:
        log.warning("%s", error)


def await_end_of_job(vm: Vm, timeout: float) -> None:
    """Wait while libvirt saves or loads it: one that asked for that may be gone, libvirt goes on.

    Raises TimedOut.
    """
    deadline = time.monotonic() + timeout
    while _job(vm) is not None:
        if time.monotonic() > deadline:
            raise TimedOut(
                f"domain {vm.name} is still busy",
                detail=f"libvirt's job on it has not ended within {timeout:g} s",
                remedy="see `virsh domjobinfo`",
            )
        time.sleep(_POLL_SECONDS)


def _in_a_thread(act: Callable[[], None]) -> Future[None]:
    """Nobody waits for it at the program's end, for libvirt may hang."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            act()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="managed-save", daemon=True).start()
    return future


def _watch(vm: Vm, saving: Future[None], timeout: float, moved: Moved) -> tuple[int, bool]:
    """Until it ended. Returns the bytes of guest memory in the image, and whether it was called off."""
    deadline = time.monotonic() + timeout
    memory_bytes = 0
    while not wait([saving], _POLL_SECONDS).done:
        with suppress(TorporError):  # what goes wrong with the save, the save itself tells
            job = _job(vm) or {}
            memory_bytes = max(memory_bytes, int(job.get("memory_normal_bytes", 0)))
            moved(int(job.get("memory_processed", 0)))
        if time.monotonic() > deadline:
            with suppress(TorporError), vm.connection.call(f"the saving of domain {vm.name} can't be called off"):
                vm.domain.abortJob()
            return memory_bytes, True
    return memory_bytes, False


def _job(vm: Vm) -> dict[str, int] | None:
    """libvirt's account of what goes on with the domain; None where nothing does."""
    with vm.connection.call(f"domain {vm.name} can't be asked for its job"):
        try:
            job: dict[str, int] = vm.domain.jobStats()
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
                return None  # it has no process (any more)
            raise
    return None if job.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE else job
