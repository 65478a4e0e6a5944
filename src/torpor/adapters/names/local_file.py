"""A hosts file on this machine, replaced whole while others may be editing it.

There is no lock that people's editors keep. So the new file is put in the old one's place by an exchange of the two,
and then the old one is looked at: when it is not what the new one was made from, or somebody still has it open for
writing, the exchange is taken back and the caller begins anew.
"""

import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from torpor.adapters.names.place import Changed
from torpor.adapters.names.reload import Reload
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.ports import Check

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LOCK_SECONDS = 5.0


class LocalFile:
    """A `Place` on this machine."""

    def __init__(self, path: Path, reload: Reload) -> None:
        self._path = path
        self._reload = reload

    @property
    def where(self) -> str:
        return str(self._path)

    def read(self) -> bytes:
        with self._translated("read"):
            try:
                return self._path.read_bytes()
            except FileNotFoundError:
                return b""

    def replace(self, old: bytes, new: bytes) -> None:
        """Atomic, durable, with the owner, mode and attributes of the file that was there; a symlink is followed."""
        with self._translated("written"):
            target = Path(os.path.realpath(self._path))
            with _alone_in(target.parent):
                fresh = target.with_name(f".{target.name}.torpor")
                fresh.unlink(missing_ok=True)
                try:
                    _write_like(fresh, target, new)
                    _put(fresh, target, old)
                finally:
                    fresh.unlink(missing_ok=True)
                _sync(target.parent)

    def reload(self) -> None:
        self._reload()

    def check(self) -> Check:
        return self._reload.check()

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"the hosts file {self._path} could not be {done}"
            if error.errno == errno.EBUSY:
                raise MissingPart(
                    what,
                    detail="it is mounted there by itself, as in a container, and can't be replaced whole",
                    remedy="name another file, which the name server reads as well (dnsmasq: addn-hosts)",
                ) from error
            detail = error.strerror or str(error)
            raise BackendFailed(what, detail=detail, remedy="check the path and who may write there") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One Torpor at a time; it leaves nothing behind. Raises BackendFailed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    again = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        wait=wait_fixed(0.02),
        stop=stop_after_delay(_LOCK_SECONDS),
        reraise=True,
    )
    try:
        again(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _write_like(fresh: Path, target: Path, data: bytes) -> None:
    """Durable, and ready to take the place of `target`, which may not be there yet."""
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        try:
            status = target.stat()
        except FileNotFoundError:
            os.fchmod(descriptor, 0o644)
        else:
            os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o7777)
            for name in os.listxattr(target):
                os.setxattr(descriptor, name, os.getxattr(target, name))
        file.flush()
        os.fsync(descriptor)


def _put(fresh: Path, target: Path, old: bytes) -> None:
    """`fresh` in the place of `target`, unless that is not `old` any more. Raises Changed, OSError."""
    try:
        if target.read_bytes() != old:
            raise Changed
    except FileNotFoundError:
        if old:
            raise Changed from None
        try:
            target.hardlink_to(fresh)
        except FileExistsError:
            raise Changed from None
        return
    if not _exchange(fresh, target):
        fresh.replace(target)
        return
    if _being_written(fresh) or fresh.read_bytes() != old:
        _exchange(fresh, target)
        _sync(target.parent)
        raise Changed


def _exchange(one: Path, other: Path) -> bool:
    """Both change places in one act; False where the file system can't do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _being_written(path: Path) -> bool:
    """Whether anybody has it open for writing; the kernel refuses a read lease then. False where it can't tell."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Should somebody open it just now, we are told by a signal; the usual one would end us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
