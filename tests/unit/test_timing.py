"""What is learnt of an installation's speed."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torpor.domain.forecast import PRIORS
from torpor.domain.operation import OperationKind
from torpor.domain.timing import TimingModel, prior

SUSPEND = PRIORS[OperationKind.SUSPEND]
sizes = st.integers(50_000_000, 4_000_000_000)


def learnt(model: TimingModel, measured: list[tuple[int, float]]) -> TimingModel:
    for num_bytes, seconds in measured:
        model = model.learn(num_bytes, seconds)
    return model


@given(sizes)
def test_before_anything_was_measured_the_prior_is_the_prediction(num_bytes: int) -> None:
    assert SUSPEND.predict(num_bytes) == pytest.approx(0.3 + num_bytes / 1e9)
    assert PRIORS[OperationKind.RESUME].predict(num_bytes) == pytest.approx(0.8 + num_bytes / 0.9e9)
    assert PRIORS[OperationKind.RUN].predict(num_bytes) == pytest.approx(1.0)


@given(
    st.floats(0.05, 3.0),
    st.floats(0.15e9, 3e9),
    st.lists(sizes, min_size=10, max_size=10),
    st.integers(0, 2**32),
)
@settings(max_examples=300)
def test_after_three_measurements_of_different_sizes_predictions_are_within_30_percent(
    fixed: float, rate: float, moved: list[int], seed: int
) -> None:
    """Measurements scatter by 5 %; a size that lies far outside what was measured so far is not asked for."""
    noise = random.Random(seed)
    measured = [(size, (fixed + size / rate) * noise.uniform(0.95, 1.05)) for size in moved]
    assume(max(moved[:3]) >= 2 * min(moved[:3]))
    model = learnt(SUSPEND, measured[:3])
    for size, seconds in measured[3:]:
        if min(moved[:3]) <= size <= 1.25 * max(moved[:3]):
            assert abs(model.predict(size) - seconds) <= 0.3 * seconds
        model = model.learn(size, seconds)


def test_a_host_that_becomes_slower_is_followed() -> None:
    swift = [(size, 0.2 + size / 1e9) for size in (10**8, 10**9, 2 * 10**9)]
    slow = [(size, 0.2 + size / 2e8) for size in (10**8, 10**9, 2 * 10**9)]
    model = learnt(SUSPEND, swift * 5)
    assert model.predict(10**9) == pytest.approx(1.2, rel=0.05)
    assert learnt(model, slow * 5).predict(10**9) == pytest.approx(5.2, rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 10**11), st.floats(0.0, 1e5)), max_size=12), st.integers(0, 10**11))
def test_no_prediction_is_negative_or_smaller_for_more_bytes(measured: list[tuple[int, float]], size: int) -> None:
    model = learnt(SUSPEND, measured)
    assert 0.0 <= model.predict(size) <= model.predict(size + 10**9) + 1e-9


def test_measurements_of_one_size_only_are_learnt_too() -> None:
    model = learnt(SUSPEND, [(500_000_000, 4.0)] * 3)
    assert model.predict(500_000_000) == pytest.approx(4.0, rel=0.05)
    assert model.count == 3


def test_a_prior_of_endless_speed_is_its_fixed_time() -> None:
    assert prior(2.0, float("inf")).coefficients() == pytest.approx((2.0, 0.0))
