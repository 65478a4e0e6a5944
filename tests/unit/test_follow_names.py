"""Names follow ports, round by round."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from torpor.adapters.fakes.clock import ManualClock
from torpor.adapters.fakes.names import FakeNames
from torpor.domain.errors import BackendFailed, TorporError
from torpor.domain.named_ports import NamedPort
from torpor.domain.naming import NameRecord
from torpor.engine.follow_names import ENSURE_SECONDS, NameFollower


class Network:
    """Its ports, or why they can't be listed."""

    def __init__(self) -> None:
        self.there: dict[str, NamedPort] = {}
        self.failure: TorporError | None = None

    def ports(self) -> Sequence[NamedPort]:
        if self.failure is not None:
            raise self.failure
        return tuple(self.there.values())

    def networks(self) -> Sequence[str]:
        return ("n",)

    def add(self, name: str, address: str, id: str = "", since: str = "1") -> None:
        self.there[id or name] = NamedPort(id or name, name, f"server-{id or name}", since, address)


class Scene:
    def __init__(self) -> None:
        self.network, self.names, self.clock = Network(), FakeNames(), ManualClock()
        self.follower = NameFollower(self.network, self.names, self.clock)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_names_come_change_and_go_with_the_ports(scene: Scene) -> None:
    scene.network.add("web", "10.0.0.5")
    assert scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.5"
    del scene.network.there["web"]
    scene.network.add("web", "10.0.0.9", id="again")
    assert scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.9"
    scene.network.there.clear()
    assert scene.follower.round()
    assert scene.names.lookup("web") is None


def test_what_an_earlier_life_has_left_goes(scene: Scene) -> None:
    scene.names.ensure()
    scene.names.publish([NameRecord("old", "10.0.0.7")])
    scene.follower.round()
    assert scene.names.lookup("old") is None


def test_while_the_cloud_does_not_answer_names_stay(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.network.add("web", "10.0.0.5")
    scene.follower.round()
    scene.network.failure = BackendFailed("the ports can't be listed")
    assert not scene.follower.round()
    assert not scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.5"
    assert caplog.text.count("the ports can't be listed") == 1, "told once"
    scene.network.failure = None
    assert scene.follower.round()


def test_a_name_server_that_ended_is_brought_back(scene: Scene) -> None:
    scene.network.add("web", "10.0.0.5")
    scene.follower.round()
    scene.names.running = False
    scene.follower.round()
    scene.clock.sleep(ENSURE_SECONDS)
    scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.5"


@pytest.mark.parametrize("call", ["ensure", "publish", "withdraw"])
def test_what_fails_is_done_in_the_next_round_and_keeps_nothing_else_from_being_done(scene: Scene, call: str) -> None:
    scene.network.add("old", "10.0.0.7")
    scene.follower.round()
    del scene.network.there["old"]
    scene.network.add("web", "10.0.0.5")
    scene.clock.sleep(ENSURE_SECONDS)
    scene.names.faults.fail(call)
    assert not scene.follower.round()
    done = (scene.names.lookup("web") == "10.0.0.5") + (scene.names.lookup("old") is None)
    assert done == (2 if call == "ensure" else 1)
    assert scene.follower.round()
    assert (scene.names.lookup("web"), scene.names.lookup("old")) == ("10.0.0.5", None)


def test_two_of_one_name_are_told_of_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    scene.network.add("web", "10.0.0.5", id="a", since="1")
    scene.network.add("web", "10.0.0.6", id="b", since="2")
    assert scene.follower.round()
    assert scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.5"
    assert caplog.text.count("had the name first") == 1
    del scene.network.there["a"]
    assert scene.follower.round()
    assert scene.names.lookup("web") == "10.0.0.6"


def test_the_first_round_publishes_everything_and_the_others_only_what_is_new(scene: Scene) -> None:
    """Of several places one may have missed, in an earlier life, what is told to be published."""
    asked: list[list[str]] = []

    class Told(FakeNames):
        def publish(self, records: Sequence[NameRecord]) -> None:
            asked.append([record.name for record in records])
            super().publish(records)

    names = Told()
    names.publish([NameRecord("web", "10.0.0.5")])
    scene.network.add("web", "10.0.0.5")
    follower = NameFollower(scene.network, names, scene.clock)
    assert follower.round()
    scene.network.add("db", "10.0.0.6")
    assert follower.round()
    assert follower.round()
    assert asked[1:] == [["web"], ["db"]]
