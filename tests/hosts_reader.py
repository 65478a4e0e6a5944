"""A dnsmasq that is somebody else's: it reads one hosts file, when it starts and on SIGHUP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from torpor.adapters.names.hosts_file import HostsFileNames, HostsFileSettings
from torpor.adapters.names.local_file import LocalFile
from torpor.adapters.names.reload import ByPidFile


@dataclass
class HostsReader:
    folder: Path
    address: str
    port: int
    zone: str
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    @property
    def pid_file(self) -> Path:
        return self.folder / "reader.pid"

    @property
    def reload(self) -> ByPidFile:
        return ByPidFile(self.pid_file, "dnsmasq")

    def settings(self, block: str = "torpor") -> HostsFileSettings:
        return HostsFileSettings(self.zone, block, self.address, self.port)

    def names(self, block: str = "torpor") -> HostsFileNames:
        """A publisher that writes our block into its file, and asks it."""
        return HostsFileNames(self.settings(block), LocalFile(self.hosts, self.reload))

    def start(self) -> None:
        with (self.folder / "reader.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--pid-file={self.pid_file}",
                 "--user=root", "--group=root", "--log-facility=-", "--bind-interfaces", "--local-ttl=0",
                 f"--listen-address={self.address}", f"--port={self.port}", "--no-hosts", "--no-resolv",
                 f"--addn-hosts={self.hosts}", f"--local=/{self.zone}/", "--local=/arpa/"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        give_up = time.monotonic() + 20
        while True:
            try:
                self.ask(self.zone, "A", seconds=0.5)
                return
            except (OSError, dns.exception.Timeout):
                assert time.monotonic() < give_up, (self.folder / "reader.log").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def ask(self, name: str, kind: str, seconds: float = 5) -> list[str]:
        answer = dns.query.udp(dns.message.make_query(name, kind), self.address, port=self.port, timeout=seconds)
        return sorted(str(data) for answers in answer.answer for data in answers)


@contextmanager
def hosts_reader(folder: Path, address: str, port: int, zone: str) -> Iterator[HostsReader]:
    """Running, with a file that holds what others wrote; ended afterwards."""
    reader = HostsReader(folder, address, port, zone)
    reader.hosts.write_text("127.0.0.1\tlocalhost\n# written by people\n192.0.2.9 printer\n")
    try:
        reader.start()
        yield reader
    finally:
        reader.kill()
