"""The reference pages name everything that there is."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from torpor import __main__ as program
from torpor.cli.main import create
from torpor.cli.problems import exit_codes
from torpor.config import Config
from torpor.domain.instance import AddressState, BackendState, StateStatus
from torpor.domain.operation import OperationStatus, StepStatus
from torpor.domain.plan import Verdict
from torpor.domain.workload import WorkloadState

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows(page: str, section: str | None = None) -> dict[str, list[str]]:
    """Rows of a page's tables by their first cell, of one section if it is given."""
    text = (REFERENCE / page).read_text()
    if section is not None:
        text = text.split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip("`"): row[1:] for row in cells}


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section, whether it has to be there or not."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def sections(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield f"`[{prefix}]`" if prefix else "Top level", model
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from sections(inner, f"{prefix}.{field.alias or name}".removeprefix("."))


def keys() -> list[tuple[str, str, object]]:
    return [
        (section, name, "required" if field.is_required() else field.default)
        for section, model in sections()
        for name, field in model.model_fields.items()
        if section_of(field) is None
    ]


@pytest.mark.parametrize(("section", "key", "default"), keys())
def test_every_key_of_the_configuration_is_listed_with_its_default(section: str, key: str, default: object) -> None:
    shown = rows("configuration.md", section)[key][0].strip("`")
    if default == ():
        assert shown == "none"
    elif isinstance(default, tuple):
        assert shown == str(list(default)).replace("'", '"')
    elif default is not None:
        assert shown in (str(default), str(default).lower(), f"{default:g}" if isinstance(default, float) else "")


def test_no_key_is_listed_that_does_not_exist() -> None:
    for section, model in sections():
        listed = set(rows("configuration.md", section)) - {"key", "---"}
        assert listed <= set(model.model_fields), section


def commands() -> list[tuple[str, str]]:
    """Every command with every one of its options."""
    app = create()
    app.command()(program.serve)
    found: list[tuple[str, str]] = []

    def visit(command: Any, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                visit(child, (*path, name))
            return
        name = " ".join(path)
        found.append((name, name))
        for parameter in command.params:
            found.extend((name, option) for option in parameter.opts if option.startswith("-"))

    visit(typer.main.get_command(app), ())
    return sorted(set(found))


@pytest.mark.parametrize(("command", "what"), [c for c in commands() if c[1] not in ("--json", "--help", "-h")])
def test_every_command_and_option_is_listed(command: str, what: str) -> None:
    page = (REFERENCE / "cli.md").read_text()
    assert f"torpor {command}" in page
    assert f"`{what}" in page or f" {what}" in page or f"[{what}" in page


def test_every_error_code_is_listed_beside_its_exit_code() -> None:
    table = rows("exit-codes.md")
    for code, exit_code in exit_codes().items():
        assert f"`{code}`" in table[str(exit_code)][0], code


@pytest.mark.parametrize(
    "states", [WorkloadState, BackendState, AddressState, StateStatus, OperationStatus, StepStatus, Verdict]
)
def test_every_state_is_listed(states: type[StrEnum]) -> None:
    page = (REFERENCE / "states.md").read_text()
    assert [s for s in states if f"`{s}`" not in page] == []
