"""`torpor doctor network`: needs an account of the cloud, and nothing else of Torpor. Needs openstacksdk."""

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.network_pictures import NeutronPictures
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.ports import NetworkPictures


def build(cloud: str) -> NetworkPictures:
    """`cloud`: the entry of clouds.yaml. Opens nothing yet."""
    return NeutronPictures(Cloud(OpenStackSettings(cloud)))
