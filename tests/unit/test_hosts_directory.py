"""Hosts files: what is written is read again, and nothing else is."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.adapters.names.hosts_directory import HostsDirectory, parse, render
from torpor.domain.naming import NameRecord

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label not in ("localhost", "gateway")
)

V4 = st.ip_addresses(v=4, network="10.0.0.0/8").map(str)
V6 = st.ip_addresses(v=6, network="fd00::/8").map(str)
ADDRESSES = st.one_of(st.tuples(V4, V6), st.tuples(V4, st.just("")), st.tuples(st.just(""), V6))


@given(name=LABELS, addresses=ADDRESSES)
def test_a_record_is_read_as_it_was_written(name: str, addresses: tuple[str, str]) -> None:
    record = NameRecord(name, *addresses)

    assert parse(name, render(record, "z.internal"), "z.internal") == record


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", ""),
        ("a", "10.0.0.1 a.z.internal\n"),
        ("a", "10.0.0.1 b.z.internal b\n"),
        ("a", "10.0.0.1 a.other a\n"),
        ("a", "10.0.0.1 a.z.internal a\n10.0.0.2 www.example.com\n"),
        ("a", "10.0.0 a.z.internal a\n"),
        ("a", "fd00::1 a.z.internal a\n10.0.0.1 a.z.internal a\n"),
        ("a", "10.0.0.1 a.z.internal a\nfd00::1 a.z.internal a\nfd00::2 a.z.internal a\n"),
        (".a", "10.0.0.1 a.z.internal a\n"),
    ],
)
def test_anything_else_is_no_record(name: str, text: str) -> None:
    assert parse(name, text, "z.internal") is None


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    hosts = HostsDirectory(tmp_path / "hosts", "z.internal")
    hosts.prepare()
    for address in ("10.0.0.1", "10.0.0.2"):
        hosts.put([NameRecord("a", address)])
        assert hosts.records() == {"a": NameRecord("a", address)}


def test_files_are_readable_for_others_whatever_the_umask(tmp_path: Path) -> None:
    hosts = HostsDirectory(tmp_path / "names" / "hosts", "z.internal")
    before = os.umask(0o077)
    try:
        hosts.prepare()
        hosts.put([NameRecord("a", "10.0.0.1")])
    finally:
        os.umask(before)

    assert (tmp_path / "names" / "hosts" / "a").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "names" / "hosts").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "names").stat().st_mode & 0o777 == 0o755


def test_records_of_another_zone_are_carried_over_and_leftovers_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "hosts"
    old = HostsDirectory(folder, "old.internal")
    old.prepare()
    old.put([NameRecord("a", "10.0.0.1")])
    (folder / ".b").write_text("10.0.")
    (folder / "stray").write_text("not ours")

    new = HostsDirectory(folder, "new.internal")
    new.tidy()

    assert new.records() == {"a": NameRecord("a", "10.0.0.1")}
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_removing_what_is_not_there_is_no_failure(tmp_path: Path) -> None:
    hosts = HostsDirectory(tmp_path / "hosts", "z.internal")

    hosts.remove(["a"])

    assert hosts.records() == {}


def test_records_are_looked_at_while_another_process_changes_them(tmp_path: Path) -> None:
    theirs, ours = (HostsDirectory(tmp_path / "hosts", "z.internal") for _ in range(2))
    theirs.prepare()
    stays = NameRecord("stays", "10.0.0.1")
    theirs.put([stays])
    crowd = [NameRecord(f"n-{n}", f"10.0.1.{n}") for n in range(50)]

    def change() -> None:
        for _ in range(10):
            theirs.put(crowd)
            theirs.remove([record.name for record in crowd])

    changing = threading.Thread(target=change)
    changing.start()
    while changing.is_alive():
        assert ours.records()["stays"] == stays
        assert ours.of_other_zones() == []
    changing.join()
