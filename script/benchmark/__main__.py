"""`script/bench [states|names]`."""

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from benchmark.states.run import PARTS, Options
from torpor.domain.instance import Codec

_PLACES = ("dnsmasq", "hosts-file", "rfc2136")
"""Where names are published."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    names = kinds.add_parser("names", help="how soon a name answers, and how many questions are answered")
    names.add_argument("--runs", type=int, default=20)
    names.add_argument("--published", type=int, default=10000, help="names that are there already")
    names.add_argument("--places", type=_places, default=_PLACES, help=f"some of {','.join(_PLACES)}")
    names.add_argument("--load-seconds", type=int, default=5, help="that dnsperf asks at a time; 0: it does not")
    names.add_argument("--no-acceptance", action="store_true", help="start no guests; only time changes of names")
    states = kinds.add_parser("states", help="how fast guests go to disk and back, beside what else there is")
    _describe_states(states)
    for each in (names, states):
        each.add_argument("--json", type=Path, metavar="FILE", help="write every sample and a summary to FILE")
    words = sys.argv[1:]
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["states", *words]  # what is measured unless said otherwise
    return parser.parse_args(words)


def _describe_states(parser: argparse.ArgumentParser) -> None:
    default = Options()
    parser.add_argument("--check", type=Path, metavar="FILE", help="measure nothing; judge what --json wrote to FILE")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw states.svg and states.png there")
    parser.add_argument("--sizes", type=_numbers, default=default.sizes, help="guests' memory, MB")
    parser.add_argument("--fills", type=_numbers, default=default.fills, help="share of random data, per cent")
    parser.add_argument("--repeat", type=int, default=default.repeat, help="rounds; medians are of so many")
    parser.add_argument("--only", type=_parts, default=default.only, help=f"some of {','.join(PARTS)}")
    parser.add_argument("--codecs", type=_codecs, default=default.codecs, help="some of none,lz4,zstd")
    parser.add_argument(
        "--packed-up-to", type=int, default=default.packed_up_to, help="larger guests, MB, are not packed"
    )
    parser.add_argument("--flips", type=int, default=default.flips, help="single bits to flip in saved states")
    parser.add_argument(
        "--ready-memory", action="store_true", help="have free memory at hand, where this machine's host takes it back"
    )
    parser.add_argument("--folder", type=Path, default=default.folder, help="on the disk that is to be measured")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _places(text: str) -> tuple[str, ...]:
    places = tuple(text.split(","))
    if not set(places) <= set(_PLACES):
        raise argparse.ArgumentTypeError(f"not all of {text} are among {','.join(_PLACES)}")
    return places


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if not set(parts) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"not all of {text} are among {','.join(PARTS)}")
    return parts


def _codecs(text: str) -> tuple[Codec, ...]:
    return tuple(Codec(part) for part in text.split(","))


def _names(arguments: argparse.Namespace, console: Console) -> int:
    from benchmark import names  # needs the tests' tools

    measurement = names.measure(
        arguments.runs,
        arguments.published,
        arguments.places,
        acceptance=not arguments.no_acceptance,
        load_seconds=arguments.load_seconds,
    )
    measurement.show(console)
    if arguments.json:
        measurement.write(arguments.json)
    return 0


def _states(arguments: argparse.Namespace, console: Console) -> int:
    from benchmark.states import report
    from benchmark.states.run import Run, run

    options = Options(
        sizes=arguments.sizes,
        fills=arguments.fills,
        repeat=arguments.repeat,
        only=arguments.only,
        codecs=arguments.codecs,
        packed_up_to=arguments.packed_up_to,
        flips=arguments.flips,
        folder=arguments.folder,
        ready_memory=arguments.ready_memory,
    )
    done = Run()
    try:
        run(options, done, lambda line: print(f"bench: {line}", file=sys.stderr, flush=True))
    except (KeyboardInterrupt, SystemExit) as stopped:
        done.failures.append(f"stopped ({stopped!r})")  # what was measured until then is kept
    report.show(done, options, console)
    if arguments.json:
        report.write(done, options, arguments.json)
    if arguments.plot and done.record.samples:
        from benchmark.states import plot  # matplotlib takes a second to come

        plot.draw(done.record, arguments.plot)
    return 1 if done.failures else 0


def main() -> int:
    arguments = _arguments()
    console = Console(highlight=False)
    if getattr(arguments, "check", None):
        from benchmark.states import limits

        return limits.judge(arguments.check, console)
    if os.geteuid() != 0:
        print("bench: it starts VMs and name servers, so it must be run as root", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background too: guests and files are to be cleared away
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    return _names(arguments, console) if arguments.kind == "names" else _states(arguments, console)


if __name__ == "__main__":
    sys.exit(main())
