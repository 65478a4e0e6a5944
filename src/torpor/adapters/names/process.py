"""The dnsmasq process: found, started, told to read again, stopped.

It goes into the background itself (a session of its own, a child of init), so it outlives
the daemon. It is known by its arguments, of which the log is its alone, and between two looks
by process id and start time.
"""

import grp
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from torpor.domain.errors import BackendFailed, MissingPart
from torpor.processes import Process, find

_START_SECONDS = 20.0
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


class DnsmasqProcess:
    """Not thread-safe: its owner has the lock."""

    def __init__(self, settings: DnsmasqSettings) -> None:
        self._settings = settings
        self._known: Process | None = None

    def running(self) -> bool:
        """Whether a server with exactly these settings runs; its program may have been moved or removed since."""
        known = self._known
        if known is not None and known.runs():
            return True
        wanted = tuple(self.options())
        self._known = next((found for found in self._ours() if found.argv[1:] == wanted), None)
        return self._known is not None

    def start(self) -> None:
        """Returns once the server listens. Raises MissingPart, BackendFailed."""
        refuse_hidden(self._settings.hosts, "the name server can't read its records in")
        again = Retrying(
            retry=retry_if_exception_type(_PortTaken),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(_FREED_SECONDS),
            reraise=True,
        )
        again(self._start)

    def _start(self) -> None:
        address = self._settings.listen_address
        argv = [self.find_binary(), *self.options()]
        try:
            launch(argv, f"the name server could not be started on {address}", "")
        except BackendFailed as error:
            kind = _PortTaken if "in use" in error.detail else BackendFailed
            raise kind(error.what, detail=error.detail, remedy=self._remedy(error.detail)) from error

    def stop(self) -> None:
        """End every server of this directory, whatever its other settings. Converges."""
        self._known = None
        for found in self._ours():
            found.end("the name server")

    def read_again(self) -> None:
        """Let a running server read all records again."""
        for found in self._ours():
            found.send(signal.SIGHUP)

    def find_binary(self) -> str:
        return find_binary(self._settings.binary)

    def options(self) -> Sequence[str]:
        settings = self._settings
        return (
            *identity(),
            self._log,
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
        return hidden_folder(self._settings.hosts)

    def _remedy(self, said: str) -> str:
        address, port = self._settings.listen_address, self._settings.port
        if "in use" in said:
            return f"another name server has that port; `ss -lnup sport = :{port}` shows which, let it listen elsewhere"
        if "assign requested address" in said:
            return f"no interface has the address {address}; see `torpor doctor`"
        return f"see {self._settings.log}"

    @property
    def _log(self) -> str:
        """This option no other server has; the names' directory may be read by others as well."""
        return f"--log-facility={self._settings.log}"

    def _ours(self) -> Sequence[Process]:
        mark, name = self._log, Path(self._settings.binary).name
        return find(lambda argv: mark in argv and Path(argv[0]).name == name)


def server_user() -> pwd.struct_passwd:
    """Whom the server runs as. Raises MissingPart."""
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingPart("there is no user for the name server", remedy="create the user 'dnsmasq'")


def find_binary(name: str) -> str:
    """Raises MissingPart."""
    path = shutil.which(name) or shutil.which(name, path=_SBIN)
    if path is None:
        raise MissingPart(
            f"there is no program {name!r}", detail="it serves the guests' names", remedy="install dnsmasq-base"
        )
    return path


def launch(argv: Sequence[str], what: str, remedy: str) -> None:
    """Start a dnsmasq, which goes into the background; returns once it listens. Raises MissingPart, BackendFailed."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START_SECONDS, check=False
        )
    except OSError as error:
        raise MissingPart(what, detail=error.strerror or str(error), remedy="install dnsmasq-base") from error
    except subprocess.TimeoutExpired as error:
        raise BackendFailed(what, detail=f"it did not come up within {_START_SECONDS:.0f} s", remedy=remedy) from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()).removeprefix("dnsmasq: ")
        raise BackendFailed(what, detail=said or f"exit code {done.returncode}", remedy=remedy)


def identity() -> Sequence[str]:
    """The options that make it that user, in a configuration of nobody's but these options."""
    user = server_user()
    group = grp.getgrgid(user.pw_gid).gr_name
    return ("--conf-file=/dev/null", "--pid-file", f"--user={user.pw_name}", f"--group={group}")


def hidden_folder(path: Path) -> Path | None:
    """A folder on the way to it that the server's user may not pass."""
    user = server_user()
    for folder in (path, *path.parents):
        try:
            status = folder.stat()
        except FileNotFoundError:
            continue
        owns = status.st_uid == user.pw_uid and status.st_mode & 0o100
        if not owns and not status.st_mode & 0o001:
            return folder
    return None


def refuse_hidden(path: Path, what: str) -> None:
    """Raises MissingPart where the server could not read what is there; it would say so in its log only."""
    folder = hidden_folder(path)
    if folder is not None:
        raise MissingPart(
            f"{what} {path}",
            detail=f"user {server_user().pw_name!r} may not pass {folder}",
            remedy=f"allow it with `chmod o+x {folder}`, or set state_dir to another folder",
        )
