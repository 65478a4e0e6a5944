"""The configuration of where names are published."""

from pathlib import Path

import pytest

from torpor.config import load
from torpor.domain.errors import Invalid

HOSTS_FILE = '[names.hosts-file]\npath = "/etc/hosts"\n'
RFC2136 = '[names.rfc2136]\nserver = "10.0.0.53"\nowner = "lab"\nkey_file = "/etc/torpor/names.key"\n'


def loaded(folder: Path, text: str) -> object:
    file = folder / "torpor.toml"
    file.write_text(text)
    return load(file).names


def test_nothing_said_means_the_guests_own_name_server(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == loaded(tmp_path, '[names]\npublish = ["dnsmasq"]\n')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[names]\npublish = []\n", "publish must name each place once, and one at least"),
        ('[names]\npublish = ["dnsmasq", "dnsmasq"]\n', "publish must name each place once"),
        ('[names]\npublish = ["bind"]\n', r"names\.publish\.0: Input should be 'dnsmasq', 'hosts-file' or 'rfc2136'"),
        ('[names]\npublish = ["hosts-file"]\n', r"there must be a section \[names\.hosts-file\]"),
        ('[names]\npublish = ["rfc2136"]\n', r"there must be a section \[names\.rfc2136\]"),
        ('[names]\nserver = "x"\n', r"names\.server: Extra inputs are not permitted"),
        ("[names.hosts-file]\n", r"names\.hosts-file\.path: Field required"),
        ('[names.hosts-file]\npath = "hosts"\n', "hosts must be an absolute path"),
        (HOSTS_FILE + 'pid_file = "p"\n', "p must be an absolute path"),
        (HOSTS_FILE + 'block = "a b"\n', "block 'a b' is not a hostname label"),
        (HOSTS_FILE + 'block = "a\\n# torpor b: end"\n', "is not a hostname label"),
        (HOSTS_FILE + 'pid_file = "/p"\ncommand = ["true"]\n', "set pid_file or command, not both"),
        (HOSTS_FILE + "reload = true\n", r"names\.hosts-file\.reload: Extra inputs are not permitted"),
        (HOSTS_FILE + 'ask = "dns1"\n', r"names\.hosts-file\.ask: value is not a valid IPv4 or IPv6 address"),
        (RFC2136.replace('owner = "lab"\n', ""), r"names\.rfc2136\.owner: Field required"),
        (RFC2136.replace('"lab"', r'"la\"b"'), "owner .* is not a hostname label"),
        (RFC2136.replace("10.0.0.53", "dns1"), r"names\.rfc2136\.server: value is not a valid IPv4 or IPv6 address"),
        (RFC2136 + "port = 0\n", r"names\.rfc2136\.port: Input should be greater"),
        (RFC2136 + 'reverse_zones = ["10.91.0.0/24"]\n', "'10.91.0.0/24' is no reverse zone; they are like"),
        (RFC2136 + 'reverse_zones = ["lab.internal"]\n', "'lab.internal' is no reverse zone"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        loaded(tmp_path, text)

    sentence = refused.value.problem.sentence
    assert sentence.isprintable()
    assert sentence.endswith("see docs/reference/configuration.md.")


def test_all_places_together(tmp_path: Path) -> None:
    text = '[names]\npublish = ["dnsmasq", "hosts-file", "rfc2136"]\n' + HOSTS_FILE + RFC2136

    assert loaded(tmp_path, text) == loaded(tmp_path, text + "reverse_zones = []\n")
