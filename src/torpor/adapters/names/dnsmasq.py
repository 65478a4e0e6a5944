"""Names served by dnsmasq: one hosts file a name, no DHCP.

dnsmasq follows its hosts directory by inotify, so a change answers within milliseconds
without a signal. Nothing is taken on trust all the same: `publish` and `withdraw` return when
the server was heard to answer accordingly.
"""

import os
import re
import subprocess
import threading
from collections.abc import Sequence

from torpor.adapters.names.hosts_directory import HostsDirectory
from torpor.adapters.names.lookup import Answers, unheard, wanted_of
from torpor.adapters.names.process import DnsmasqProcess, DnsmasqSettings, server_user
from torpor.domain.errors import BackendFailed, TorporError
from torpor.domain.naming import NameRecord, check_records, encode_label
from torpor.ports import Check

_ANSWER_SECONDS = 2.0
"""After so long without a better answer, the server is taken for stuck."""
_READ_SECONDS = 0.003
"""So much longer for each name: a server that reads ten thousand files is busy for seconds, and answers nobody."""
_CROWD = 64
_LOG_BYTES = 4 * 2**20
_OLDEST = (2, 88)
"""Older ones never forget what was deleted from the hosts directory."""


class DnsmasqNames:
    """The Names port on a dnsmasq of our own. Thread-safe; one user of the directory at a time."""

    def __init__(self, settings: DnsmasqSettings) -> None:
        self._settings = settings
        self._hosts = HostsDirectory(settings.hosts, settings.zone)
        self._process = DnsmasqProcess(settings)
        self._lock = threading.Lock()
        self._doubtful: set[str] = set()
        """Names whose newest record is on disk, but was not yet heard from the server."""
        self._synced = False
        """The server was started, or told to read everything again, in our time."""

    def ensure(self) -> None:
        """Converges. Raises MissingPart, BackendFailed; the records stay on disk then."""
        with self._lock:
            made = self._hosts.prepare()
            self._hosts.tidy()
            if made:
                self._process.stop()  # it watches a directory that is gone
            self._serve()
            self._shorten_log()

    def publish(self, records: Sequence[NameRecord]) -> None:
        """Durable, then answering. Converges. Raises Invalid, Conflict, MissingPart, BackendFailed."""
        checked = check_records(records)
        with self._lock:
            made = self._hosts.prepare()
            changed = self._hosts.put(checked)
            self._doubtful.update(record.name for record in changed)
            if made:
                self._process.stop()
            self._serve()
            # Of a crowd, only what is new: the server has read the others when it began, or when we did.
            asked = [r for r in checked if r.name in self._doubtful or len(checked) <= _CROWD]
            self._hear(asked)
            self._doubtful.difference_update(record.name for record in asked)

    def withdraw(self, names: Sequence[str]) -> None:
        """Durable, then silent. Converges. Raises Invalid, BackendFailed."""
        checked = [encode_label(name) for name in names]
        with self._lock:
            self._hosts.remove(checked)
            self._doubtful.difference_update(checked)
            if self._process.running():
                self._hear([NameRecord(name) for name in checked])

    def records(self) -> Sequence[NameRecord]:
        with self._lock:
            return tuple(record for _, record in sorted(self._hosts.records().items()))

    def stop(self) -> None:
        """End the server; the records stay. Converges."""
        with self._lock:
            self._process.stop()

    def checks(self) -> Sequence[Check]:
        """Never raises."""
        with self._lock:
            try:
                version = self._version()
                running = self._process.running()
                hidden = self._process.hidden_folder()
            except TorporError as error:
                return (Check("names: dnsmasq", False, str(error), error.remedy),)
            return (
                Check(
                    "names: dnsmasq", version >= _OLDEST, f"version {'.'.join(map(str, version))}",
                    "install dnsmasq 2.88 or later",
                ),
                Check(
                    "names: records", hidden is None,
                    f"{self._settings.hosts}, read by {server_user().pw_name}"
                    + (f", who may not pass {hidden}" if hidden else ""),
                    f"chmod o+x {hidden}" if hidden else "",
                ),
                Check(
                    "names: server", running and self._gateway_answers(),
                    f"{self._settings.listen_address} port {self._settings.port}, zone {self._settings.zone}",
                    f"start the daemon; see {self._settings.log}",
                ),
            )  # fmt: skip

    # --- the server ---

    def _serve(self) -> None:
        """Have a server that answers; one that does not is ended and started anew."""
        if not self._process.running() or not self._gateway_answers():
            self._restart()
        elif not self._synced:
            self._process.read_again()  # whatever was changed while no daemon looked
            self._synced = True

    def _restart(self) -> None:
        self._process.stop()
        self._process.start()
        self._synced = True
        if not self._gateway_answers():
            raise BackendFailed(
                f"the name server on {self._settings.listen_address} does not answer",
                remedy=f"see {self._settings.log}",
            )

    def _gateway_answers(self) -> bool:
        gateway = NameRecord("gateway", self._settings.listen_address)
        return not self._unheard([gateway])

    def _hear(self, wanted: Sequence[NameRecord]) -> None:
        """Wait until the server answers so (a record without addresses: not at all).

        A change that it missed is cured by starting it anew.
        """
        if not self._unheard(wanted):
            return
        self._restart()
        for question, addresses in self._unheard(wanted).items():
            raise BackendFailed(
                f"the name server does not answer for {question.name} as it should",
                detail=f"it never said {', '.join(addresses) or 'that there is no such name'}",
                remedy=f"see {self._settings.log}",
            )

    def _unheard(self, wanted: Sequence[NameRecord]) -> Answers:
        settings = self._settings
        answers = {q: found for record in wanted for q, found in wanted_of(record, settings.zone).items()}
        left = unheard(settings.listen_address, settings.port, answers, _ANSWER_SECONDS)
        if left:
            left = unheard(settings.listen_address, settings.port, left, _READ_SECONDS * self._hosts.count())
        return left

    def _version(self) -> tuple[int, ...]:
        try:
            said = subprocess.run(
                [self._process.find_binary(), "--version"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendFailed("dnsmasq does not tell its version", detail=str(error)) from error
        found = re.search(r"version (\d+)\.(\d+)", said)
        return tuple(int(part) for part in found.groups()) if found else (0,)

    def _shorten_log(self) -> None:
        """The server appends, so the file may be emptied under it."""
        try:
            if self._settings.log.stat().st_size > _LOG_BYTES:
                os.truncate(self._settings.log, 0)
        except OSError:
            return  # it is not there yet
