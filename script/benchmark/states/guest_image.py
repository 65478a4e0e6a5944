"""The benchmark's guest: the tiny image with one more program, as a second archive behind its initramfs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.images.store import ImageStore
from torpor.ports import Kernel

ROOT = Path(__file__).parents[3]
_SOURCE = Path(__file__).parents[1] / "guest" / "bench-guest.c"
_CACHE = ROOT / "build" / "test-images" / ".built"
_STORE = ROOT / "build" / "bench-images"
PROGRAM = "/bin/bench-guest"


@dataclass(frozen=True)
class GuestImage:
    """Implements `BootImages` for the one image that there is."""

    kernel: Kernel

    def boot(self, name: str) -> Kernel:
        return self.kernel


def make_guest_image(folder: Path) -> GuestImage:
    """Build what is missing, in `folder`. Raises CalledProcessError, TorporError."""
    store = ImageStore(_STORE, _CACHE)
    if "tiny" in {image.name for image in store.list()}:
        store.remove("tiny")  # the recipe may have changed; what it built is kept aside
    store.build("tiny", "tiny", lambda line: None)
    tiny = store.boot("tiny")
    assert isinstance(tiny, Kernel)
    initrd = folder / "initrd"
    initrd.write_bytes(_padded(tiny.initrd.read_bytes()) + _archive(folder))
    return GuestImage(Kernel(tiny.kernel, initrd, tiny.cmdline))


def _archive(folder: Path) -> bytes:
    root = folder / "guest"
    program = root / PROGRAM.lstrip("/")
    program.parent.mkdir(parents=True)
    compile = ["gcc", "-static", "-O2", "-s", "-Wall", "-Wextra", "-o", str(program), str(_SOURCE), "-pthread"]
    subprocess.run(compile, check=True)
    command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"]
    names = f"bin\n{PROGRAM.lstrip('/')}\n"
    return subprocess.run(command, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout


def _padded(archive: bytes) -> bytes:
    """The kernel looks for the next archive at multiples of four bytes."""
    return archive + bytes(-len(archive) % 4)
