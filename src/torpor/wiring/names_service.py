"""`torpor names serve`: names for networks of a cloud, with nothing else of Torpor in use. Needs openstacksdk."""

from collections.abc import Callable
from dataclasses import dataclass

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.named_ports import NeutronPorts
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.config import Config
from torpor.engine.follow_names import NameFollower
from torpor.wiring import around, names


@dataclass(frozen=True, slots=True)
class NamesService:
    follower: NameFollower
    stop: Callable[[], None]
    """End the name server that is its own."""


def build(config: Config) -> NamesService:
    """Opens nothing of the cloud yet. Raises MissingPart."""
    config = config.model_copy(update={"backend": "openstack"})  # its name server is not at a gateway of ours
    around.prepare(config)
    cloud = Cloud(OpenStackSettings(config.openstack.cloud, networks=config.names.networks))
    published = names.bind(config)
    return NamesService(NameFollower(NeutronPorts(cloud), published.names, around.WallClock()), published.stop)
