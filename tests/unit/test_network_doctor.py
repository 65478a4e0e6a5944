"""What `torpor doctor network` finds of names that are served here, and what `--fix` does about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from torpor.adapters.fakes.clock import ManualClock
from torpor.adapters.fakes.names import FakeNames
from torpor.domain.address_path import Attached, NetworkPicture, Subnet
from torpor.domain.errors import BackendFailed, Conflict, MissingPart, TorporError
from torpor.domain.named_ports import NamedPort
from torpor.domain.naming import NameRecord
from torpor.engine.network_doctor import Examined, ServedNames, examine
from torpor.ports import NameServers

NAME = "name web.cloud.internal"


class Network:
    """One server, `web`, on network `n` of which the names are served; as Neutron and Nova tell of it."""

    def __init__(self) -> None:
        self.served: tuple[str, ...] = ("n",)
        self.secured = False
        self.failure: TorporError | None = None

    def look(self, subject: str) -> tuple[NetworkPicture, str]:
        web = Attached(
            server="s-web", name="web", status="ACTIVE", config_drive=True, port="p-web", port_up=True,
            mac="fa:16:3e:00:00:01", address="10.0.0.5", security=self.secured, hears_dhcp=True, console=None,
        )  # fmt: skip
        return NetworkPicture("net", (Subnet("10.0.0.0/24", False, ()),), (web,), "n"), ""

    def open_port(self, port: str) -> None:
        self.secured = False

    def ports(self) -> Sequence[NamedPort]:
        if self.failure is not None:
            raise self.failure
        return (NamedPort("p-web", "web", "s-web", "1", "10.0.0.5", network="n"),)

    def networks(self) -> Sequence[str]:
        return self.served


class Asked:
    """A server that knows what is published, as long as it runs."""

    def __init__(self, names: FakeNames) -> None:
        self._names = names

    def answers(self, names: Sequence[str]) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        found = {name: self._names.lookup(name) for name in names}
        told = {name: (address,) if address else () for name, address in found.items()}
        return {"dns": told if self._names.running else {}}


class Scene:
    def __init__(self) -> None:
        self.network, self.names = Network(), FakeNames()
        self.names.ensure()
        self.servers: NameServers = Asked(self.names)
        self.held_by = ""
        self.no_state = False
        self.holding = False

    def __call__(self, fix: bool = False, dhcp_server: str = "") -> Examined:
        served = ServedNames(
            "cloud.internal", self.network, lambda: self.names, self.servers, ManualClock(), 1.0,
            lambda: self.held_by, self.alone,
        )  # fmt: skip
        return examine(self.network, "net", dhcp_server, fix, served)

    @contextmanager
    def alone(self) -> Iterator[None]:
        if self.held_by:
            raise Conflict("another daemon serves it")
        if self.no_state:
            raise MissingPart("the state directory can't be written", detail="Read-only file system")
        self.holding = True
        yield
        self.holding = False


@pytest.fixture
def scene() -> Scene:
    return Scene()


def details(examined: Examined) -> dict[str, str]:
    """Of what is wrong."""
    return {finding.name: finding.detail for finding in examined.findings if not finding.ok}


def test_without_served_names_nothing_is_said_of_publication(scene: Scene) -> None:
    assert {f.name for f in examine(scene.network, "net", "", False).findings} == {"subnet 10.0.0.0/24", "server web"}
    scene.network.served = ("another",)
    assert {f.name for f in scene().findings} == {"subnet 10.0.0.0/24", "server web"}


def test_a_missing_name_is_found_and_one_round_publishes_it(scene: Scene) -> None:
    scene.names.publish([NameRecord("gone", "10.0.0.9")])
    assert set(details(scene())) == {NAME, "name gone.cloud.internal"}
    assert scene.names.lookup("web") is None, "to look changes nothing"
    examined = scene(fix=True)
    assert not details(examined)
    assert examined.mended == ["names are published and withdrawn as their ports are"]
    assert (scene.names.lookup("web"), scene.names.lookup("gone")) == ("10.0.0.5", None)
    assert not scene.holding
    assert not scene(fix=True).mended, "there is nothing left to do"


def test_a_name_server_that_does_not_run_is_brought_back(scene: Scene) -> None:
    scene.names.publish([NameRecord("web", "10.0.0.5")])
    scene.names.running = False
    assert set(details(scene())) == {"name server dns"}
    assert not details(scene(fix=True))


def test_while_a_service_has_the_names_it_alone_changes_them(scene: Scene) -> None:
    scene.held_by = "4711"
    examined = scene(fix=True)
    assert not examined.mended
    assert set(details(examined)) == {NAME}
    (found,) = (finding for finding in examined.findings if not finding.ok)
    assert "process 4711 looks every 1 s and mends it" in found.remedy
    assert scene.names.lookup("web") is None


def test_why_a_round_could_not_be_done_is_told(scene: Scene) -> None:
    scene.names.faults.fail("publish")
    told = details(scene(fix=True))
    assert set(told) == {NAME, "names"}
    assert not told["names"].endswith(".")
    scene.no_state = True
    examined = scene(fix=True)
    assert details(examined)["names"] == "the state directory can't be written: Read-only file system"
    assert not examined.mended


def test_names_that_can_not_be_looked_at_keep_nothing_else_from_being_told(scene: Scene) -> None:
    scene.network.failure = BackendFailed("the ports can't be listed", detail="HTTP 500")
    examined = scene()
    assert details(examined) == {"names": "the ports can't be listed: HTTP 500"}
    assert "server web" in {finding.name for finding in examined.findings}


def test_a_dhcp_server_is_opened_and_names_are_published_in_one_go(scene: Scene) -> None:
    scene.network.secured = True
    examined = scene(fix=True, dhcp_server="web")
    assert len(examined.mended) == 2
    assert examined.mended[0].startswith("1 ports have no port security")
    assert not details(examined)
