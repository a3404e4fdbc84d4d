"""Triple-barrier labels by hand and against a slow loop over paths, and the meta-labels made of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.labels import DOWN, UNLABELLED, UP, Labels, fixed_horizon, meta_labels, triple_barrier

walks = st.lists(st.sampled_from([97.0, 99.0, 100.0, 101.0, 103.0]), min_size=1, max_size=40).map(np.array)
MULTIPLES = st.sampled_from([0.0, 0.5, 1.0, 2.0])


def slow(
    prices: np.ndarray, widths: np.ndarray, horizon: int, lag: int, upper: float, lower: float, side: np.ndarray
) -> list[tuple[float, int]]:
    """Return and interval end of each row that has them, as the book has it: the earliest of three times of touch."""
    found = []
    for i in range(prices.size):
        path = {
            j: prices[j] / prices[i + lag] - 1.0 for j in range(i + lag + 1, min(i + lag + horizon + 1, prices.size))
        }
        profit = [j for j, change in path.items() if upper and side[i] * change >= upper * widths[i]]
        loss = [j for j, change in path.items() if lower and side[i] * change <= -lower * widths[i]]
        vertical = i + lag + horizon
        end = min([*profit, *loss, vertical])
        known = side[i] != 0 and math.isfinite(widths[i]) and end < prices.size
        found.append((path[end], end) if known else (math.nan, vertical))
    return found


def test_the_first_barrier_touched_gives_label_return_and_end_of_the_interval() -> None:
    prices = np.array([100.0, 100.0, 101.0, 103.0, 99.0, 98.0, 98.0])
    # A volatility of 1 % a trade over four trades: barriers at 2 %. Row 0 enters at 100 and touches at +3 %, row 3; row
    # 1 enters at 101: +1.98 %, -1.98 %, then -2.97 % at row 5; row 2 enters at 103 and is at -3.88 % at once.
    labels = triple_barrier(prices, np.full(7, 0.01), horizon_trades=4)
    assert labels.direction.tolist()[:3] == [UP, DOWN, DOWN]
    np.testing.assert_allclose(labels.returns[:3], [0.03, 98 / 101 - 1, 99 / 103 - 1])
    assert labels.interval_end.tolist()[:3] == [3, 5, 4]
    assert labels.direction.tolist()[3:] == [UNLABELLED] * 4
    assert labels.interval_end.tolist()[3:] == [8, 9, 10, 11]
    assert np.isnan(labels.returns[3:]).all()


def test_a_barrier_that_is_reached_exactly_is_touched() -> None:
    for prices, expected in (([1.0, 100.0, 125.0, 50.0], (UP, 2, 0.25)), ([1.0, 100.0, 75.0, 200.0], (DOWN, 2, -0.25))):
        labels = triple_barrier(np.array(prices), np.zeros(4), 2, volatility_floor=0.25)
        assert (labels.direction[0], labels.interval_end[0], labels.returns[0]) == expected


@pytest.mark.parametrize(("at_vertical", "direction"), [("sign", UP), ("none", UNLABELLED)])
def test_the_vertical_barrier_gives_the_sign_of_the_return_or_none(at_vertical: str, direction: int) -> None:
    prices = np.array([100.0, 100.0, 100.5, 101.0, 200.0])
    labels = triple_barrier(prices, np.full(5, 0.02), 2, at_vertical=at_vertical)  # type: ignore[arg-type]
    assert labels.direction[0] == direction
    assert labels.interval_end[0] == 3
    assert labels.returns[0] == pytest.approx(0.01)


def test_a_return_of_zero_at_the_vertical_barrier_has_no_direction() -> None:
    labels = triple_barrier(np.array([1.0, 5.0, 5.0]), np.ones(3), 1)
    assert (labels.direction[0], labels.returns[0], labels.interval_end[0]) == (UNLABELLED, 0.0, 2)


def test_barriers_stand_where_the_volatility_of_the_decision_row_puts_them() -> None:
    prices = np.array([100.0, 100.0, 102.0, 104.0, 104.0])
    near, far = (triple_barrier(prices, np.array([v, 9.0, 9.0, 9.0, 9.0]), 2).interval_end[0] for v in (0.01, 0.02))
    assert (near, far) == (2, 3)


def test_the_floor_keeps_a_still_market_from_barriers_of_no_width() -> None:
    prices = np.array([100.0, 100.0, 100.0, 101.0])
    labels = triple_barrier(prices, np.zeros(4), 2, volatility_floor=0.005)
    assert (labels.direction[0], labels.interval_end[0]) == (UP, 3)


@pytest.mark.parametrize("volatility", [math.nan, math.inf, -0.01])
def test_a_row_whose_volatility_is_not_known_has_no_label(volatility: float) -> None:
    labels = triple_barrier(np.array([1.0, 2.0, 3.0, 4.0]), np.array([volatility, 0.1, 0.1, 0.1]), 1)
    assert labels.direction.tolist() == [UNLABELLED, UP, UNLABELLED, UNLABELLED]
    assert np.isnan(labels.returns[0])
    assert labels.interval_end[0] == 2


def test_a_multiple_of_zero_leaves_a_barrier_out() -> None:
    prices = np.array([100.0, 100.0, 110.0, 90.0, 95.0])
    volatilities = np.full(5, 0.01)
    assert triple_barrier(prices, volatilities, 3, upper_multiple=0.0).interval_end[0] == 3
    assert triple_barrier(prices, volatilities, 3, lower_multiple=0.0).interval_end[0] == 2
    assert triple_barrier(prices, volatilities, 3, upper_multiple=0.0, lower_multiple=0.0).interval_end[0] == 4


def test_a_silence_before_the_touch_takes_the_label_and_one_after_it_does_not() -> None:
    stamps = np.array([0, 1, 2, 3, 200, 201])
    prices = np.array([100.0, 100.0, 100.0, 110.0, 90.0, 80.0])
    labels = triple_barrier(prices, np.full(6, 0.01), 4, stamps_ns=stamps, session_gap_ns=100)
    # Rows 0 and 1 touch at row 3, before the silence; rows 2 and 3 see row 4 first, beyond it.
    assert labels.direction.tolist()[:4] == [UP, UP, UNLABELLED, UNLABELLED]
    assert labels.interval_end.tolist()[:4] == [3, 3, 4, 4]
    assert np.isnan(labels.returns[2:]).all()


@given(walks, st.integers(1, 6), st.integers(1, 3), MULTIPLES, MULTIPLES, st.integers(0, 999))
def test_the_kernel_agrees_with_the_slow_reference(
    prices: np.ndarray, horizon: int, lag: int, upper: float, lower: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    volatilities = rng.choice([0.005, 0.01, 0.02, math.nan], prices.size)
    side = rng.choice([-1, 0, 1], prices.size).astype(np.int8)
    labels = triple_barrier(
        prices, volatilities, horizon, lag, upper_multiple=upper, lower_multiple=lower, side=side, volatility_floor=0.01
    )
    widths = np.maximum(volatilities * math.sqrt(horizon), 0.01)
    expected = slow(prices, widths, horizon, lag, upper, lower, side)
    np.testing.assert_array_equal(labels.returns, [change for change, _ in expected])
    assert labels.interval_end.tolist() == [end for _, end in expected]
    assert labels.direction.tolist() == [
        UP if change > 0 else DOWN if change < 0 else UNLABELLED for change, _ in expected
    ]


@given(walks, walks, st.integers(1, 6), st.integers(1, 3), st.integers(0, 999))
def test_appended_rows_change_no_label_whose_interval_was_there(
    first: np.ndarray, later: np.ndarray, horizon: int, lag: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    prices = np.concatenate((first, later))
    volatilities = rng.choice([0.005, 0.01, math.nan], prices.size)
    stamps = np.cumsum(rng.choice([1, 200], prices.size, p=[0.9, 0.1]))
    before, after = (
        triple_barrier(prices[:rows], volatilities[:rows], horizon, lag, stamps_ns=stamps[:rows], session_gap_ns=100)
        for rows in (first.size, prices.size)
    )
    there = before.interval_end < first.size
    for name in ("direction", "returns", "interval_end"):
        np.testing.assert_array_equal(getattr(after, name)[: first.size][there], getattr(before, name)[there])
    assert (after.interval_end[: first.size][~there] >= first.size).all()
    assert not before.labelled[~there].any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"horizon_trades": 0}, "at least 1"),
        ({"lag_trades": 0}, "at least 1"),
        ({"upper_multiple": -1.0}, "upper_multiple"),
        ({"lower_multiple": math.nan}, "lower_multiple"),
        ({"volatility_floor": 0.0}, "volatility_floor"),
        ({"volatility_floor": math.nan}, "volatility_floor"),
        ({"side": np.array([1, 1, 2, 0], np.int8)}, "got 2 in row 2"),
        ({"session_gap_ns": 1}, "stamps_ns"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        triple_barrier(np.ones(4), np.ones(4), **({"horizon_trades": 1} | arguments))  # type: ignore[arg-type]


def test_for_a_short_side_the_upper_barrier_is_the_fall() -> None:
    prices = np.array([100.0, 100.0, 101.0, 97.0, 104.0])
    short = np.full(5, -1, np.int8)
    labels = triple_barrier(prices, np.full(5, 0.01), 3, upper_multiple=1.0, lower_multiple=2.0, side=short)
    assert (labels.direction[0], labels.interval_end[0]) == (DOWN, 3)
    assert labels.returns[0] == pytest.approx(-0.03)


def test_a_meta_label_says_whether_the_sides_trade_gained_net_of_its_cost() -> None:
    move = Labels(
        np.array([UP, UP, DOWN, DOWN, UP, UP], np.int8),
        np.array([0.02, 0.02, -0.02, -0.02, 0.02, 0.01]),
        np.arange(6) + 2,
    )
    labels = meta_labels(move, np.array([1, -1, 1, -1, 0, 1], np.int8), cost=0.01)
    assert labels.direction.tolist() == [1, 0, 0, 1, UNLABELLED, 0]
    np.testing.assert_allclose(labels.returns, [0.01, -0.03, -0.03, 0.01, math.nan, 0.0])
    assert labels.interval_end.tolist() == move.interval_end.tolist()


def test_a_trade_that_came_back_to_where_it_was_gained_nothing() -> None:
    labels = meta_labels(fixed_horizon(np.array([1.0, 5.0, 5.0]), 1), np.ones(3, np.int8))
    assert labels.direction.tolist() == [0, UNLABELLED, UNLABELLED]


def test_a_move_over_a_silence_has_no_meta_label() -> None:
    move = fixed_horizon(np.array([1.0, 5.0, 6.0]), 1, stamps_ns=np.array([0, 1, 200]), session_gap_ns=100)
    assert not meta_labels(move, np.ones(3, np.int8)).labelled.any()


def test_a_cost_a_row_may_be_unknown_but_not_below_zero() -> None:
    move = fixed_horizon(np.array([1.0, 2.0, 3.0, 4.0]), 1)
    side = np.ones(4, np.int8)
    assert meta_labels(move, side, np.array([math.nan, 0.0, 0.0, 0.0])).direction.tolist()[:2] == [UNLABELLED, 1]
    with pytest.raises(ValueError, match=r"at least 0, got -0\.1"):
        meta_labels(move, side, -0.1)
    with pytest.raises(ValueError, match="got 3 in row 0"):
        meta_labels(move, np.full(4, 3, np.int8))
