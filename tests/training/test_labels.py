import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.labels import DOWN, UNLABELLED, UP, fixed_horizon

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
