"""One process at a time serves a state directory, and others can tell which."""

import os
from pathlib import Path

import pytest

from torpor.domain.errors import Conflict, MissingPart
from torpor.lock import holder, locked


def test_who_serves_a_state_directory_is_known_as_long_as_it_does(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        assert holder(tmp_path / "state") == str(os.getpid())
        with pytest.raises(Conflict, match=f"process {os.getpid()} holds its lock"), locked(tmp_path / "state"):
            pass
    assert holder(tmp_path / "state") == "", "its number is still in the file"
    with locked(tmp_path / "state"):
        pass


def test_to_look_changes_nothing(tmp_path: Path) -> None:
    assert holder(tmp_path / "state") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingPart, match=r"can't be written: .*set `state_dir` to another"), locked(tmp_path / "file"):
        pass
