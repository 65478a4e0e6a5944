"""A real guest agent in a network namespace of the test's own, which stands for the guest.

It runs on the machine of the test, so it is never asked to shut down or to set the clock.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.domain.errors import AgentRefused, AgentSilent, BackendFailed
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Execution, Instance

NAMESPACE, INTERFACE = "torpor-test-qga", "torpor-tg0"
GATEWAY, ADDRESS, MAC = "10.103.8.1", "10.103.8.7", "52:54:00:10:38:07"
ID = InstanceId("6a1c7f0e-4a53-4d0f-9b47-1f6f6f0e2b11")
NEVER_HERE = ("guest-set-time", "guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-set-user-password")


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout


def inside(*words: str) -> str:
    return ip("-n", NAMESPACE, *words)


def instance(address: str = ADDRESS, mac: str = MAC) -> Instance:
    return Instance(ID, WorkloadId("w"), "guest", 0, address, mac)


@pytest.fixture(scope="module")
def agent_program() -> Iterator[str]:
    """The installed one, else the one from Debian's package, unpacked and not installed."""
    installed = shutil.which("qemu-ga") or shutil.which("qemu-ga", path="/usr/sbin")
    if installed:
        yield installed
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "qemu-guest-agent"], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        yield f"{folder}/usr/sbin/qemu-ga"


def clean() -> None:
    ip("link", "del", INTERFACE, check=False)
    ip("netns", "del", NAMESPACE, check=False)


@pytest.fixture
def ethernet() -> Iterator[None]:
    """A guest without an address, on a cable to the host."""
    clean()
    try:
        ip("netns", "add", NAMESPACE)
        ip("link", "add", INTERFACE, "type", "veth", "peer", "name", "eth0", "address", MAC, "netns", NAMESPACE)
        ip("addr", "add", f"{GATEWAY}/24", "dev", INTERFACE)
        ip("link", "set", INTERFACE, "up")
        inside("link", "set", "lo", "up")
        inside("link", "set", "eth0", "up")
        yield
    finally:
        clean()


def on_ethernet(instance: Instance) -> Ethernet:
    return Ethernet(INTERFACE, GATEWAY)


@dataclass(frozen=True)
class Agent:
    guest: AgentGuest
    socket: Path


@pytest.fixture
def agent(ethernet: None, agent_program: str) -> Iterator[Agent]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.sock"
        argv = [agent_program, "-m", "unix-listen", "-p", str(path), "-t", folder, "-f", f"{folder}/pid"]
        blocked = ["-b", ",".join(NEVER_HERE)]
        with subprocess.Popen(["ip", "netns", "exec", NAMESPACE, *argv, *blocked]) as process:
            try:
                guest = AgentGuest(over_socket(lambda _: path), on_ethernet)
                while not guest.agent_answers(ID):  # its socket is there before it listens
                    assert process.poll() is None
                    time.sleep(0.01)
                yield Agent(guest, path)
            finally:
                process.kill()


def finished(guest: AgentGuest, pid: int) -> Execution:
    while not (result := guest.execution(ID, pid)).finished:
        time.sleep(0.01)
    return result


# --- from outside ---


def test_whoever_finds_the_line_full_is_let_in_later() -> None:
    """QEMU's socket has room for one in line; the next is turned away at once."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent.sock"
        listener.bind(str(path))
        listener.listen(0)
        in_line = socket.socket(socket.AF_UNIX)
        in_line.connect(str(path))

        def serve() -> None:
            time.sleep(0.3)
            for _ in range(2):
                client, _ = listener.accept()
                with client, client.makefile("rb") as lines:
                    question = lines.readline().lstrip(b"\xff")
                    if question:
                        answer = {"return": json.loads(question)["arguments"]["id"]}
                        client.sendall(b"\xff" + json.dumps(answer).encode() + b"\n")

        with ThreadPoolExecutor(1) as pool:
            server = pool.submit(serve)
            in_line.close()
            assert AgentGuest(over_socket(lambda _: path, 30.0), on_ethernet).agent_answers(ID)
            server.result(30)


def test_whoever_is_dropped_at_the_door_knocks_again() -> None:
    """An agent that notices late that its last client has gone may drop the next one with it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent.sock"
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            for ending in ("reset", "closed", "answered"):
                client, _ = listener.accept()
                with client:
                    if ending == "reset":
                        client.recv(1)  # closing on what was not read is a reset
                        continue
                    question = client.recv(65536).lstrip(b"\xff")
                    if ending == "answered":
                        answer = {"return": json.loads(question)["arguments"]["id"]}
                        client.sendall(b"\xff" + json.dumps(answer).encode() + b"\n")

        with ThreadPoolExecutor(1) as pool:
            server = pool.submit(serve)
            answers = AgentGuest(over_socket(lambda _: path, 30.0), on_ethernet).agent_answers(ID)
            assert answers
            server.result(30)


def test_what_was_owed_to_somebody_else_is_thrown_away() -> None:
    """QEMU hands on what the agent sends to whoever is connected by then."""
    owed = b'half an answer}\n{"return": {"version": "7.2.0"}}\n\xff{"return": 7}\n{"return": 8}\n'
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent.sock"
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            client, _ = listener.accept()
            with client, client.makefile("rb") as lines:
                client.sendall(owed)
                number = json.loads(lines.readline().lstrip(b"\xff"))["arguments"]["id"]
                client.sendall(b"\xff" + json.dumps({"return": number}).encode() + b"\n")
                assert json.loads(lines.readline())["execute"] == "guest-network-get-interfaces"
                client.sendall(b'{"return": []}\n')

        with ThreadPoolExecutor(1) as pool:
            server = pool.submit(serve)
            assert AgentGuest(over_socket(lambda _: path, 30.0), on_ethernet).addresses(ID) == ()
            server.result(30)


