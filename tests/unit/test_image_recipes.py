"""What a recipe's build leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.installation import wait_until

from torpor.adapters.images import recipe
from torpor.adapters.images.store import ImageStore
from torpor.domain.errors import BackendFailed

_BUILD = """
set -e
mkdir "$2/proc"
mount -t tmpfs tmpfs "$2/proc"
echo precious >"$2/proc/file"
echo mounted
exit 1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_a_build_mounts_is_not_mounted_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "recipes" / "mounting"
    source.mkdir(parents=True)
    (source / "build").write_text(_BUILD)
    monkeypatch.setattr(recipe, "RECIPES", source.parent)
    mounts: list[str] = []

    def told(line: str) -> None:
        assert line == "mounted"
        mounts.append(Path("/proc/self/mounts").read_text())

    with pytest.raises(BackendFailed):
        recipe.build_recipe("mounting", tmp_path / "target", tmp_path / "cache", told)
    assert len(mounts) == 1
    assert str(tmp_path) not in mounts[0] + Path("/proc/self/mounts").read_text()
    assert list((tmp_path / "cache").iterdir()) == []


_BEGIN = """
import sys
from pathlib import Path
from torpor.adapters.images import recipe
recipe.RECIPES = Path(sys.argv[1])
recipe.build_recipe("endless", Path(sys.argv[2]), Path(sys.argv[3]), lambda line: print(line, flush=True))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's builds have processes of their own")
def test_a_build_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    """With all its processes, however it ends; what is left is removed by the next."""
    source = tmp_path / "recipes" / "endless"
    source.mkdir(parents=True)
    (source / "build").write_text(f"setsid sleep 1000.{os.getpid()} & wait")
    folders = [str(tmp_path / name) for name in ("recipes", "target", "cache")]
    with subprocess.Popen([sys.executable, "-c", _BEGIN, *folders], stdout=subprocess.PIPE) as asking:
        try:
            wait_until(lambda: _processes(f"1000.{os.getpid()}"), 30, "the build begins")
        finally:
            asking.send_signal(signal.SIGKILL)
    wait_until(lambda: not _processes(f"1000.{os.getpid()}"), 30, "it ends")
    assert list((tmp_path / "cache").iterdir()) != []
    ImageStore(tmp_path, tmp_path / "cache").sweep()
    assert list((tmp_path / "cache").iterdir()) == []


def _processes(argument: str) -> list[Path]:
    """Those whose last argument this is."""
    return [p for p in Path("/proc").glob("[0-9]*/cmdline") if _arguments(p)[-1:] == [argument.encode()]]


def _arguments(cmdline: Path) -> list[bytes]:
    try:
        return cmdline.read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []
