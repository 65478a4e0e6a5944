"""`script/lab`."""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.openstack.failure import LabFailed
from lab.openstack.namespaces import Cell
from lab.openstack.rise import down, up
from lab.openstack.settings import NUMBERS, Lab, folder_of
from lab.openstack.state import is_up, report

_DOWN = 3


def main() -> int:
    arguments = _parse()
    size = {name: getattr(arguments, name) for name in ("vcpus", "memory_mb") if name in arguments}
    folder = arguments.folder or folder_of(arguments.number)
    lab = Lab(folder.resolve(), **size, number=arguments.number)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"lab: {time.monotonic() - began:4.0f} s  {what}", flush=True)

    try:
        match arguments.act:
            case "status":
                print(*report(lab), sep="\n")
                return 0 if is_up(lab) else _DOWN
            case "enter":
                return Cell(lab).enter(tuple(arguments.command) or ("bash",))
            case "up":
                with _alone(lab):
                    up(lab, say)
                say(f"up; use: export OS_CLIENT_CONFIG_FILE={lab.clouds} OS_CLOUD=lab-admin")
            case _:
                if not lab.folder.exists():
                    return 0
                with _alone(lab):
                    down(lab, say, arguments.wipe)
    except LabFailed as error:
        print(f"script/lab: {error}", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/lab", description="A real OpenStack on this machine, in a folder.")
    parser.add_argument(
        "--number", type=int, choices=NUMBERS, default=Lab.number, metavar="N",
        help="which one, where several run side by side: 0 (default) to 255",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where it lies (default: build/lab; of another number build/lab-N)")
    acts = parser.add_subparsers(dest="act", required=True, metavar="up|down|status|enter")
    bring_up = acts.add_parser("up", help="have it running and ready to use")
    bring_up.add_argument("--vcpus", type=int, default=Lab.vcpus, help="what its compute host offers (%(default)s)")
    bring_up.add_argument("--memory-mb", type=int, default=Lab.memory_mb, help="likewise (%(default)s)")
    take_down = acts.add_parser("down", help="end all of its processes; what is in it is kept")
    take_down.add_argument("--wipe", action="store_true", help="remove what is in it, too")
    acts.add_parser("status", help=f"tell how it is; exit status {_DOWN} if it is down")
    enter = acts.add_parser("enter", help="run a command, or a shell, where the services run")
    enter.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser.parse_args()


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One at a time: whoever comes second waits."""
    lab.folder.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lab.folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
