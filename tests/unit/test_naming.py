"""Which names are hostnames."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.domain.errors import Conflict, Invalid
from torpor.domain.naming import (
    NameRecord,
    check_label,
    check_record,
    check_records,
    encode_label,
    hostname_of,
    instance_names,
)


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


HOSTILE = [
    pytest.param("a.b", id="dots"),
    pytest.param("www.example.com", id="someone else's zone"),
    pytest.param("alpha.", id="absolute"),
    pytest.param("with space", id="space"),
    pytest.param("x" * 64, id="64 characters"),
    pytest.param("ü" * 60, id="64 characters once encoded"),
    pytest.param("$(reboot)", id="shell"),
    pytest.param("a;reboot", id="shell"),
    pytest.param("`id`", id="shell"),
    pytest.param("../escape", id="path"),
    pytest.param("a\n10.0.0.1 www.example.com", id="newline"),
    pytest.param("a\n", id="newline at the end"),
    pytest.param("ü\n", id="newline beside a letter"),
    pytest.param("a\0", id="NUL"),
    pytest.param("a#b", id="comment"),
    pytest.param("*", id="wildcard"),
    pytest.param("*.a", id="wildcard"),
    pytest.param("@", id="apex"),
    pytest.param("", id="nothing"),
    pytest.param("localhost", id="localhost"),
    pytest.param("gateway", id="gateway"),
    pytest.param("Alpha", id="capital"),
    pytest.param("Ünder", id="capital beside ASCII"),
    pytest.param("\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", id="full-width localhost"),
    pytest.param("a\u3002b", id="ideographic full stop"),
    pytest.param("\u212a", id="Kelvin sign"),
    pytest.param("a\u200db", id="zero width joiner"),
    pytest.param("a\u202eb", id="right-to-left override"),
    pytest.param("\ud800", id="half a surrogate pair"),
    pytest.param("\U0001f600", id="emoji"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_with_one_sentence(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_record(NameRecord(name, "10.0.0.1"))

    sentence = refused.value.problem.sentence
    assert sentence.endswith(".")
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("name", "label"), [("bücher", "xn--bcher-kva"), ("日本語", "xn--wgv71a119e"), ("web-ñ", "xn--web--jqa")]
)
def test_letters_outside_ascii_are_encoded(name: str, label: str) -> None:
    assert encode_label(name) == label
    assert check_record(NameRecord(name, "10.0.0.1")) == NameRecord(label, "10.0.0.1")


@given(st.text(max_size=70))
def test_whatever_is_encoded_is_a_plain_label(name: str) -> None:
    try:
        label = encode_label(name)
    except Invalid:
        return
    assert re.fullmatch(r"[a-z0-9-]{1,63}", label)
    assert encode_label(label) == label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Web 1", "web-1"),
        ("a--b_c", "a--b-c"),
        ("Müller's VM", "xn--mller-s-vm-9db"),
        ("web\u20141", "web-1"),
        ("\uff41-1", "1"),
    ],
)
def test_the_hostname_of_a_vm_is_near_its_name(name: str, label: str) -> None:
    assert hostname_of(name) == label


def test_addresses_are_written_in_one_spelling() -> None:
    assert check_record(NameRecord("a", "10.0.0.1", "FD00:0:0::1")) == NameRecord("a", "10.0.0.1", "fd00::1")
    assert NameRecord("a", "10.0.0.1", "fd00::1").addresses == ("10.0.0.1", "fd00::1")
    assert NameRecord("a", address6="fd00::1").addresses == ("fd00::1",)


@pytest.mark.parametrize(
    "record",
    [
        NameRecord("a"),
        NameRecord("a", "10.0.0"),
        NameRecord("a", "10.0.0.1 evil"),
        NameRecord("a", "fd00::1"),
        NameRecord("a", "127.0.0.1"),
        NameRecord("a", "0.0.0.0"),
        NameRecord("a", "224.0.0.1"),
        NameRecord("a", address6="10.0.0.1"),
        NameRecord("a", address6="::1"),
        NameRecord("a", address6="fe80::1"),
        NameRecord("a", address6="fd00::1%eth0\nevil"),
    ],
)
def test_what_is_no_machines_address_is_refused(record: NameRecord) -> None:
    with pytest.raises(Invalid) as refused:
        check_record(record)
    assert refused.value.problem.sentence.isprintable()


def test_two_instances_of_one_name_are_refused_with_both_addresses() -> None:
    with pytest.raises(Conflict, match=r"two instances .* 'a': the addresses are 10\.0\.0\.1 and 10\.0\.0\.2"):
        check_records([NameRecord("a", "10.0.0.1"), NameRecord("b", "10.0.0.3"), NameRecord("a", "10.0.0.2")])


def test_two_spellings_of_one_name_are_one_name() -> None:
    with pytest.raises(Conflict):
        check_records([NameRecord("bücher", "10.0.0.1"), NameRecord("xn--bcher-kva", "10.0.0.2")])


def test_what_is_said_twice_is_published_once() -> None:
    assert check_records([NameRecord("a", "10.0.0.1")] * 2) == (NameRecord("a", "10.0.0.1"),)
