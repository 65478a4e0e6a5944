"""A BIND of a test's own, with its zones and keys in one folder: on a high port of 127.0.0.1.

It listens on addresses that an interface has, and of the loopback network that is the only one.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update

_ZONE = """$TTL 300
@ IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 0
@ IN NS ns.invalid.
"""


class Named:
    """`key_file` lets Torpor transfer and change the zones, `foreign_key` is somebody else's who may as well."""

    def __init__(self, folder: Path, port: int, zones: Sequence[str]) -> None:
        self.folder = folder
        self.address = "127.0.0.1"
        self.port = port
        self.zones = zones
        self.key_file = folder / "torpor.key"
        self.key_file.write_text(_key_text("torpor"))
        self.key_file.chmod(0o600)
        secret = base64.b64encode(os.urandom(32)).decode()
        self.foreign_key = dns.tsig.Key("other", secret, dns.tsig.HMAC_SHA256)
        (folder / "other.key").write_text(f'key "other" {{ algorithm hmac-sha256; secret "{secret}"; }};\n')
        # A copy: where AppArmor is on, it would keep the packaged one from reading this folder.
        self._binary = Path(shutil.copy2(shutil.which("named") or "/usr/sbin/named", folder / "named"))
        self._process: subprocess.Popen[bytes] | None = None
        for zone in zones:
            self.empty(zone)
        self.configure('key "torpor"; key "other";')

    def configure(self, allowed: str) -> None:
        """Who may transfer and change the zones; takes effect at the next start."""
        zones = "".join(
            f'zone "{zone}" {{ type primary; file "{zone}.zone"; allow-update {{ {allowed} }}; '
            f"allow-transfer {{ {allowed} }}; }};\n"
            for zone in self.zones
        )
        (self.folder / "named.conf").write_text(
            f"""
include "{self.folder}/torpor.key";
include "{self.folder}/other.key";
options {{
    directory "{self.folder}";
    listen-on port {self.port} {{ {self.address}; }};
    listen-on-v6 {{ none; }};
    pid-file none; session-keyfile none; managed-keys-directory "{self.folder}";
    recursion no; dnssec-validation no; notify no; empty-zones-enable no; tcp-clients 100;
}};
controls {{ }};
{zones}"""
        )

    def empty(self, zone: str) -> None:
        """As it was in the beginning; of a server that does not run."""
        for left in self.folder.glob(f"{zone}.zone*"):
            left.unlink()
        (self.folder / f"{zone}.zone").write_text(_ZONE)

    def start(self, wait: bool = True) -> None:
        with (self.folder / "named.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-f", "-g", "-n", "1", "-c", self.folder / "named.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self._wait()

    def _wait(self) -> None:
        give_up = time.monotonic() + 30
        while True:
            try:
                if all(self.ask(zone, "SOA") for zone in self.zones):
                    return
            except (OSError, dns.exception.Timeout):
                pass
            log = (self.folder / "named.log").read_text(errors="replace")[-2000:]
            assert self._process is not None and self._process.poll() is None, f"named has ended: {log}"
            assert time.monotonic() < give_up, f"named does not answer: {log}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, nothing is put in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, name: str, kind: str) -> list[str]:
        """All records of that kind there are of that name."""
        query = dns.message.make_query(name, kind)
        answer = dns.query.tcp(query, self.address, port=self.port, timeout=5)
        return sorted(str(data) for answers in answer.answer for data in answers)

    def change(self, zone: str, *words: str, delete: bool = False) -> None:
        """Somebody else adds (name, ttl, type, data) or deletes (name[, type]) a record."""
        update = dns.update.UpdateMessage(zone, keyring=self.foreign_key, keyname=self.foreign_key.name)
        name, *rest = words
        if delete:
            update.delete(name, *rest)
        else:
            update.add(name, int(rest[0]), *rest[1:])
        answer = dns.query.tcp(update, self.address, port=self.port, timeout=5)
        assert answer.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(answer.rcode())


def _key_text(name: str) -> str:
    secret = base64.b64encode(os.urandom(32)).decode()
    return f'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n'


@contextmanager
def named(port: int, zones: Sequence[str]) -> Iterator[Named]:
    """Running; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="torpor-named-") as folder:
        server = Named(Path(folder), port, zones)
        try:
            server.start()
            yield server
        finally:
            server.kill()
