"""Which names are hostnames."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.domain.errors import Invalid
from torpor.domain.naming import check_label, instance_names


@pytest.mark.parametrize("name", ["a", "a1", "9", "batch-7", "a--b", "x" * 63])
def test_hostname_labels_are_taken(name: str) -> None:
    assert check_label(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a_b", "a b", "x" * 64, "é", "a\n", "localhost", "gateway"]
)
def test_what_is_no_hostname_label_or_reserved_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_label(name)


@given(st.text(alphabet="ab1-.A_\n", max_size=6))
def test_whatever_is_taken_is_safe_as_a_file_name_and_in_a_zone(name: str) -> None:
    if re.fullmatch(r"[ab1-]+", name) and name.strip("-") == name:
        assert check_label(name) == name
    else:
        with pytest.raises(Invalid):
            check_label(name)


def test_a_single_instance_has_the_workloads_name_and_more_are_numbered() -> None:
    assert instance_names("web", 1) == ("web",)
    assert instance_names("web", 3) == ("web-0", "web-1", "web-2")


def test_a_name_that_becomes_too_long_with_its_number_is_refused() -> None:
    assert instance_names("x" * 61, 10)[9] == "x" * 61 + "-9"
    with pytest.raises(Invalid, match="hostname"):
        instance_names("x" * 61, 11)


@given(st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), st.integers(1, 40))
def test_instance_names_are_distinct(name: str, count: int) -> None:
    if name in ("localhost", "gateway"):
        return
    assert len(set(instance_names(name, count))) == count
