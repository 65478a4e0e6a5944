"""Where a hosts file lies, and how the server that reads it is told to read it again."""

from typing import Protocol

from torpor.ports import Check


class Changed(Exception):
    """The file is not what the new one was made from; nothing was written."""


class Place(Protocol):
    @property
    def where(self) -> str:
        """For people."""
        ...

    def read(self) -> bytes:
        """Nothing where there is no file yet. Raises BackendFailed."""
        ...

    def replace(self, old: bytes, new: bytes) -> None:
        """Whole or not at all, durable, owner and mode kept. Raises Changed, MissingPart, BackendFailed."""
        ...

    def reload(self) -> None:
        """Have the server read the file again; one that does not run will when it starts. Raises BackendFailed."""
        ...

    def check(self) -> Check:
        """Whether there is a server that could be told. Never raises."""
        ...
