"""The dnsmasq process: found, started, told to read again, stopped.

It goes into the background itself (a session of its own, a child of init), so it outlives
the daemon. It is known by its arguments, of which the hosts directory is ours alone, and
between two looks by process id and start time.
"""

import grp
import os
import pwd
import select
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from torpor.domain.errors import BackendFailed, MissingPart

_START_SECONDS = 20.0
_STOP_SECONDS = 3.0
_FREED_SECONDS = 3.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_USERS = ("dnsmasq", "nobody")


@dataclass(frozen=True, slots=True)
class DnsmasqSettings:
    directory: Path
    """Folder of ours for hosts files and log; every folder above it must let other users pass."""
    listen_address: str
    """The gateway's address; it must be on an interface when the server starts."""
    zone: str
    subnet: IPv4Network
    """Its addresses are never asked for elsewhere."""
    forwarders: Sequence[str] = ()
    """Upstream name servers. None: names outside the zone are refused."""
    binary: str = "dnsmasq"
    port: int = 53

    @property
    def hosts(self) -> Path:
        return self.directory / "hosts"

    @property
    def log(self) -> Path:
        return self.directory / "dnsmasq.log"


class _PortTaken(BackendFailed):
    """By another server, or by one that was killed: its sockets last a moment longer than its process."""


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    started: str
    argv: tuple[str, ...]


class DnsmasqProcess:
    """Not thread-safe: its owner has the lock."""

    def __init__(self, settings: DnsmasqSettings) -> None:
        self._settings = settings
        self._known: _Running | None = None

    def running(self) -> bool:
        """Whether a server with exactly these settings runs; its program may have been moved or removed since."""
        known = self._known
        if known is not None and _look(known.pid) == known:
            return True
        wanted = tuple(self.options())
        self._known = next((found for found in self._ours() if found.argv[1:] == wanted), None)
        return self._known is not None

    def start(self) -> None:
        """Returns once the server listens. Raises MissingPart, BackendFailed."""
        self._refuse_hidden_directory()
        again = Retrying(
            retry=retry_if_exception_type(_PortTaken),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(_FREED_SECONDS),
            reraise=True,
        )
        again(self._start)

    def _start(self) -> None:
        settings = self._settings
        argv = [self.find_binary(), *self.options()]
        what = f"the name server could not be started on {settings.listen_address}"
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START_SECONDS, check=False
            )
        except OSError as error:
            raise MissingPart(what, detail=error.strerror or str(error), remedy="install dnsmasq-base") from error
        except subprocess.TimeoutExpired as error:
            raise BackendFailed(what, detail=f"it did not come up within {_START_SECONDS:.0f} s") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split()).removeprefix("dnsmasq: ")
            kind = _PortTaken if "in use" in said else BackendFailed
            raise kind(what, detail=said or f"exit code {done.returncode}", remedy=self._remedy(said))

    def stop(self) -> None:
        """End every server that reads our directory, whatever its other settings. Converges."""
        self._known = None
        for found in self._ours():
            _end(found)

    def read_again(self) -> None:
        """Let a running server read all records again."""
        for found in self._ours():
            descriptor = _signal(found, signal.SIGHUP)
            if descriptor is not None:
                os.close(descriptor)

    def find_binary(self) -> str:
        path = shutil.which(self._settings.binary) or shutil.which(self._settings.binary, path=_SBIN)
        if path is None:
            raise MissingPart(
                f"there is no program {self._settings.binary!r}",
                detail="it serves the guests' names",
                remedy="install dnsmasq-base",
            )
        return path

    def options(self) -> Sequence[str]:
        settings, user = self._settings, server_user()
        return (
            "--conf-file=/dev/null",
            "--pid-file",
            f"--user={user.pw_name}",
            f"--group={grp.getgrgid(user.pw_gid).gr_name}",
            f"--log-facility={settings.log}",
            "--bind-interfaces",
            f"--listen-address={settings.listen_address}",
            f"--port={settings.port}",
            "--no-hosts",
            "--no-resolv",
            f"--hostsdir={settings.hosts}",
            f"--host-record=gateway.{settings.zone},gateway,{settings.listen_address}",
            f"--local=/{settings.zone}/",
            f"--rev-server={settings.subnet}",
            "--domain-needed",
            "--local-ttl=0",
            *(f"--server={forwarder}" for forwarder in settings.forwarders),
        )

    def hidden_folder(self) -> Path | None:
        """A folder on the way to the records that the server's user may not pass."""
        user = server_user()
        for folder in (self._settings.hosts, *self._settings.hosts.parents):
            try:
                status = folder.stat()
            except FileNotFoundError:
                continue
            owns = status.st_uid == user.pw_uid and status.st_mode & 0o100
            if not owns and not status.st_mode & 0o001:
                return folder
        return None

    def _refuse_hidden_directory(self) -> None:
        folder = self.hidden_folder()
        if folder is not None:
            raise MissingPart(
                f"the name server can't read its records in {self._settings.hosts}",
                detail=f"user {server_user().pw_name!r} may not pass {folder}",
                remedy=f"allow it with `chmod o+x {folder}`, or set state_dir to another folder",
            )

    def _remedy(self, said: str) -> str:
        address, port = self._settings.listen_address, self._settings.port
        if "in use" in said:
            return f"another name server has that port; `ss -lnup sport = :{port}` shows which, let it listen elsewhere"
        if "assign requested address" in said:
            return f"no interface has the address {address}; see `torpor doctor`"
        return f"see {self._settings.log}"

    def _ours(self) -> Sequence[_Running]:
        mark, name = f"--hostsdir={self._settings.hosts}", Path(self._settings.binary).name
        looks = (_look(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return tuple(found for found in looks if found and mark in found.argv and Path(found.argv[0]).name == name)


def server_user() -> pwd.struct_passwd:
    """Whom the server runs as. Raises MissingPart."""
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingPart("there is no user for the name server", remedy="create the user 'dnsmasq'")


def _look(pid: int) -> _Running | None:
    """What a process is; None when it has gone (a zombie has no arguments any more)."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not argv:
            return None
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return _Running(pid, started, tuple(argv.decode(errors="replace").split("\0")[:-1]))


def _signal(found: _Running, number: signal.Signals) -> int | None:
    """Signal that very process, not one that got its id later; a descriptor of it, or None when it has gone."""
    try:
        descriptor = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return None
    try:
        if _look(found.pid) == found:
            signal.pidfd_send_signal(descriptor, number)
            return descriptor
    except ProcessLookupError:
        pass
    os.close(descriptor)
    return None


def _end(found: _Running) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        descriptor = _signal(found, number)
        if descriptor is None:
            return
        try:
            if select.select([descriptor], [], [], _STOP_SECONDS)[0]:
                return
        finally:
            os.close(descriptor)
    raise BackendFailed(f"the name server (process {found.pid}) does not end", remedy="end it by hand")
