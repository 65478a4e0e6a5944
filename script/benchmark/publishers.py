"""Each place where names are published, with thousands of names in it as an earlier daemon would have left them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tests.hosts_reader import hosts_reader
from tests.named import named

from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.hosts_block import line_of, render
from torpor.adapters.names.hosts_directory import render as hosts_file
from torpor.adapters.names.process import DnsmasqSettings
from torpor.adapters.names.rfc2136 import Rfc2136Names, Rfc2136Settings
from torpor.domain.naming import NameRecord
from torpor.ports import Names

ZONE, REVERSE = "bench.internal", "96.10.in-addr.arpa"
SUBNET = IPv4Network("10.96.0.0/16")


@dataclass(frozen=True)
class Published:
    names: Names
    server: str
    port: int


def _left_behind(folder: Path, crowd: Sequence[NameRecord]) -> Path:
    folder.mkdir(parents=True)
    for record in crowd:
        (folder / record.name).write_text(hosts_file(record, ZONE))
    return folder


@contextmanager
def dnsmasq(folder: Path, crowd: Sequence[NameRecord]) -> Iterator[Published]:
    server, port = "127.0.0.53", 5353
    _left_behind(folder / "names" / "hosts", crowd)
    names = DnsmasqNames(DnsmasqSettings(folder / "names", server, ZONE, SUBNET, port=port))
    try:
        yield Published(names, server, port)
    finally:
        names.stop()


@contextmanager
def hosts_block(folder: Path, crowd: Sequence[NameRecord]) -> Iterator[Published]:
    with hosts_reader(folder, "127.0.0.53", 5354, ZONE) as reader:
        with reader.hosts.open("a") as file:
            file.write(render("torpor", (line_of(record, ZONE) for record in crowd)))
        yield Published(reader.names(), reader.address, reader.port)


@contextmanager
def updates(folder: Path, crowd: Sequence[NameRecord]) -> Iterator[Published]:
    with named(5355, [ZONE, REVERSE]) as server:
        server.kill()
        mark = 'TXT "torpor owner=bench"\n'
        with (
            (server.folder / f"{ZONE}.zone").open("a") as forward,
            (server.folder / f"{REVERSE}.zone").open("a") as back,
        ):
            for record in crowd:
                _, _, third, fourth = record.address.split(".")
                forward.write(f"{record.name} 0 A {record.address}\n{record.name} 0 {mark}")
                back.write(f"{fourth}.{third} 0 PTR {record.name}.{ZONE}.\n{fourth}.{third} 0 {mark}")
        server.start()
        directory = _left_behind(folder / "names", crowd)
        names = Rfc2136Names(
            Rfc2136Settings(directory, server.address, ZONE, "bench", server.key_file, (REVERSE,), server.port)
        )
        yield Published(names, server.address, server.port)


Place = Callable[[Path, Sequence[NameRecord]], AbstractContextManager[Published]]
PLACES: dict[str, Place] = {"dnsmasq": dnsmasq, "hosts-file": hosts_block, "rfc2136": updates}


@contextmanager
def filled(place: str, published: int) -> Iterator[Published]:
    """With that many names, all seen to be there."""
    crowd = [NameRecord(f"n-{n}", str(SUBNET[n + 2])) for n in range(published)]
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        Path(folder).chmod(0o755)  # the servers read as users of their own
        with PLACES[place](Path(folder), crowd) as there:
            there.names.ensure()
            there.names.publish(crowd)
            yield there
