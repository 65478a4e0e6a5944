"""What guests and the network answer, read; and a clock set through an agent that is played here."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.arp import Reply, parse_reply, request
from torpor.adapters.guest.guest import AgentGuest, Ethernet, interface_addresses, interface_of, parse_execution
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Execution

ID = InstanceId("6a1c7f0e-4a53-4d0f-9b47-1f6f6f0e2b11")
INTERFACES: list[dict[str, Any]] = [
    {"name": "lo", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8}]},
    {
        "name": "ens3",
        "hardware-address": "52:54:00:AA:00:01",
        "ip-addresses": [
            {"ip-address-type": "ipv6", "ip-address": "fe80::1", "prefix": 64},
            {"ip-address-type": "ipv4", "ip-address": "10.103.0.5", "prefix": 24},
        ],
    },
    {"name": "ens4", "hardware-address": "52:54:00:aa:00:02"},
]


def test_addresses_are_ipv4_without_loopback() -> None:
    assert interface_addresses(INTERFACES) == ("10.103.0.5",)


def test_an_interface_is_found_by_its_mac_in_either_case() -> None:
    assert interface_of("52:54:00:aa:00:01", INTERFACES) == "ens3"
    assert interface_of("52:54:00:AA:00:02", INTERFACES) == "ens4"
    assert interface_of("52:54:00:aa:00:03", INTERFACES) is None


def test_a_command_that_runs_has_no_result() -> None:
    assert parse_execution({"exited": False}) == Execution(finished=False)


def test_a_finished_command_has_exit_code_and_both_outputs() -> None:
    out, err = (base64.b64encode(text).decode() for text in (b"out\n", b"err\n"))

    assert parse_execution({"exited": True, "exitcode": 3, "out-data": out, "err-data": err}) == Execution(
        True, 3, "out\nerr\n"
    )


def test_a_killed_command_has_the_exit_code_that_a_shell_gives_it() -> None:
    assert parse_execution({"exited": True, "signal": 9}) == Execution(True, 137, "")


@given(mac=st.binary(min_size=6, max_size=6), address=st.ip_addresses(v=4), asker=st.ip_addresses(v=4))
def test_an_arp_answer_says_who_has_the_address(mac: bytes, address: IPv4Address, asker: IPv4Address) -> None:
    question = request(b"\x02\0\0\0\0\x01", asker, address)
    assert parse_reply(question) is None
    answer = bytearray(question)
    answer[20:22] = b"\0\x02"  # a reply
    answer[22:28], answer[28:32] = mac, address.packed

    assert parse_reply(bytes(answer) + b"\0" * 18) == Reply(mac.hex(":"), str(address))


@given(st.binary(max_size=64))
def test_any_other_frame_is_no_arp_answer(frame: bytes) -> None:
    reply = parse_reply(frame)

    assert reply is None or frame[12:14] == b"\x08\x06"


# --- an agent that is played ---

Answer = Callable[[str, dict[str, Any]], object]


class Refusal(Exception):
    """The played agent says no."""


def play(listener: socket.socket, answer: Answer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                question = json.loads(line.replace(b"\xff", b""))
                name, arguments = question["execute"], question.get("arguments", {})
                prefix = b""
                try:
                    if name == "guest-sync-delimited":
                        prefix, reply = b"\xff", {"return": arguments["id"]}
                    else:
                        reply = {"return": answer(name, arguments)}
                except Refusal:
                    reply = {"error": {"class": "GenericError", "desc": "this feature is not supported"}}
                connection.sendall(prefix + json.dumps(reply).encode() + b"\n")


Played = Callable[[Answer], AgentGuest]


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def start(answer: Answer) -> AgentGuest:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        threads.append(threading.Thread(target=play, args=(listener, answer), daemon=True))
        threads[0].start()
        return AgentGuest(over_socket(lambda _: tmp_path / "agent.sock"), lambda _: Ethernet("lo", "127.0.0.1"))

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


class ClockOfGuest:
    """A guest's clock and the two ways to set it, each a while after it was asked for."""

    def __init__(
        self, behind: float, by_agent: bool = True, by_date: bool = True, fractions: bool = True, slow: float = 0.0
    ) -> None:
        self._offset = -behind
        self._by_agent, self._by_date, self._fractions, self._slow = by_agent, by_date, fractions, slow
        self.commands: list[str] = []

    def now(self) -> float:
        return time.time() + self._offset

    def off(self) -> float:
        return abs(self._offset)

    def __call__(self, name: str, arguments: dict[str, Any]) -> object:
        if name == "guest-get-time":
            return int(self.now() * 1e9)
        if name == "guest-set-time":
            if not self._by_agent:
                raise Refusal
            self._set(arguments["time"] / 1e9)
            return {}
        if name == "guest-exec":
            self.commands.append(arguments["arg"][1])
            if self._by_date:
                self._date(self.commands[-1])
            return {"pid": 1}
        return {"exited": True, "exitcode": 0 if self._by_date else 1}

    def _date(self, command: str) -> None:
        exact, _, rest = command.partition("||")
        if self._fractions:
            self._set(float(exact.split("@")[1]))
        else:
            time.sleep(float(rest.split("sleep")[1].split()[0]))
            self._set(float(rest.split("@")[1].split(";")[0]))

    def _set(self, moment: float) -> None:
        time.sleep(self._slow)
        self._offset = moment - time.time()


@pytest.mark.parametrize("by_agent", [True, False])
@pytest.mark.parametrize("behind", [3600.0, -120.0])
def test_a_clock_is_set_and_the_gap_told(played: Played, behind: float, by_agent: bool) -> None:
    clock = ClockOfGuest(behind, by_agent=by_agent)

    gap = played(clock).set_clock(ID, time.time())

    assert gap.behind == pytest.approx(behind, abs=5)
    assert clock.now() == pytest.approx(time.time(), abs=5)
    assert bool(clock.commands) is not by_agent


def test_what_the_setting_itself_takes_is_made_good(played: Played) -> None:
    clock = ClockOfGuest(3600.0, slow=0.4)

    gap = played(clock).set_clock(ID, time.time())

    assert clock.off() < 0.2, "without a lead it would be 0.4 s and more"
    assert gap.left == pytest.approx(0.0, abs=0.2)


def test_a_date_that_knows_whole_seconds_only_is_called_when_one_begins(played: Played) -> None:
    clock = ClockOfGuest(3600.0, by_agent=False, fractions=False)

    played(clock).set_clock(ID, time.time())

    assert clock.off() < 0.25, "half a second would be as good as chance"


def test_a_clock_that_does_not_follow_is_reported(played: Played) -> None:
    guest = played(ClockOfGuest(3600, by_agent=False, by_date=False))

    with pytest.raises(BackendFailed, match="still 3600"):
        guest.set_clock(ID, time.time())


@pytest.mark.parametrize("nonsense", [None, 7, "x", [], [7], [{"ip-addresses": [{"ip-address-type": "ipv4"}]}]])
def test_an_answer_without_sense_is_the_guests_failure(played: Played, nonsense: object) -> None:
    guest = played(lambda name, arguments: nonsense)

    with pytest.raises(BackendFailed, match="guest agent"):
        guest.execute(ID, "true")


def test_addresses_without_sense_are_the_guests_failure(played: Played) -> None:
    guest = played(lambda name, arguments: [{"ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "300.1"}]}])

    with pytest.raises(BackendFailed, match="makes no sense"):
        guest.addresses(ID)
