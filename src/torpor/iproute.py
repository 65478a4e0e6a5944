"""Running iproute2 and nftables, and reading what they list."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from torpor.domain.errors import BackendFailed, MissingPart

_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Link:
    """An interface, as `ip -details link` shows it."""

    name: str
    kind: str
    index: int
    peer_index: int | None
    owner: str | None
    """Of a tap: name or number of the user who may open it."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the host other than its default route."""

    destination: IPv4Network
    device: str
    connected: bool
    """The network is on the device itself, not behind a router."""


def parse_links(listing: str) -> Mapping[str, Link]:
    """Interfaces by name, from the output of `ip -json -details link show`."""
    links = {}
    for entry in _entries(listing):
        info = entry.get("linkinfo", {})
        owner = info.get("info_data", {}).get("user")
        links[entry["ifname"]] = Link(
            entry["ifname"], info.get("info_kind", ""), entry["ifindex"], entry.get("link_index"),
            None if owner is None else str(owner),
        )  # fmt: skip
    return links


def parse_routes(listing: str) -> Sequence[Route]:
    """Routes but the default one, from the output of `ip -json -4 route show`."""
    return tuple(
        Route(IPv4Network(entry["dst"], strict=False), entry.get("dev", ""), "gateway" not in entry and "dev" in entry)
        for entry in _entries(listing)
        if entry["dst"] not in ("default", "0.0.0.0/0") and "nexthops" not in entry
    )


def parse_addresses(listing: str) -> set[str]:
    """IPv4 addresses with prefix lengths, from the output of `ip -json -4 addr show`."""
    return {
        f"{info['local']}/{info['prefixlen']}" for entry in _entries(listing) for info in entry.get("addr_info", ())
    }


def _entries(listing: str) -> Sequence[dict[str, Any]]:
    """iproute2 prints nothing for an empty list, and an empty object for what its filter left out."""
    return [entry for entry in json.loads(listing or "[]") if entry]


def run(argv: list[str], stdin: str = "") -> str:
    """Run a program; its standard output. Raises MissingPart, BackendFailed."""
    what = f"`{' '.join(argv)}` failed"
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except FileNotFoundError as error:
        package = {"ip": "iproute2", "nft": "nftables"}.get(argv[0], argv[0])
        raise MissingPart(f"there is no program {argv[0]!r}", remedy=f"install {package}") from error
    except subprocess.TimeoutExpired as error:
        raise BackendFailed(what, detail=f"no answer within {_TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode != 0:
        detail = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        if os.geteuid() != 0:
            raise MissingPart(what, detail=detail, remedy="start the daemon as root")
        raise BackendFailed(what, detail=detail)
    return done.stdout
