"""An SSH server of a test's own, on a high port of 127.0.0.1: the other machine, on which a hosts file is."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

HOST = "names-server"


class Sshd:
    """`config` has `ssh` reach it as `HOST`, with a key that it knows."""

    def __init__(self, folder: Path, port: int) -> None:
        self.config = folder / "ssh_config"
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        for key in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        (folder / "known").write_text(f"{HOST} " + (folder / "host.pub").read_text())
        (folder / "sshd_config").write_text(
            f"""
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
# Bash skips ~/.bashrc where it is not the first shell; this machine's may do anything, and leave locks when killed.
SetEnv SHLVL=1
"""
        )
        self.config.write_text(
            f"""
Host {HOST}
    HostName 127.0.0.1
    Port {port}
    User root
    HostKeyAlias {HOST}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
"""
        )

    def start(self) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self._folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", self._folder / "sshd_config"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        give_up = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            assert time.monotonic() < give_up, (self._folder / "sshd.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """With every connection that it has."""
        if self._process is None:
            return
        parts = [psutil.Process(self._process.pid)]
        parts += parts[0].children(recursive=True)
        for part in parts:
            with contextlib.suppress(psutil.NoSuchProcess):
                part.kill()
        self._process.wait(10)
        self._process = None


@contextmanager
def sshd(folder: Path, port: int) -> Iterator[Sshd]:
    server = Sshd(folder, port)
    try:
        server.start()
        yield server
    finally:
        server.kill()
