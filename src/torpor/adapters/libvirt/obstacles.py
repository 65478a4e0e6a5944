"""Why a domain could not be saved and brought back exactly: what in its description says so."""

import xml.etree.ElementTree as ET
from xml.etree.ElementTree import Element

_DEVICES = {
    "shmem": "memory shared with others",
    "filesystem": "a folder of the host",
    "vsock": "a socket to the host",
    "memory[@model='virtio-pmem']": "a file of the host as memory",
    "memory[@model='nvdimm']": "a file of the host as memory",
    "memory[@model='sgx-epc']": "encrypted memory",
    "disk[@type='nvme']": "a disk controller of the host",
    "disk[@type='vhostuser']": "a disk that another process serves",
    "disk/transient": "a disk that is thrown away when it ends",
    "interface[@type='hostdev']": "a network card of the host",
    "interface[@type='vdpa']": "a network card of the host",
    "interface[@type='vhostuser']": "a network card that another process serves",
    "tpm/backend[@type='passthrough']": "the host's TPM",
    "video/model/acceleration[@accel3d='yes']": "accelerated graphics",
}
"""Paths below <devices>. Most of these libvirt or QEMU refuse to save; the rest would come back as something else."""


def obstacle(xml: str, persistent: bool) -> str:
    """In words, a clause that begins with "it"; empty where nothing is in the way."""
    domain = ET.fromstring(xml)
    if not persistent:
        return "it is transient: libvirt forgets it when its process ends"
    if domain.find("launchSecurity") is not None:
        return "it can't be saved: its memory is encrypted"
    hostdev = domain.find("devices/hostdev")
    if hostdev is not None:
        return f"it can't be saved: it has a device of the host's ({_kind(hostdev)})"
    for path, words in _DEVICES.items():
        if domain.find(f"devices/{path}") is not None:
            return f"it can't be saved: it has {words}"
    return ""


def _kind(hostdev: Element) -> str:
    return hostdev.get("type") or hostdev.get("mode") or "hostdev"