@pytest.fixture
def outside(ethernet: None) -> AgentGuest:
    return AgentGuest(over_socket(lambda _: Path("/nonexistent/agent.sock")), on_ethernet)


def test_a_guest_with_its_address_on_its_interface_is_found(outside: AgentGuest) -> None:
    inside("addr", "add", f"{ADDRESS}/24", "dev", "eth0")

    assert outside.probe(instance())


def test_a_guest_without_its_address_is_not_found(outside: AgentGuest) -> None:
    inside("addr", "add", "10.103.8.99/24", "dev", "eth0")

    assert not outside.probe(instance())


def test_another_machine_with_the_address_does_not_count(outside: AgentGuest) -> None:
    inside("addr", "add", f"{ADDRESS}/24", "dev", "eth0")

    assert not outside.probe(instance(mac="52:54:00:00:00:01"))


def test_probing_without_the_network_says_which_interface_is_missing() -> None:
    guest = AgentGuest(over_socket(lambda _: Path("/nonexistent")), lambda _: Ethernet("torpor-tg9", GATEWAY))

    with pytest.raises(BackendFailed, match="torpor-tg9"):
        guest.probe(instance())


def test_a_missing_agent_socket_is_a_silent_agent(outside: AgentGuest) -> None:
    assert not outside.agent_answers(ID)
    with pytest.raises(AgentSilent, match="guest agent does not answer"):
        outside.addresses(ID)


def test_a_socket_where_nobody_answers_is_a_silent_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        guest = AgentGuest(over_socket(lambda _: path, 0.2), on_ethernet)

        assert not guest.agent_answers(ID)


# --- from inside ---


def test_an_agent_that_runs_answers(agent: Agent) -> None:
    assert agent.guest.agent_answers(ID)


def test_addresses_are_those_on_the_guests_interfaces(agent: Agent) -> None:
    assert agent.guest.addresses(ID) == ()

    inside("addr", "add", "10.103.8.99/24", "dev", "eth0")

    assert agent.guest.addresses(ID) == ("10.103.8.99",)


def test_a_guest_with_wrong_addresses_is_given_its_own(agent: Agent) -> None:
    for wrong in ("10.103.8.99/24", "10.103.8.98/24", "192.168.77.3/16"):
        inside("addr", "add", wrong, "dev", "eth0")

    for _ in range(2):
        agent.guest.assign_address(instance(), 24, GATEWAY)

        assert agent.guest.addresses(ID) == (ADDRESS,)
        assert agent.guest.probe(instance())
        (route,) = json.loads(inside("-json", "route", "show", "default"))
        assert route["gateway"] == GATEWAY


def test_a_guests_interface_that_is_down_is_brought_up(agent: Agent) -> None:
    inside("link", "set", "eth0", "down")

    agent.guest.assign_address(instance(), 24, GATEWAY)

    assert agent.guest.probe(instance())


def test_a_guest_without_that_mac_is_reported(agent: Agent) -> None:
    with pytest.raises(BackendFailed, match="no interface in the guest has the MAC 52:54:00:00:00:01"):
        agent.guest.assign_address(instance(mac="52:54:00:00:00:01"), 24, GATEWAY)


def test_a_command_runs_in_the_guest_and_its_output_comes_back(agent: Agent) -> None:
    pid = agent.guest.execute(ID, "echo out; echo err >&2; ip netns identify $$; exit 3")

    result = finished(agent.guest, pid)

    assert result.exit_code == 3
    assert set(result.output.split()) == {"out", "err", NAMESPACE}


def test_a_command_that_runs_on_is_not_finished(agent: Agent) -> None:
    pid = agent.guest.execute(ID, "exec sleep 300")

    assert agent.guest.execution(ID, pid) == Execution(finished=False)

    finished(agent.guest, agent.guest.execute(ID, f"kill {pid}"))
    assert finished(agent.guest, pid).exit_code == 128 + 15


def test_the_last_of_a_long_output_is_kept(agent: Agent) -> None:
    result = finished(agent.guest, agent.guest.execute(ID, "seq 1 200000"))

    assert len(result.output) == 65536
    assert result.output.endswith("\n200000\n")


def test_a_result_is_handed_out_once(agent: Agent) -> None:
    pid = agent.guest.execute(ID, "true")
    finished(agent.guest, pid)

    with pytest.raises(AgentRefused, match=f"no command with pid {pid}"):
        agent.guest.execution(ID, pid)


def test_what_the_guest_forbids_is_told(agent: Agent) -> None:
    with pytest.raises(AgentRefused, match="guest-shutdown"):
        agent.guest.shutdown(ID)


def test_half_a_question_left_by_a_crash_does_no_harm(agent: Agent) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.connect(str(agent.socket))
        crashed.sendall(b'{"execute":"guest-exec","arguments":{"path":"/bin')

    assert agent.guest.agent_answers(ID)
    assert agent.guest.addresses(ID) == ()


def test_many_may_ask_at_once(agent: Agent) -> None:
    def echo(number: int) -> str:
        return finished(agent.guest, agent.guest.execute(ID, f"echo {number}")).output

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo, range(24))) == [f"{number}\n" for number in range(24)]
