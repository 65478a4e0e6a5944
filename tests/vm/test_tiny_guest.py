"""The tiny guest takes what its config drive says, and tells the truth about itself."""

import hashlib
import json
import os
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any

import pytest

from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.images.store import ImageStore
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor
from torpor.ports import Kernel

MAC = "52:54:00:0a:66:02"
ADDRESS = "10.102.0.5"
SPEC = InstanceSpec(
    id=InstanceId("d7b0b1de-35a2-4b4a-9b3e-1f6b0d6f1a10"),
    name="batch-0",
    image="tiny",
    flavor=Flavor(vcpus=1, memory_mb=128),
    mac=MAC,
    network=NetworkConfig(ADDRESS, 24, "10.102.0.1", ("10.102.0.1",), "torpor.internal"),
    user_data="#!/bin/sh\necho said by user data >/run/marker\n",
)
DNS_RECORDS = ("--host-record=other.torpor.internal,10.102.0.77", "--local=/torpor.internal/")


class JsonLines:
    """One request and one answer a line, as QMP and the guest agent have it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket(AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw")

    def ask(self, execute: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "return" in answer or "error" in answer:
                return answer.get("return", answer)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Guest:
    """A plain QEMU in a network namespace of its own; loopback there has the guest's ports and a name server."""

    def __init__(self, folder: Path, kernel: Kernel, spec: InstanceSpec, cleanup: ExitStack) -> None:
        self.folder = folder
        self._namespace = f"torpor-{os.getpid()}-{folder.name}"
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        cleanup.callback(subprocess.run, ["ip", "netns", "delete", self._namespace], check=True)
        subprocess.run(self._inside("ip", "link", "set", "lo", "up"), check=True)
        self._start(cleanup, "dnsmasq", "--keep-in-foreground", "--no-hosts", "--no-resolv", "--pid-file", *DNS_RECORDS)
        (folder / "config.iso").write_bytes(config_drive_image(spec))
        self.process = self._start(cleanup, *qemu(folder, kernel, spec.flavor))

    def ask(self, command: str) -> Any:
        """One line to port 7000, one line of JSON back."""
        asked = subprocess.run(
            self._inside("busybox", "nc", "127.0.0.1", "7000"),
            input=f"{command}\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return json.loads(asked.stdout)

    def ready(self) -> None:
        self.until(lambda: "guest ready" in self.console(), 240)

    def console(self) -> str:
        log = self.folder / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for `condition`; the seconds only bound how long a failure takes."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"QEMU ended: {self.console()[-500:]}"
            assert time.monotonic() < end, f"still not so: {self.console()[-500:]}"
            time.sleep(0.1)

    def agent(self) -> JsonLines:
        return JsonLines(self.folder / "agent.sock")

    def run(self, *command: str) -> str:
        """Run a command through the guest agent; return its output."""
        with closing(self.agent()) as agent:
            arguments = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
            pid = agent.ask("guest-exec", **arguments)["pid"]
            while not (result := agent.ask("guest-exec-status", pid=pid))["exited"]:
                time.sleep(0.1)
        assert result["exitcode"] == 0, result
        return b64decode(result.get("out-data", "")).decode()

    def _inside(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self._namespace, *command]

    def _start(self, cleanup: ExitStack, *command: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(self._inside(*command), stdin=subprocess.DEVNULL)
        cleanup.callback(process.wait)
        cleanup.callback(process.kill)
        return process


def qemu(folder: Path, kernel: Kernel, flavor: Flavor) -> list[str]:
    user_network = (
        "user,id=net,net=10.102.0.0/24,host=10.102.0.1,dns=10.102.0.3,"
        f"hostfwd=tcp:127.0.0.1:7000-{ADDRESS}:7000,hostfwd=tcp:127.0.0.1:7-{ADDRESS}:7"
    )
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc,accel=tcg"),
        *("-cpu", "max", "-smp", str(flavor.vcpus), "-m", str(flavor.memory_mb)),
        *("-kernel", str(kernel.kernel), "-initrd", str(kernel.initrd), "-append", kernel.cmdline),
        *("-drive", f"if=none,id=seed,file={folder}/config.iso,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=seed", "-netdev", user_network),
        *("-device", f"virtio-net-pci,netdev=net,mac={MAC}", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={folder}/agent.sock,server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-qmp", f"unix:{folder}/qmp.sock,server=on,wait=off", "-serial", f"file:{folder}/console.log"),
    ]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Kernel:
    """Built once, then kept in pytest's cache until the recipe changes."""
    cache = request.config.cache
    store = ImageStore(tmp_path_factory.mktemp("images"), cache.mkdir("images") if cache else None)
    store.build("tiny", "tiny", lambda line: None)
    boot = store.boot("tiny")
    assert isinstance(boot, Kernel)
    return boot


@pytest.fixture(scope="module")
def guest(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for all tests that leave it running."""
    with ExitStack() as cleanup:
        guest = Guest(tmp_path_factory.mktemp("guest"), kernel, SPEC, cleanup)
        guest.ready()
        yield guest


@pytest.fixture
def own_guest(kernel: Kernel, tmp_path: Path) -> Iterator[Guest]:
    """A guest of the test's own, to be switched off."""
    with ExitStack() as cleanup:
        guest = Guest(tmp_path, kernel, SPEC, cleanup)
        guest.ready()
        yield guest


def test_hostname_and_static_address_come_from_the_config_drive(guest: Guest) -> None:
    status = guest.ask("status")
    assert (status["hostname"], status["address"]) == ("batch-0", ADDRESS)
    assert guest.run("/bin/ip", "route").splitlines()[0].startswith("default via 10.102.0.1 dev")
    assert guest.run("/bin/cat", "/etc/resolv.conf") == "search torpor.internal\nnameserver 10.102.0.1\n"


def test_user_data_is_run_when_it_is_a_script(guest: Guest) -> None:
    assert guest.run("/bin/cat", "/run/marker") == "said by user data\n"


def test_counter_counts_on_and_the_nonce_stays(guest: Guest) -> None:
    before = guest.ask("status")
    guest.until(lambda: bool(guest.ask("status")["counter"] > before["counter"] + 3), 60)
    assert guest.ask("status")["nonce"] == before["nonce"]
    assert len(before["nonce"]) == 32


def test_port_and_program_answer_alike(guest: Guest) -> None:
    by_port, by_agent = guest.ask("status"), json.loads(guest.run("/bin/torpor-guest", "status"))
    assert by_port.keys() == by_agent.keys()
    assert by_port["nonce"] == by_agent["nonce"]


def test_fill_is_incompressible_and_verify_sees_one_changed_byte(guest: Guest) -> None:
    filled = guest.ask("fill 8")
    assert (filled["ok"], guest.ask("status")["fill_sum"]) == (True, filled["fill_sum"])
    assert guest.ask("verify") == {"ok": True, "expected": filled["fill_sum"], "found": filled["fill_sum"]}
    assert int(guest.run("/bin/sh", "-c", "gzip -1 </run/torpor/fill | wc -c")) > 8 << 20
    guest.run("/bin/sh", "-c", "printf x | dd of=/run/torpor/fill bs=1 seek=5000000 conv=notrunc")
    assert guest.ask("verify")["ok"] is False


def test_fill_that_does_not_fit_in_its_128_mb_is_refused_and_the_guest_lives_on(guest: Guest) -> None:
    assert guest.ask("fill 40")["ok"]
    assert guest.ask("fill 60")["error"] == "no room for 60 MB"
    status = guest.ask("status")
    assert (status["fill_mb"], status["fill_sum"]) == (0, "")


def test_connection_makes_rounds_and_is_broken_for_ever_once_it_broke(guest: Guest) -> None:
    opened = guest.ask(f"connect {ADDRESS}")["tcp"]
    assert (opened["peer"], opened["connected"]) == (ADDRESS, True)
    guest.until(lambda: bool(guest.ask("status")["tcp"]["rounds"] >= 3), 60)
    assert guest.ask("status")["tcp"]["local_port"] == opened["local_port"] > 0
    assert guest.ask("connect other")["error"] == "there is a connection already"
    guest.run("/bin/killall", "cat")
    guest.until(lambda: guest.ask("status")["tcp"]["connected"] is False, 60)
    rounds = guest.ask("status")["tcp"]["rounds"]
    time.sleep(2)
    assert guest.ask("status")["tcp"]["rounds"] == rounds


def test_names_are_asked_from_inside_the_guest(guest: Guest) -> None:
    assert guest.ask("resolve other")["addresses"] == ["10.102.0.77"]
    assert guest.ask("resolve other.torpor.internal")["addresses"] == ["10.102.0.77"]
    assert guest.ask("resolve 10.102.0.77")["names"] == ["other.torpor.internal"]
    assert guest.ask("resolve nobody")["addresses"] == []


def test_job_is_a_chain_that_can_be_recomputed(guest: Guest) -> None:
    guest.ask("job")
    guest.until(lambda: bool(guest.ask("status")["job"]["step"] >= 20), 60)
    job = guest.ask("status")["job"]
    link = job["seed"]
    for step in range(1, job["step"] + 1):
        link = hashlib.sha256(f"{link} {step}\n".encode()).hexdigest()
    assert link == job["hash"]


def test_unknown_command_is_answered_in_json(guest: Guest) -> None:
    assert guest.ask('say "hello"') == {"ok": False, "error": "unknown command say"}


def test_agent_answers_and_names_the_address(guest: Guest) -> None:
    with closing(guest.agent()) as agent:
        assert agent.ask("guest-ping") == {}
        interfaces = agent.ask("guest-network-get-interfaces")
    [own] = [interface for interface in interfaces if interface.get("hardware-address") == MAC]
    assert [address["ip-address"] for address in own["ip-addresses"]] == [ADDRESS]


def test_agent_sets_both_clocks(guest: Guest) -> None:
    at = 1_900_000_000
    with closing(guest.agent()) as agent:
        assert agent.ask("guest-set-time", time=at * 10**9) == {}
        assert 0 <= agent.ask("guest-get-time") / 1e9 - at < 60
    assert 0 <= guest.ask("status")["date"] - at < 60
    assert "2030" in guest.run("/sbin/hwclock")


@pytest.mark.timeout(900)
def test_reboot_begins_anew_with_the_same_address(own_guest: Guest) -> None:
    before = own_guest.ask("status")
    assert own_guest.ask("reboot") == {"ok": True}
    # Writing over memory that holds translated code is slow under TCG: a reboot takes longer than the first boot.
    own_guest.until(lambda: own_guest.console().count("guest ready") == 2, 480)
    after = own_guest.ask("status")
    assert (after["hostname"], after["address"]) == (before["hostname"], before["address"])
    assert after["nonce"] != before["nonce"]
    assert own_guest.ask("poweroff") == {"ok": True}
    assert own_guest.process.wait(timeout=60) == 0


def test_power_button_switches_it_off(own_guest: Guest) -> None:
    with closing(JsonLines(own_guest.folder / "qmp.sock")) as qmp:
        qmp.ask("qmp_capabilities")
        qmp.ask("system_powerdown")
        assert own_guest.process.wait(timeout=60) == 0
