"""Names by signed updates to a real BIND, whose zones others write to as well."""

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dns.name
import dns.rdata
import pytest
from tests.installation import wait_until
from tests.named import Named, named

from torpor.adapters.names.nodes import Node
from torpor.adapters.names.primary import Change, Primary
from torpor.adapters.names.rfc2136 import Rfc2136Names, Rfc2136Settings
from torpor.adapters.names.tsig import read_key
from torpor.domain.errors import BackendFailed, Conflict, MissingPart, TorporError
from torpor.domain.naming import NameRecord
from torpor.engine.loop import NAMES_SECONDS

ZONE, REVERSE, REVERSE6 = "lab.internal", "103.10.in-addr.arpa", "d.f.ip6.arpa"
ZONES = (ZONE, REVERSE, REVERSE6)
ALPHA = NameRecord("alpha", "10.103.0.10", "fd00::10")
BETA = NameRecord("beta", "10.103.0.11")
POINTER = f"10.0.{REVERSE}"


@pytest.fixture(scope="module")
def running() -> Iterator[Named]:
    with named(10357, ZONES) as server:
        yield server


@pytest.fixture
def server(running: Named) -> Named:
    """Its zones as they were in the beginning."""
    running.kill()
    for zone in ZONES:
        running.empty(zone)
    running.configure('key "torpor"; key "other";')
    running.start()
    return running


@pytest.fixture
def settings(server: Named, tmp_path: Path) -> Rfc2136Settings:
    return Rfc2136Settings(
        tmp_path / "names", server.address, ZONE, "lab", server.key_file, (REVERSE, REVERSE6), server.port
    )


@pytest.fixture
def names(settings: Rfc2136Settings) -> Rfc2136Names:
    return Rfc2136Names(settings)


def full(label: str) -> str:
    return f"{label}.{ZONE}"


def everything(server: Named, label: str) -> list[str]:
    return [data for kind in ("A", "AAAA", "TXT", "MX") for data in server.ask(full(label), kind)]


def test_each_name_says_whose_it_is(names: Rfc2136Names, server: Named) -> None:
    names.publish([ALPHA])

    assert everything(server, "alpha") == ["10.103.0.10", "fd00::10", '"torpor owner=lab"']
    assert server.ask(POINTER, "PTR") == [f"alpha.{ZONE}."]
    assert server.ask(POINTER, "TXT") == ['"torpor owner=lab"']

    names.withdraw(["alpha"])
    assert everything(server, "alpha") == server.ask(POINTER, "PTR") == server.ask(POINTER, "TXT") == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [("A", "192.0.2.1"), ("CNAME", "www.example.com."), ("MX", "10 mx.example.com."), ("TXT", '"hello"')],
)
def test_a_name_of_somebody_else_is_told_and_never_touched(
    names: Rfc2136Names, server: Named, kind: str, data: str
) -> None:
    server.change(ZONE, "alpha", "300", kind, data)

    with pytest.raises(Conflict, match=rf"alpha\.{ZONE} on .* is somebody else's: it holds .*{kind}"):
        names.publish([ALPHA, BETA])
    with pytest.raises(Conflict):
        names.ensure()
    assert not names.checks()[0].ok
    names.withdraw(["alpha"])

    assert server.ask(full("alpha"), kind) == [data]
    assert server.ask(full("beta"), "A") == ["10.103.0.11"]
    names.ensure()


def test_a_name_is_published_once_its_other_owner_gives_it_up(names: Rfc2136Names, server: Named) -> None:
    server.change(ZONE, "alpha", "300", "A", "192.0.2.1")
    with pytest.raises(Conflict):
        names.publish([ALPHA])

    server.change(ZONE, "alpha", delete=True)
    names.ensure()

    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]


def test_a_pointer_of_somebody_else_is_told_and_never_touched(names: Rfc2136Names, server: Named) -> None:
    server.change(REVERSE, "10.0", "300", "PTR", "www.example.com.")

    with pytest.raises(Conflict, match=r"10\.0\.103\.10\.in-addr\.arpa on .* is somebody else's"):
        names.publish([ALPHA])

    assert server.ask(POINTER, "PTR") == ["www.example.com."]
    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]


def test_two_torpors_in_one_zone_leave_each_other_alone(
    names: Rfc2136Names, settings: Rfc2136Settings, server: Named, tmp_path: Path
) -> None:
    other = Rfc2136Names(replace(settings, owner="lab-2", directory=tmp_path / "other"))
    names.publish([ALPHA])
    other.publish([BETA])

    with pytest.raises(Conflict, match="owner=lab"):
        other.publish([NameRecord("alpha", "10.103.0.99")])
    other.withdraw(["alpha"])
    for each in (names, other):
        each.ensure()

    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]
    assert server.ask(full("beta"), "A") == ["10.103.0.11"]


