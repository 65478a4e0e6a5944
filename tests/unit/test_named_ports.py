"""Which port has which name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor.domain.named_ports import NamedPort, name_all
from torpor.domain.naming import NameRecord


def port(
    id: str, name: str, address: str = "10.0.0.5", since: str = "2026-01-01", owner: str = "", **more: str
) -> NamedPort:
    return NamedPort(id, name, owner or f"server-{id}", since, address, **more)


def test_a_port_is_called_as_its_server_is() -> None:
    naming = name_all([port("a", "web"), port("b", "DB Master", "10.0.0.6")])
    assert naming.records == (NameRecord("db-master", "10.0.0.6"), NameRecord("web", "10.0.0.5"))
    assert not naming.refused


def test_a_name_leads_to_whoever_had_it_first_and_the_other_is_told_of() -> None:
    first = port("a", "web", "10.0.0.5", since="2026-01-01T00:00:00Z")
    second = port("b", "web", "10.0.0.6", since="2026-01-01T00:00:01Z")
    for order in ([first, second], [second, first]):
        naming = name_all(order)
        assert naming.records == (NameRecord("web", "10.0.0.5"),)
        assert list(naming.refused) == ["b"]
        assert "10.0.0.5" in naming.refused["b"]
        assert "10.0.0.6" in naming.refused["b"]


def test_once_the_first_is_gone_its_name_is_the_others() -> None:
    assert name_all([port("b", "web", "10.0.0.6")]).records == (NameRecord("web", "10.0.0.6"),)


def test_the_oldest_port_of_a_server_has_its_name_and_nothing_is_told() -> None:
    ports = [
        port("b", "web", "10.0.0.6", since="2026-01-02", owner="s"),
        port("a", "web", "10.0.0.5", since="2026-01-01", owner="s"),
    ]
    naming = name_all(ports)
    assert (naming.records, naming.refused) == ((NameRecord("web", "10.0.0.5"),), {})


def test_a_port_without_an_address_has_no_name_yet_and_keeps_nobody_from_it() -> None:
    naming = name_all([port("a", "web", ""), port("b", "web", "10.0.0.6", since="2026-01-02")])
    assert naming.records == (NameRecord("web", "10.0.0.6"),)


def test_both_kinds_of_address_are_published() -> None:
    assert name_all([port("a", "web", address6="fd00::5")]).records == (NameRecord("web", "10.0.0.5", "fd00::5"),)
    assert name_all([port("a", "web", "", address6="fd00::5")]).records == (NameRecord("web", "", "fd00::5"),)


def test_what_can_be_no_hostname_is_refused_with_the_reason() -> None:
    naming = name_all([port("a", "localhost"), port("b", "***"), port("c", "web", "10.0.0.6")])
    assert naming.records == (NameRecord("web", "10.0.0.6"),)
    assert "localhost" in naming.refused["a"]
    assert "'***'" in naming.refused["b"]


TEXT = st.text(max_size=70)
PORTS = st.lists(
    st.builds(
        NamedPort,
        st.uuids().map(str),
        st.one_of(st.sampled_from(["web", "WEB", "web.", "db"]), TEXT),
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["", "10.0.0.5", "10.0.0.6"]),
    ),
    max_size=12,
)


@given(PORTS)
def test_whatever_they_are_called_no_name_leads_to_two(ports: list[NamedPort]) -> None:
    naming = name_all(ports)
    names = [record.name for record in naming.records]
    assert len(names) == len(set(names))
    assert all("\n" not in name and " " not in name and "." not in name for name in names)
    assert name_all(reversed(ports)) == naming
