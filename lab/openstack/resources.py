"""What is there to use: flavors, the test guest's image, and two networks an ordinary project."""

from typing import Any

from lab.openstack.settings import Lab
from openstack.connection import Connection

IMAGE = "tiny"
FLAVORS = (("g256", 256), ("g1g", 1024))
"""Name and memory in MB; each has one vCPU, and 1 GB of disk."""
NETWORKS = (("n1", "10.10.0.0/24", False), ("n2", "10.20.0.0/24", True))
"""Name, subnet, and whether it has DHCP."""
_PROPERTIES = {"hw_qemu_guest_agent": "yes", "hw_rng_model": "virtio", "os_shutdown_timeout": "10"}
_ALLOWED = ("icmp", "tcp")


def make_flavors(admin: Connection) -> None:
    for name, memory_mb in FLAVORS:
        if not admin.compute.find_flavor(name):
            admin.compute.create_flavor(name=name, ram=memory_mb, vcpus=1, disk=1)


def make_image(admin: Connection, lab: Lab) -> None:
    """The test guest: a disk that it has no use for, and the kernel and initramfs that are all of it."""
    if admin.image.find_image(IMAGE):
        return
    parts = {"kernel_id": ("aki", "vmlinuz"), "ramdisk_id": ("ari", "initrd")}
    ids = {key: _image(admin, lab, f"{IMAGE}-{file}", form, form, file) for key, (form, file) in parts.items()}
    line = (lab.guest / "cmdline").read_text().strip()
    _image(admin, lab, IMAGE, "qcow2", "bare", "disk.qcow2", **ids, **_PROPERTIES, os_command_line=line)


def make_networks(project: Connection) -> None:
    """The project's own n1 and n2, and leave for others to ping and connect to its servers."""
    for name, cidr, dhcp in NETWORKS:
        network = project.network.find_network(name) or project.network.create_network(name=name)
        if not project.network.find_subnet(name, network_id=network.id):
            project.network.create_subnet(
                name=name, network_id=network.id, ip_version=4, cidr=cidr, enable_dhcp=dhcp, gateway_ip=None
            )
    group = project.network.find_security_group("default", ignore_missing=False, project_id=project.current_project_id)
    there = {rule["protocol"] for rule in group.security_group_rules if rule["direction"] == "ingress"}
    for protocol in set(_ALLOWED) - there:
        project.network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", ether_type="IPv4", protocol=protocol
        )


def _image(
    admin: Connection, lab: Lab, name: str, disk_format: str, container_format: str, file: str, **properties: Any
) -> str:
    known = admin.image.find_image(name) or admin.image.create_image(
        name,
        filename=str(lab.guest / file),
        disk_format=disk_format,
        container_format=container_format,
        visibility="public",
        wait=True,
        **properties,
    )
    return str(known.id)
