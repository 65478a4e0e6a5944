"""`torpor names serve`: names for networks of a cloud, with nothing else of Torpor in use. Needs openstacksdk."""

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.named_ports import NeutronPorts
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.config import Config
from torpor.engine.follow_names import NameFollower
from torpor.ports import NamedPorts
from torpor.wiring import around, names


def build(config: Config) -> NameFollower:
    """Opens nothing of the cloud yet. Raises MissingPart."""
    config = on_its_own(config)
    around.prepare(config)
    published = names.bind(config)
    return NameFollower(ports(config), published.names, around.WallClock(), published.stop)


def on_its_own(config: Config) -> Config:
    """The same, with its name server where the service has it: not at a gateway of ours."""
    return config.model_copy(update={"backend": "openstack"})


def ports(config: Config) -> NamedPorts:
    """Those of `names.networks`. Opens nothing yet."""
    return NeutronPorts(Cloud(OpenStackSettings(config.openstack.cloud, networks=config.names.networks)))
