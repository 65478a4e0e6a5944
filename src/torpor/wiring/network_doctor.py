"""`torpor doctor network`: needs an account of the cloud, and nothing else of Torpor. Needs openstacksdk."""

from collections.abc import Iterator
from contextlib import contextmanager

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.network_pictures import NeutronPictures
from torpor.adapters.openstack.outlook import NeutronOutlook
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.config import Config
from torpor.domain.errors import BackendFailed
from torpor.engine.network_doctor import Here, ServedNames
from torpor.lock import holder, locked
from torpor.ports import NamedPorts, NetworkPictures
from torpor.wiring import around, names, names_service, network_dhcp


def build(cloud: str) -> NetworkPictures:
    """`cloud`: the entry of clouds.yaml. Opens nothing yet."""
    return NeutronPictures(Cloud(OpenStackSettings(cloud)))


def here(config: Config, cloud: str, host: str, probe: bool) -> Here:
    """`host`: what the Neutron agent on this machine calls it; `probe`: whether a port of our own may be made for a
    look. Opens nothing yet."""

    def serve_dhcp(network: str) -> None:
        with locked(network_dhcp.folder(config, network)):
            follower = network_dhcp.build(config, cloud, network, host)
            if not follower.round():
                raise BackendFailed("DHCP could not be served", detail=follower.failure)

    outlook = NeutronOutlook(Cloud(OpenStackSettings(cloud)), host, probe)
    return Here(outlook, serve_dhcp, around.WallClock())


def served(config: Config) -> ServedNames | None:
    """The names that `torpor names serve` serves with this configuration; None where it names no networks."""
    return serving(config, names_service.ports(config)) if config.names.networks else None


def serving(config: Config, ports: NamedPorts) -> ServedNames:
    """Those of these ports. Opens nothing yet."""
    config = names_service.on_its_own(config)
    return ServedNames(
        zone=config.network.zone,
        ports=ports,
        names=lambda: names.bind(config).names,
        servers=names.asked(config),
        clock=around.WallClock(),
        look_seconds=config.names.look_seconds,
        holder=lambda: holder(config.state_dir),
        alone=lambda: _alone(config),
    )


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    with locked(config.state_dir):
        around.prepare(config)
        yield
