"""Folders that are written aside and then renamed into place: each is there whole, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.files import sync_folder

_PARTIAL = ".partial-"


@contextmanager
def written_aside(parent: Path, name: str) -> Iterator[Path]:
    """A folder, root's alone, to write into; what is in it when this block is left is removed. See `put_in_place`."""
    sweep(parent)
    parent.mkdir(mode=0o700, exist_ok=True)
    partial = parent / f"{_PARTIAL}{name}"
    partial.mkdir(mode=0o700)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_in_place(partial: Path) -> Path:
    """Where it is from here on, durably. Its files are durable already."""
    parent = partial.parent
    final = parent / partial.name.removeprefix(_PARTIAL)
    partial.rename(final)
    sync_folder(parent)
    sync_folder(parent.parent)
    return final


def sweep(parent: Path) -> None:
    """Remove what was left half written or half removed."""
    if parent.exists():
        for entry in parent.glob(".*"):
            shutil.rmtree(entry)
