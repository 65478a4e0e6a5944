"""Domains that others have made: all are listed, and those that are to be looked after are marked."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import (
    NAMESPACE,
    PREFIX,
    DiskSource,
    Tag,
    described,
    mark_element,
    tag_in,
)
from torpor.adapters.libvirt.domains import backend_state
from torpor.adapters.libvirt.failures import is_code
from torpor.adapters.libvirt.obstacles import obstacle
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState
from torpor.domain.workload import Flavor

_MIB = 2**20
_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_SIZE = slice(24, 32)


class LibvirtAdoption:
    """The Adoption port. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def strangers(self) -> Sequence[Stranger]:
        found = []
        with self._connection.call("the domains can't be listed") as host:
            for domain in host.listAllDomains():
                with _gone_is_no_matter():
                    stranger = _stranger(domain)
                    if stranger is not None:
                        found.append(stranger)
        return tuple(sorted(found, key=lambda each: (each.name, each.id)))

    def mark(self, instance: InstanceId, mark: Mark) -> None:
        """In the running domain and in its description for the next start, as far as it has both."""
        domain = self._connection.find(instance)
        if domain is None:
            raise _unknown(instance)
        with self._connection.call(f"domain {domain.name()} can't be marked"):
            try:
                for place, there in _tags(domain).items():
                    if there is None or there.mark != mark:
                        _write(domain, mark_element(mark), place)
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    raise _unknown(instance) from error
                raise

    def unmark(self, instance: InstanceId) -> None:
        domain = self._connection.find(instance)
        if domain is None:
            return
        with self._connection.call(f"the mark of domain {domain.name()} can't be removed"), _gone_is_no_matter():
            for place, there in _tags(domain).items():
                if there is not None:
                    _write(domain, None, place)


@contextmanager
def _gone_is_no_matter() -> Iterator[None]:
    """Whoever owns the domain may end and undefine it while it is looked at."""
    try:
        yield
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise


def _stranger(domain: libvirt.virDomain) -> Stranger | None:
    """None for a domain of Torpor's making."""
    xml = domain.XMLDesc()
    tag = tag_in(xml)
    if tag.made:
        return None
    seen = described(xml)
    disk_bytes = sum(capacity(disk) for disk in seen.disks if disk.writable)
    return Stranger(
        id=seen.id,
        name=seen.name,
        flavor=Flavor(seen.vcpus, seen.memory_mb, -(-disk_bytes // _MIB)),
        mac=seen.mac,
        state=_state(domain),
        mark=tag.mark,
        defect=tag.defect,
        unfit=obstacle(xml, bool(domain.isPersistent())),
    )


def _state(domain: libvirt.virDomain) -> BackendState:
    """An inactive domain is ABSENT where libvirt has a saved image of it, and shut off otherwise."""
    state = backend_state(*domain.state())
    if state is BackendState.ABSENT and not domain.hasManagedSaveImage():
        return BackendState.SHUT_OFF
    return state


def capacity(disk: DiskSource) -> int:
    """Bytes that the guest sees of it; 0 where that can't be told from its file.

    Whether it is a qcow2 file is for the domain's owner to say: a guest can write a header into a raw disk.
    """
    if disk.path is None:
        return 0
    try:
        with Path(disk.path).open("rb") as opened:
            if disk.format != "qcow2":
                return opened.seek(0, 2)
            header = opened.read(_QCOW2_SIZE.stop)
    except OSError:
        return 0
    return int.from_bytes(header[_QCOW2_SIZE], "big") if header.startswith(_QCOW2_MAGIC) else 0


def _tags(domain: libvirt.virDomain) -> Mapping[int, Tag | None]:
    """What it says of itself, wherever it must say the same to hold now and after the next start; None: nothing.

    Raises Conflict for a domain of Torpor's making.
    """
    places = [libvirt.VIR_DOMAIN_AFFECT_CONFIG] if domain.isPersistent() else []
    if domain.isActive():
        places.append(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    tags = {place: _tag(domain, place) for place in places}
    if any(tag is not None and tag.made for tag in tags.values()):
        raise Conflict(f"domain {domain.name()} is Torpor's own", remedy="leave its mark as it is")
    return tags


def _tag(domain: libvirt.virDomain, place: int) -> Tag | None:
    try:
        return tag_in(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, place))
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return None
        raise


def _write(domain: libvirt.virDomain, element: str | None, place: int) -> None:
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, element, PREFIX, NAMESPACE, place)


def _unknown(instance: InstanceId) -> NotFound:
    return NotFound(f"there is no VM {instance}", detail="libvirt has no such domain", remedy="see `torpor adopt`")
