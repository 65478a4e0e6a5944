"""`script/bench names|suspend`."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from benchmark import names, suspend
from benchmark.samples import Measurement


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and a summary to FILE")
    kinds = parser.add_subparsers(dest="kind", required=True)
    names = kinds.add_parser("names", help="how soon a name answers")
    names.add_argument("--runs", type=int, default=20)
    names.add_argument("--published", type=int, default=5000, help="names that are there already")
    suspend = kinds.add_parser("suspend", help="how fast memory goes to disk and back, beside dd")
    suspend.add_argument("--runs", type=int, default=5)
    suspend.add_argument("--megabytes", type=int, default=300, help="random data in the guest")
    for each in (names, suspend):
        each.add_argument("--json", type=Path, metavar="FILE", default=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(arguments: argparse.Namespace) -> Measurement:
    if arguments.kind == "names":
        return names.measure(arguments.runs, arguments.published)
    return suspend.measure(arguments.megabytes, arguments.runs)


def main() -> int:
    arguments = _arguments()
    if os.geteuid() != 0:
        print("bench: it starts VMs and name servers, so it must be run as root", file=sys.stderr)
        return 1
    measurement = _measure(arguments)
    measurement.show(Console(highlight=False))
    if arguments.json:
        measurement.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
