"""`script/demo [--backend NAME] [--json]`: run the mission, compare, clean up.

Exit code 0 only when everything agrees.
"""

import argparse
import json
import signal
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType

from rich.console import Console

from demonstration.backends import BACKENDS
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
        "--backend", choices=tuple(BACKENDS), default="qemu",
        help="what the VMs run under: QEMU alone (default), or a libvirtd of the demo's own",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object last; the rest goes to stderr")
    parser.add_argument(
        "--state-dir", type=Path, default=DEFAULT_ROOT, metavar="DIR",
        help=f"folder of its own (default {DEFAULT_ROOT}); the test image is kept there for the next run",
    )  # fmt: skip
    parser.add_argument("--subnet", type=IPv4Network, metavar="NET", help="network of its own (default: a free one)")
    return parser.parse_args()


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
        here = Installation(arguments.state_dir.absolute(), arguments.subnet or free_subnet(), HOST, arguments.backend)
        here.prepare()
    except DemoFailed as error:
        screen.say(f"demo: {error}.", "bold red")
        return 1
    code, problem = _tell(here, screen, found)
    # Whoever presses Ctrl-C once more must not leave VMs behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with screen.step("clean", "Everything is removed again", found.seconds):
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


def _tell(here: Installation, screen: Screen, found: Findings) -> tuple[int, str]:
    """The exit code, and what kept the story from its end."""
    try:
        Story(here, screen, found).tell()
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
