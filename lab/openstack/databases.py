"""The databases of the services, and Keystone's first account: made once, with the services' own tools."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from lab.openstack.namespaces import Cell
from lab.openstack.services import KEYSTONE
from lab.openstack.settings import PASSWORD, REGION, Lab

_NAMES = ("keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron")
_ACCOUNTS = ("lab@localhost", "lab@127.0.0.1")
_NOVA = ("nova-manage", "--config-file=/etc/nova/nova.conf", "--config-file=/etc/nova/databases.conf")
_NEUTRON = ("neutron-db-manage", "--config-file=/etc/neutron/neutron.conf", "--config-file=/etc/neutron/ml2_conf.ini")
_AS_ROOT = ("--keystone-user=root", "--keystone-group=root")


def make_databases(cell: Cell, lab: Lab) -> None:
    """Harmless where they are there already. Raises LabFailed."""
    statements = [f"CREATE DATABASE IF NOT EXISTS {name};" for name in _NAMES]
    for account in _ACCOUNTS:
        statements.append(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{PASSWORD}';")
        statements.append(f"GRANT ALL ON *.* TO {account};")
    cell.run("mariadb", "--user=root", given="\n".join(statements))
    with ThreadPoolExecutor() as pool:
        for making in [pool.submit(_run_all, cell, commands) for commands in (_identity(lab), _nova(cell), _NETWORK)]:
            making.result()


def map_compute_host(cell: Cell) -> None:
    """Tell Nova in which of its cells the compute host is; harmless a second time. Raises LabFailed."""
    cell.run(*_NOVA, "cell_v2", "discover_hosts")


def _run_all(cell: Cell, commands: Iterable[tuple[str, ...]]) -> None:
    for command in commands:
        cell.run(*command)


def _identity(lab: Lab) -> tuple[tuple[str, ...], ...]:
    url = lab.endpoint(KEYSTONE, "/v3/")
    urls = (f"--bootstrap-{interface}-url={url}" for interface in ("admin", "internal", "public"))
    account = (f"--bootstrap-password={PASSWORD}", f"--bootstrap-region-id={REGION}")
    return (
        ("keystone-manage", "db_sync"),
        ("keystone-manage", "fernet_setup", *_AS_ROOT),
        ("keystone-manage", "credential_setup", *_AS_ROOT),
        ("keystone-manage", "bootstrap", *account, *urls),
        ("placement-manage", "db", "sync"),
        ("glance-manage", "db_sync"),
    )


def _nova(cell: Cell) -> Iterable[tuple[str, ...]]:
    yield (*_NOVA, "api_db", "sync")
    yield (*_NOVA, "cell_v2", "map_cell0")
    yield (*_NOVA, "db", "sync")
    if " cell1 " not in cell.run(*_NOVA, "cell_v2", "list_cells"):
        yield (*_NOVA, "cell_v2", "create_cell", "--name=cell1")


_NETWORK = ((*_NEUTRON, "upgrade", "heads"),)
