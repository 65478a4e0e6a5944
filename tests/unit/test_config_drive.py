"""The config drive says to a guest what OpenStack's would."""

import json
from dataclasses import replace
from typing import Any

from torpor.domain.config_drive import config_drive_files
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor

SPEC = InstanceSpec(
    id=InstanceId("d7b0b1de-35a2-4b4a-9b3e-1f6b0d6f1a10"),
    name="batch-1",
    image="tiny",
    flavor=Flavor(vcpus=1, memory_mb=128),
    mac="52:54:00:0a:66:02",
    network=NetworkConfig("10.91.1.7", 22, "10.91.0.1", ("10.91.0.1", "10.91.0.2"), "torpor.internal"),
)


def read(spec: InstanceSpec, name: str) -> Any:
    return json.loads(config_drive_files(spec)[f"openstack/latest/{name}"])


def test_both_versions_say_the_same() -> None:
    files = config_drive_files(replace(SPEC, user_data="#!/bin/sh\n"))
    latest = {path.removeprefix("openstack/latest/"): data for path, data in files.items() if "/latest/" in path}
    dated = {path.removeprefix("openstack/2018-08-27/"): data for path, data in files.items() if "/2018" in path}
    assert latest == dated
    assert sorted(latest) == ["meta_data.json", "network_data.json", "user_data"]


def test_identity_is_the_instances_own() -> None:
    meta = read(replace(SPEC, meta=(("workload", "batch"), ("role", "worker"))), "meta_data.json")
    assert meta["uuid"] == SPEC.id
    assert meta["name"] == meta["hostname"] == "batch-1"
    assert meta["meta"] == {"workload": "batch", "role": "worker"}
    assert "public_keys" not in meta


def test_every_ssh_key_is_handed_over_under_a_name_of_its_own() -> None:
    meta = read(replace(SPEC, ssh_keys=("ssh-ed25519 AAAA one\n", "ssh-rsa BBBB two")), "meta_data.json")
    assert sorted(meta["public_keys"].values()) == ["ssh-ed25519 AAAA one", "ssh-rsa BBBB two"]
    assert [key["data"] for key in meta["keys"]] == ["ssh-ed25519 AAAA one", "ssh-rsa BBBB two"]


def test_address_is_static_and_bound_to_the_link_with_the_instances_mac() -> None:
    data = read(SPEC, "network_data.json")
    [link], [network] = data["links"], data["networks"]
    assert link["ethernet_mac_address"] == SPEC.mac
    assert network["link"] == link["id"]
    assert (network["type"], network["ip_address"], network["netmask"]) == ("ipv4", "10.91.1.7", "255.255.252.0")
    assert network["routes"] == [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.91.0.1"}]


def test_name_servers_and_search_domain_are_told() -> None:
    data = read(SPEC, "network_data.json")
    servers = [{"type": "dns", "address": "10.91.0.1"}, {"type": "dns", "address": "10.91.0.2"}]
    assert data["services"] == data["networks"][0]["services"] == servers
    assert data["networks"][0]["dns_search"] == ["torpor.internal"]


def test_user_data_is_passed_on_byte_for_byte() -> None:
    text = "#!/bin/sh\necho 'grüße' \\n\n"
    assert config_drive_files(replace(SPEC, user_data=text))["openstack/latest/user_data"] == text.encode()
    assert "openstack/latest/user_data" not in config_drive_files(SPEC)