def test_what_appears_between_our_look_and_our_update_is_not_overwritten(
    server: Named, settings: Rfc2136Settings
) -> None:
    """The server itself refuses, by the prerequisites in the update."""
    zone = dns.name.from_text(ZONE)
    node = Node(zone, dns.name.from_text(full("alpha")))
    primary = Primary(server.address, server.port, read_key(server.key_file), "lab", 0)
    ours = frozenset({dns.rdata.from_text("IN", "A", "10.103.0.10")})
    primary.follow(zone)
    server.change(ZONE, "alpha", "300", "A", "192.0.2.1")

    assert not primary.change(zone, [Change(node, ours, ours=False)])
    assert not primary.change(zone, [Change(node, ours, ours=True)])
    assert not primary.change(zone, [Change(node, frozenset(), ours=True)])
    assert everything(server, "alpha") == ["192.0.2.1"]


def test_a_taken_name_in_a_crowd_does_not_keep_the_others_away(names: Rfc2136Names, server: Named) -> None:
    crowd = [NameRecord(f"n-{n}", f"10.103.1.{n + 1}") for n in range(120)]
    server.change(ZONE, "n-60", "300", "A", "192.0.2.1")

    with pytest.raises(Conflict, match=r"n-60\."):
        names.publish(crowd)

    answers = {record.name: server.ask(full(record.name), "A") for record in crowd}
    assert answers == {record.name: ["192.0.2.1" if record.name == "n-60" else record.address] for record in crowd}


def test_what_others_add_to_a_name_of_ours_stays_and_a_changed_address_is_put_right(
    names: Rfc2136Names, server: Named
) -> None:
    names.publish([ALPHA])
    server.change(ZONE, "alpha", "300", "MX", "10 mx.example.com.")
    server.change(ZONE, "alpha", "A", delete=True)
    server.change(ZONE, "alpha", "300", "A", "10.66.6.6")

    names.ensure()
    assert everything(server, "alpha") == ["10.103.0.10", "fd00::10", '"torpor owner=lab"', "10 mx.example.com."]

    names.withdraw(["alpha"])
    assert everything(server, "alpha") == ["10 mx.example.com."]


def test_an_address_outside_the_reverse_zones_has_no_pointer(names: Rfc2136Names, server: Named) -> None:
    names.publish([NameRecord("alpha", "172.16.0.1")])

    assert server.ask(full("alpha"), "A") == ["172.16.0.1"]


def test_of_two_names_with_one_address_the_first_by_alphabet_is_its_name(names: Rfc2136Names, server: Named) -> None:
    names.publish([NameRecord("beta", "10.103.0.10")])
    names.publish([NameRecord("alpha", "10.103.0.10")])
    assert server.ask(POINTER, "PTR") == [f"alpha.{ZONE}."]

    names.withdraw(["alpha"])
    assert server.ask(POINTER, "PTR") == [f"beta.{ZONE}."]


def test_a_server_that_is_away_is_told_and_gets_what_it_missed(names: Rfc2136Names, server: Named) -> None:
    names.publish([ALPHA])
    server.kill()

    with pytest.raises(BackendFailed, match="Connection refused"):
        names.publish([BETA])
    names.withdraw(["alpha"])
    assert not names.checks()[0].ok
    assert names.records() == (BETA,)

    server.start()
    names.ensure()
    assert everything(server, "alpha") == []
    assert server.ask(full("beta"), "A") == ["10.103.0.11"]


def test_a_server_that_is_just_being_restarted_is_waited_for(names: Rfc2136Names, server: Named) -> None:
    server.kill()
    late = threading.Timer(0.5, server.start, kwargs={"wait": False})
    late.start()
    try:
        names.publish([ALPHA])
    finally:
        late.join()

    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]


def test_a_server_that_hangs_is_told(names: Rfc2136Names, server: Named) -> None:
    names.ensure()
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(BackendFailed, match="does not answer"):
            names.publish([ALPHA])
    finally:
        server.signal(signal.SIGCONT)

    names.ensure()
    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]


def test_a_zone_put_back_to_what_it_was_is_filled_again(names: Rfc2136Names, server: Named) -> None:
    names.publish([ALPHA, BETA])
    server.kill()
    for zone in ZONES:
        server.empty(zone)
    server.start()
    server.change(ZONE, "people", "300", "A", "192.0.2.1")

    names.ensure()

    assert everything(server, "alpha") == ["10.103.0.10", "fd00::10", '"torpor owner=lab"']
    assert server.ask(POINTER, "PTR") == [f"alpha.{ZONE}."]
    assert server.ask(full("people"), "A") == ["192.0.2.1"]


