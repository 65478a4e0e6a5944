"""A name answers within 100 ms of `run` accepting its instance, and beside thousands of others.

`script/bench names` has the figures.
"""

from statistics import median

import pytest
from tests.api import Api
from tests.installation import installation
from tests.name_latency import run_and_ask

from benchmark.names import time_updates

RUNS = 9
UPDATES, PUBLISHED = 20, 5000
BOUND_SECONDS = 0.1


@pytest.mark.slow
def test_a_name_answers_within_a_tenth_of_a_second_of_acceptance() -> None:
    """Whether or not there is room for the instance yet: here there is for one of them."""
    latencies = []
    with installation(number=43, memory_mb=192) as torpor, Api(torpor.socket) as api:
        for number in range(RUNS):
            body = {"name": f"quick-{number}", "image": "tiny", "memory_mb": 128}
            latencies.append(run_and_ask(api, body, torpor.gateway, torpor.zone))
    assert median(each.answering for each in latencies) < BOUND_SECONDS, latencies


@pytest.mark.slow
def test_beside_five_thousand_names_an_update_takes_less_than_a_tenth_of_a_second() -> None:
    """From the beginning of the change to the first right answer, of names that come and of names that go."""
    for what, milliseconds in zip(("comes", "goes"), time_updates(UPDATES, PUBLISHED), strict=True):
        told = f"a name {what}: median {median(milliseconds):.1f} ms, most {max(milliseconds):.1f} ms"
        assert median(milliseconds) < BOUND_SECONDS * 1000, told
