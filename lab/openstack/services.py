"""The services of the lab: one list, in the order in which they are started."""

from collections.abc import Mapping
from dataclasses import dataclass, field

KEYSTONE, NEUTRON, PLACEMENT, NOVA, GLANCE = 5000, 9696, 8778, 8774, 9292
"""Ports of the APIs."""


@dataclass(frozen=True)
class Listens:
    """Ready when it listens on this TCP port."""

    port: int


@dataclass(frozen=True)
class Socket:
    """Ready when this socket is there."""

    path: str


@dataclass(frozen=True)
class Reports:
    """Ready when Nova (`compute`) or Neutron (`network`) has heard of the program since it was started."""

    to: str
    program: str


@dataclass(frozen=True)
class Service:
    """What runs under this name, and how it is known to be ready."""

    name: str
    command: tuple[str, ...]
    ready: Listens | Socket | Reports
    environment: Mapping[str, str] = field(default_factory=dict)


def _wsgi(name: str, port: int, script: str) -> Service:
    # Without `Connection: close` clients that keep connections see resets, and call Keystone unavailable.
    options = (
        "--plugins python3 --need-app --lazy-apps --enable-threads --threads 8 --processes 1 --buffer-size 65535 "
        "--die-on-term --listen 100 --disable-logging --add-header Connection:close"
    )
    command = ("uwsgi", *options.split(), "--http-socket", f"0.0.0.0:{port}", "--wsgi-file", f"/usr/bin/{script}")
    return Service(name, command, Listens(port))


def _nova(name: str, ready: Listens | Reports, *files: str) -> Service:
    settings = (f"--config-file=/etc/nova/{file}.conf" for file in ("nova", *files))
    return Service(name, (name, *settings), ready)


def _neutron(name: str, program: str, ready: Listens | Reports, file: str) -> Service:
    settings = (f"--config-file=/etc/neutron/{file}" for file in ("neutron.conf", file))
    return Service(name, (program, *settings), ready)


STORES = (
    Service("mariadb", ("mariadbd",), Listens(3306)),
    Service("memcached", ("memcached", "-u", "nobody", "-l", "127.0.0.1", "-m", "32", "-t", "1"), Listens(11211)),
    Service("rabbitmq", ("/usr/lib/rabbitmq/bin/rabbitmq-server",), Listens(5672), {"HOME": "/var/lib/rabbitmq"}),
    Service("virtlogd", ("virtlogd",), Socket("/run/libvirt/virtlogd-sock")),
    Service("libvirtd", ("libvirtd",), Socket("/run/libvirt/libvirt-sock")),
)
"""What the others keep their things in, and the hypervisor."""

CONTROL = (
    _wsgi("keystone", KEYSTONE, "keystone-wsgi-public"),
    _wsgi("placement", PLACEMENT, "placement-api"),
    Service("glance", ("glance-api", "--config-file=/etc/glance/glance-api.conf"), Listens(GLANCE)),
    _neutron("neutron-server", "neutron-server", Listens(NEUTRON), "ml2_conf.ini"),
    _nova("nova-api", Listens(NOVA), "databases"),
    _nova("nova-conductor", Reports("compute", "nova-conductor"), "databases"),
    _nova("nova-scheduler", Reports("compute", "nova-scheduler"), "databases"),
)
"""The APIs and what decides."""

AGENTS = (
    _nova("nova-compute", Reports("compute", "nova-compute")),
    _neutron(
        "neutron-linuxbridge",
        "neutron-linuxbridge-agent",
        Reports("network", "neutron-linuxbridge-agent"),
        "linuxbridge_agent.ini",
    ),
    _neutron("neutron-dhcp", "neutron-dhcp-agent", Reports("network", "neutron-dhcp-agent"), "dhcp_agent.ini"),
)
"""What acts on the compute host; they are told what to do by the others."""

SERVICES = (*STORES, *CONTROL, *AGENTS)
KEEPERS = ("mariadb", "rabbitmq")
"""Services that are given the time to close their files when the lab goes down."""
