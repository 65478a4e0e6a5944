"""Hostnames: which are allowed, and what belongs to one."""

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from torpor.domain.errors import Conflict, Invalid

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = frozenset({"localhost", "gateway"})


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A hostname (one label, no zone) with its addresses, forward and reverse; one of the two may be missing ("")."""

    name: str
    address: str = ""
    """IPv4."""
    address6: str = ""
    """IPv6."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that there are, IPv4 first."""
        return tuple(address for address in (self.address, self.address6) if address)


def check_label(name: str, what: str = "name", why: str = "it becomes part of hostnames") -> str:
    """Return `name` if it is an RFC 1123 hostname label in lower case, else raise Invalid, which says `why`."""
    if not _LABEL.fullmatch(name):
        raise Invalid(
            f"{what} {name[:80]!r} is not a hostname label",
            detail=why,
            remedy="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    if name in _RESERVED:
        raise Invalid(f"{what} {name!r} is reserved", remedy="choose another name")
    return name


def encode_label(name: str, what: str = "name", why: str = "it becomes part of hostnames") -> str:
    """The label that stands for `name` in DNS: itself, or by IDNA 2008 (RFC 5891) what stands for its letters.

    Nothing is mapped (capitals, full-width letters and dots, ligatures): what IDNA does not take as it is, is refused,
    so that no two spellings become one name. Raises Invalid, which says `why`.
    """
    if name.isascii():
        return check_label(name, what, why)
    try:
        label = idna.alabel(name).decode("ascii")
    except idna.IDNAError as error:
        raise Invalid(
            f"{what} {name[:80]!r} can't be written in DNS",
            detail=f"IDNA refuses it ({ascii(str(error))[1:-1][:120]})",
            remedy="use letters in lower case, digits and '-', few enough to be 63 once encoded",
        ) from error
    return check_label(label, what, why)


def hostname_of(name: str) -> str:
    """The hostname label that is nearest to a VM's name as its owner wrote it. Raises Invalid where none is near."""
    what, why = f"hostname of VM {name[:80]!r},", "its name was made from the VM's"
    label = re.sub(r"(?:[^\w-]|_)+", "-", unicodedata.normalize("NFC", name).lower()).strip("-")
    if not label.isascii():
        with suppress(Invalid):
            return encode_label(label, what, why)
    label = re.sub(r"[^a-z0-9-]+", "-", label).strip("-")
    return check_label(label[:63].rstrip("-"), what, why)


def instance_names(workload: str, count: int) -> tuple[str, ...]:
    """Hostnames of a workload's instances: its own name for one, `name-0`, `name-1`, ... for more."""
    check_label(workload, "workload name")
    names = (workload,) if count == 1 else tuple(f"{workload}-{i}" for i in range(count))
    for name in names:
        check_label(name, "hostname")
    return names


def check_record(record: NameRecord) -> NameRecord:
    """The record as it may be published: name encoded, addresses in their one spelling. Raises Invalid."""
    name = encode_label(record.name)
    if not record.addresses:
        raise Invalid(f"{name} has no address", remedy="give it an IPv4 address, an IPv6 address, or both")
    return NameRecord(name, _ipv4(name, record.address), _ipv6(name, record.address6))


def check_records(records: Sequence[NameRecord]) -> tuple[NameRecord, ...]:
    """Each as `check_record`, what is said twice once.

    Raises Invalid, and Conflict where two instances would have one name: neither is preferred.
    """
    checked: dict[str, NameRecord] = {}
    for record in map(check_record, records):
        other = checked.setdefault(record.name, record)
        if other != record:
            both = " and ".join("/".join(each.addresses) for each in (other, record))
            raise Conflict(
                f"two instances are to be named {record.name!r}",
                detail=f"the addresses are {both}, and a name leads to one instance",
                remedy="give one of them another name",
            )
    return tuple(checked.values())


def _ipv4(name: str, text: str) -> str:
    if not text:
        return ""
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise Invalid(f"address {text[:80]!r} of {name} is not an IPv4 address") from error
    _refuse_special(name, address)
    return str(address)


def _ipv6(name: str, text: str) -> str:
    if not text:
        return ""
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise Invalid(f"address {text[:80]!r} of {name} is not an IPv6 address") from error
    if address.scope_id is not None or address.is_link_local:
        raise Invalid(
            f"address {text[:80]!r} of {name} is valid on one link only",
            detail="who asks by name may be on another",
            remedy="give a global or unique local address (fd00::/8)",
        )
    _refuse_special(name, address)
    return str(address)


def _refuse_special(name: str, address: IPv4Address | IPv6Address) -> None:
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise Invalid(f"address {address} of {name} is no machine's own", remedy="give the address of its interface")
