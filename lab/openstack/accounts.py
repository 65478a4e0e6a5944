"""Projects, users, roles and the catalogue: what Keystone is told before the other services can work."""

from lab.openstack.clouds import identity_of
from lab.openstack.services import GLANCE, NEUTRON, NOVA, PLACEMENT
from lab.openstack.settings import PASSWORD, REGION, Lab
from openstack.connection import Connection

_SERVICES = (
    ("compute", "nova", NOVA, "/v2.1"),
    ("placement", "placement", PLACEMENT, ""),
    ("image", "glance", GLANCE, ""),
    ("network", "neutron", NEUTRON, ""),
)
_INTERFACES = ("public", "internal", "admin")
_ACCOUNTS = (
    *((name, "service", ("admin", "service")) for name in ("nova", "neutron", "glance", "placement")),
    ("torpor", "torpor", ("member", "torpor")),
    ("demo", "demo", ("member",)),
    ("demo2", "demo2", ("member",)),
    ("torpor", "demo", ("member", "torpor")),
)
"""User, project and roles. Torpor's service account has a project of its own, so that its locks are not the owners'.
`demo` has let it in, `demo2` has not. What the role `torpor` may do, the policies in etc say."""


def make_accounts(cloud: Connection, lab: Lab) -> None:
    """Harmless where they are there already."""
    identity = identity_of(cloud)
    domain = identity.find_domain("Default", ignore_missing=False).id
    for user, project, roles in _ACCOUNTS:
        its = identity.find_project(project) or identity.create_project(name=project, domain_id=domain)
        known = identity.find_user(user) or identity.create_user(
            name=user, password=PASSWORD, domain_id=domain, default_project_id=its.id
        )
        for role in roles:
            identity.assign_project_role_to_user(
                its, known, identity.find_role(role) or identity.create_role(name=role)
            )
    for kind, name, port, path in _SERVICES:
        service = identity.find_service(name) or identity.create_service(name=name, type=kind)
        there = {endpoint.interface for endpoint in identity.endpoints(service_id=service.id)}
        for interface in set(_INTERFACES) - there:
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=lab.endpoint(port, path), region_id=REGION
            )
