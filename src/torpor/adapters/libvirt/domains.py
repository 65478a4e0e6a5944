"""Domains that are Torpor's to look after: found, asked, ended. What the ports stand on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import libvirt

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import NAMESPACE, Tag, tag_in
from torpor.adapters.libvirt.failures import is_code
from torpor.adapters.libvirt.layout import InstanceFolder, Layout
from torpor.adapters.libvirt.processes import Processes, own_memory
from torpor.adapters.libvirt.settings import LibvirtSettings
from torpor.domain.errors import Conflict, InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState

_ACTIVE = {
    libvirt.VIR_DOMAIN_RUNNING: BackendState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: BackendState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: BackendState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: BackendState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: BackendState.SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: BackendState.SHUT_OFF,
    libvirt.VIR_DOMAIN_SHUTOFF: BackendState.ABSENT,
}
_PAUSED_BECAUSE = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: BackendState.IO_ERROR,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: BackendState.LOADING,
}
_ENDED_IN_ORDER = (
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
)


def backend_state(state: int, reason: int) -> BackendState:
    """What libvirt's state of a domain means to the engine; ABSENT for one that is inactive, however it ended."""
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return _PAUSED_BECAUSE.get(reason, BackendState.PAUSED)
    return _ACTIVE.get(state, BackendState.PAUSED)


def ended_in_order(state: int, reason: int) -> bool:
    """Whether an inactive domain was shut off, by its guest or by a person, rather than crashed or saved."""
    return state == libvirt.VIR_DOMAIN_SHUTOFF and reason in _ENDED_IN_ORDER


@dataclass(frozen=True, slots=True)
class Vm:
    """A domain with Torpor's mark."""

    name: str
    folder: InstanceFolder
    tag: Tag
    connection: Connection

    @property
    def id(self) -> InstanceId:
        return self.folder.id

    @property
    def domain(self) -> libvirt.virDomain:
        """For the thread that asks, within `connection.call`. Raises libvirtError where it is gone."""
        return self.connection.look_up(self.id)

    def state(self) -> BackendState:
        """ABSENT when it is inactive."""
        with self.connection.call(f"domain {self.name} can't be asked for its state"):
            return backend_state(*self.domain.state())

    def active(self) -> bool:
        return self.state() is not BackendState.ABSENT

    def memory_bytes(self) -> int:
        """That its guest may have at most."""
        with self.connection.call(f"domain {self.name} can't be asked for its memory"):
            return int(self.domain.maxMemory()) * 1024

    def suspend(self) -> None:
        with self.connection.call(f"domain {self.name} can't be paused"):
            self.domain.suspend()

    def resume(self) -> None:
        with self.connection.call(f"domain {self.name} can't run on"):
            self.domain.resume()

    def destroy(self) -> None:
        """End its process by force. Converges."""
        with self.connection.call(f"domain {self.name} can't be ended"):
            try:
                self.domain.destroy()
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
                    raise  # those two: it does not run, or it was a transient one and is gone altogether


class Domains:
    """Finds the domains that carry Torpor's mark, and tells them from others'."""

    def __init__(self, settings: LibvirtSettings, connection: Connection) -> None:
        self.settings = settings
        self.connection = connection
        self.layout = Layout(settings.state_dir)
        self.processes = Processes()
        self._locks: WeakValueDictionary[InstanceId, threading.RLock] = WeakValueDictionary()
        self._guard = threading.Lock()

    @contextmanager
    def exclusive(self, instance: InstanceId) -> Iterator[None]:
        """One change of an instance at a time."""
        with self._guard:
            lock = self._locks.setdefault(instance, threading.RLock())
        with lock:
            yield

    def find(self, instance: InstanceId) -> Vm | None:
        """The instance's domain, running or not. Raises Conflict for one that carries no mark."""
        domain = self.connection.find(instance)
        if domain is None:
            return None
        tag = self.tag(domain)
        if tag.mark is None:
            raise Conflict(
                f"domain {domain.name()} is left alone",
                detail=tag.defect or "it carries no mark of Torpor's",
                remedy="adopt it first",
            )
        return Vm(str(domain.name()), self.layout.instance(instance), tag, self.connection)

    def marked(self, instance: InstanceId) -> Vm | None:
        """As `find`, for those who only look: None for a domain that carries no mark (any more)."""
        try:
            return self.find(instance)
        except Conflict:
            return None

    def require(self, instance: InstanceId) -> Vm:
        """One with a process. Raises InstanceGone."""
        vm = self.find(instance)
        if vm is None or not vm.active():
            raise InstanceGone(f"instance {instance} has no process", remedy="resume it from its state, or run it anew")
        return vm

    def all(self) -> list[Vm]:
        """Every domain that carries a mark, running or not."""
        with self.connection.call("the domains can't be listed") as host:
            domains = host.listAllDomains()
        vms = []
        for domain in domains:
            tag = self.tag(domain)
            if tag.mark:
                folder = self.layout.instance(InstanceId(domain.UUIDString()))
                vms.append(Vm(str(domain.name()), folder, tag, self.connection))
        return vms

    def tag(self, domain: libvirt.virDomain) -> Tag:
        """What its metadata say; nothing where it went away meanwhile."""
        with self.connection.call(f"domain {domain.name()} can't be asked for its mark"):
            try:
                return tag_in(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
                    return Tag(None)
                raise

    def resident_bytes(self, vm: Vm) -> int:
        """Host memory that holds its guest's memory, QEMU's own counted in; 0 without a process."""
        process = self.processes.find(vm.id)
        return min(own_memory(process), vm.memory_bytes()) if process else 0


def unable(name: str, what: str, state: BackendState, remedy: str) -> Conflict:
    """The instance is not in a state in which this can be done."""
    return Conflict(f"instance {name} can't {what}", detail=f"it is {state.value}", remedy=remedy)
