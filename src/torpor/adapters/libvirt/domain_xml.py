"""Domains as XML: what Torpor writes, and what it reads of anybody's. Pure text in, text or data out."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement

from torpor.domain.adoption import Mark
from torpor.domain.errors import BackendFailed, Invalid
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec
from torpor.domain.naming import check_label
from torpor.ports import Disk, Kernel

NAMESPACE = "urn:torpor:domain:1"
PREFIX = "torpor"
"""What the namespace is called where libvirt is told to write the element."""
AGENT_PORT = "org.qemu.guest_agent.0"

_ELEMENT = "workload"
_ANSWERS = {"yes": True, "no": False}
_KIB = {"KiB": 1, "MiB": 2**10, "GiB": 2**20}
"""Units that libvirt writes, whatever it was given: the first one."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What a domain's metadata say of it."""

    mark: Mark | None
    made: bool = False
    """Torpor made the domain."""
    defect: str = ""
    """Why the mark can't be understood; then `mark` is None."""


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A disk of a domain, as far as it is a file or a block device of this host."""

    target: str
    """As the guest's bus has it: `vda`."""
    path: Path | None
    """None: it lies elsewhere (network, volume), or the drive is empty."""
    format: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Described:
    """What is needed to know of any domain."""

    id: InstanceId
    name: str
    vcpus: int
    """Those that are online."""
    memory_mb: int
    """That the guest may have at most: where a balloon holds some of it now, the guest can get it back at any time."""
    mac: str
    """Of its first interface, lower case; empty without one."""
    network: str
    """libvirt network of that interface; empty where it is in none."""
    bridge: str
    """Bridge of that interface, where libvirt tells; empty otherwise."""
    disks: tuple[DiskSource, ...]
    emulator: str
    machine: str


@dataclass(frozen=True, slots=True)
class NewDomain:
    """All that goes into a domain of Torpor's making."""

    spec: InstanceSpec
    workload: str
    type: Literal["kvm", "qemu"]
    boot: Kernel | Disk
    disk: Path | None
    """The instance's overlay, where its image is a disk."""
    seed: Path
    """The config drive's image."""
    console_log: Path
    network: str | None
    tb_size_mb: int


def domain_xml(new: NewDomain) -> str:
    """For virDomainDefineXML. The machine type `pc` is made a versioned one by libvirt as it defines the domain."""
    spec = new.spec
    domain = Element("domain", type=new.type)
    SubElement(domain, "name").text = spec.name
    SubElement(domain, "uuid").text = spec.id
    _mark(SubElement(domain, "metadata"), new.workload)
    SubElement(domain, "memory", unit="MiB").text = str(spec.flavor.memory_mb)
    SubElement(domain, "vcpu").text = str(spec.flavor.vcpus)
    _operating_system(SubElement(domain, "os"), new.boot)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if new.type == "qemu":
        SubElement(SubElement(features, "tcg"), "tb-cache", unit="MiB").text = str(new.tb_size_mb)
    # A guest that was saved must find the same CPU again: host-model is written out into the saved image.
    SubElement(domain, "cpu", mode="host-model" if new.type == "kvm" else "maximum")
    SubElement(domain, "clock", offset="utc")
    for event, answer in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        SubElement(domain, f"on_{event}").text = answer
    _devices(SubElement(domain, "devices"), new)
    return ET.tostring(domain, encoding="unicode")


def described(xml: str) -> Described:
    """Raises BackendFailed when libvirt's XML can't be read."""
    try:
        domain = ET.fromstring(xml)
        return _described(domain)
    except (ET.ParseError, ValueError, KeyError) as error:
        raise BackendFailed("libvirt's description of a domain can't be read", detail=str(error)) from error


