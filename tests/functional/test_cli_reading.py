"""Commands that only read, against a fixed world, in a subprocess as an operator runs them."""

import fcntl
import inspect
import json
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from tests.functional.canned import LONGEST
from tests.functional.conftest import Daemon, environment

from torpor.cli.main import create

READING = [
    ("ps",),
    ("ps", "-a"),
    ("show", "batch"),
    ("show", LONGEST),
    ("show", "crowded"),
    ("plan",),
    ("hosts",),
    ("names",),
    ("operations",),
    ("operations", "-n", "1"),
    ("events",),
    ("events", "-n", "1", "batch"),
    ("image", "ls"),
    ("state", "ls"),
    ("state", "ls", "batch"),
    ("state", "show", "batch"),
    ("console", "urgent"),
    ("run", "new", "--image", "debian-12", "--dry-run"),
]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(daemon: Daemon, width: int, *arguments: str) -> list[str]:
    """Lines that a terminal of `width` columns is sent, colours taken out."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    with subprocess.Popen(
        daemon.command(*arguments),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**environment(), "TERM": "xterm-256color"},
    ):
        os.close(follower)
        written = b""
        try:
            while data := os.read(leader, 65536):
                written += data
        except OSError:  # the terminal is gone once nobody holds its other end
            pass
    os.close(leader)
    return ESCAPE.sub("", written.decode()).replace("\r", "").splitlines()


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_json_is_one_document_and_nothing_else(canned: Daemon, arguments: tuple[str, ...]) -> None:
    ended = canned.apart(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    assert isinstance(json.loads(ended.stdout), dict)
    assert ended.stderr == ""


def test_every_command_that_answers_has_json() -> None:
    app = create()
    groups = [group.typer_instance for group in app.registered_groups]
    commands = [command for each in (app, *groups) if each for command in each.registered_commands]
    without = [
        c.callback.__name__
        for c in commands
        if c.callback and "as_json" not in inspect.signature(c.callback).parameters
    ]
    assert len(commands) > 15
    assert without == []


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_piped_output_is_plain_and_its_lines_end_where_they_end(canned: Daemon, arguments: tuple[str, ...]) -> None:
    ended = canned.torpor(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert all(character.isprintable() or character == "\n" for character in ended.stdout)
    assert all(line == line.rstrip() for line in ended.stdout.splitlines())
    assert "…" not in ended.stdout


def test_a_piped_table_has_one_line_a_workload(canned: Daemon) -> None:
    heading, *rows = canned.torpor("ps", "-a").stdout.splitlines()
    assert heading.split() == ["NAME", "STATE", "VMS", "CPUS", "MEMORY", "PRIO", "RAN", "NOTE"]
    assert [row.split()[0] for row in rows] == ["batch", "urgent", LONGEST, "crowded", "queued", "hostile", "ended"]


def test_ended_workloads_are_listed_only_when_asked_for(canned: Daemon) -> None:
    assert "ended" not in [w["name"] for w in canned.json("ps")["workloads"]]
    assert "ended" in [w["name"] for w in canned.json("ps", "-a")["workloads"]]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [("ps", "-a"), ("show", LONGEST), ("hosts",), ("names",), ("image", "ls"), ("state", "ls"), ("plan",)],
    ids=" ".join,
)
def test_tables_fit_the_terminal_and_cut_nothing_but_names(
    canned: Daemon, width: int, arguments: tuple[str, ...]
) -> None:
    lines = on_terminal(canned, width, *arguments)
    assert lines
    for line in lines:
        assert len(line) <= width, line
        for word in line.split():
            assert "…" not in word or word.startswith("aaaa"), line


def test_what_a_guest_wrote_can_not_steer_the_terminal(canned: Daemon) -> None:
    ended = canned.torpor("events", "hostile")
    assert "\x1b" not in ended.stdout
    assert "\x07" not in ended.stdout
    assert "[bold]markup[/bold]" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1


def test_console_shows_text_without_control_sequences(daemon: Daemon) -> None:
    daemon.torpor("run", "one", "--image", "test")
    (daemon.folder / "state" / "console.log").write_bytes(b"\x1b[2Jhello\x07 \xc3\xa9\xff\r\n")
    assert daemon.torpor("console", "one").stdout == "hello é\ufffd\n"
    assert daemon.json("console", "one")["text"] == "hello é\ufffd\n"


def test_doctor_tells_what_is_wrong_and_ends_so(canned: Daemon) -> None:
    ended = canned.torpor("doctor")
    assert ended.returncode == 7
    assert "FAIL dnsmasq: there is no program dnsmasq; apt install dnsmasq-base" in ended.stdout.splitlines()
    document = json.loads(canned.torpor("doctor", "--self-test", "--json").stdout)
    assert document["ok"] is False
    assert [check["name"] for check in document["checks"]] == [
        "daemon", "configuration", "qemu", "dnsmasq", "self-test",
    ]  # fmt: skip


def test_version_needs_no_daemon(canned: Daemon) -> None:
    ended = canned.apart("--version")
    assert re.fullmatch(r"torpor \d+\.\d+\.\d+\S*\n", ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nobody"), 3, "there is no workload 'nobody'"),
        (("show", "../etc"), 3, "there is no workload"),
        (("show", ""), 3, "there is no workload"),
        (("show", "two\nlines"), 3, "there is no workload"),
        (("show", "x" * 5000), 3, "there is no workload"),
        (("console", "nobody"), 3, "there is no instance"),
        (("console", "urgent", "--follow", "--json"), 2, "can't be used together"),
        (("state", "ls", "two\nlines"), 3, "there is no workload"),
        (("state", "rm", "batch", "0"), 2, "'generation'"),
        (("state", "rm", "batch", "1"), 2, "nobody to ask"),
        (("show",), 2, "Missing argument"),
        (("shwo",), 2, "No such command"),
        (("ps", "--colour"), 2, "No such option"),
        (("events", "-n", "0"), 2, "'--number'"),
        (("run", "n", "--image", "i", "--cpus", "-1"), 2, "'--cpus'"),
        (("run", "n", "--image", "i", "--cpus", "two"), 2, "'--cpus'"),
        (("run", "n", "--image", "i", "--memory", "0"), 2, "'0' is less than 1M"),
        (("run", "n", "--image", "i", "--memory", "much"), 2, "'much' is not a size"),
        (("run", "n", "--image", "i", "--memory", "-5M"), 2, "'-5M' is not a size"),
        (("run", "n", "--image", "i", "--count", "0"), 2, "'--count'"),
        (("run", "n", "--image", "i", "--duration", "soon"), 2, "'soon' is not a duration"),
        (("run", "n", "--image", "i", "--duration", "0s"), 2, "no time at all"),
        (("run", "n", "--image", "i", "--user-data", "/nowhere/at/all"), 2, "can't be read"),
        (("run", "n"), 2, "--image"),
    ],
)
def test_wrong_input_gets_one_sentence_and_its_exit_code(
    canned: Daemon, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = canned.torpor(*arguments)
    assert said in ended.stderr
    assert ended.returncode == code
    assert ended.stdout == ""
    assert ended.stderr.startswith("torpor: ")
    assert ended.stderr.endswith(".\n") or ended.stderr.endswith(").\n")
    assert len(ended.stderr.splitlines()) == 1
    assert len(ended.stderr) < 400
