"""Asking the name server, as a person in a shell would."""

import subprocess


def dig(server: str, *question: str) -> str | None:
    """The first answer; None when there is none."""
    ended = subprocess.run(
        ["dig", f"@{server}", "+short", "+time=2", "+tries=2", *question],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    lines = [line for line in ended.stdout.splitlines() if line and not line.startswith(";")]
    return lines[0].rstrip(".") if ended.returncode == 0 and lines else None
