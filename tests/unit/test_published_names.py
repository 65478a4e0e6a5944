"""Whether the names of a network are published as its ports are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torpor.domain.address_path import Attached, Finding, NetworkPicture, Publication, Subnet, names_of, walk
from torpor.domain.named_ports import NamedPort
from torpor.domain.naming import NameRecord

ZONE, DNS = "cloud.internal", "127.0.0.91 port 53"
WEB = NamedPort("p-web", "web", "s-web", "1", "10.0.0.5", network="n")
DB = NamedPort("p-db", "db", "s-db", "2", "10.0.0.6", "fd00::6", network="n")
ELSEWHERE = NamedPort("p-far", "far", "s-far", "3", "10.9.0.7", network="other")
PORTS = (WEB, DB, ELSEWHERE)
RIGHT = (NameRecord("db", "10.0.0.6", "fd00::6"), NameRecord("far", "10.9.0.7"), NameRecord("web", "10.0.0.5"))
ANSWERS = {"web": ("10.0.0.5",), "db": ("10.0.0.6", "fd00::6")}


def attached(port: NamedPort) -> Attached:
    return Attached(
        server=port.owner, name=port.name, status="ACTIVE", config_drive=True, port=port.id, port_up=True,
        mac="fa:16:3e:00:00:01", address=port.address, security=True, hears_dhcp=False, console="",
    )  # fmt: skip


def look(
    ports: tuple[NamedPort, ...] = PORTS,
    published: tuple[NameRecord, ...] = RIGHT,
    answers: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    server: str = "",
    served_by: str = "",
) -> dict[str, Finding]:
    """Findings of names only."""
    servers = tuple(attached(port) for port in ports if port.network == "n" and port.owner.startswith("s-"))
    picture = NetworkPicture("net", (Subnet("10.0.0.0/24", False, ()),), servers, "n")
    told = Publication(ZONE, ports, published, {DNS: ANSWERS} if answers is None else answers, served_by, 1.0)
    return {found.name: found for found in walk(picture, server, "", told) if found.name.startswith("name")}


def test_a_name_that_leads_to_its_port_is_right_and_those_of_other_networks_are_left_out() -> None:
    found = look()
    assert list(found) == ["name db.cloud.internal", "name web.cloud.internal"]
    assert all(finding.ok for finding in found.values())
    assert found["name web.cloud.internal"].detail == f"it leads to 10.0.0.5, asked at {DNS}"
    assert found["name db.cloud.internal"].detail == f"it leads to 10.0.0.6/fd00::6, asked at {DNS}"


def test_a_name_that_nobody_has_published_is_missing() -> None:
    found = look(published=RIGHT[:2], answers={DNS: {**ANSWERS, "web": ()}})["name web.cloud.internal"]
    assert not found.ok
    assert found.detail == f"it is not published, and should lead to 10.0.0.5; {DNS} says that there is no such name"
    assert found.republishes


def test_a_name_that_is_published_and_not_answered_is_told() -> None:
    found = look(answers={DNS: {**ANSWERS, "web": ()}})["name web.cloud.internal"]
    assert not found.ok
    assert found.detail == f"{DNS} says that there is no such name"
    half = look(answers={DNS: {**ANSWERS, "db": ("10.0.0.6",)}})["name db.cloud.internal"]
    assert not half.ok
    assert half.detail == f"{DNS} says 10.0.0.6"
    assert look(answers={DNS: {"db": ANSWERS["db"]}})["name web.cloud.internal"].detail == f"{DNS} says nothing"


def test_a_name_at_the_address_that_its_port_had_before_is_stale() -> None:
    old = (*RIGHT[:2], NameRecord("web", "10.0.0.77"))
    found = look(published=old, answers={DNS: {**ANSWERS, "web": ("10.0.0.77",)}})["name web.cloud.internal"]
    assert not found.ok
    assert found.detail == f"it is published at 10.0.0.77, and its port has 10.0.0.5; {DNS} says 10.0.0.77"
    assert found.republishes


def test_places_that_differ_are_told_though_one_of_them_is_right() -> None:
    found = look(published=(*RIGHT, NameRecord("web", "10.0.0.77")))["name web.cloud.internal"]
    assert not found.ok
    assert "it is published at 10.0.0.77" in found.detail


def test_a_published_name_whose_port_is_gone_is_stale() -> None:
    found = look(published=(*RIGHT, NameRecord("gone", "10.0.0.8")))["name gone.cloud.internal"]
    assert not found.ok
    assert "stale: it is published at 10.0.0.8, and no port is called so" in found.detail
    assert found.republishes


def test_a_double_name_is_told_of_its_second_holder_and_leads_to_the_first() -> None:
    twin = replace(WEB, id="p-2", owner="s-2", since="9", address="10.0.0.9")
    found = look((*PORTS, twin))
    assert found["name web.cloud.internal"].ok
    assert not found["name 'web'"].ok
    assert "web leads to 10.0.0.5, which had the name first, and not to 10.0.0.9 of s-2" in found["name 'web'"].detail
    assert found["name 'web'"].remedy == "openstack server set --name NAME s-2"
    assert not found["name 'web'"].republishes, "to publish it again does not help"


def test_a_name_that_a_port_of_another_network_had_first_is_told() -> None:
    far = replace(ELSEWHERE, name="web", since="0")
    found = look((WEB, far), (NameRecord("web", "10.9.0.7"),), {DNS: {}})
    assert list(found) == ["name 'web'"]
    assert "and not to 10.0.0.5" in found["name 'web'"].detail


def test_what_can_be_no_hostname_is_told_with_what_to_rename() -> None:
    server, port = replace(WEB, name="***"), NamedPort("p-vip", "localhost", "p-vip", "4", "10.0.0.8", network="n")
    found = look((server, port), (), {DNS: {}})
    assert found["name '***'"].remedy == "openstack server set --name NAME s-web"
    assert found["name 'localhost'"].remedy == "openstack port set --name NAME p-vip"
    assert not any(finding.ok for finding in found.values())


def test_a_name_server_that_says_nothing_at_all_is_told_once() -> None:
    found = look(answers={DNS: {}, "10.0.0.53 port 53": ANSWERS})
    assert not found[f"name server {DNS}"].ok
    assert found[f"name server {DNS}"].republishes
    assert found["name web.cloud.internal"].ok
    assert look(answers={})["name web.cloud.internal"].detail == (
        "it is published at 10.0.0.5; no name server could be asked"
    )


def test_of_one_server_only_its_own_names_are_told() -> None:
    stale = (NameRecord("before", "10.0.0.5"), NameRecord("strange", "10.0.0.99"))
    found = look(published=(*RIGHT, *stale), server="s-web")
    assert set(found) == {"name web.cloud.internal", "name before.cloud.internal"}


def test_who_mends_it_depends_on_whether_the_service_runs() -> None:
    alone = look(published=())["name web.cloud.internal"].remedy
    assert "`torpor names serve` does not run here" in alone
    assert "--fix" in alone
    served = look(published=(), served_by="4711")["name web.cloud.internal"].remedy
    assert served.startswith("process 4711 looks every 1 s and mends it")
    assert "--fix" not in served


def test_only_the_networks_own_names_are_asked_for() -> None:
    assert names_of("n", PORTS) == ["db", "web"]
    assert names_of("other", PORTS) == ["far"]
