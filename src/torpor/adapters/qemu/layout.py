"""Where things lie below the state directory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from torpor.domain.errors import Invalid
from torpor.domain.ids import InstanceId

_LONGEST_SOCKET = 107
"""Bytes that a unix socket's path may have on Linux."""


@dataclass(frozen=True, slots=True)
class InstanceFolder:
    """One instance's files.

    `run` belongs to QEMU's user and holds what QEMU opens; everything else is root's alone.
    """

    id: InstanceId
    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def console_log(self) -> Path:
        return self.path / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.path / "qemu.log"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def qmp_socket(self) -> Path:
        return self.run / "qmp.sock"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def console_socket(self) -> Path:
        return self.run / "console.sock"

    @property
    def disk(self) -> Path:
        return self.run / "disk.qcow2"

    @property
    def seed(self) -> Path:
        return self.run / "seed.iso"

    @property
    def sockets(self) -> tuple[Path, ...]:
        return (self.qmp_socket, self.agent_socket, self.console_socket)


@dataclass(frozen=True, slots=True)
class Layout:
    state_dir: Path

    @property
    def instances_dir(self) -> Path:
        return self.state_dir / "instances"

    @property
    def self_test(self) -> Path:
        return self.state_dir / "self-test.json"

    def instance(self, id: InstanceId) -> InstanceFolder:
        return InstanceFolder(id, self.instances_dir / id)

    def instances(self) -> Iterator[InstanceFolder]:
        """Every instance that has a folder."""
        try:
            names = sorted(entry.name for entry in self.instances_dir.iterdir())
        except FileNotFoundError:
            return
        for name in names:
            if _is_uuid(name):
                yield self.instance(InstanceId(name))

    def check(self) -> None:
        """Raises Invalid when QEMU could not work with this folder's name."""
        longest = len(os.fsencode(self.instance(InstanceId("x" * 36)).console_socket))
        if longest > _LONGEST_SOCKET:
            raise Invalid(
                f"state_dir {self.state_dir} can't be used",
                detail=f"its path is {longest - _LONGEST_SOCKET} bytes too long for the sockets below it",
                remedy="choose a shorter path",
            )
        if "," in str(self.state_dir):
            raise Invalid(
                f"state_dir {self.state_dir} can't be used",
                detail="QEMU's options don't allow a comma in it",
                remedy="choose another path",
            )


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
