"""Somebody who has VMs of their own under the same libvirtd, and does with them as they like, by virsh."""

import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from private_libvirtd import LibvirtHost
from torpor.domain.adoption import Mark
from torpor.domain.ids import InstanceId
from torpor.domain.workload import Flavor

NAMESPACE = "urn:torpor:domain:1"
_BARE = """
<domain type='qemu'>
  <name>{name}</name><uuid>{id}</uuid>
  <memory unit='MiB'>{memory}</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <devices><controller type='usb' model='none'/>{devices}<memballoon model='none'/></devices>
</domain>
"""


class VirshOwner:
    """VMs without an operating system, so that they cost next to nothing."""

    def __init__(self, daemon: LibvirtHost) -> None:
        self.daemon = daemon
        self._names: dict[InstanceId, str] = {}

    def define(
        self, name: str, flavor: Flavor, mark: Mark | None = None, devices: str = "", command: str = "define"
    ) -> InstanceId:
        """A VM that is shut off; `command` "create" makes a transient one, which runs."""
        id = InstanceId(str(uuid.uuid4()))
        xml = _BARE.format(name=name, id=id, memory=flavor.memory_mb, vcpus=flavor.vcpus, devices=devices)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "domain.xml"
            file.write_text(xml)
            self.daemon.virsh(command, str(file))
        self._names[id] = name
        if mark is not None:
            yes = {True: "yes", False: "no"}
            self.write(
                id,
                f"<workload name='{mark.workload}' priority='{mark.priority}' preemptible='{yes[mark.preemptible]}' "
                f"protect='{yes[mark.protect]}'/>",
            )
        return id

    def write(self, instance: InstanceId, element: str, *flags: str, namespace: str = NAMESPACE) -> None:
        """A mark, or what somebody takes for one."""
        self.daemon.virsh("metadata", instance, namespace, "--key", "torpor", "--set", element, *flags)

    def description(self, instance: InstanceId) -> Sequence[str]:
        """All that libvirt says of it."""
        asked = (("dumpxml",), ("dumpxml", "--inactive"), ("domstate", "--reason"), ("dominfo",))
        said = [self.daemon.virsh(*words, instance) for words in asked]
        return [line for text in said for line in text.splitlines() if not line.startswith("CPU time:")]

    def start(self, instance: InstanceId) -> None:
        self.daemon.virsh("start", self._names[instance])

    def pause(self, instance: InstanceId) -> None:
        self.daemon.virsh("suspend", instance)

    def save(self, instance: InstanceId) -> None:
        self.daemon.virsh("managedsave", instance)

    def shut_down(self, instance: InstanceId) -> None:
        self.daemon.virsh("destroy", instance)

    def undefine(self, instance: InstanceId) -> None:
        if instance in self.daemon.virsh("list", "--uuid").split():
            self.daemon.virsh("destroy", instance)
        if instance in self.daemon.virsh("list", "--all", "--uuid").split():
            self.daemon.virsh("undefine", "--managed-save", instance)
        del self._names[instance]

    def undefine_all(self) -> None:
        for instance in tuple(self._names):
            self.undefine(instance)
