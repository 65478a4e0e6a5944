"""`script/demo [--backend NAME] [--compete] [--json]`: run the mission, compare, clean up.

Exit code 0 only when everything agrees.
"""

import argparse
import json
import os
import signal
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType

from rich.console import Console

from demonstration.backends import BACKENDS, Backend, LibvirtBackend, QemuBackend, make_backend
from demonstration.failure import DemoFailed
from demonstration.findings import Findings
from demonstration.guests import GuestSilent
from demonstration.installation import Installation, free_subnet, require_root
from demonstration.screen import Screen
from demonstration.story import HOST, Story

DEFAULT_ROOT = Path("/var/tmp/torpor-demo")
INTERRUPTED = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/demo", description="The whole mission with real VMs, on this machine."
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="qemu",
        help="what the VMs run under: QEMU alone (default), a libvirtd of the demo's own, or the OpenStack lab",
    )  # fmt: skip
    parser.add_argument(
        "--compete",
        action="store_true",
        help="openstack: somebody of another project tries to boot all the while, until they have won once",
    )
    parser.add_argument(
        "--lab-number", type=int, default=os.environ.get("TORPOR_LAB_NUMBER", "0"), metavar="N",
        help="openstack: which lab (default $TORPOR_LAB_NUMBER, or 0); it is brought up where it is down",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object last; the rest goes to stderr")
    parser.add_argument(
        "--state-dir", type=Path, default=DEFAULT_ROOT, metavar="DIR",
        help=f"folder of its own (default {DEFAULT_ROOT}); the test image is kept there for the next run",
    )  # fmt: skip
    parser.add_argument("--subnet", type=IPv4Network, metavar="NET", help="network of its own (default: a free one)")
    arguments = parser.parse_args()
    if arguments.compete and arguments.backend != "openstack":
        parser.error("--compete is for --backend openstack")
    return arguments


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    arguments = _arguments()
    console = Console(stderr=arguments.json, highlight=False)
    screen = Screen(console)
    found = Findings()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    began = time.monotonic()
    try:
        require_root()
        root = arguments.state_dir.absolute()
        backend = make_backend(arguments.backend, root, arguments.lab_number)
        here = Installation(root, arguments.subnet or free_subnet(), HOST, backend)
        here.prepare()
    except DemoFailed as error:
        screen.say(f"demo: {error}.", "bold red")
        return 1
    code, problem = _tell(_story(here, backend, screen, found, arguments.compete), screen)
    # Whoever presses Ctrl-C once more must not leave VMs behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with screen.step("clean", "Its VMs and network are removed again", found.seconds):
        found.left_behind = here.clean()
    found.seconds["total"] = time.monotonic() - began
    if code == 0:
        screen.comparison(found)
        screen.chart(found)
        screen.verdict(found, found.seconds["total"])
        code = 1 if found.complaints() else 0
        if arguments.json:
            print(json.dumps(found.as_json()), flush=True)
    elif arguments.json:
        print(json.dumps({**found.as_json(), "ok": False, "problems": [problem]}), flush=True)
    return code


def _story(here: Installation, backend: Backend, screen: Screen, found: Findings, compete: bool) -> Story:
    if isinstance(backend, QemuBackend | LibvirtBackend):
        return Story(here, screen, found)
    from demonstration.cloud.backend import OpenStackBackend  # these alone need openstacksdk
    from demonstration.cloud.story import CloudStory

    assert isinstance(backend, OpenStackBackend)
    return CloudStory(here, backend, screen, found, compete)


def _tell(story: Story, screen: Screen) -> tuple[int, str]:
    """The exit code, and what kept the story from its end."""
    try:
        story.tell()
    except KeyboardInterrupt:
        code, problem = INTERRUPTED, "interrupted; cleaning up"
    except (DemoFailed, GuestSilent) as error:
        code, problem = 1, str(error)
    else:
        return 0, ""
    screen.say(f"demo: {problem}.", "bold red")
    return code, problem


if __name__ == "__main__":
    sys.exit(main())
