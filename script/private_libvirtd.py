"""A libvirtd of our own, for the benchmark, the tests and the demo: what it has lies in one folder of theirs.

It runs in a mount namespace in which that folder's parts stand in the places of /etc/libvirt, /var/lib/libvirt and so
on. So it sees nothing of a libvirt that the machine may have, and its saved images are
to be found below the folder.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmark.states.talk import GuestFailed

_PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
_SHIPPED = ("lib/dnsmasq",)
"""Folders that libvirt's packages bring along, for it does not make them."""
_DAEMON = """
listen_tls = 0
listen_tcp = 0
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
log_outputs = "3:file:{folder}/libvirtd.log"
"""
_DRIVER = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
save_image_format = "{format}"
"""
_READY_SECONDS = 60.0


class LibvirtHost:
    """The daemon and `virsh`. Domains outlive the daemon; `close` ends them too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sockets = folder / "s"
        self._daemon: psutil.Process | None = None
        self._format = ""

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self._sockets / 'libvirt-sock'}"

    @property
    def managed_saves(self) -> Path:
        return self._folder / "lib" / "qemu" / "save"

    @property
    def alive(self) -> bool:
        return self._daemon is not None and self._daemon.is_running() and self._daemon.status() != psutil.STATUS_ZOMBIE

    def use(self, format: str) -> None:
        """Have the daemon run with this `save_image_format`. Domains are kept."""
        if self._daemon and self._format == format:
            return
        self.stop()
        self.start(format)

    def start(self, format: str = "raw") -> None:
        """Have it run; on return it answers. One that an earlier life of ours left running is taken on."""
        self._daemon = self._daemon or self._earlier()
        if self.alive:
            self._await_ready()
            return
        for place in (*(self._folder / name for name in (*_PLACES, *_SHIPPED, "s")), *map(Path, _PLACES.values())):
            place.mkdir(parents=True, exist_ok=True)
        (self._folder / "etc" / "qemu.conf").write_text(_DRIVER.format(format=format))
        configuration = self._configuration
        configuration.write_text(_DAEMON.format(sockets=self._sockets, folder=self._folder))
        binds = [f"mount --bind {self._folder / name} {place}" for name, place in _PLACES.items()]
        start = f"exec libvirtd -f {configuration} -p {self._folder / 'libvirtd.pid'}"
        with (self._folder / "daemon.log").open("ab") as log:
            self._daemon = psutil.Popen(
                ["unshare", "--mount", "sh", "-ec", "\n".join([*binds, start])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._format = format
        self._await_ready()

    def virsh(self, *arguments: str, timeout: float = 900.0) -> str:
        """Its output. Raises GuestFailed."""
        command = ["virsh", "--quiet", "-c", self.uri, *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
        if done.returncode:
            raise GuestFailed(f"virsh {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """End the daemon; domains that run are not touched."""
        if self._daemon is None:
            return
        self._daemon.terminate()
        try:
            self._daemon.wait(30)
        except psutil.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None

    def kill(self) -> None:
        """As a crash of the daemon would; domains that run are not touched."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def restart(self) -> None:
        self.stop()
        self.start(self._format or "raw")

    def close(self) -> None:
        """End every domain and network, then the daemon."""
        with suppress(GuestFailed):
            self.start(self._format or "raw")
            for kind, listing in (("", ("list", "--name")), ("net-", ("net-list", "--name"))):
                for name in self.virsh(*listing).split():
                    self.virsh(f"{kind}destroy", name)
        self.stop()

    @property
    def _configuration(self) -> Path:
        return self._folder / "libvirtd.conf"

    def _earlier(self) -> psutil.Process | None:
        """Known by its arguments, for a pid may have become somebody else's."""
        mine = str(self._configuration)
        running = psutil.process_iter(["name", "cmdline"])
        return next((p for p in running if p.info["name"] == "libvirtd" and mine in (p.info["cmdline"] or ())), None)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.virsh("list")
                return
            except GuestFailed as error:
                if not self.alive or time.monotonic() > deadline:
                    log = (self._folder / "daemon.log").read_text(errors="replace")
                    raise GuestFailed(f"libvirtd does not answer: {error}: {log[-500:]}") from error
                time.sleep(0.1)


@contextmanager
def private_libvirtd(folder: Path) -> Iterator[LibvirtHost]:
    """One that runs, in a folder that must not be there yet; all of it is gone afterwards.

    The folder's path must be short, for the sake of the sockets in it.
    """
    host = LibvirtHost(folder)
    try:
        host.start()
        yield host
    finally:
        host.close()
        shutil.rmtree(folder, ignore_errors=True)
