"""Where an address is lost on its way to an interface."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torpor.domain.address_path import Attached, Echo, Finding, NetworkPicture, Subnet, walk

OFF = Subnet("10.0.0.0/24", False, ())
ON = Subnet("10.0.0.0/24", True, ("10.0.0.2",))
WEB = Attached(
    server="s-web", name="web", status="ACTIVE", config_drive=True, port="p-web", port_up=True, mac="fa:16:3e:00:00:01",
    address="10.0.0.5", security=True, hears_dhcp=False, console="",
)  # fmt: skip
SERVER = replace(WEB, server="s-dhcp", name="dhcp", port="p-dhcp", address="10.0.0.9")
CLOUD_INIT = "ci-info: | eth0 | True |   {}   | 255.255.255.0 | global | fa:16:3e:00:00:01 |\n"
LOOPBACK = "ci-info: |  lo  | True |  127.0.0.1  |  255.0.0.0 | host | . |\n"


def look(*attached: Attached, subnet: Subnet = OFF, dhcp_server: str = "", server: str = "") -> dict[str, Finding]:
    found = walk(NetworkPicture("n1", (subnet,), attached), server, dhcp_server)
    return {finding.name: finding for finding in found}


def test_without_dhcp_a_config_drive_is_enough_and_without_both_nobody_tells_the_address() -> None:
    assert look(WEB)["server web"].ok
    found = look(replace(WEB, config_drive=False))["server web"]
    assert not found.ok
    assert "no DHCP, and no config drive" in found.detail
    assert "--config-drive true --port p-web" in found.remedy
    assert "torpor network dhcp n1" in found.remedy
    assert found.serves_dhcp
    assert look(replace(WEB, config_drive=False), subnet=ON)["server web"].ok


def test_dhcp_that_is_on_and_served_by_nobody_is_told() -> None:
    assert look(subnet=ON)["subnet 10.0.0.0/24"].ok
    found = look(subnet=replace(ON, dhcp_ports=()))["subnet 10.0.0.0/24"]
    assert not found.ok
    assert "openstack network agent add network --dhcp AGENT n1" in found.remedy


@pytest.mark.parametrize(("hears", "and_deaf"), [(True, False), (False, True)])
def test_a_dhcp_server_behind_port_security_is_not_heard(hears: bool, and_deaf: bool) -> None:
    found = look(replace(SERVER, hears_dhcp=hears), dhcp_server="dhcp")["DHCP server dhcp"]
    assert not found.ok
    assert "UDP port 67" in found.detail
    assert ("hears no DISCOVER" in found.detail) is and_deaf
    assert found.opens_port == "p-dhcp"
    assert found.remedy == "openstack port set --no-security-group --disable-port-security p-dhcp"


def test_a_dhcp_server_that_is_heard_serves_those_without_a_config_drive() -> None:
    guest, server = replace(WEB, config_drive=False), replace(SERVER, security=False)
    found = look(guest, server, dhcp_server="s-dhcp")
    assert found["DHCP server dhcp"].ok
    assert found["server web"].ok
    assert "server dhcp" not in found
    assert not look(guest, server)["server web"].ok, "it was not said that it serves"
    assert not look(guest, replace(server, status="SHUTOFF"), dhcp_server="dhcp")["server web"].ok


@pytest.mark.parametrize(
    ("console", "ok", "told"),
    [
        (LOOPBACK + CLOUD_INIT.format("10.0.0.5"), True, "its interface has 10.0.0.5"),
        (LOOPBACK + CLOUD_INIT.format("169.254.3.4"), False, "its interface has 169.254.3.4"),
        ("udhcpc: lease of 10.0.0.5 obtained from 10.0.0.9, lease time 3600", True, "its interface has 10.0.0.5"),
        ("udhcpc: lease of 10.0.0.77 obtained from 10.0.0.9", False, "leased 10.0.0.77"),
        ("bound to 10.0.0.77 -- renewal in 3 seconds.", False, "leased 10.0.0.77"),
        ("Cloud-init v. 22.4 finished. Datasource DataSourceNone. Up 9 s", False, "DataSourceNone"),
        (
            "Cloud-init v. 22.4 finished. Datasource DataSourceConfigDrive [net,ver=2]",
            True,
            "its config drive tells it",
        ),
        ("login: ", True, "it does not say on its console"),
    ],
)
def test_what_a_console_says_of_the_interface_counts(console: str, ok: bool, told: str) -> None:
    found = look(replace(WEB, console=console))["server web"]
    assert found.ok is ok
    assert told in found.detail


def test_who_was_leased_a_strangers_address_is_told_the_pinned_lease() -> None:
    found = look(replace(WEB, console="lease of 10.0.0.77 obtained"))["server web"]
    assert found.remedy.endswith("dhcp-host=fa:16:3e:00:00:01,10.0.0.5")


def test_ports_without_address_or_wire_are_told() -> None:
    assert "no IPv4 address" in look(replace(WEB, address=""))["server web"].detail
    assert "its port is down" in look(replace(WEB, port_up=False))["server web"].detail
    assert look(replace(WEB, port_up=False, status="SHUTOFF"))["server web"].ok
    assert not walk(NetworkPicture("n1", (), ()))[0].ok, "there is no subnet"


def test_double_and_impossible_names_are_told() -> None:
    twin, odd = replace(WEB, server="s-2", port="p-2"), replace(WEB, name="***", server="s-3")
    found = look(WEB, twin, odd)
    assert "s-web and s-2" in found["name web"].detail
    assert not found["name '***'"].ok


def test_of_one_server_only_its_own_way_is_walked() -> None:
    other = replace(WEB, name="db", server="s-db")
    found = look(WEB, other, server="s-db")
    assert "server db" in found
    assert "server web" not in found


def test_torpors_dhcp_serves_where_neutrons_is_off() -> None:
    served = replace(OFF, torpor=("10.0.0.3",))
    found = look(replace(WEB, config_drive=False), subnet=served)
    assert "Torpor's answers from 10.0.0.3" in found["subnet 10.0.0.0/24"].detail
    assert found["server web"].ok


@pytest.mark.parametrize(("ping", "words"), [(True, "ARP and ping"), (False, "ARP, and not ping")])
def test_who_answers_on_the_network_has_its_address(ping: bool, words: str) -> None:
    found = look(replace(WEB, config_drive=False, echo=Echo(WEB.mac, ping)))["server web"]
    assert found.ok, "whoever told it"
    assert words in found.detail


def test_an_address_that_nobody_answers_for_is_on_no_interface() -> None:
    nobody = replace(WEB, echo=Echo("", False), console=CLOUD_INIT.format(WEB.address))
    found = look(nobody)["server web"]
    assert not found.ok, "whatever its console says"
    assert "nobody answers for 10.0.0.5" in found.detail
    assert found.serves_dhcp
    found = look(nobody, subnet=replace(OFF, torpor=("10.0.0.3",)))["server web"]
    assert not found.ok
    assert not found.serves_dhcp, "it is served already"


def test_an_address_that_somebody_else_has_is_told() -> None:
    found = look(replace(WEB, echo=Echo("fa:16:3e:00:00:99", True)))["server web"]
    assert not found.ok
    assert "fa:16:3e:00:00:99 answers for 10.0.0.5" in found.detail


def test_a_wrong_lease_says_more_than_that_nobody_answers() -> None:
    leased = replace(WEB, echo=Echo("", False), console="udhcpc: lease of 10.0.0.77 obtained")
    found = look(leased)["server web"]
    assert "was leased 10.0.0.77" in found.detail
    assert not found.serves_dhcp
