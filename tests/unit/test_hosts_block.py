"""A block in a hosts file: found, rendered, and everything around it left as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.adapters.names.hosts_block import Lines, line_of, others_names, records_in, render, split
from torpor.domain.errors import Conflict
from torpor.domain.naming import NameRecord

ZONE = "z.internal"
BLOCK = render("lab", ["10.0.0.1 a.z.internal\n"])
BEGIN, _, END = (line + "\n" for line in BLOCK.splitlines())

AROUND = st.text(alphabet=st.characters(codec="utf-8"), max_size=60).filter(lambda text: "torpor" not in text)


@given(before=AROUND, after=AROUND)
def test_what_is_around_the_block_stays_to_the_letter(before: str, after: str) -> None:
    before = before if not before or before.endswith("\n") else before + "\n"

    found = split(before + BLOCK + after, "lab", "hosts")

    assert (found.before, found.inside, found.after) == (before, "10.0.0.1 a.z.internal\n", after)


@given(text=AROUND)
def test_a_file_without_the_block_gets_it_at_its_end(text: str) -> None:
    found = split(text, "lab", "hosts")

    assert found.before.removesuffix("\n") == text.removesuffix("\n")
    assert found.before == "" or found.before.endswith("\n")
    assert (found.inside, found.after) == ("", "")


def test_a_block_whose_last_line_has_no_newline_is_found() -> None:
    assert split(BLOCK.rstrip("\n"), "lab", "hosts").inside == "10.0.0.1 a.z.internal\n"


def test_the_block_of_another_is_not_ours() -> None:
    other = render("lab-2", ["10.0.0.2 b.z.internal\n"])

    found = split(other + BLOCK + other, "lab", "hosts")

    assert (found.before, found.after) == (other, other)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BEGIN + "10.0.0.1 a\n", "it begins in line 1 and has no end"),
        ("x\n" + END, "it ends in line 2 and has no beginning"),
        (BLOCK + BLOCK, "it begins in line 1 and 4 and ends in line 3 and 6"),
        (BEGIN + BEGIN + END, "it begins in line 1 and 2 and ends in line 3"),
        (END + BEGIN, "it begins in line 2 and ends in line 1"),
        (BEGIN + render("other", []) + END, "there is another block's marker in it"),
        (BEGIN + "# torpor other: begin\n" + END, "there is another block's marker in it"),
    ],
)
def test_a_damaged_block_is_refused_with_one_sentence(text: str, why: str) -> None:
    with pytest.raises(Conflict) as refused:
        split(text, "lab", "/etc/hosts")

    assert refused.value.what == "the block 'lab' in /etc/hosts is damaged, so nothing is written there"
    assert refused.value.detail == why
    assert refused.value.problem.sentence.isprintable()


def test_lines_that_we_would_not_have_written_are_no_records() -> None:
    inside = "".join(
        [
            "10.0.0.1 a.z.internal\n",
            "fd00::1 a.z.internal\n",
            "10.0.0.2 b.z.internal b\n",
            "10.0.0.3 www.example.com\n",
            "10.0.0.4 localhost.z.internal\n",
            "10.0.0 c.z.internal\n",
            "10.0.0.5 d.z.internal\n",
            "10.0.0.6 d.z.internal\n",
            "# 10.0.0.7 e.z.internal\n",
        ]
    )

    assert records_in(inside, ZONE) == {"a": NameRecord("a", "10.0.0.1", "fd00::1")}


@pytest.mark.parametrize(
    "record",
    [NameRecord("a", "10.0.0.1"), NameRecord("a", "10.0.0.1", "fd00::1"), NameRecord("a", address6="fd00::1")],
)
def test_a_record_is_read_as_it_was_written(record: NameRecord) -> None:
    assert records_in(line_of(record, ZONE), ZONE) == {"a": record}


def test_names_of_others_are_found_however_they_are_written() -> None:
    text = "10.0.0.1\tx.example.com  A.Z.Internal.  # a\n#10.0.0.2 b.z.internal\n10.0.0.3 c.d.z.internal\nz.internal\n"

    assert others_names(text, ZONE) == {"a": "10.0.0.1"}


CHANGES = st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.integers(1, 250)), max_size=30)


@given(changes=CHANGES)
def test_lines_are_by_name_whatever_came_and_went_and_in_whichever_order(
    changes: list[tuple[str, int | None]],
) -> None:
    lines = Lines(ZONE, [NameRecord("c", "10.0.0.1")])
    expected = {"c": NameRecord("c", "10.0.0.1")}
    for name, number in changes:
        if number is None:
            lines.drop(name)
            expected.pop(name, None)
        else:
            expected[name] = NameRecord(name, f"10.0.0.{number}")
            lines.put(expected[name])

    in_order = [expected[name] for name in sorted(expected)]
    assert lines.records == expected
    assert list(lines.in_order()) == in_order
    assert list(lines.without(set())) == [line_of(record, ZONE) for record in in_order]
    assert lines.without({"a"}) == [line_of(record, ZONE) for record in in_order if record.name != "a"]
