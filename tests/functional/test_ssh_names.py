"""A hosts file on another machine, over a real SSH server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.hosts_reader import HostsReader, hosts_reader
from tests.installation import wait_until
from tests.sshd import HOST, Sshd, sshd

from torpor.adapters.names.hosts_file import HostsFileNames, HostsFileSettings
from torpor.adapters.names.place import Changed
from torpor.adapters.names.ssh_file import SshFile, SshSettings
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.domain.naming import NameRecord

ZONE = "test.internal"
ALPHA, BETA = NameRecord("alpha", "10.103.0.10"), NameRecord("beta", "10.103.0.11")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    with sshd(folder, 10422) as running:
        yield running


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[HostsReader]:
    folder = tmp_path / "it's there"
    folder.mkdir()
    with hosts_reader(folder, "127.0.103.7", 10360, ZONE) as running:
        yield running


@pytest.fixture
def settings(server: Sshd, reader: HostsReader, tmp_path: Path) -> SshSettings:
    return SshSettings(HOST, reader.hosts, tmp_path / "s", server.config, reader.pid_file)


@pytest.fixture
def names(settings: SshSettings, reader: HostsReader) -> HostsFileNames:
    return HostsFileNames(reader.settings(), SshFile(settings))


def test_only_the_block_is_touched_and_its_reader_answers(names: HostsFileNames, reader: HostsReader) -> None:
    theirs = reader.hosts.read_text()
    reader.hosts.chmod(0o640)
    names.ensure()
    names.publish([ALPHA, BETA])
    assert reader.hosts.read_text().startswith(theirs)
    assert reader.hosts.stat().st_mode & 0o777 == 0o640
    assert reader.ask(f"alpha.{ZONE}", "A") == ["10.103.0.10"]
    names.withdraw(["alpha", "beta"])
    assert reader.ask(f"alpha.{ZONE}", "A") == []
    assert f"alpha.{ZONE}" not in reader.hosts.read_text()
    assert all(check.ok for check in names.checks())


def test_a_symlink_is_followed_and_a_file_that_is_not_there_is_made(
    settings: SshSettings, reader: HostsReader, tmp_path: Path
) -> None:
    link, missing = tmp_path / "link", tmp_path / "missing"
    link.symlink_to(reader.hosts)
    for path in (link, missing):
        place = SshFile(replace(settings, path=path))
        HostsFileNames(HostsFileSettings(ZONE, "lab"), place).publish([ALPHA])
        assert f"10.103.0.10 alpha.{ZONE}" in path.read_text()
    assert link.is_symlink()
    assert missing.stat().st_mode & 0o777 == 0o644
    assert {each.name for each in tmp_path.iterdir()} == {"link", "missing", "s", "sshd", "it's there"}


def test_what_was_changed_since_it_was_read_is_not_replaced(settings: SshSettings, reader: HostsReader) -> None:
    place = SshFile(settings)
    old = place.read()
    reader.hosts.write_bytes(old + b"192.0.2.10 scanner\n")
    with pytest.raises(Changed):
        place.replace(old, b"ours\n")
    assert reader.hosts.read_bytes() == old + b"192.0.2.10 scanner\n"


def test_several_torpors_lose_nothing_of_each_other(settings: SshSettings, reader: HostsReader) -> None:
    def publish(number: int) -> None:
        ours = HostsFileNames(HostsFileSettings(ZONE, f"lab{number}"), SshFile(settings))
        for count in range(5):
            ours.publish([NameRecord(f"n{number}-{count}", f"10.103.{number}.{count}")])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = reader.hosts.read_text()
    assert all(f"n{number}-{count}.{ZONE}" in text for number in range(3) for count in range(5))
    assert "192.0.2.9 printer" in text


def test_after_a_connection_was_cut_everything_is_there_again(
    names: HostsFileNames, server: Sshd, reader: HostsReader
) -> None:
    names.ensure()
    names.publish([ALPHA])
    server.kill()
    with pytest.raises(BackendFailed, match="can't be reached over SSH"):
        names.publish([BETA])
    assert not names.checks()[0].ok
    server.start()

    def again() -> bool:
        try:
            names.ensure()
        except BackendFailed:
            return False
        return True

    began = time.monotonic()
    wait_until(again, 10, "it is reached again")
    assert time.monotonic() - began < 10
    assert reader.ask(f"alpha.{ZONE}", "A") == ["10.103.0.10"]
    assert reader.ask(f"beta.{ZONE}", "A") == ["10.103.0.11"]


def test_a_connection_that_is_cut_while_it_writes_leaves_the_old_file_or_the_new_one(
    settings: SshSettings, server: Sshd, reader: HostsReader
) -> None:
    old = reader.hosts.read_bytes()
    new = old + b"".join(b"10.103.%d.%d x%d.test.internal\n" % (n // 256, n % 256, n) for n in range(60_000))
    for milliseconds in (5, 20, 40, 80, 160, 320):
        cut = threading.Timer(milliseconds / 1000, server.kill)
        cut.start()
        with suppress(BackendFailed, Changed):
            SshFile(settings).replace(old, new)
        cut.join()
        assert reader.hosts.read_bytes() in (old, new)
        reader.hosts.write_bytes(old)
        server.start()


def test_a_machine_that_is_not_trusted_is_not_written_to(
    settings: SshSettings, server: Sshd, reader: HostsReader
) -> None:
    known = server.config.parent / "known"
    known.write_text(f"{HOST} " + (server.config.parent / "user.pub").read_text())
    before = reader.hosts.read_bytes()
    with pytest.raises(BackendFailed, match="can't be reached over SSH"):
        SshFile(settings).replace(before, b"ours\n")
    assert reader.hosts.read_bytes() == before


def test_a_stranger_who_got_the_number_in_the_pid_file_is_left_alone(
    settings: SshSettings, reader: HostsReader
) -> None:
    reader.pid_file.write_text(str(os.getpid()))
    place = SshFile(settings)
    place.reload()  # SIGHUP would have ended us
    assert not place.check().ok


def test_a_command_of_that_machine_is_run_and_its_failure_told(settings: SshSettings, tmp_path: Path) -> None:
    told = tmp_path / "told; it's"
    place = SshFile(replace(settings, command=("mkdir", str(told))))
    place.reload()
    assert told.is_dir()
    with pytest.raises(BackendFailed, match="was not read again"):
        place.reload()


def test_a_folder_for_the_socket_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for sockets in (tmp_path / "taken", tmp_path / "taken" / "s"):
        place = SshFile(SshSettings(HOST, tmp_path / "hosts", sockets))
        with pytest.raises(MissingPart) as told:
            place.read()
        sentence = str(told.value)
        assert sentence.startswith(f"{HOST} can't be reached over SSH: folder {sockets} for its socket can't be made (")
        assert "set `run_dir` to another" in sentence
        assert not place.check().ok
