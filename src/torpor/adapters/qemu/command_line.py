"""QEMU's arguments: first what the guest can see, which a saved state pins, then what is this host's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.qemu.installed import Accelerator
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.network import Tap
from torpor.domain.instance import InstanceSpec
from torpor.ports import Disk, Kernel

AGENT_PORT = "org.qemu.guest_agent.0"
RAM = "ram"
"""Id of guest memory's backend, and so the name of its RAM block."""
DISK_NODE = "disk"
FREE_PAGE_REPORTING = "free-page-reporting=on"
"""The guest gives memory that it does not use back to the host, so that it is not saved either."""
NO_PREAMBLE = "migration.send-configuration=off"
"""Neither writes nor expects a stream's preamble, which device state alone has not got."""
NETDEV = "net"
_NIC = "virtio-net-pci,addr=0x4,netdev=net,romfile="
CPUS = {Accelerator.KVM: "host", Accelerator.TCG: "max"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What must be the same in the QEMU that a state is restored into."""

    type: str
    accelerator: Accelerator
    spec: InstanceSpec
    boot: Kernel | Disk
    nic: bool
    reports_free_pages: bool

    @property
    def has_disk(self) -> bool:
        return isinstance(self.boot, Disk)


@dataclass(frozen=True, slots=True)
class Incoming:
    """The process is to be filled with a saved state."""

    bare: bool
    """By device state alone, without a stream's preamble."""
    memory_file: Path | None = None
    """Its memory is this file's, read as it is touched and never written."""


def guest_visible(machine: Machine) -> list[str]:
    """Arguments that make up the machine as its guest knows it, without what is this instance's alone."""
    spec = machine.spec
    arguments = [
        "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-shutdown",
        "-machine", f"{machine.type},memory-backend={RAM},usb=off,dump-guest-core=off",
        "-cpu", CPUS[machine.accelerator],
        "-smp", str(spec.flavor.vcpus),
        "-m", f"{spec.flavor.memory_mb}M",
        "-serial", "chardev:console",
        "-device", "virtio-rng-pci,addr=0x5",
        "-device", "virtio-serial-pci,addr=0x6",
        "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}",
        "-device", "virtio-blk-pci,addr=0x7,drive=seed",
    ]  # fmt: skip
    if machine.has_disk:  # in the first slot, for guests expect it to be vda
        arguments += ["-device", f"virtio-blk-pci,addr=0x3,drive={DISK_NODE},bootindex=1"]
    if machine.reports_free_pages:
        arguments += ["-device", f"virtio-balloon-pci,addr=0x8,{FREE_PAGE_REPORTING}"]
    if machine.nic:
        arguments += ["-device", _NIC]
    return arguments


def _identified(arguments: list[str], machine: Machine) -> list[str]:
    """With the instance's own MAC and UUID: those of a clone are not those of the machine that was saved."""
    return [f"{a},mac={machine.spec.mac}" if a == _NIC else a for a in arguments] + ["-uuid", machine.spec.id]


def reports_free_pages(arguments: Sequence[str]) -> bool:
    """Whether a machine that was started with these arguments has a guest that reports free pages."""
    return any(FREE_PAGE_REPORTING in argument for argument in arguments)


def host_side(
    machine: Machine, folder: InstanceFolder, binary: str, user: str, tb_size_mb: int, tap: Tap | None,
    incoming: Incoming | None,
) -> list[str]:  # fmt: skip
    """The whole command, from the program on, without what the guest can see."""
    command = ["nsenter", f"--net=/run/netns/{tap.namespace}", "--"] if tap else []
    command += [binary, "-name", machine.spec.name, "-accel", _accelerator(machine.accelerator, tb_size_mb)]
    command += ["-runas", user, "-sandbox", "on,obsolete=deny,spawn=deny"]
    command += ["-qmp", f"unix:{folder.qmp_socket},server=on,wait=off"]
    command += ["-chardev", f"socket,id=agent,path={folder.agent_socket},server=on,wait=off"]
    console = f"socket,id=console,path={folder.console_socket},server=on,wait=off"
    command += ["-chardev", f"{console},logfile={folder.console_log},logappend=on"]
    command += ["-blockdev", f"driver=raw,node-name=seed,read-only=on,{_file(folder.seed)}"]
    if machine.has_disk:
        command += ["-blockdev", f"driver=qcow2,node-name={DISK_NODE},discard=unmap,{_file(folder.disk)}"]
    if tap:
        command += ["-netdev", f"tap,id=net,ifname={tap.name},script=no,downscript=no"]
    kernel = machine.boot.kernel if isinstance(machine.boot, Disk) else machine.boot
    if kernel:
        command += _kernel(kernel)
    command += ["-object", _memory(machine, incoming.memory_file if incoming else None)]
    if incoming:
        command += ["-incoming", "defer", "-S"]
        if incoming.bare:
            command += ["-global", NO_PREAMBLE]
    return command


def command(
    machine: Machine, folder: InstanceFolder, binary: str, user: str, tb_size_mb: int, tap: Tap | None,
    incoming: Incoming | None,
) -> Sequence[str]:  # fmt: skip
    """What is executed."""
    return host_side(machine, folder, binary, user, tb_size_mb, tap, incoming) + _identified(
        guest_visible(machine), machine
    )


def _memory(machine: Machine, file: Path | None) -> str:
    size = f"id={RAM},size={machine.spec.flavor.memory_mb}M"
    return f"memory-backend-file,{size},mem-path={file},share=off" if file else f"memory-backend-ram,{size}"


def _accelerator(accelerator: Accelerator, tb_size_mb: int) -> str:
    return f"tcg,tb-size={tb_size_mb}" if accelerator is Accelerator.TCG else "kvm"


def _file(path: Path) -> str:
    return f"file.driver=file,file.filename={path}"


def _kernel(kernel: Kernel) -> list[str]:
    files = (kernel.kernel.absolute(), kernel.initrd.absolute())  # QEMU runs in /
    return ["-kernel", str(files[0]), "-initrd", str(files[1]), "-append", kernel.cmdline]
