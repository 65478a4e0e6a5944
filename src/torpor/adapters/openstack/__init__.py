"""Servers of an OpenStack cloud, through openstacksdk: Nova runs them, Neutron connects them, Placement has the books.

Must never touch a server that Torpor did not make and whose metadata do not say that it may, nor any server of a
project in which Torpor's account has no role. Needs openstacksdk (`torpor[openstack]`); importing this package alone
does not.
"""

from torpor.adapters.openstack.settings import OpenStackSettings

__all__ = ["OpenStackSettings"]
