"""Snapshots as XML: which disks are kept, what libvirt is asked for, and a domain with other files as its disks."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from torpor.domain.errors import Refused

_FORMATS = ("raw", "qcow2")


@dataclass(frozen=True, slots=True)
class FileDisk:
    """A disk that is written to, and the file that it is written to."""

    target: str
    path: Path
    format: str


def disks_to_keep(xml: str, name: str) -> Sequence[FileDisk]:
    """Those that its guest can write to. Raises Refused where one is not a raw or qcow2 file of the domain's own."""
    found = []
    for disk in _disks(xml):
        if _is_read_only(disk):
            continue
        kept = FileDisk(_target(disk), Path(_value(disk, "source", "file")), _value(disk, "driver", "type") or "raw")
        obstacle = _obstacle(disk, kept)
        if obstacle:
            raise Refused(
                f"no snapshot is taken of {name}",
                detail=f"its disk {kept.target} {obstacle}",
                remedy="use a raw or qcow2 file of its own for that disk, or suspend the VM instead",
            )
        found.append(kept)
    return tuple(found)


def snapshot_xml(domain: str, name: str, memory: Path, overlays: Mapping[str, Path]) -> str:
    """For virDomainSnapshotCreateXML; `overlays` by target. Every other disk is left out."""
    root = Element("domainsnapshot")
    SubElement(root, "name").text = name
    SubElement(root, "memory", snapshot="external", file=str(memory))
    disks = SubElement(root, "disks")
    for target in map(_target, _disks(domain)):
        if target not in overlays:
            SubElement(disks, "disk", name=target, snapshot="no")
            continue
        disk = SubElement(disks, "disk", name=target, snapshot="external")
        SubElement(disk, "driver", type="qcow2")
        SubElement(disk, "source", file=str(overlays[target]))
    return ET.tostring(root, encoding="unicode")


def disks_of(xml: str) -> Mapping[str, FileDisk]:
    """Every disk that is a file, by target."""
    found = (
        FileDisk(_target(disk), Path(_value(disk, "source", "file")), _value(disk, "driver", "type") or "raw")
        for disk in _disks(xml)
        if _value(disk, "source", "file")
    )
    return {disk.target: disk for disk in found}


def sources_of(xml: str) -> Mapping[str, Path]:
    """The file of every disk that has one, by target."""
    return {target: disk.path for target, disk in disks_of(xml).items()}


def files_in(xml: str) -> frozenset[Path]:
    """Every file that a disk is or lies on, as far as the domain's description tells."""
    sources = (source.get("file") for disk in _disks(xml) for source in disk.iter("source"))
    return frozenset(Path(path) for path in sources if path)


def with_disks(xml: str, disks: Mapping[str, FileDisk]) -> str:
    """The same domain with these files as its disks, by target."""
    domain = ET.fromstring(xml)
    for element in domain.iterfind("devices/disk"):
        if _target(element) in disks:
            _set_source(element, disks[_target(element)])
    return ET.tostring(domain, encoding="unicode")


def disk_element(xml: str, disk: FileDisk) -> str | None:
    """Of that domain's disk of that target, with this file; for virDomainUpdateDeviceFlags. None: it has no such."""
    for element in _disks(xml):
        if _target(element) == disk.target:
            _set_source(element, disk)
            return ET.tostring(element, encoding="unicode")
    return None


def _set_source(element: Element, disk: FileDisk) -> None:
    """What it lies on is left for libvirt to find out: our files say it in their headers, with its format."""
    for old in element.findall("backingStore"):
        element.remove(old)
    source, driver = element.find("source"), element.find("driver")
    if source is None:
        source = SubElement(element, "source")
    if driver is None:
        driver = SubElement(element, "driver", name="qemu")
    source.set("file", str(disk.path))
    source.attrib.pop("index", None)
    driver.set("type", disk.format)


def _obstacle(disk: Element, kept: FileDisk) -> str:
    """In words, a clause that goes on from "its disk"; empty where nothing is in the way."""
    if disk.get("type") != "file":
        return f"is not a file but of type {disk.get('type', 'unknown')!r}"
    if disk.get("device", "disk") not in ("disk", "floppy"):
        return f"is a {disk.get('device')}"
    if disk.find("shareable") is not None:
        return "is shared with other VMs"
    if kept.format not in _FORMATS:
        return f"is of format {kept.format}"
    return ""


def _is_read_only(disk: Element) -> bool:
    return (
        disk.find("readonly") is not None
        or disk.get("device") == "cdrom"
        or (disk.get("device") == "floppy" and disk.find("source") is None)
    )


def _disks(xml: str) -> Sequence[Element]:
    return ET.fromstring(xml).findall("devices/disk")


def _target(disk: Element) -> str:
    return _value(disk, "target", "dev")


def _value(disk: Element, path: str, attribute: str) -> str:
    found = disk.find(path)
    return "" if found is None else found.get(attribute, "")
