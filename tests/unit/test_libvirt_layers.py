"""Which overlays of a disk are needed, which can be merged away, and what libvirt is asked for."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from torpor.adapters.libvirt.layers import Layer, Layers, mergeable, needed, new_path, youngest
from torpor.adapters.libvirt.snapshot_xml import (
    FileDisk,
    disk_element,
    disks_to_keep,
    files_in,
    snapshot_xml,
    sources_of,
    with_disks,
)
from torpor.domain.errors import Refused, StateDamaged

DISK, S1, S2, BACK = Path("/d/disk"), Path("/d/disk.torpor-s1"), Path("/d/disk.torpor-s2"), Path("/d/disk.torpor-s1.2")
CHAIN = (Layer("vda", S1, DISK, "raw"), Layer("vda", S2, S1, "qcow2"))
FORK = (*CHAIN, Layer("vda", BACK, DISK, "raw"))
DOMAIN = """
<domain><devices>
  <disk type='file' device='disk'>
    <driver name='qemu' type='qcow2' cache='none'/><source file='/d/disk.torpor-s1' index='2'/>
    <backingStore type='file'><format type='raw'/><source file='/d/disk'/><backingStore/></backingStore>
    <target dev='vda' bus='virtio'/>
  </disk>
  <disk type='file' device='disk'><source file='/d/seed.iso'/><target dev='vdb' bus='virtio'/><readonly/></disk>
  <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
</devices></domain>
"""


def test_what_lies_below_a_root_is_needed() -> None:
    assert needed(FORK, {BACK}) == {BACK, DISK}
    assert needed(FORK, {S2}) == {S2, S1, DISK}


def test_layers_are_merged_down_to_what_a_snapshot_keeps() -> None:
    assert mergeable(CHAIN, S2, frozenset()) == [CHAIN[1], CHAIN[0]]
    assert mergeable(CHAIN, S2, frozenset({DISK})) == [CHAIN[1]]
    assert mergeable(CHAIN, S2, frozenset({S1})) == []
    assert mergeable(CHAIN, S2, frozenset({S1, DISK})) == []


def test_nothing_is_merged_into_what_another_layer_lies_on() -> None:
    assert mergeable(FORK, BACK, frozenset()) == []
    assert mergeable(FORK, S2, frozenset()) == [CHAIN[1]]


def test_a_file_that_is_no_layer_is_never_merged_away() -> None:
    assert mergeable(CHAIN, DISK, frozenset()) == []
    assert mergeable((), S1, frozenset()) == []


def test_a_layer_has_a_name_of_its_own_beside_the_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    first = new_path(disk, "s1", set())
    assert first == tmp_path / "disk.torpor-s1"
    first.touch()
    second = new_path(first, "s1", {tmp_path / "disk.torpor-s1.2"})
    assert second == tmp_path / "disk.torpor-s1.3"


def test_the_account_is_kept_in_order(tmp_path: Path) -> None:
    account = Layers(tmp_path / "state" / "instances" / "x" / "layers.json")
    assert account.all() == ()
    account.enter(CHAIN[:1])
    account.enter(CHAIN[1:])
    assert account.all() == CHAIN
    account.forget(S1)
    account.forget(S1)
    assert account.all() == CHAIN[1:]


def test_a_damaged_account_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "layers.json"
    file.write_text("{")
    with pytest.raises(StateDamaged):
        Layers(file).all()


def test_the_youngest_layer_that_is_there_is_the_disk(tmp_path: Path) -> None:
    file, disk = tmp_path / "a" / "b" / "layers.json", tmp_path / "disk"
    assert youngest(file, disk) == disk
    made, lost = tmp_path / "disk.torpor-s1", tmp_path / "disk.torpor-s2"
    made.touch()
    Layers(file).enter([Layer("vda", made, disk, "qcow2"), Layer("vda", lost, made, "qcow2")])
    assert youngest(file, disk) == made


def test_what_a_guest_can_not_write_to_is_left_out() -> None:
    assert disks_to_keep(DOMAIN, "vm") == (FileDisk("vda", S1, "qcow2"),)
    asked = ET.fromstring(snapshot_xml(DOMAIN, "s2", Path("/m"), {"vda": S2}))
    assert {disk.get("name"): disk.get("snapshot") for disk in asked.iterfind("disks/disk")} == {
        "vda": "external",
        "vdb": "no",
        "sda": "no",
    }


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        ("<disk type='block'><source dev='/dev/x'/><target dev='vda'/></disk>", "of type 'block'"),
        ("<disk type='network'><source protocol='rbd'/><target dev='vda'/></disk>", "of type 'network'"),
        ("<disk type='file'><source file='/d'/><target dev='vda'/><shareable/></disk>", "shared with other VMs"),
        ("<disk type='file'><driver type='vmdk'/><source file='/d'/><target dev='vda'/></disk>", "format vmdk"),
        ("<disk type='file' device='lun'><source file='/d'/><target dev='vda'/></disk>", "is a lun"),
    ],
)
def test_a_disk_that_can_not_be_frozen_is_told(disk: str, why: str) -> None:
    with pytest.raises(Refused) as refusal:
        disks_to_keep(f"<domain><devices>{disk}</devices></domain>", "vm")
    assert why in refusal.value.detail


def test_a_domain_is_given_other_files() -> None:
    changed = with_disks(DOMAIN, {"vda": FileDisk("vda", BACK, "qcow2")})
    assert sources_of(changed) == {"vda": BACK, "vdb": Path("/d/seed.iso")}
    assert files_in(DOMAIN) == {S1, DISK, Path("/d/seed.iso")}
    assert files_in(changed) == {BACK, Path("/d/seed.iso")}, "what it lies on is told by its own header"


def test_the_rest_of_a_disk_stays_as_it_is() -> None:
    element = disk_element(DOMAIN, FileDisk("vda", DISK, "raw"))
    assert element is not None
    driver = ET.fromstring(element).find("driver")
    assert driver is not None
    assert driver.attrib == {"name": "qemu", "type": "raw", "cache": "none"}
    assert disk_element(DOMAIN, FileDisk("vdz", DISK, "raw")) is None
