"""A hosts file on another machine, over SSH: implements `Place`.

Needed there is a POSIX shell with coreutils and util-linux' flock, and no Python. What is here is OpenSSH's client:
whom it trusts and with which key, jump hosts and all the rest are its own configuration's business. One connection is
kept open and shared (ControlMaster), so that a change costs a round trip or two and no handshake; a dead one is
noticed within seconds, and the next command makes a new one.

The file is replaced whole, as `LocalFile` does it. The moment in which an edit of somebody else's could be lost is
longer by what a shell takes between comparing and renaming: some milliseconds.
"""

import hashlib
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.names.place import Changed
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.ports import Check

_SECONDS = 20.0
_LONGEST_SOCKET = 107 - len(".0123456789abcdef")
"""Bytes of its path; ssh makes it under a longer name first."""
_CHECK = "names: who reads the hosts file"
_CHANGED, _BROKEN, _UNREACHABLE = 75, 74, 255
_READ = '[ ! -e "$1" ] || exec cat -- "$1"'
_REPLACE = r"""
set -eu
sum() { sha256sum | cut -d' ' -f1; }
target=$(readlink -f -- "$1")
folder=$(dirname -- "$target")
fresh=$folder/.$(basename -- "$target").torpor
exec 9<"$folder"
flock -w 5 9 || { echo 'another Torpor is at it' >&2; exit 1; }
trap 'rm -f -- "$fresh"' EXIT
rm -f -- "$fresh"
if [ -e "$target" ]; then cp -p -- "$target" "$fresh"; else (set -C; : >"$fresh"); chmod 644 -- "$fresh"; fi
cat >"$fresh"
[ "$(sum <"$fresh")" = "$3" ] || exit 74
sync -- "$fresh"
now=$(if [ -e "$target" ]; then cat -- "$target"; fi | sum)
[ "$now" = "$2" ] || exit 75
mv -f -- "$fresh" "$target"
sync -- "$folder"
"""
_FIND = r"""
pid=$(cat -- "$1" 2>/dev/null) || exit 3
case $pid in '' | *[!0-9]*) exit 3 ;; esac
[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || exit 3
"""
_NOT_RUNNING = 3


@dataclass(frozen=True, slots=True)
class SshSettings:
    destination: str
    """As `ssh` takes it: `user@host`, or a host of its configuration."""
    path: Path
    sockets: Path
    """Folder here for the connection's socket."""
    config: Path | None = None
    """Another configuration of ssh than the user's and the machine's."""
    pid_file: Path | None = None
    """There; its process gets SIGHUP after each change, where it has the name `process`."""
    process: str = "dnsmasq"
    command: tuple[str, ...] = ()
    """Run there after each change instead."""


class SshFile:
    """Not thread-safe: its user has the lock."""

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings

    @property
    def where(self) -> str:
        return f"{self._settings.destination}:{self._settings.path}"

    def read(self) -> bytes:
        done = self._call(_READ, str(self._settings.path))
        if done.returncode:
            raise self._failed("could not be read", done)
        return done.stdout

    def replace(self, old: bytes, new: bytes) -> None:
        """Atomic, durable, owner and mode kept; a symlink is followed. What has not come over whole changes nothing."""
        done = self._call(_REPLACE, str(self._settings.path), _sum(old), _sum(new), given=new)
        if done.returncode == _CHANGED:
            raise Changed
        if done.returncode:
            raise self._failed("could not be written", done)

    def reload(self) -> None:
        settings = self._settings
        if settings.command:
            done = self._call(shlex.join(settings.command))
        elif settings.pid_file:
            done = self._call(f'{_FIND}kill -HUP "$pid"', str(settings.pid_file), settings.process[:15])
        else:
            return
        if done.returncode == _NOT_RUNNING and not settings.command:
            return  # it reads the file when it starts
        if done.returncode:
            raise self._failed("was not read again", done)

    def check(self) -> Check:
        settings = self._settings
        try:
            if settings.command or not settings.pid_file:
                self._call(":")
                how = f"`{shlex.join(settings.command)}`" if settings.command else "nobody, it is read by itself"
                return Check(_CHECK, True, f"on {settings.destination}: {how}")
            found = self._call(_FIND, str(settings.pid_file), settings.process[:15]).returncode == 0
        except (BackendFailed, MissingPart) as error:
            return Check(_CHECK, False, str(error), error.remedy)
        return Check(
            _CHECK, found,
            f"{settings.process} on {settings.destination}, by its number in {settings.pid_file}" if found
            else f"{settings.pid_file} on {settings.destination} names no process {settings.process!r} that runs",
            f"start {settings.process} there, or mend pid_file and process in [names.hosts-file]",
        )  # fmt: skip

    # Parts of the above

    def _call(self, script: str, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a shell's script there. Raises MissingPart, and BackendFailed where the machine can't be reached."""
        there = shlex.join(["sh", "-c", script, "torpor", *arguments])
        what = f"{self._settings.destination} can't be reached over SSH"
        self._have_folder(what)
        try:
            done = subprocess.run(
                [*self._ssh(), self._settings.destination, there],
                input=given,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise MissingPart(what, detail="there is no program ssh", remedy="install openssh-client") from error
        except subprocess.TimeoutExpired as error:
            raise BackendFailed(what, detail=f"it did not answer within {_SECONDS:.0f} s") from error
        if done.returncode == _UNREACHABLE:
            raise BackendFailed(
                what, detail=_words(done), remedy=f"see whether `ssh {self._settings.destination} true` works for root"
            )
        return done

    def _have_folder(self, what: str) -> None:
        folder = self._settings.sockets
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MissingPart(
                what,
                detail=f"folder {folder} for its socket can't be made ({error.strerror or error})",
                remedy="see what is in its place there, or set `run_dir` to another",
            ) from error

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "ServerAliveInterval": "2",
            "ServerAliveCountMax": "2",
        }
        # Of a path that is too long for a socket nothing is shared: each command is a connection of its own.
        shared = self._settings.sockets / f"ssh-{_sum(self._settings.destination.encode())[:8]}"
        if len(os.fsencode(shared)) <= _LONGEST_SOCKET:
            options |= {"ControlMaster": "auto", "ControlPath": str(shared), "ControlPersist": "60"}
        config = ["-F", str(self._settings.config)] if self._settings.config else []
        return ["ssh", *config, *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]

    def _failed(self, what: str, done: "subprocess.CompletedProcess[bytes]") -> BackendFailed:
        broken = done.returncode == _BROKEN
        detail = "the connection broke while it was sent" if broken else _words(done) or f"exit code {done.returncode}"
        return BackendFailed(
            f"the hosts file {self.where} {what}", detail=detail, remedy="check the path and who may write there"
        )


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _words(done: "subprocess.CompletedProcess[bytes]") -> str:
    return " ".join(done.stderr.decode(errors="replace").split())[-300:]
