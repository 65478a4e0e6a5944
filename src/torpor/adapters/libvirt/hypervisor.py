"""The life of domains: implements the `Hypervisor` port."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import libvirt
import libvirt_qemu

from torpor.adapters.libvirt import accelerator
from torpor.adapters.libvirt.domain_xml import NewDomain, described, domain_xml
from torpor.adapters.libvirt.domains import Domains, Vm, ended_in_order, unable
from torpor.adapters.libvirt.failures import is_code
from torpor.adapters.libvirt.layers import youngest
from torpor.adapters.libvirt.layout import InstanceFolder, free_bytes, used_bytes
from torpor.adapters.libvirt.managed_saves import Image
from torpor.adapters.libvirt.overlay import create_overlay
from torpor.adapters.libvirt.processes import own_memory
from torpor.adapters.libvirt.saved_states import remove_image, saved_states
from torpor.domain.capacity import Host, Resources
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, TimedOut, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Observation
from torpor.files import remove_tree, sync_folder, write_durably
from torpor.ports import BootImages, Capabilities, Disk

_DISK_SHARE = 0.9
_POLL_SECONDS = 0.1
_SHUT_DOWN = '{"execute": "guest-shutdown"}'
"""An agent that heeds it does not answer."""
_AGENT_SECONDS = 1
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_SIZES = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
_WITHOUT_WAITING = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


class LibvirtHypervisor:
    """Marked domains of this host. Those that Torpor made it may erase, too; the others' are only lent to it."""

    def __init__(self, domains: Domains, images: BootImages, config_drive: Callable[[InstanceSpec], bytes]) -> None:
        self._domains = domains
        self._images = images
        self._config_drive = config_drive
        self._stopped: set[InstanceId] = set()
        self._guard = threading.Lock()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            gang_pause=True, revert=False, guest_agent=True, snapshots=True, keeps_process=False, adoption=True
        )

    def host(self) -> Host:
        settings = self._domains.settings
        with self._domains.connection.call("the host's size can't be found out") as host:
            vcpus = settings.vcpus or int(host.getCPUMap()[0])
            total = int(host.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"]) >> 10
        memory = settings.memory_mb or max(0, total - settings.reserve_mb)
        disk = settings.disk_mb or int(self._disk_bytes() * _DISK_SHARE) >> 20
        taken = self._taken_by_others()
        left = Resources(max(0, vcpus - taken.vcpus), max(0, memory - taken.memory_mb), disk)
        return Host(settings.host, left)

    def observe(self) -> Mapping[InstanceId, Observation]:
        """One that was shut off, by its guest or by a person, is SHUT_OFF without a pid until it is started again."""
        seen = {}
        for vm in self._domains.all():
            # One that was undefined meanwhile is left out; any other failure says nothing of the VM, so it is raised.
            with suppress(InstanceGone), self._domains.connection.call(f"domain {vm.name} can't be observed"):
                observed = self._observe(vm)
                if observed:
                    seen[vm.id] = observed
        return seen

    def boot(self, spec: InstanceSpec) -> None:
        """Raises Conflict when it has a whole saved state or its name is taken, MissingPart, NotFound, Invalid."""
        with self._domains.exclusive(spec.id):
            vm = self._domains.find(spec.id)
            if vm and self._runs_already(vm, spec):
                return
            if vm:
                self._refuse_whole_state(vm)
            folder = self._domains.layout.instance(spec.id)
            try:
                if vm is None or vm.tag.made:
                    self._define(spec, folder)
                self._start(spec)
            except BaseException as error:
                if vm is None:
                    self._clean_up(folder)
                if isinstance(error, OSError):
                    raise _unwritable(spec.name, folder, error) from error
                raise

    def pause(self, instance: InstanceId) -> None:
        with self._domains.exclusive(instance):
            vm = self._domains.require(instance)
            if to_pause(vm, vm.state()):
                vm.suspend()

    def run_on(self, instance: InstanceId) -> None:
        """Raises Conflict while its newest state is whole: it must be marked spent before."""
        with self._domains.exclusive(instance):
            vm = self._domains.require(instance)
            if to_run_on(self._domains, vm, vm.state()):
                vm.resume()

    def stop(self, instance: InstanceId, grace: float) -> None:
        with self._domains.exclusive(instance):
            vm = self._domains.find(instance)
            if vm is None:
                return
            if grace > 0:
                self._ask_politely(vm, grace)
            self._end(vm)

    def erase(self, instance: InstanceId) -> None:
        """Raises Conflict for a domain that Torpor did not make."""
        with self._domains.exclusive(instance):
            vm = self._domains.find(instance)
            if vm:
                self._undefine(vm)
            remove_tree(self._domains.layout.instance(instance).path)

    # Parts of the above

    def _observe(self, vm: Vm) -> Observation | None:
        state, why = vm.domain.state()
        if state == libvirt.VIR_DOMAIN_SHUTOFF:
            if not ended_in_order(state, why) or vm.id in self._stopped or self._has_image(vm):
                return None
            return Observation(BackendState.SHUT_OFF)
        process = self._domains.processes.find(vm.id)
        own = own_memory(process) if process else 0
        resident = min(own, vm.memory_bytes())
        return Observation(vm.state(), resident, own, process.pid if process else None)

    def _has_image(self, vm: Vm) -> bool:
        """libvirt itself does not know of one that a snapshot was laid down as, though it starts from it."""
        return saved_states(vm, self._domains.settings.save_dir).image.is_there()

    def _disk_of(self, folder: InstanceFolder) -> Path:
        """The file that its disk is written to: after snapshots it may be another than at first."""
        vm = self._domains.find(folder.id)
        if vm is None:
            return youngest(folder.layers, folder.disk)
        with self._domains.connection.call(f"domain {vm.name} can't be looked at"):
            disks = described(vm.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).disks
        return next((disk.path for disk in disks if disk.path and disk.writable), folder.disk)

    def _disk_bytes(self) -> int:
        """What is free where saved states go, and what is ours there already; others' images are theirs."""
        save_dir, instances = self._domains.settings.save_dir, self._domains.layout.instances_dir
        images = (saved_states(vm, save_dir).image for vm in self._domains.all())
        ours = sum(image.stored_bytes() for image in images if image.is_there())
        if instances.is_dir() and save_dir.is_dir() and instances.stat().st_dev == save_dir.stat().st_dev:
            ours += used_bytes(instances)
        return free_bytes(save_dir) + ours

    def _taken_by_others(self) -> Resources:
        """By domains without a mark that have a process."""
        with self._domains.connection.call("the domains of others can't be measured") as host:
            running = host.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            others = [domain for domain in running if self._domains.tag(domain).mark is None]
            found = host.domainListGetStats(others, _SIZES, _WITHOUT_WAITING) if others else []
        vcpus = sum(int(stats.get("vcpu.current", 1)) for _, stats in found)
        memory = sum(int(stats.get("balloon.maximum", 0)) for _, stats in found)
        return Resources(vcpus, -(-memory >> 10))

    def _runs_already(self, vm: Vm, spec: InstanceSpec) -> bool:
        """Whether an earlier boot got this far; a guest that powered itself off is ended, to be booted anew."""
        state = vm.state()
        if state is BackendState.SHUT_OFF:
            vm.destroy()
            return False
        if state in (BackendState.RUNNING, BackendState.ABSENT):
            return state is BackendState.RUNNING
        raise unable(spec.name, "be booted", state, "restore it, let it run on, or stop it")

    def _refuse_whole_state(self, vm: Vm) -> None:
        states = saved_states(vm, self._domains.settings.save_dir)
        whole = states.whole()
        if whole:
            raise Conflict(
                f"instance {vm.name} can't be booted",
                detail=f"its saved state {whole.generation} would be lost",
                remedy="restore it, or delete the instance",
            )
        remove_image(vm, states.image)  # spent or half written: libvirt would try to start from it

    def _define(self, spec: InstanceSpec, folder: InstanceFolder) -> None:
        """Folder, config drive, disk, and the domain itself, which is not started. Converges."""
        boot = self._images.boot(spec.image)
        folder.make()
        if not folder.seed.exists():
            write_durably(folder.seed, self._config_drive(spec), 0o444)
        if isinstance(boot, Disk):
            create_overlay(folder.disk, boot, spec.flavor.disk_mb)
        folder.console_log.touch()
        sync_folder(self._domains.layout.instances_dir)
        settings = self._domains.settings
        new = NewDomain(
            spec=spec,
            workload=dict(spec.meta).get("workload", spec.name),
            type=self.accelerator().type,
            boot=boot,
            disk=self._disk_of(folder) if isinstance(boot, Disk) else None,
            seed=folder.seed,
            console_log=folder.console_log,
            network=settings.network,
            tb_size_mb=settings.tb_size_mb,
        )
        with self._domains.connection.call(f"domain {spec.name} can't be defined") as host:
            _refuse_taken_name(host, spec)
            host.defineXML(domain_xml(new))

    def accelerator(self) -> accelerator.Choice:
        """Raises MissingPart when KVM is demanded and not to be had."""
        with self._domains.connection.call("libvirt can't be asked for its capabilities") as host:
            try:
                host.getDomainCapabilities(None, "x86_64", "pc", "kvm")
                offered = True
            except libvirt.libvirtError:
                offered = False
        return accelerator.choose(self._domains.settings.accelerator, offered)

    def _start(self, spec: InstanceSpec) -> None:
        vm = self._domains.find(spec.id)
        if vm is None:
            raise BackendFailed(f"domain {spec.name} can't be started", detail="it was undefined by somebody else")
        with self._domains.connection.call(f"domain {spec.name} can't be started"):
            vm.domain.create()
        with self._guard:
            self._stopped.discard(spec.id)

    def _clean_up(self, folder: InstanceFolder) -> None:
        """Of a first boot that failed."""
        with suppress(TorporError):
            vm = self._domains.find(folder.id)
            if vm and vm.tag.made:
                self._undefine(vm)
        with suppress(OSError):
            remove_tree(folder.path)

    def _ask_politely(self, vm: Vm, grace: float) -> None:
        """By ACPI and by the agent; guests differ in which they heed."""
        try:
            if vm.state() is not BackendState.RUNNING:
                return
            with suppress(BackendFailed), vm.connection.call(f"domain {vm.name} can't be asked to shut down"):
                vm.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            # Not by libvirt's own call, which waits a minute for an agent that was there once and is silent now.
            with (
                suppress(BackendFailed, TimedOut),
                vm.connection.call(f"the agent of domain {vm.name} does not answer"),
            ):
                libvirt_qemu.qemuAgentCommand(vm.domain, _SHUT_DOWN, _AGENT_SECONDS, 0)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and vm.state() is BackendState.RUNNING:
                time.sleep(_POLL_SECONDS)
        except TorporError:
            return  # by force, then

    def _end(self, vm: Vm) -> None:
        with self._guard:
            self._stopped.add(vm.id)
        vm.destroy()

    def _undefine(self, vm: Vm) -> None:
        """With everything that libvirt keeps of it. Raises Conflict for a domain that Torpor did not make."""
        if not vm.tag.made:
            raise Conflict(
                f"domain {vm.name} is not erased",
                detail="it was not made by Torpor",
                remedy="let go of it, and undefine it with its own tools",
            )
        vm.destroy()
        image = saved_states(vm, self._domains.settings.save_dir).image
        with self._domains.connection.call(f"domain {vm.name} can't be undefined"):
            try:
                vm.domain.undefineFlags(_UNDEFINE)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    raise
        _remove_orphan(image)
        with self._guard:
            self._stopped.discard(vm.id)


def to_pause(vm: Vm, state: BackendState) -> bool:
    """Whether it is still to be paused. Raises Conflict when it can't be."""
    if state in (BackendState.LOADING, BackendState.SHUT_OFF):
        raise unable(vm.name, "be paused", state, "restore or boot it first")
    return state is BackendState.RUNNING


def to_run_on(domains: Domains, vm: Vm, state: BackendState) -> bool:
    """Whether it is still to be let run on. Raises Conflict when it can't be."""
    if state is BackendState.RUNNING:
        return False
    if state in (BackendState.LOADING, BackendState.SHUT_OFF):
        raise unable(vm.name, "run on", state, "restore or boot it first")
    whole = saved_states(vm, domains.settings.save_dir).whole()
    if whole:
        raise Conflict(
            f"instance {vm.name} can't run on",
            detail=f"its saved state {whole.generation} would be used up",
            remedy="mark it spent before",
        )
    return True


def _refuse_taken_name(host: libvirt.virConnect, spec: InstanceSpec) -> None:
    """Raises Conflict when another domain has the instance's name."""
    try:
        taken = host.lookupByName(spec.name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return
        raise
    if taken.UUIDString() != spec.id:
        raise Conflict(
            f"domain {spec.name} can't be made",
            detail="libvirt has another domain of that name",
            remedy="choose another name for the workload",
        )


def _remove_orphan(image: Image) -> None:
    """An image that libvirt did not know of would be taken up by the next domain of that name."""
    image.remove()


def _unwritable(name: str, folder: InstanceFolder, error: OSError) -> BackendFailed:
    return BackendFailed(
        f"instance {name} can't be started",
        detail=f"{error.filename or folder.path}: {error.strerror or os.strerror(error.errno or 0)}",
        remedy="make state_dir writable and roomy",
    )
