"""Who answers for an IPv4 address on an Ethernet: one ARP request, and the answers to it.

Asked on a packet socket rather than through the host's neighbour table, for there an older
answer, a full table or another process's question can't be told from the answer.
"""

import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from torpor.domain.errors import BackendFailed, MissingPart

_ETHERTYPE_ARP = 0x0806
_ETHERNET, _IPV4, _REQUEST, _REPLY = 1, 0x0800, 1, 2
_HEADER = struct.Struct("!6s6sHHHBBH6s4s6s4s")
"""Ethernet: destination, source, type. ARP: hardware, protocol, their lengths, operation, sender, target."""
_BROADCAST = b"\xff" * 6


@dataclass(frozen=True, slots=True)
class Reply:
    mac: str
    address: str


def request(source_mac: bytes, source: IPv4Address, wanted: IPv4Address) -> bytes:
    """The frame that asks who has `wanted`."""
    return _HEADER.pack(
        _BROADCAST, source_mac, _ETHERTYPE_ARP, _ETHERNET, _IPV4, 6, 4, _REQUEST,
        source_mac, source.packed, b"\0" * 6, wanted.packed,
    )  # fmt: skip


def parse_reply(frame: bytes) -> Reply | None:
    """Who says so in an ARP reply; None for any other frame."""
    if len(frame) < _HEADER.size:
        return None
    _, _, kind, hardware, protocol, _, _, operation, mac, address, _, _ = _HEADER.unpack_from(frame)
    if (kind, hardware, protocol, operation) != (_ETHERTYPE_ARP, _ETHERNET, _IPV4, _REPLY):
        return None
    return Reply(mac.hex(":"), str(IPv4Address(address)))


def has_address(interface: str, source: str, mac: str, address: str, timeout: float, tries: int = 3) -> bool:
    """Whether `mac` says within `timeout` seconds that it has `address`. Others' claims are not counted.

    Raises MissingPart without root, BackendFailed when the interface is not there or is down.
    """
    wanted, asker = IPv4Address(address), IPv4Address(source)
    what = f"interface {interface!r} can't be asked for {address}"
    try:
        own_mac = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_ARP)) as packets:
            packets.bind((interface, _ETHERTYPE_ARP))
            for _ in range(tries):
                packets.send(request(own_mac, asker, wanted))
                if _heard(packets, Reply(mac.lower(), str(wanted)), timeout / tries):
                    return True
    except PermissionError as error:
        raise MissingPart(what, detail="not permitted", remedy="start the daemon as root") from error
    except OSError as error:
        raise BackendFailed(what, detail=error.strerror or str(error), remedy="see `torpor doctor`") from error
    return False


def _heard(packets: socket.socket, reply: Reply, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        packets.settimeout(left)
        try:
            frame = packets.recv(2048)
        except TimeoutError:
            return False
        if parse_reply(frame) == reply:
            return True
    return False
