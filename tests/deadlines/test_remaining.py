"""The running medians of early refusal."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.models.remaining import TRIAL_AFTER_NS, RemainingTimes

MS = 1_000_000


def fed(values: list[int]) -> RemainingTimes:
    times = RemainingTimes()
    for now_ns, value in enumerate(values):
        times.completed(value, value // 2, value // 10, now_ns)
    return times


@given(st.floats(1e4, 1e8), st.floats(0.02, 1.0), st.integers(0, 2**32 - 1))
def test_on_a_stationary_stream_the_estimate_is_near_the_median(scale: float, spread: float, seed: int) -> None:
    values = (scale * np.random.default_rng(seed).lognormal(0.0, spread, 3_000)).astype(int).tolist()
    times = fed(values)
    tolerance = 0.08 + 0.3 * spread
    for estimate, part in ((times.from_features_ns, 1), (times.from_inference_ns, 2), (times.from_risk_ns, 10)):
        assert abs(np.log(estimate / (np.median(values) / part))) < tolerance


@given(st.integers(1_000, 10**9), st.floats(0.1, 10.0))
def test_it_follows_a_change_by_a_factor_of_ten_within_two_hundred_values(before: int, factor: float) -> None:
    after = int(before * factor)
    assert abs(fed([before] * 10 + [after] * 200).from_features_ns / after - 1.0) < 0.05


@given(st.lists(st.integers(0, 10**12)))
def test_it_is_never_negative_and_never_above_the_largest_by_more_than_a_step(values: list[int]) -> None:
    assert 0 <= fed(values).from_features_ns <= max(values, default=0) * 65 / 64 + 1


def test_the_first_value_is_taken_as_it_is() -> None:
    times = fed([64_000])
    assert (times.from_features_ns, times.from_inference_ns, times.from_risk_ns) == (64_000, 32_000, 6_400)


def test_a_stopped_run_counts_only_where_it_took_longer_than_the_median() -> None:
    times = fed([64_000])
    times.exceeded(63_999, 31_999)
    assert (times.from_features_ns, times.from_inference_ns) == (64_000, 32_000)
    times.exceeded(200_000, 150_000)
    assert (times.from_features_ns, times.from_inference_ns) == (65_001, 32_501)


def test_a_stopped_run_is_the_first_thing_known() -> None:
    times = RemainingTimes()
    times.exceeded(5 * MS, 4 * MS)
    assert (times.from_features_ns, times.from_inference_ns) == (5 * MS, 4 * MS)


def test_one_is_let_through_after_100_ms_without_a_completed_run_and_then_none_for_another_100() -> None:
    times = RemainingTimes()
    times.completed(MS, MS, MS, 7 * MS)
    assert not times.try_one(7 * MS + TRIAL_AFTER_NS - 1)
    assert times.try_one(7 * MS + TRIAL_AFTER_NS)
    assert not times.try_one(7 * MS + TRIAL_AFTER_NS + 1)
    assert not times.try_one(7 * MS + 2 * TRIAL_AFTER_NS - 1)
    assert times.try_one(7 * MS + 2 * TRIAL_AFTER_NS)


def test_a_bad_spell_ends_with_the_first_that_is_let_through() -> None:
    times = fed([80 * MS] * 50)
    times.trial_completed(2 * MS, MS, MS // 10, 10**12)
    assert (times.from_features_ns, times.from_inference_ns, times.from_risk_ns) == (2 * MS, MS, MS // 10)


def test_one_that_was_let_through_and_was_slow_too_is_one_value_among_others() -> None:
    times = fed([64_000])
    times.trial_completed(10 * MS, 10 * MS, 10 * MS, 10**12)
    assert times.from_features_ns == 65_001
