"""Torpor's tiny test guest as an image for Nova: its recipe's kernel and initramfs, with a few modules more.

Nova hands the config drive over as a CD-ROM on IDE, which no other backend does, so the recipe has no modules for
it. The kernel unpacks archives that lie one behind the other, so they go into a second archive behind the recipe's.
"""

import gzip
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.openstack.failure import LabFailed

_RECIPE = Path(__file__).parents[2] / "src/torpor/adapters/images/recipes/tiny"
_MODULES = ("ata_piix", "sr_mod")
_DISK = "64M"


def make_guest(folder: Path) -> None:
    """Have vmlinuz, initrd, cmdline and an empty disk.qcow2 in `folder`. Raises LabFailed."""
    if folder.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out, work = Path(scratch, "out"), Path(scratch, "work")
        out.mkdir()
        work.mkdir()
        _call("bash", "build", str(out), str(work), folder=_RECIPE)
        with (out / "initrd").open("ab") as initrd:
            initrd.write(_more_modules(work))
        _call("qemu-img", "create", "-q", "-f", "qcow2", str(out / "disk.qcow2"), _DISK, folder=out)
        out.rename(folder)


def _more_modules(work: Path) -> bytes:
    """An archive with the modules that the recipe left out, and the order in which to load them all."""
    shipped = {
        file.name.removesuffix(".ko").replace("-", "_"): file for file in work.glob("kernel/lib/modules/**/*.ko")
    }
    order = (work / "root/modules/order").read_text().split()
    tree = work / "more"
    (tree / "modules").mkdir(parents=True)

    def add(name: str) -> None:
        if name in order or name not in shipped:
            return
        content = shipped[name].read_bytes()
        depends = re.search(rb"\0depends=([\w,-]*)\0", content)
        for needed in depends[1].decode().replace("-", "_").split(",") if depends else ():
            add(needed)
        (tree / "modules" / f"{name}.ko").write_bytes(content)
        order.append(name)

    for name in _MODULES:
        add(name)
    (tree / "modules/order").write_text("\n".join(order) + "\n")
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    cpio = ("cpio", "-0", "-o", "-H", "newc", "--quiet", "-R", "0:0")
    archive = subprocess.run(cpio, input=names.encode(), cwd=tree, capture_output=True, check=True).stdout
    return gzip.compress(archive, mtime=0)


def _call(*command: str, folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise LabFailed(f"{command[0]} is not installed: run script/setup")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabFailed(f"the test guest was not made: {command[0]} failed\n{(done.stdout + done.stderr)[-2000:]}")