def test_records_are_complete_within_ten_seconds_of_a_servers_death(names: Rfc2136Names, server: Named) -> None:
    """Killed in the midst of updates, and brought back with empty zones, while the daemon looks as often as it does."""
    done = threading.Event()

    def look_after() -> None:
        while not done.wait(NAMES_SECONDS):
            try:
                names.ensure()
            except TorporError:
                continue

    def publish() -> None:
        for n in range(40):
            try:
                names.publish([NameRecord(f"n-{n}", f"10.103.2.{n + 1}")])
            except BackendFailed:
                continue

    watch, publishing = threading.Thread(target=look_after), threading.Thread(target=publish)
    watch.start()
    publishing.start()
    try:
        time.sleep(0.7)
        server.kill()
        for zone in ZONES:
            server.empty(zone)
        server.start()
        publishing.join()
        wait_until(
            lambda: all(server.ask(full(f"n-{n}"), "A") == [f"10.103.2.{n + 1}"] for n in range(40)),
            10.0,
            "every name is there again",
        )
    finally:
        done.set()
        publishing.join()
        watch.join()


def test_a_new_daemon_finds_out_what_happened_while_none_looked(
    names: Rfc2136Names, settings: Rfc2136Settings, server: Named
) -> None:
    names.publish([ALPHA, BETA])
    server.change(ZONE, "beta", delete=True)
    server.change(ZONE, "orphan", "0", "TXT", '"torpor owner=lab"')
    server.change(ZONE, "orphan", "0", "A", "10.103.0.66")

    successor = Rfc2136Names(settings)
    successor.ensure()

    assert successor.records() == (ALPHA, BETA)
    assert server.ask(full("beta"), "A") == ["10.103.0.11"]
    assert everything(server, "orphan") == []


def test_a_name_provisioned_again_and_again_never_answers_with_an_old_address(
    names: Rfc2136Names, server: Named
) -> None:
    for number in range(30):
        names.publish([NameRecord("alpha", f"10.103.3.{number + 1}")])
        assert server.ask(full("alpha"), "A") == [f"10.103.3.{number + 1}"]
        assert server.ask(f"{number + 1}.3.{REVERSE}", "PTR") == [f"alpha.{ZONE}."]
        names.withdraw(["alpha"])
        assert server.ask(full("alpha"), "A") == []


@pytest.mark.parametrize(
    ("allowed", "why"),
    [
        ('key "other";', 'with allow-transfer { key "torpor"; } in the zone'),
        ("none;", 'with allow-transfer { key "torpor"; } in the zone'),
    ],
)
def test_a_server_that_does_not_let_us_is_told_with_what_would(
    names: Rfc2136Names, server: Named, allowed: str, why: str
) -> None:
    server.kill()
    server.configure(allowed)
    server.start()

    with pytest.raises(MissingPart, match=why):
        names.publish([ALPHA])


def test_a_server_that_takes_no_updates_is_told_with_what_would(names: Rfc2136Names, server: Named) -> None:
    server.kill()
    conf = server.folder / "named.conf"
    conf.write_text(conf.read_text().replace('allow-update { key "torpor"; key "other"; }', "allow-update { none; }"))
    server.start()

    with pytest.raises(MissingPart, match=r'says REFUSED; .*allow-update { key "torpor"; }'):
        names.publish([ALPHA])


def test_a_zone_that_the_server_has_not_got_is_told(settings: Rfc2136Settings) -> None:
    names = Rfc2136Names(replace(settings, zone="elsewhere.internal"))

    with pytest.raises(MissingPart, match=r"NOTAUTH; let it be primary for elsewhere\.internal"):
        names.publish([ALPHA])


def test_a_key_that_the_server_does_not_know_is_told_and_a_mended_file_is_read(
    names: Rfc2136Names, settings: Rfc2136Settings, server: Named, tmp_path: Path
) -> None:
    wrong = tmp_path / "key"
    wrong.write_text('key "torpor" { algorithm hmac-sha256; secret "d3Jvbmc="; };')
    names = Rfc2136Names(replace(settings, key_file=wrong))
    with pytest.raises(MissingPart, match="does not take the key torpor; give both sides the same key file"):
        names.publish([ALPHA])

    wrong.write_text(server.key_file.read_text())
    names.ensure()

    assert server.ask(full("alpha"), "A") == ["10.103.0.10"]


def test_a_key_that_others_may_read_is_told(names: Rfc2136Names, settings: Rfc2136Settings) -> None:
    names.ensure()
    assert [check.ok for check in names.checks()] == [True, True]

    settings.key_file.chmod(0o644)
    try:
        assert [check.remedy for check in names.checks() if not check.ok] == [f"chmod 600 {settings.key_file}"]
    finally:
        settings.key_file.chmod(0o600)
