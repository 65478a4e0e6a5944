"""What a guest is told at its boot, as the files of OpenStack's config drive.

The format is Nova's (https://docs.openstack.org/nova/latest/user/metadata.html): cloud-init
reads it from a read-only disk with the label `config-2`. The address is static, for there is no DHCP.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Network

from torpor.domain.instance import InstanceSpec, NetworkConfig

VOLUME_LABEL = "config-2"
"""The label by which guests find the drive."""

VERSIONS = ("2018-08-27", "latest")
"""Folders with the same content: a dated one is what cloud-init prefers, `latest` is what simple guests read."""

_LINK = "nic0"


def config_drive_files(spec: InstanceSpec) -> dict[str, bytes]:
    """Content of every file of the drive, by path relative to its root."""
    files = {
        "meta_data.json": _json(_meta_data(spec)),
        "network_data.json": _json(_network_data(spec.mac, spec.network)),
    }
    if spec.user_data is not None:
        files["user_data"] = spec.user_data.encode()
    return {f"openstack/{version}/{name}": data for version in VERSIONS for name, data in files.items()}


def _meta_data(spec: InstanceSpec) -> Mapping[str, object]:
    """`hostname` is the bare name: the zone reaches the guest as its search domain."""
    meta: dict[str, object] = {
        "uuid": spec.id,
        "name": spec.name,
        "hostname": spec.name,
        "launch_index": 0,
        "meta": dict(spec.meta),
    }
    if spec.ssh_keys:
        meta["public_keys"] = {f"key-{i}": key.strip() for i, key in enumerate(spec.ssh_keys)}
        meta["keys"] = [{"name": f"key-{i}", "type": "ssh", "data": key.strip()} for i, key in enumerate(spec.ssh_keys)]
    return meta


def _network_data(mac: str, network: NetworkConfig) -> Mapping[str, object]:
    """One link and one static IPv4 network on it, with a default route by the gateway.

    `dns_search` is not part of Nova's schema; cloud-init takes it over all the same, and others ignore it.
    """
    services = [{"type": "dns", "address": address} for address in network.dns]
    ipv4: dict[str, object] = {
        "id": "network0",
        "type": "ipv4",
        "link": _LINK,
        "ip_address": network.address,
        "netmask": str(IPv4Network((0, network.prefix)).netmask),
        "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": network.gateway}],
        "services": services,
    }
    if network.zone:
        ipv4["dns_search"] = [network.zone]
    return {
        "links": [{"id": _LINK, "type": "phy", "ethernet_mac_address": mac, "mtu": 1500}],
        "networks": [ipv4],
        "services": services,
    }


def _json(value: Mapping[str, object]) -> bytes:
    """One key a line, so that a guest without a JSON parser can pick values out."""
    return (json.dumps(value, indent=1) + "\n").encode()
