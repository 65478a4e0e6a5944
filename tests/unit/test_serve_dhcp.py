"""Leases follow a network's ports, round by round."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from torpor.adapters.fakes.clock import ManualClock
from torpor.adapters.names.leases import hostnames, pins
from torpor.domain.dhcp import DhcpService, DhcpSubnet, PinnedLease
from torpor.domain.errors import BackendFailed, TorporError
from torpor.engine.serve_dhcp import ATTACH_SECONDS, LeaseFollower

SUBNET = DhcpSubnet("10.0.0.0/24", "10.0.0.2")
WEB = PinnedLease("fa:16:3e:00:00:01", "10.0.0.5", "web")
DB = PinnedLease("fa:16:3e:00:00:02", "10.0.0.6")
SERVICE = DhcpService("cloud.internal", (SUBNET,), (WEB,))


class Network:
    def __init__(self) -> None:
        self.service = SERVICE
        self.failure: TorporError | None = None
        self.attached = 0
        self.there = False

    def attach(self) -> bool:
        if self.failure is not None:
            raise self.failure
        self.attached += 1
        new, self.there = not self.there, True
        return new

    def look(self) -> DhcpService:
        if self.failure is not None:
            raise self.failure
        assert self.there
        return self.service

    def is_there(self) -> bool:
        return self.there

    def detach(self) -> None:
        self.there = False


class Server:
    def __init__(self) -> None:
        self.given: DhcpService | None = None
        self.ended = 0

    def serve(self, service: DhcpService) -> None:
        self.given = service

    def serves(self) -> bool:
        return self.given is not None

    def stop(self) -> None:
        self.given = None
        self.ended += 1


class Scene:
    def __init__(self) -> None:
        self.network, self.server, self.clock = Network(), Server(), ManualClock()
        self.follower = LeaseFollower(self.network, self.server, self.clock)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_leases_come_and_go_with_the_ports(scene: Scene) -> None:
    assert scene.follower.round()
    assert scene.server.given == SERVICE
    scene.network.service = replace(SERVICE, leases=(DB,))
    assert scene.follower.round()
    assert scene.server.given == scene.network.service
    scene.follower.take_down()
    assert not scene.server.serves()
    assert not scene.network.is_there()


def test_while_the_cloud_does_not_answer_leases_stay(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.follower.round()
    scene.network.failure = BackendFailed("the ports can't be listed")
    assert not scene.follower.round()
    assert not scene.follower.round()
    assert scene.server.given == SERVICE
    assert caplog.text.count("the ports can't be listed") == 1, "told once"
    scene.network.failure = None
    assert scene.follower.round()


def test_its_port_is_seen_to_now_and_then_and_after_a_failure(scene: Scene) -> None:
    scene.follower.round()
    scene.follower.round()
    assert scene.network.attached == 1
    scene.clock.advance(ATTACH_SECONDS)
    scene.follower.round()
    assert scene.network.attached == 2
    scene.network.failure = BackendFailed("away")
    scene.follower.round()
    scene.network.failure = None
    scene.follower.round()
    assert scene.network.attached == 3


def test_a_server_whose_interface_went_is_started_on_the_new_one(scene: Scene) -> None:
    scene.follower.round()
    ended = scene.server.ended
    scene.clock.advance(ATTACH_SECONDS)
    scene.follower.round()
    assert scene.server.ended == ended
    scene.network.there = False
    scene.clock.advance(ATTACH_SECONDS)
    assert scene.follower.round()
    assert scene.server.ended == ended + 1
    assert scene.server.given == SERVICE


def test_what_is_leased_is_told_when_it_changes(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene.follower.round()
    scene.follower.round()
    assert caplog.text.count("1 leases pinned on 10.0.0.0/24 from 10.0.0.2") == 1


def test_what_dnsmasq_reads() -> None:
    assert pins((WEB, DB)) == (
        "fa:16:3e:00:00:01,set:mfa163e000001,10.0.0.5,1h\nfa:16:3e:00:00:02,set:mfa163e000002,10.0.0.6,1h\n"
    )
    assert hostnames((WEB, DB)) == "tag:mfa163e000001,12,web\n"
