"""Names in a hosts file that others write as well, read by a dnsmasq that is theirs."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.hosts_reader import HostsReader, hosts_reader

from torpor.adapters.names.hosts_file import HostsFileNames, HostsFileSettings
from torpor.adapters.names.local_file import LocalFile
from torpor.adapters.names.reload import ByCommand, ByPidFile, NoReload
from torpor.domain.errors import BackendFailed, Conflict, MissingPart
from torpor.domain.naming import NameRecord

ZONE = "hosts.internal"
OTHERS = "127.0.0.1\tlocalhost\n# written by people: caf\xe9\n192.0.2.9 printer\n"
ALPHA = NameRecord("alpha", "10.103.0.10")


def unasked(hosts: Path, block: str = "lab") -> HostsFileNames:
    """A publisher that tells and asks nobody."""
    return HostsFileNames(HostsFileSettings(ZONE, block), LocalFile(hosts, NoReload()))


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    file = tmp_path / "hosts"
    file.write_bytes(OTHERS.encode("latin-1"))  # not everything in there is UTF-8
    return file


@pytest.fixture
def reader() -> Iterator[HostsReader]:
    with tempfile.TemporaryDirectory() as folder, hosts_reader(Path(folder), "127.0.103.3", 10356, ZONE) as reader:
        yield reader


def published(reader: HostsReader, name: str) -> list[str]:
    return reader.ask(f"{name}.{ZONE}", "A")


def test_only_the_block_is_touched(hosts: Path) -> None:
    names = unasked(hosts)

    names.publish([ALPHA])
    assert hosts.read_bytes().startswith(OTHERS.encode("latin-1"))
    assert f"10.103.0.10 alpha.{ZONE}\n".encode() in hosts.read_bytes()

    hosts.write_bytes(hosts.read_bytes() + b"192.0.2.10 scanner\n")
    names.withdraw(["alpha"])
    lines = hosts.read_bytes().splitlines(keepends=True)
    assert (
        b"".join(line for line in lines if b"torpor" not in line) == OTHERS.encode("latin-1") + b"192.0.2.10 scanner\n"
    )
    assert len(lines) == 6


def test_no_short_name_gets_into_a_file_that_others_resolve_by(hosts: Path) -> None:
    unasked(hosts).publish([NameRecord("printer", "10.103.0.10")])

    words = [line.split()[1:] for line in hosts.read_text("latin-1").splitlines() if line.startswith("10.103")]
    assert words == [[f"printer.{ZONE}"]]


def test_owner_mode_and_symlink_stay(hosts: Path) -> None:
    hosts.chmod(0o640)
    os.chown(hosts, 12345, 23456)
    link = hosts.with_name("link")
    link.symlink_to("hosts")

    unasked(link).publish([ALPHA])

    status = hosts.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 12345, 23456)
    assert link.is_symlink()
    assert "alpha" in hosts.read_text("latin-1")
    assert sorted(path.name for path in hosts.parent.iterdir()) == ["hosts", "link"]


def test_a_file_that_is_not_there_is_made_readable_for_all(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unasked(tmp_path / "new").publish([ALPHA])
    finally:
        os.umask(before)

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="could not be written: No such file"):
        unasked(tmp_path / "no" / "hosts").publish([ALPHA])


def test_a_file_that_is_mounted_by_itself_is_refused(hosts: Path) -> None:
    subprocess.run(["mount", "--bind", hosts, hosts], check=True)
    try:
        with pytest.raises(MissingPart, match="mounted there by itself"):
            unasked(hosts).publish([ALPHA])
    finally:
        subprocess.run(["umount", hosts], check=True)
    assert hosts.read_bytes() == OTHERS.encode("latin-1")


@pytest.mark.parametrize("damage", ["end", "begin"])
def test_in_a_damaged_block_nothing_is_written_until_it_is_mended(hosts: Path, damage: str) -> None:
    names = unasked(hosts)
    names.publish([ALPHA])
    whole = hosts.read_bytes()
    broken = b"".join(line for line in whole.splitlines(keepends=True) if f"lab: {damage}".encode() not in line)
    hosts.write_bytes(broken)

    for act in (names.ensure, lambda: names.publish([NameRecord("beta", "10.103.0.11")])):
        with pytest.raises(Conflict, match=r"the block 'lab' in .* is damaged"):
            act()
    assert hosts.read_bytes() == broken
    assert [check.ok for check in names.checks()] == [False, True]

    hosts.write_bytes(whole)
    names.ensure()
    assert f"10.103.0.11 beta.{ZONE}\n".encode() in hosts.read_bytes()


def test_a_new_daemon_that_finds_the_block_damaged_forgets_nothing(hosts: Path) -> None:
    unasked(hosts).publish([ALPHA])
    whole = hosts.read_bytes()
    hosts.write_bytes(whole.replace(b"lab: end", b"lab: dne"))
    successor = unasked(hosts)

    assert successor.records() == ()
    with pytest.raises(Conflict):
        successor.publish([NameRecord("beta", "10.103.0.11")])
    hosts.write_bytes(whole)
    successor.ensure()

    assert [record.name for record in successor.records()] == ["alpha", "beta"]
    assert unasked(hosts).records() == successor.records()


def test_what_others_change_inside_the_block_is_changed_back(hosts: Path) -> None:
    names = unasked(hosts)
    names.publish([ALPHA])
    whole = hosts.read_bytes()
    hosts.write_bytes(whole.replace(b"10.103.0.10", b"10.66.6.6"))

    names.ensure()

    assert hosts.read_bytes() == whole


def test_whatever_was_done_to_the_file_since_it_was_written_is_seen(hosts: Path) -> None:
    beta = NameRecord("beta", "10.103.0.11")
    names = unasked(hosts)
    names.publish([ALPHA])
    older = hosts.read_bytes()
    names.publish([beta])
    newer = hosts.read_bytes()

    def outside(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if b"torpor" not in line and ZONE.encode() not in line]

    without_block = OTHERS.encode("latin-1")
    changed = (b"192.0.2.30 front\n" + newer, newer + b"\xff", newer.replace(b"beta", b"evil"))
    for found in (older, without_block, *changed, b""):
        hosts.write_bytes(found)
        names.ensure()
        assert unasked(hosts).records() == (ALPHA, beta), found
        assert outside(hosts.read_bytes()) == outside(found)


def test_several_torpors_share_a_file(hosts: Path) -> None:
    """All at once, each with names that come and go."""
    torpors = {f"lab-{n}": unasked(hosts, f"lab-{n}") for n in range(4)}

    def live(block: str, names: HostsFileNames) -> None:
        for n in range(15):
            names.publish([NameRecord(f"{block}-{n}", f"10.103.1.{n + 1}")])
            if n % 3:
                names.withdraw([f"{block}-{n}"])

    threads = [threading.Thread(target=live, args=pair) for pair in torpors.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert hosts.read_bytes().startswith(OTHERS.encode("latin-1"))
    for block in torpors:
        assert {record.name for record in unasked(hosts, block).records()} == {f"{block}-{n}" for n in range(0, 15, 3)}


def people_edit(hosts: Path, number: int, in_place: bool) -> None:
    """One line more, as an editor does it: read, change, write anew or over."""
    text = hosts.read_bytes() + f"192.0.2.{number} people-{number}\n".encode()
    if in_place:
        with hosts.open("r+b") as file:
            file.write(text)
            file.truncate()
    else:
        fresh = hosts.with_name("hosts~")
        fresh.write_bytes(text)
        fresh.replace(hosts)


class Interrupted(LocalFile):
    """Somebody edits between our reading and our writing, the first few times."""

    edits = 0
    in_place = False

    def replace(self, old: bytes, new: bytes) -> None:
        if self.edits < 5:
            self.edits += 1
            people_edit(Path(self.where), self.edits, self.in_place)
        super().replace(old, new)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_edit_between_reading_and_writing_is_kept(hosts: Path, in_place: bool) -> None:
    file = Interrupted(hosts, NoReload())
    file.in_place = in_place
    names = HostsFileNames(HostsFileSettings(ZONE, "lab"), file)

    names.publish([ALPHA])

    text = hosts.read_text("latin-1")
    assert [f"people-{n}\n" in text for n in range(1, 6)] == [True] * 5
    assert f"10.103.0.10 alpha.{ZONE}\n" in text


def test_somebody_who_has_the_file_open_for_writing_is_waited_for(hosts: Path) -> None:
    names = unasked(hosts)
    with hosts.open("ab") as editor:
        publishing = threading.Thread(target=names.publish, args=([ALPHA],))
        publishing.start()
        time.sleep(0.1)
        editor.write(b"192.0.2.20 late\n")
    publishing.join()

    text = hosts.read_text("latin-1")
    assert "192.0.2.20 late\n" in text
    assert f"alpha.{ZONE}" in text


def test_no_edit_is_lost_while_names_come_and_go(hosts: Path) -> None:
    """An editor that appends lines in one open, write and close, against a Torpor that publishes all the time."""
    names, done = unasked(hosts), threading.Event()

    def publish() -> None:
        number = 0
        while not done.is_set():
            names.publish([NameRecord("alpha", f"10.103.0.{number % 200 + 1}")])
            number += 1

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        for number in range(150):
            with hosts.open("ab", buffering=0) as file:
                file.write(f"192.0.2.1 people-{number}\n".encode())
            time.sleep(0.002)
    finally:
        done.set()
        publishing.join()

    found = {line.split()[1] for line in hosts.read_text("latin-1").splitlines() if "people-" in line}
    assert found == {f"people-{number}" for number in range(150)}


def test_a_file_that_never_rests_is_told(hosts: Path) -> None:
    class Restless(LocalFile):
        def replace(self, old: bytes, new: bytes) -> None:
            people_edit(Path(self.where), 1, in_place=False)
            super().replace(old, new)

    names = HostsFileNames(HostsFileSettings(ZONE, "lab"), Restless(hosts, NoReload()))
    with pytest.raises(BackendFailed, match="was changed by others all the time"):
        names.publish([ALPHA])


def test_a_name_on_a_line_of_somebody_else_is_theirs_as_long_as_it_is_there(reader: HostsReader) -> None:
    names = reader.names()
    theirs = reader.hosts.read_text() + f"192.0.2.77 Alpha.{ZONE}\n"
    reader.hosts.write_text(theirs)

    with pytest.raises(Conflict, match=rf"alpha\.{ZONE} is not published .* the address 192\.0\.2\.77"):
        names.publish([ALPHA, NameRecord("beta", "10.103.0.11")])
    assert published(reader, "alpha") == ["192.0.2.77"]
    assert published(reader, "beta") == ["10.103.0.11"]
    assert [check.ok for check in names.checks()] == [False, True]

    reader.hosts.write_text(reader.hosts.read_text().replace(f"192.0.2.77 Alpha.{ZONE}\n", ""))
    names.ensure()
    names.publish([ALPHA])
    assert published(reader, "alpha") == ["10.103.0.10"]


def test_two_torpors_with_one_name_have_it_one_after_the_other(hosts: Path) -> None:
    first, second = unasked(hosts, "one"), unasked(hosts, "two")
    first.publish([ALPHA])

    with pytest.raises(Conflict, match=r"alpha.* 10\.103\.0\.10"):
        second.publish([NameRecord("alpha", "10.103.0.99")])
    first.ensure()
    assert hosts.read_text("latin-1").count(f" alpha.{ZONE}\n") == 1

    first.withdraw(["alpha"])
    second.ensure()
    assert f"10.103.0.99 alpha.{ZONE}\n" in hosts.read_text("latin-1")


def test_a_reader_that_was_killed_has_all_records_when_it_is_back(reader: HostsReader) -> None:
    names = reader.names()
    names.publish([ALPHA])
    reader.kill()
    with pytest.raises(BackendFailed, match="does not answer"):
        names.publish([NameRecord("beta", "10.103.0.11")])

    reader.start()

    assert published(reader, "alpha") == ["10.103.0.10"]
    assert published(reader, "beta") == ["10.103.0.11"]


def test_a_crash_between_writing_and_telling_is_made_good_by_the_next_daemon(reader: HostsReader) -> None:
    HostsFileNames(reader.settings(), LocalFile(reader.hosts, NoReload())).withdraw(["alpha"])
    reader.hosts.write_text(
        reader.hosts.read_text().replace("# torpor torpor: end", f"10.103.0.10 alpha.{ZONE}\n# torpor torpor: end")
    )
    assert published(reader, "alpha") == []

    successor = reader.names()
    successor.ensure()
    successor.publish([ALPHA])

    assert published(reader, "alpha") == ["10.103.0.10"]


def test_a_stranger_who_got_the_number_in_the_pid_file_is_left_alone(tmp_path: Path) -> None:
    heeds_it = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # under nohup nobody would
    with subprocess.Popen(["sleep", "60"], preexec_fn=heeds_it) as stranger:
        try:
            (tmp_path / "pid").write_text(f"{stranger.pid}\n")
            reload = ByPidFile(tmp_path / "pid", "dnsmasq")

            reload()

            time.sleep(0.2)
            assert stranger.poll() is None
            assert not reload.check().ok
            ByPidFile(tmp_path / "pid", "sleep")()
            assert stranger.wait(5) == -signal.SIGHUP
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "999999999999"])
def test_a_pid_file_without_a_pid_is_told_and_nobody_is_signalled(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    reload = ByPidFile(tmp_path / "pid", "dnsmasq")

    reload()

    assert not reload.check().ok


def test_a_command_is_run_without_a_shell_after_each_change_and_until_it_succeeds(hosts: Path, tmp_path: Path) -> None:
    told = tmp_path / "$(told)"
    names = HostsFileNames(HostsFileSettings(ZONE, "lab"), LocalFile(hosts, ByCommand(["mkdir", str(told)])))

    names.publish([ALPHA])
    names.publish([ALPHA])  # nothing is new, so nobody is told
    assert told.is_dir()

    with pytest.raises(BackendFailed, match="File exists"):
        names.withdraw(["alpha"])
    told.rmdir()
    names.ensure()
    assert told.is_dir()


def test_a_command_that_is_not_there_is_told(hosts: Path) -> None:
    names = HostsFileNames(HostsFileSettings(ZONE, "lab"), LocalFile(hosts, ByCommand(["no-such-program"])))

    with pytest.raises(MissingPart, match=r"`no-such-program` .*No such file"):
        names.publish([ALPHA])
