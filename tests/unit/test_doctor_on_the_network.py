"""What `torpor doctor network` sees from a port of its own, and mends by serving DHCP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from torpor.adapters.fakes.clock import ManualClock
from torpor.domain.address_path import Attached, Echo, NetworkPicture, Subnet
from torpor.domain.errors import Conflict, MissingPart, TorporError
from torpor.engine.network_doctor import PATIENCE_SECONDS, Examined, Here, examine

WEB = Attached(
    server="s-web", name="web", status="ACTIVE", config_drive=True, port="p-web", port_up=True, mac="fa:16:3e:00:00:01",
    address="10.0.0.5", security=True, hears_dhcp=True, console=None,
)  # fmt: skip
OFF = replace(WEB, server="s-off", name="off", status="SHUTOFF", address="10.0.0.6")


class Scene:
    """A network whose server has its address some seconds after DHCP is served."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.served_at: float | None = None
        self.takes = 7.0
        self.asked: list[Sequence[str]] = []
        self.can_ask = True
        self.failure: TorporError | None = None

    def look(self, subject: str) -> tuple[NetworkPicture, str]:
        torpor = ("10.0.0.2",) if self.served_at is not None else ()
        return NetworkPicture("net", (Subnet("10.0.0.0/24", False, (), torpor),), (WEB, OFF), "n"), ""

    def open_port(self, port: str) -> None:
        raise AssertionError("nothing is to be opened")

    def ask(self, network: str, addresses: Sequence[str]) -> Mapping[str, Echo] | None:
        assert network == "n"
        self.asked.append(addresses)
        if not self.can_ask:
            return None
        there = self.served_at is not None and self.clock.now() >= self.served_at + self.takes
        return {address: Echo(WEB.mac if there else "", there) for address in addresses}

    def serve(self, network: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.served_at = self.clock.now()

    def __call__(self, fix: bool = False) -> Examined:
        return examine(self, "net", "", fix, None, Here(self, self.serve, self.clock))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def wrong(examined: Examined) -> dict[str, str]:
    return {finding.name: finding.detail for finding in examined.findings if not finding.ok}


def test_who_runs_is_asked_for_and_what_is_found_is_mended_and_waited_for(scene: Scene) -> None:
    assert "nobody answers for 10.0.0.5" in wrong(scene())["server web"]
    assert scene.asked == [["10.0.0.5"]]
    examined = scene(fix=True)
    assert not wrong(examined)
    assert "DHCP is served on network net" in examined.mended[0]
    assert scene.served_at is not None and scene.clock.now() >= scene.served_at + scene.takes


def test_what_does_not_show_in_time_is_told_as_it_is(scene: Scene) -> None:
    scene.takes = 10 * PATIENCE_SECONDS
    began = scene.clock.now()
    examined = scene(fix=True)
    assert "DHCP is served" in wrong(examined)["server web"]
    assert scene.clock.now() - began < 2 * PATIENCE_SECONDS


def test_where_nobody_can_ask_the_records_are_believed(scene: Scene) -> None:
    scene.can_ask = False
    assert not wrong(scene())


def test_that_dhcp_can_not_be_served_is_told_and_one_that_is_served_already_is_left(scene: Scene) -> None:
    scene.failure = MissingPart("no port can be bound to this machine", detail="the account may not")
    examined = scene(fix=True)
    assert "no port can be bound" in wrong(examined)["DHCP"]
    assert not examined.mended
    scene.failure = Conflict("another serves it")
    assert set(wrong(scene(fix=True))) == {"server web"}
