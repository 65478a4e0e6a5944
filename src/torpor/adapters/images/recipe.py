"""Building images from distribution packages: each recipe is a folder of `recipes` with a script `build`.

The script is run by bash as `build OUT WORK` in the recipe's folder, with a scratch folder WORK that is
removed afterwards. It leaves in OUT what `ImageStore` describes (`vmlinuz` and `initrd`, with `disk.qcow2`
beside them or not) and `cmdline`, and writes a line of progress to its output now and then. Exit status 3
means that a program is missing: the last line is then the Debian package that has it.

It ends with us. Where we are root it has namespaces of its own, too: all that it started ends with it, and
what it mounts nobody else sees, lest the removal of WORK reach into the host's files.
"""

import hashlib
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from torpor.adapters.images.staging import staging
from torpor.domain.errors import BackendFailed, Invalid, MissingPart

RECIPES = Path(__file__).with_name("recipes")
_MISSING_PROGRAM = 3
_OUTPUTS = ("vmlinuz", "initrd", "disk.qcow2")


def build_recipe(recipe: str, target: Path, cache: Path, progress: Callable[[str], None]) -> str:
    """Put the recipe's files into `target`; return the kernel's command line.

    What was built once is kept in `cache` under the recipe's digest, and used again.
    Raises Invalid, MissingPart, BackendFailed.
    """
    source = RECIPES / recipe
    if recipe not in recipe_names():
        raise Invalid(f"there is no recipe {recipe[:80]!r}", remedy=f"choose one of: {', '.join(recipe_names())}")
    built = cache / f"{recipe}-{_digest(source)[:16]}"
    if built.is_dir():
        progress(f"using {recipe} as built before ({built})")
    else:
        _build_into(built, source, progress)
    for name in _OUTPUTS:
        if (built / name).exists():
            _link_or_copy(built / name, target / name)
    return (built / "cmdline").read_text().strip()


def recipe_names() -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in RECIPES.iterdir() if (folder / "build").exists()))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        shutil.copyfile(source, target)


def _build_into(built: Path, source: Path, progress: Callable[[str], None]) -> None:
    with staging(built.parent) as scratch:
        out, work = scratch / "out", scratch / "work"
        out.mkdir()
        work.mkdir()
        _run(source, out, work, progress)
        for old in built.parent.glob(f"{source.name}-*"):
            shutil.rmtree(old)
        for file in out.iterdir():
            file.chmod(0o444)
        out.rename(built)


def _run(source: Path, out: Path, work: Path, progress: Callable[[str], None]) -> None:
    lines: deque[str] = deque(["no output"], maxlen=5)
    # bash is named because a wheel does not keep the executable bit of package data.
    command = ["bash", str(source / "build"), str(out), str(work)]
    if os.geteuid() == 0:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *command]
    command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    with subprocess.Popen(
        command, cwd=source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            if line.strip():
                lines.append(line.strip())
                progress(line.strip())
    if process.returncode == _MISSING_PROGRAM:
        raise MissingPart(
            f"image {source.name!r} was not built",
            detail=f"a program of package {lines[-1]} is not installed",
            remedy=f"run 'apt-get install {lines[-1]}'",
        )
    if process.returncode != 0:
        raise BackendFailed(
            f"image {source.name!r} was not built", detail=" | ".join(lines), remedy="mend that and build it again"
        )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(folder)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
