"""What a recipe's build leaves behind."""

import os
from pathlib import Path

import pytest

from torpor.adapters.images import recipe
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
