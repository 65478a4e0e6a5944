"""Domains as XML: what is written can be read back, and marks that people write are understood or explained."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from torpor.adapters.libvirt.domain_xml import NAMESPACE, NewDomain, described, domain_xml, mark_element, tag_in
from torpor.domain.adoption import Mark
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor
from torpor.ports import Disk, Kernel

ID = InstanceId("12345678-1234-4234-8234-123456789abc")
SPEC = InstanceSpec(
    ID,
    "vm-1",
    "tiny",
    Flavor(2, 768, 2048),
    "52:54:00:12:34:56",
    NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "test.internal"),
)
KERNEL = Kernel(Path("/images/vmlinuz"), Path("/images/initrd"), "console=ttyS0 a=<b>")
DISK = Disk(Path("/images/disk.qcow2"), "qcow2", 1 << 30)


def written(boot: Kernel | Disk = KERNEL, kvm: bool = False, network: str | None = "torpor") -> str:
    return domain_xml(
        NewDomain(
            spec=SPEC,
            workload="batch",
            type="kvm" if kvm else "qemu",
            boot=boot,
            disk=Path("/i/disk.qcow2") if isinstance(boot, Disk) else None,
            seed=Path("/i/seed.iso"),
            console_log=Path("/i/console.log"),
            network=network,
            tb_size_mb=32,
        )
    )


def test_what_is_written_describes_the_instance() -> None:
    seen = described(written(DISK))
    assert (seen.id, seen.name, seen.vcpus, seen.memory_mb) == (ID, "vm-1", 2, 768)
    assert (seen.mac, seen.network) == (SPEC.mac, "torpor")
    assert [(d.target, d.path, d.format, d.writable) for d in seen.disks] == [
        ("vda", Path("/i/disk.qcow2"), "qcow2", True),
        ("vdb", Path("/i/seed.iso"), "raw", False),
    ]


def test_a_domain_of_torpors_making_says_so() -> None:
    tag = tag_in(written())
    assert tag.made
    assert tag.mark == Mark("batch")


def test_a_kernel_is_booted_directly_and_its_command_line_survives() -> None:
    system = ET.fromstring(written()).find("os")
    assert system is not None
    assert system.findtext("cmdline") == KERNEL.cmdline
    assert ET.fromstring(written(DISK)).find("os/kernel") is None


def test_the_accelerator_decides_on_cpu_and_translation_cache() -> None:
    tcg, kvm = ET.fromstring(written()), ET.fromstring(written(kvm=True))
    assert (tcg.get("type"), kvm.get("type")) == ("qemu", "kvm")
    assert tcg.findtext("features/tcg/tb-cache") == "32"
    assert kvm.find("features/tcg") is None
    assert [domain.find("cpu[@mode]") is not None for domain in (tcg, kvm)] == [True, True]


def test_without_a_network_there_is_no_nic() -> None:
    assert described(written(network=None)).mac == ""


@pytest.mark.parametrize(
    "mark", [Mark("batch"), Mark("a-b", -3, preemptible=True), Mark("web", 100, preemptible=False, protect=True)]
)
def test_a_mark_reads_as_it_was_written_with_and_without_namespace(mark: Mark) -> None:
    element = mark_element(mark)
    assert tag_in(element).mark == mark
    inside = element.replace("<workload", f'<t:workload xmlns:t="{NAMESPACE}"')
    tag = tag_in(f"<domain><metadata><x xmlns='urn:other'/>{inside}</metadata></domain>")
    assert (tag.mark, tag.made, tag.defect) == (mark, False, "")


@pytest.mark.parametrize(
    ("element", "defect"),
    [
        ("<workload/>", "not a hostname label"),
        ('<workload name="Not A Label"/>', "not a hostname label"),
        ('<workload name="w" priority="high"/>', "not a whole number"),
        ('<workload name="w" preemptible="true"/>', "preemptible is 'true', not yes or no"),
        ('<job name="w"/>', "<job>, not <workload>"),
        ("<workload", "can't be read"),
    ],
)
def test_a_mark_that_can_not_be_understood_is_explained_and_does_not_count(element: str, defect: str) -> None:
    tag = tag_in(element)
    assert tag.mark is None
    assert defect in tag.defect


def test_what_is_left_out_of_a_mark_has_a_default() -> None:
    assert tag_in('<workload name="w"/>').mark == Mark("w", 0, preemptible=False, protect=False)


def test_a_domain_without_a_mark_has_none_and_no_defect() -> None:
    tag = tag_in("<domain><metadata><workload name='w'/></metadata></domain>")
    assert (tag.mark, tag.defect) == (None, "")


def test_a_domain_of_others_is_read_as_libvirt_writes_it() -> None:
    seen = described(
        f"""<domain><name>old box</name><uuid>{ID}</uuid><memory unit='KiB'>2097153</memory>
        <currentMemory unit='KiB'>1048576</currentMemory><vcpu current='1'>4</vcpu>
        <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
        <devices><emulator>/usr/bin/kvm</emulator>
        <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/x'/><target dev='sda'/></disk>
        <disk type='network' device='disk'><source protocol='rbd' name='p/x'/><target dev='sdb'/></disk>
        <disk type='file' device='cdrom'><target dev='sdc'/><readonly/></disk>
        <interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/></interface>
        </devices></domain>"""
    )
    assert (seen.vcpus, seen.memory_mb, seen.machine, seen.emulator) == (1, 2049, "pc-q35-7.2", "/usr/bin/kvm")
    assert (seen.mac, seen.network, seen.bridge) == ("52:54:00:aa:bb:cc", "", "br0")
    assert [(d.path, d.writable) for d in seen.disks] == [(Path("/dev/vg/x"), True), (None, True), (None, False)]


def test_what_is_no_description_is_said_to_be_unreadable() -> None:
    for text in ("", "<domain", "<domain><memory unit='acre'>1</memory></domain>"):
        with pytest.raises(BackendFailed, match="can't be read"):
            described(text)
