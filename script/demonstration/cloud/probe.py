"""A place on a tenant's network of the lab, for nothing else leads to its servers: a port, a namespace behind it."""

import ctypes
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lab.openstack.failure import LabFailed
from lab.openstack.namespaces import Cell
from lab.openstack.settings import Lab
from openstack.connection import Connection

from demonstration.failure import DemoFailed

NAME = "torpor-demo"
_PATIENCE = 120.0
_CLONE_NEWNET = 0x40000000
_THREADS = 4


class Probe:
    """Its port is the administrator's, on a network of somebody's. Connections are made from inside; what is then
    said over them needs no namespace."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._cell = Cell(lab)
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def open(self, admin: Connection, network: str) -> None:
        """Converges. Raises DemoFailed."""
        self.close(admin)
        port = admin.network.create_port(
            network_id=network, name=NAME, device_owner="network:probe", device_id=NAME,
            binding_host_id=self._lab.hostname,
        )  # fmt: skip
        subnet = admin.network.get_subnet(port.fixed_ips[0]["subnet_id"])
        address = f"{port.fixed_ips[0]['ip_address']}/{subnet.cidr.rpartition('/')[2]}"
        tap = f"tap{port.id[:11]}"
        for command in (
            f"ip netns add {NAME}",
            f"ip link add {tap} type veth peer name {_inner(port.id)}",
            f"ip link set {_inner(port.id)} address {port.mac_address} netns {NAME}",
            f"ip link set {tap} up",
            f"ip -n {NAME} address add {address} dev {_inner(port.id)}",
            f"ip -n {NAME} link set {_inner(port.id)} up",
            f"ip -n {NAME} link set lo up",
        ):
            self._run(command)
        give_up = time.monotonic() + _PATIENCE
        while not str(json.loads(self._run(f"ip -json link show {tap}"))[0].get("master", "")).startswith("brq"):
            if time.monotonic() > give_up:
                raise DemoFailed(f"Neutron's agent does not connect {tap}: see neutron-linuxbridge.log in the lab")
            time.sleep(0.5)

    def close(self, admin: Connection) -> None:
        """Remove it, whoever made it. Converges."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
        for port in admin.network.ports(name=NAME):
            admin.network.delete_port(port)
        if self._cell.seen("/run/netns", NAME).exists():
            self._run(f"ip netns delete {NAME}")

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        """As socket.create_connection, from inside."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe", initializer=self._enter)
            making = self._pool.submit(socket.create_connection, (address, port), timeout)
        return making.result()

    # --- parts of the above ---

    def _enter(self) -> None:
        """Take this thread into the namespace: sockets stay in that in which they were made."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(self._cell.seen("/run/netns", NAME), os.O_RDONLY)
        try:
            if libc.setns(handle, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the probe's namespace can't be entered")
        finally:
            os.close(handle)

    def _run(self, command: str) -> str:
        try:
            return self._cell.run(*command.split())
        except LabFailed as error:
            raise DemoFailed(f"the probe was not made: {' '.join(str(error).split())}") from error


def _inner(port: str) -> str:
    return f"prb{port[:11]}"
