"""`torpor network dhcp`: leases for a network of a cloud, with nothing else of Torpor in use. Needs openstacksdk."""

from pathlib import Path

from torpor.adapters.names.leases import DhcpSettings, DnsmasqLeases
from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.dhcp_network import NeutronDhcpNetwork
from torpor.adapters.openstack.networks import Networks
from torpor.adapters.openstack.plug import INTERFACE
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.config import Config
from torpor.engine.serve_dhcp import LeaseFollower
from torpor.wiring import around


def find(cloud: str, network: str) -> str:
    """The network's id. Raises NotFound, Invalid, MissingPart, BackendFailed."""
    return Networks(Cloud(OpenStackSettings(cloud))).find("", [network])[0]


def folder(config: Config, network: str) -> Path:
    """What is kept of one network's service; `network` is an id."""
    return config.state_dir / "network-dhcp" / network


def build(config: Config, cloud: str, network: str, host: str) -> LeaseFollower:
    """`network`: its id; `host`: what the Neutron agent on this machine calls it. Opens nothing of the cloud yet.

    Raises MissingPart.
    """
    around.prepare(config)
    served = NeutronDhcpNetwork(Cloud(OpenStackSettings(cloud, networks=(network,))), host, config.network.zone)
    settings = DhcpSettings(
        folder(config, network), INTERFACE, served.namespace, hosts=config.state_dir / "names" / "hosts"
    )
    return LeaseFollower(served, DnsmasqLeases(settings), around.WallClock())
