import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.labels import DOWN, UNLABELLED, UP, fixed_horizon, fixed_time

walks = st.lists(st.sampled_from([99.0, 100.0, 101.0]), min_size=1, max_size=40).map(np.array)


def test_the_return_is_entered_after_the_lag_and_left_after_the_horizon() -> None:
    labels = fixed_horizon(np.array([100.0, 50.0, 70.0, 60.0, 40.0]), horizon_trades=2)
    np.testing.assert_allclose(labels.returns[:2], [60 / 50 - 1, 40 / 70 - 1])
    assert np.isnan(labels.returns[2:]).all()
    assert labels.direction.tolist() == [UP, DOWN, UNLABELLED, UNLABELLED, UNLABELLED]
    assert labels.interval_end.tolist() == [3, 4, 5, 6, 7]


def test_a_price_that_comes_back_has_a_return_of_zero_and_no_direction() -> None:
    labels = fixed_horizon(np.array([1.0, 5.0, 9.0, 5.0]), horizon_trades=2)
    assert labels.returns[0] == 0.0
    assert not labels.labelled.any()


@given(walks, st.integers(1, 5), st.integers(1, 3))
def test_labels_agree_with_a_loop(prices: np.ndarray, horizon: int, lag: int) -> None:
    labels = fixed_horizon(prices, horizon, lag)
    for i in range(prices.size):
        if i + lag + horizon >= prices.size:
            assert labels.direction[i] == UNLABELLED
            continue
        entry, leave = prices[i + lag], prices[i + lag + horizon]
        assert labels.direction[i] == (UP if leave > entry else DOWN if leave < entry else UNLABELLED)


@given(walks, walks, st.integers(1, 5))
def test_appended_rows_change_no_label_that_was_defined(first: np.ndarray, later: np.ndarray, horizon: int) -> None:
    before = fixed_horizon(first, horizon)
    after = fixed_horizon(np.concatenate((first, later)), horizon)
    defined = np.isfinite(before.returns)
    np.testing.assert_array_equal(after.direction[: first.size][defined], before.direction[defined])
    np.testing.assert_array_equal(after.returns[: first.size][defined], before.returns[defined])


def test_no_label_spans_a_silence_longer_than_the_session_gap() -> None:
    stamps = np.array([0, 1, 2, 103, 104, 105, 106], np.int64)
    labels = fixed_horizon(np.arange(1.0, 8.0), 1, stamps_ns=stamps, session_gap_ns=100)
    assert labels.direction.tolist() == [UP, UNLABELLED, UNLABELLED, UP, UP, UNLABELLED, UNLABELLED]


@pytest.mark.parametrize(("horizon", "lag"), [(0, 1), (1, 0)])
def test_horizon_and_lag_are_at_least_one(horizon: int, lag: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fixed_horizon(np.ones(5), horizon, lag)


def test_a_session_gap_needs_stamps() -> None:
    with pytest.raises(ValueError, match="stamps_ns"):
        fixed_horizon(np.ones(5), 1, session_gap_ns=1)


def test_a_session_gap_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        fixed_horizon(np.ones(5), 1, stamps_ns=np.arange(5), session_gap_ns=-1)


def test_a_horizon_in_time_leaves_at_the_first_trade_that_comes_no_earlier() -> None:
    stamps = np.array([0, 10, 20, 29, 30, 30, 55])
    labels = fixed_time(np.array([1.0, 2.0, 4.0, 8.0, 3.0, 5.0, 1.0]), stamps, horizon_ns=20)
    # Entered at 10, 20, 29, 30 and 30; left at the first of the two trades at 30, and at 55.
    assert labels.interval_end.tolist() == [4, 6, 6, 6, 6, 7, 7]
    np.testing.assert_allclose(labels.returns[:5], [3 / 2 - 1, 1 / 4 - 1, 1 / 8 - 1, 1 / 3 - 1, 1 / 5 - 1])
    assert labels.direction.tolist() == [UP, DOWN, DOWN, DOWN, DOWN, UNLABELLED, UNLABELLED]


def test_no_label_by_time_spans_a_silence_longer_than_the_session_gap() -> None:
    stamps = np.array([0, 10, 20, 200, 210])
    labels = fixed_time(np.arange(1.0, 6.0), stamps, horizon_ns=10, session_gap_ns=100)
    assert labels.direction.tolist() == [UP, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED]


@given(walks, walks, st.integers(1, 9), st.integers(1, 3), st.integers(0, 99))
def test_appended_rows_change_no_label_by_time_that_was_defined(
    first: np.ndarray, later: np.ndarray, horizon_ns: int, lag: int, seed: int
) -> None:
    prices = np.concatenate((first, later))
    stamps = np.cumsum(np.random.default_rng(seed).integers(0, 4, prices.size))
    before, after = (
        fixed_time(first, stamps[: first.size], horizon_ns, lag),
        fixed_time(prices, stamps, horizon_ns, lag),
    )
    defined = before.interval_end < first.size
    for name in ("direction", "returns", "interval_end"):
        np.testing.assert_array_equal(getattr(after, name)[: first.size][defined], getattr(before, name)[defined])
    assert np.isnan(before.returns[~defined]).all()
