"""What libvirt reports, as Torpor's errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, MissingPart, NoRoomForState, TimedOut

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TIMEOUTS = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
_LOST_IN = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)


class ConnectionLost(BackendFailed):
    """The connection to libvirt broke while it was asked: what was asked for may or may not have been done."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise what libvirt says as a TorporError; `what` names what does not happen then."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(what, error) from error


def translate(what: str, error: libvirt.libvirtError) -> Exception:
    """The TorporError for it."""
    code, detail = error.get_error_code(), reason(error)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return InstanceGone(what, detail=detail, remedy="resume it from its state, or run it anew")
    if code in _TIMEOUTS:
        return TimedOut(what, detail=detail, remedy="see what else is going on with that domain")
    if is_full(error):
        return NoRoomForState(what, detail=detail, remedy="make room where libvirt saves domains")
    if code in (libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_ERR_NETWORK_EXIST):
        return Conflict(what, detail=detail, remedy="choose another name, or remove the one that is there")
    if error.get_error_domain() in _LOST_IN:
        return ConnectionLost(what, detail=detail, remedy="see that libvirtd runs")
    return BackendFailed(what, detail=detail)


def unreachable(uri: str, error: libvirt.libvirtError) -> MissingPart:
    """Nobody answers at the URI."""
    return MissingPart(
        f"libvirt can't be reached at {uri}",
        detail=reason(error),
        remedy="start libvirtd (or virtqemud), or set libvirt.uri",
    )


def is_full(error: libvirt.libvirtError) -> bool:
    """Whether a file system has no room left; the number is not always passed on, the words are."""
    if is_code(error, libvirt.VIR_ERR_SYSTEM_ERROR) and error.get_int1() in _FULL:
        return True
    return "No space left on device" in reason(error)


def is_code(error: libvirt.libvirtError, *codes: int) -> bool:
    return error.get_error_code() in codes


def reason(error: libvirt.libvirtError) -> str:
    """libvirt's own words, on one line."""
    return " ".join(str(error.get_error_message() or error).split())[:500]
