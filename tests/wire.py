"""A DHCP server's and a client's place: two network namespaces on one cable."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOLD = """#!/bin/sh
[ "$1" != bound ] || env >"${0%/*}/bound"
"""


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout


class Wire:
    """`eth0` in both; the server's end has the address."""

    def __init__(self, server: str, client: str, address: str, folder: Path) -> None:
        self.server, self.client, self.address = server, client, address
        self._script = folder / "told"
        self._script.write_text(TOLD)
        self._script.chmod(0o755)

    def ask(self, mac: str, *options: str, tries: int = 5) -> dict[str, str]:
        """What a client with this MAC is told, by udhcpc's names (`ip`, `router`, `dns`, ...); nothing where nobody
        answers. It is not given back."""
        ip("-n", self.client, "link", "set", "eth0", "down")
        ip("-n", self.client, "link", "set", "eth0", "address", mac)
        ip("-n", self.client, "link", "set", "eth0", "up")
        bound = self._script.with_name("bound")
        bound.unlink(missing_ok=True)
        subprocess.run(
            ["ip", "netns", "exec", self.client, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f",
             "-t", str(tries), "-T", "1", "-s", self._script, *options],
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        lines = bound.read_text().splitlines() if bound.exists() else []
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def lease(self, mac: str, *options: str) -> str:
        """The address that a client with this MAC gets; "" for none."""
        return self.ask(mac, *options).get("ip", "")


@contextmanager
def wire(server: str, client: str, address: str) -> Iterator[Wire]:
    """`address` with its prefix length."""

    def clean() -> None:
        for namespace in (server, client):
            ip("netns", "del", namespace, check=False)

    clean()
    try:
        ip("netns", "add", server)
        ip("netns", "add", client)
        ip("-n", server, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client)
        ip("-n", server, "addr", "add", address, "dev", "eth0")
        for namespace in (server, client):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", "eth0", "up")
        with tempfile.TemporaryDirectory(prefix="torpor-wire-") as folder:
            yield Wire(server, client, address.partition("/")[0], Path(folder))
    finally:
        clean()
