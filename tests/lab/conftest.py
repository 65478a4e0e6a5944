"""The lab, up for as long as these tests run; what was down before is down afterwards, what was up stays up."""

import os
from collections.abc import Iterator

import pytest
from lab.openstack.clouds import ADMIN, ORDINARY, connect
from lab.openstack.rise import down, up
from lab.openstack.settings import Lab, folder_of
from lab.openstack.state import is_up
from openstack.connection import Connection
from tests.installation import ROOT


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    number = int(os.environ.get("TORPOR_LAB_NUMBER", "0"))
    made = Lab(folder_of(number, ROOT / "build"), number=number)
    was_up = is_up(made)
    up(made, print)
    yield made
    if not was_up:
        down(made, print)


@pytest.fixture(scope="session")
def admin(lab: Lab) -> Connection:
    return connect(lab, ADMIN)


@pytest.fixture(scope="session")
def demo(lab: Lab) -> Connection:
    """An ordinary project."""
    return connect(lab, ORDINARY[0])
