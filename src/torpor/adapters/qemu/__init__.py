"""The embedded backend: VMs of our own, driven through QEMU's monitor; no libvirt, no daemon but ours.

Saves and restores guest memory from outside the QEMU process. It must never write to a
base image, never let a saved state be used twice without taking the disk back, and never
signal a process that it has not identified by start time and UUID.
"""

from torpor.adapters.qemu.backend import QemuBackend, make_backend
from torpor.adapters.qemu.settings import QemuSettings

__all__ = ["QemuBackend", "QemuSettings", "make_backend"]
