"""`torpor doctor network` on names that this configuration serves, as it is bound, with the real dnsmasq."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import dns.message
import dns.query
import psutil
import pytest

from torpor.adapters.names.rfc2136 import Rfc2136Names, Rfc2136Settings
from torpor.config import Config, load
from torpor.domain.address_path import Attached, Finding, NetworkPicture, Subnet
from torpor.domain.named_ports import NamedPort
from torpor.domain.naming import NameRecord
from torpor.engine.network_doctor import examine
from torpor.lock import locked
from torpor.wiring import names as wiring
from torpor.wiring.names_service import on_its_own
from torpor.wiring.network_doctor import serving

ZONE, ADDRESS = "examined.internal", "127.0.105.2"
NAME = f"name web.{ZONE}"


class Network:
    """Network `n` with one server, `web`, as Neutron and Nova tell of it."""

    def __init__(self) -> None:
        self.address = "10.10.0.5"

    def look(self, subject: str) -> tuple[NetworkPicture, str]:
        web = Attached(
            server="s-web", name="web", status="ACTIVE", config_drive=True, port="p-web", port_up=True,
            mac="fa:16:3e:00:00:01", address=self.address, security=True, hears_dhcp=True, console=None,
        )  # fmt: skip
        return NetworkPicture("net", (Subnet("10.10.0.0/24", False, ()),), (web,), "n"), ""

    def open_port(self, port: str) -> None:
        raise AssertionError("nobody asked for it")

    def ports(self) -> Sequence[NamedPort]:
        return (NamedPort("p-web", "web", "s-web", "1", self.address, network="n"),)

    def networks(self) -> Sequence[str]:
        return ("n",)


class Doctor:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.network = Network()

    def __call__(self, fix: bool = False) -> dict[str, Finding]:
        """Findings of names."""
        found = examine(self.network, "net", "", fix, serving(self.config, self.network)).findings
        return {finding.name: finding for finding in found if finding.name.startswith("name")}

    def wrong(self, fix: bool = False) -> dict[str, str]:
        return {name: finding.detail for name, finding in self(fix).items() if not finding.ok}

    def answers(self, name: str) -> list[str]:
        answer = dns.query.udp(dns.message.make_query(f"{name}.{ZONE}", "A"), ADDRESS, timeout=5)
        return [str(data) for found in answer.answer for data in found]


@pytest.fixture
def doctor() -> Iterator[Doctor]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the server's user
        Path(folder).chmod(0o755)
        file = Path(folder) / "names.toml"
        file.write_text(
            f'state_dir = "{folder}/state"\n[openstack]\ndns_address = "{ADDRESS}"\n[network]\nzone = "{ZONE}"\n'
            '[names]\nnetworks = ["n"]\n'
        )
        config = load(file)
        try:
            yield Doctor(config)
        finally:
            wiring.bind(on_its_own(config)).stop()


def kill_dnsmasq() -> None:
    for process in psutil.process_iter(["cmdline"]):
        if f"--listen-address={ADDRESS}" in (process.info["cmdline"] or []):
            process.kill()
            process.wait(10)


def test_a_network_whose_names_were_never_served_gets_them(doctor: Doctor) -> None:
    assert set(doctor.wrong()) == {NAME, f"name server {ADDRESS} port 53"}
    assert not doctor.config.state_dir.exists(), "to look changes nothing"
    assert doctor.wrong(fix=True) == {}
    assert doctor()[NAME].detail == f"it leads to 10.10.0.5, asked at {ADDRESS} port 53"
    assert doctor.answers("web") == ["10.10.0.5"]


def test_a_name_server_that_was_killed_is_found_and_brought_back(doctor: Doctor) -> None:
    doctor(fix=True)
    kill_dnsmasq()
    assert set(doctor.wrong()) == {f"name server {ADDRESS} port 53"}
    assert doctor.wrong(fix=True) == {}
    assert doctor.answers("web") == ["10.10.0.5"]


def test_stale_names_are_found_and_put_right(doctor: Doctor) -> None:
    doctor(fix=True)
    doctor.network.address = "10.10.0.9"
    wiring.bind(on_its_own(doctor.config)).names.publish([NameRecord("gone", "10.10.0.8")])
    wrong = doctor.wrong()
    assert wrong[NAME] == (
        f"it is published at 10.10.0.5, and its port has 10.10.0.9; {ADDRESS} port 53 says 10.10.0.5"
    )
    assert "stale: it is published at 10.10.0.8" in wrong[f"name gone.{ZONE}"]
    assert doctor.wrong(fix=True) == {}
    assert (doctor.answers("web"), doctor.answers("gone")) == (["10.10.0.9"], [])


def test_what_a_server_has_forgotten_is_found_though_it_is_published(doctor: Doctor) -> None:
    """Its folder was put aside and back under another, which it does not watch."""
    doctor(fix=True)
    hosts = doctor.config.state_dir / "names" / "hosts"
    hosts.rename(hosts.with_name("aside"))
    (hosts.with_name("aside") / "web").unlink()
    hosts.mkdir()
    (hosts / "web").write_text(f"10.10.0.5 web.{ZONE} web\n")
    assert doctor.wrong() == {NAME: f"{ADDRESS} port 53 says that there is no such name"}


def test_names_that_a_service_has_are_left_to_it(doctor: Doctor) -> None:
    doctor(fix=True)
    doctor.network.address = "10.10.0.9"
    with locked(doctor.config.state_dir):
        found = doctor(fix=True)[NAME]
        assert not found.ok
        assert f"process {os.getpid()} looks every 1 s and mends it" in found.remedy
        assert doctor.answers("web") == ["10.10.0.5"]
    assert "does not run here" in doctor()[NAME].remedy


def test_to_ask_what_is_published_in_a_zone_changes_nothing_of_a_service_that_is_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "rfc2136"
    names = Rfc2136Names(Rfc2136Settings(folder, "127.0.0.1", ZONE, "lab", tmp_path / "no.key"))
    assert names.records() == ()
    assert not folder.exists()
    folder.mkdir()
    files = {".web": "10.10.", "db": f"10.10.0.6 db.{ZONE} db\n", "old": "10.10.0.7 old.before.internal old\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    assert names.records() == (NameRecord("db", "10.10.0.6"), NameRecord("old", "10.10.0.7"))
    assert {file.name: file.read_text() for file in folder.iterdir()} == files
