"""The file that says how to reach the lab, as openstacksdk, the openstack command and Torpor read it."""

import openstack
from keystoneauth1.exceptions import ClientException
from lab.openstack.services import KEYSTONE
from lab.openstack.settings import PASSWORD, REGION, Lab
from openstack.connection import Connection
from openstack.exceptions import SDKException
from openstack.identity.v3._proxy import Proxy as Identity

API_FAILURES = (SDKException, ClientException)
"""What openstacksdk raises of its own, and what it lets through of the library that it logs in with."""
ADMIN = "lab-admin"
SERVICE_ACCOUNT = "lab-torpor"
ORDINARY = ("lab-demo", "lab-demo2")


def write_clouds(lab: Lab) -> None:
    """One cloud an account: the administrator, Torpor's service account, and two ordinary projects."""
    accounts = {ADMIN: "admin", SERVICE_ACCOUNT: "torpor", ORDINARY[0]: "demo", ORDINARY[1]: "demo2"}
    text = "clouds:\n" + "".join(_cloud(lab, cloud, account) for cloud, account in accounts.items())
    for file in (lab.clouds, lab.inside("etc/openstack/clouds.yaml")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o600)


def connect(lab: Lab, cloud: str) -> Connection:
    """One of the clouds of the file."""
    config = openstack.config.OpenStackConfig(config_files=[str(lab.clouds)], load_envvars=False)
    return Connection(config=config.get_one(cloud))


def identity_of(cloud: Connection) -> Identity:
    """Its Keystone, which speaks version 3."""
    assert isinstance(cloud.identity, Identity)
    return cloud.identity


def _cloud(lab: Lab, cloud: str, account: str) -> str:
    return f"""\
  {cloud}:
    auth:
      auth_url: {lab.endpoint(KEYSTONE, "/v3")}
      username: {account}
      password: {PASSWORD}
      project_name: {account}
      user_domain_name: Default
      project_domain_name: Default
    region_name: {REGION}
    identity_api_version: "3"
"""
