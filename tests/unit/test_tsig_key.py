"""Keys from files as BIND writes them."""

from pathlib import Path

import pytest

from torpor.adapters.names.tsig import read_key
from torpor.domain.errors import MissingPart

GOOD = 'key "torpor-key" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0LXNlY3JldA==";\n};\n'


@pytest.mark.parametrize("text", [GOOD, "# made by tsig-keygen\n" + GOOD.replace('"', "").replace("\n\t", " ")])
def test_what_tsig_keygen_writes_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)

    key = read_key(tmp_path / "key")

    assert (key.name.to_text(), key.algorithm.to_text(), key.secret) == (
        "torpor-key.",
        "hmac-sha256.",
        b"secret-secret",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it holds 0 keys"),
        (GOOD + GOOD, "it holds 2 keys"),
        (GOOD.replace("hmac-sha256", "hmac-md5"), "not one that is still safe"),
        (GOOD.replace("secret", "sec"), "it has no secret"),
        (GOOD.replace("c2Vj", "c2V"), "its secret is not base64"),
    ],
)
def test_what_is_no_key_is_told_without_the_secret(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "key").write_text(text)

    with pytest.raises(MissingPart, match=why) as refused:
        read_key(tmp_path / "key")
    assert "cmV0" not in refused.value.problem.sentence


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="No such file"):
        read_key(tmp_path / "key")