def tag_in(xml: str) -> Tag:
    """The mark in a domain's XML, or in its metadata element, from which libvirt takes the namespace away."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        return Tag(None, defect=f"its metadata can't be read: {error}")
    if root.tag != "domain":
        return _tag(root, root.tag.rpartition("}")[2])
    for element in root.iterfind(f"metadata/{{{NAMESPACE}}}*"):
        return _tag(element, element.tag.rpartition("}")[2])
    return Tag(None)


def mark_element(mark: Mark) -> str:
    """For virDomainSetMetadata, which adds the namespace."""
    return ET.tostring(Element(_ELEMENT, _attributes(mark)), encoding="unicode")


def _tag(element: Element, name: str) -> Tag:
    made = element.get("made") == "yes"
    if name != _ELEMENT:
        return Tag(None, defect=f"its element is <{name}>, not <{_ELEMENT}>")
    try:
        workload = check_label(element.get("name", ""), "workload")
        priority = element.get("priority", "0")
        if not re.fullmatch(r"[+-]?\d{1,9}", priority):
            return Tag(None, made, f"its priority is {priority[:40]!r}, not a whole number")
        mark = Mark(workload, int(priority), _answer(element, "preemptible"), _answer(element, "protect"))
    except Invalid as error:
        return Tag(None, made, f"{error.what}")
    if mark.preemptible and mark.protect:
        return Tag(None, made, "it is marked both preemptible and protected")
    return Tag(mark, made)


def _answer(element: Element, name: str) -> bool:
    """Raises Invalid."""
    text = element.get(name, "no")
    if text not in _ANSWERS:
        raise Invalid(f"its attribute {name} is {text[:40]!r}, not yes or no")
    return _ANSWERS[text]


def _attributes(mark: Mark) -> dict[str, str]:
    said = {True: "yes", False: "no"}
    return {
        "name": mark.workload,
        "priority": str(mark.priority),
        "preemptible": said[mark.preemptible],
        "protect": said[mark.protect],
    }


def _mark(metadata: Element, workload: str) -> None:
    """Of a domain that is ours: everything else about its workload is in the records."""
    ET.register_namespace(PREFIX, NAMESPACE)
    SubElement(metadata, f"{{{NAMESPACE}}}{_ELEMENT}", {"name": workload, "made": "yes"})


def _operating_system(os: Element, boot: Kernel | Disk) -> None:
    SubElement(os, "type", arch="x86_64", machine="pc").text = "hvm"
    kernel = boot.kernel if isinstance(boot, Disk) else boot
    if kernel is None:
        return
    SubElement(os, "kernel").text = str(kernel.kernel.absolute())
    SubElement(os, "initrd").text = str(kernel.initrd.absolute())
    SubElement(os, "cmdline").text = kernel.cmdline


def _devices(devices: Element, new: NewDomain) -> None:
    """No USB, no graphics; the disk first, for guests expect it to be vda."""
    names = iter(("vda", "vdb"))
    if new.disk:
        _disk(devices, new.disk, "qcow2", next(names), readonly=False)
    _disk(devices, new.seed, "raw", next(names), readonly=True)
    SubElement(devices, "controller", type="usb", model="none")
    if new.network:
        interface = SubElement(devices, "interface", type="network")
        SubElement(interface, "mac", address=new.spec.mac)
        SubElement(interface, "source", network=new.network)
        SubElement(interface, "model", type="virtio")
        SubElement(interface, "rom", enabled="no")
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(new.console_log), append="on")
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name=AGENT_PORT)
    # What the guest does not use goes back to the host, and so is not saved either.
    SubElement(devices, "memballoon", model="virtio", freePageReporting="on")
    SubElement(SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"


def _disk(devices: Element, path: Path, format: str, target: str, readonly: bool) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    driver = SubElement(disk, "driver", name="qemu", type=format)
    if not readonly:
        driver.set("discard", "unmap")
    SubElement(disk, "source", file=str(path.absolute()))
    SubElement(disk, "target", dev=target, bus="virtio")
    if readonly:
        SubElement(disk, "readonly")


def _described(domain: Element) -> Described:
    """Raises ValueError, KeyError."""
    vcpu = domain.find("vcpu")
    most = int(_text(domain, "vcpu") or 1)
    interface = domain.find("devices/interface")
    type = domain.find("os/type")
    return Described(
        id=InstanceId(_text(domain, "uuid")),
        name=_text(domain, "name"),
        vcpus=most if vcpu is None else int(vcpu.get("current", most)),
        memory_mb=_mib(domain.find("memory")),
        mac=_attribute(interface, "mac", "address").lower(),
        network=_attribute(interface, "source", "network"),
        bridge=_attribute(interface, "source", "bridge"),
        disks=tuple(_source(disk) for disk in domain.iterfind("devices/disk")),
        emulator=_text(domain, "devices/emulator"),
        machine="" if type is None else type.get("machine", ""),
    )


def _source(disk: Element) -> DiskSource:
    path = _attribute(disk, "source", "file") or _attribute(disk, "source", "dev")
    return DiskSource(
        target=_attribute(disk, "target", "dev"),
        path=Path(path) if path else None,
        format=_attribute(disk, "driver", "type") or "raw",
        writable=disk.find("readonly") is None and disk.get("device", "disk") == "disk",
    )


def _mib(element: Element | None) -> int:
    """Rounded up. Raises ValueError, KeyError."""
    if element is None:
        return 0
    return -(-int(element.text or 0) * _KIB[element.get("unit", "KiB")] // 2**10)


def _text(domain: Element, path: str) -> str:
    return (domain.findtext(path) or "").strip()


def _attribute(element: Element | None, path: str, name: str) -> str:
    found = None if element is None else element.find(path)
    return "" if found is None else found.get(name, "")
