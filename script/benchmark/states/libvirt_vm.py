"""The same guest under libvirt: `virsh managedsave` and `start`, `virsh save` and `restore` past the page cache."""

import base64
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmark.states.contender import CHANGED_PERCENT, TB_SIZE_MB, Bench, Turn
from benchmark.states.record import Cell, Measure
from benchmark.states.talk import GuestFailed, Talk, seconds, sync_file, until_first_tick
from private_libvirtd import LibvirtHost
from torpor.domain.errors import BackendFailed
from torpor.domain.instance import Execution

MANAGED = "virsh managedsave"
_DOMAIN = "bench"
_XML = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>{tb}</tb-cache></tcg></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='{console}' append='on'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""


def direct_name(format: str) -> str:
    return f"virsh save {format} direct"


class _Shell:
    """The guest's agent, through the daemon, which keeps its socket to itself."""

    def __init__(self, host: LibvirtHost) -> None:
        self._host = host

    def execute(self, command: str) -> int:
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        return int(self._ask("guest-exec", arguments)["pid"])

    def execution(self, pid: int) -> Execution:
        status = self._ask("guest-exec-status", {"pid": pid})
        if not status["exited"]:
            return Execution(finished=False)
        output = b"".join(base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
        return Execution(True, int(status.get("exitcode", 255)), output.decode(errors="replace"))

    def _ask(self, command: str, arguments: dict[str, object]) -> Any:
        question = json.dumps({"execute": command, "arguments": arguments})
        try:
            return json.loads(self._host.virsh("qemu-agent-command", _DOMAIN, question))["return"]
        except GuestFailed as error:
            raise BackendFailed("the guest agent does not answer", detail=str(error)) from error


class LibvirtVm:
    """Implements `Contender`. `formats` are the values of `save_image_format` that `virsh save` is tried with."""

    def __init__(self, bench: Bench, cell: Cell, formats: Sequence[str]) -> None:
        self._bench = bench
        self._cell = cell
        self._formats = formats
        self._folder = folder = bench.folder / "v"
        self._host = LibvirtHost(folder)
        self._host.use("raw")  # it makes the folder
        self._console = folder / "console.log"
        self._console.touch()
        self._file = folder / "saved"
        self._talk = Talk(_Shell(self._host))
        self._asleep = False
        self._host.virsh("define", str(self._described(bench, folder)))

    def take_turn(self, turn: Turn) -> None:
        if not self._asleep:
            self._host.virsh("start", _DOMAIN)
            self._talk.await_boot()
            self._talk.ask(f"fill {self._cell.data_mb}")
            self._managed_save(turn)
        self._start(turn)
        self._direct(turn, "raw")
        for format in self._formats:
            self._host.use(format)
            self._direct(turn, format)
            self._host.use("raw")
        self._managed_save(turn)

    def close(self) -> None:
        for command in (("destroy", _DOMAIN), ("undefine", "--managed-save", _DOMAIN)):
            try:
                self._host.virsh(*command)
            except GuestFailed:
                continue  # it does not run
        self._host.stop()
        shutil.rmtree(self._folder)

    def _managed_save(self, turn: Turn) -> None:
        saved = self._host.managed_saves / f"{_DOMAIN}.save"
        turn.add(MANAGED, Measure.SUSPEND, self._sleep("managedsave", _DOMAIN, file=saved))
        turn.add(MANAGED, Measure.SUSPEND_BYTES, saved.stat().st_blocks * 512)
        self._asleep = True

    def _start(self, turn: Turn) -> None:
        started = self._wake("start", _DOMAIN)
        # The guest's own account of the reading: what the daemon takes to find the agent again does not count.
        read = float(self._talk.ask("read")["seconds"])
        turn.add(MANAGED, Measure.RESTORE, started)
        turn.add(MANAGED, Measure.READ_ALL, started + read)
        self._talk.ask("verify")
        self._talk.ask(f"change {CHANGED_PERCENT}")

    def _direct(self, turn: Turn, format: str) -> None:
        name = direct_name(format)
        taken = self._sleep("save", "--bypass-cache", _DOMAIN, str(self._file), file=self._file)
        turn.add(name, Measure.SUSPEND, taken)
        turn.add(name, Measure.SUSPEND_BYTES, self._file.stat().st_blocks * 512)
        turn.add(name, Measure.RESTORE, self._wake("restore", "--bypass-cache", str(self._file)))
        self._file.unlink()

    def _sleep(self, *command: str, file: Path) -> float:
        """Seconds until the file is durable and the process is gone."""
        process = psutil.Process(self._pid())
        self._bench.before_suspension(self._cell.memory_mb)

        def save() -> None:
            self._host.virsh(*command)
            sync_file(file)
            process.wait(60)

        return seconds(save)

    def _wake(self, *command: str) -> float:
        """Seconds to the first tick, memory's file not in the page cache; the client's own program is."""
        self._bench.before_restore(self._cell.memory_mb)
        self._host.virsh("version")
        return until_first_tick(lambda: self._host.virsh(*command), self._console)

    def _pid(self) -> int:
        """Of the domain's process, by the UUID in its command line."""
        uuid = self._host.virsh("domuuid", _DOMAIN).strip()
        (pid,) = (p.pid for p in psutil.process_iter(["cmdline"]) if uuid in (p.info["cmdline"] or []))
        return int(pid)

    def _described(self, bench: Bench, folder: Path) -> Path:
        kernel = bench.image.kernel
        description = folder / "domain.xml"
        description.write_text(
            _XML.format(
                name=_DOMAIN,
                memory=self._cell.memory_mb,
                kernel=kernel.kernel,
                initrd=kernel.initrd,
                cmdline=kernel.cmdline,
                console=self._console,
                tb=TB_SIZE_MB,
            )
        )
        return description
