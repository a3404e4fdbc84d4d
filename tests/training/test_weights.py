"""Sample weights by hand, against slow references, and their independence of what is not in the train set."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.errors import WeightsUndefined
from tickgate_training.labels import fixed_horizon
from tickgate_training.splits import walk_forward
from tickgate_training.weights import (
    WeightConfig,
    average_uniqueness,
    exponential_decay,
    linear_decay,
    normalised,
    return_attribution,
    sample_weights,
)

NOTHING = np.empty(0, np.int64)


@st.composite
def fits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Fitted rows with holes between them, and label intervals of random lengths."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    total = draw(st.integers(1, 60))
    rows = np.flatnonzero(rng.random(total) < rng.uniform(0.2, 1.0))
    return rows, np.arange(total) + rng.integers(0, 9, total)


def slow_uniqueness(rows: np.ndarray, ends: np.ndarray) -> list[float]:
    def alive(t: int) -> int:
        return sum(row <= t <= ends[row] for row in rows)

    return [float(np.mean([1.0 / alive(t) for t in range(row, ends[row] + 1)])) for row in rows]


def slow_attribution(rows: np.ndarray, ends: np.ndarray, prices: np.ndarray, lag: int) -> list[float]:
    def alive(t: int) -> int:
        return sum(row <= t <= ends[row] for row in rows)

    return [
        abs(sum(math.log(prices[t] / prices[t - 1]) / alive(t) for t in range(row + lag + 1, ends[row] + 1)))
        for row in rows
    ]


def test_uniqueness_is_the_mean_share_of_each_row_that_a_label_has_to_itself() -> None:
    # Labels [0, 2], [2, 3] and [4, 5]: row 2 is shared by two.
    ends = np.array([2, 9, 3, 9, 5, 9])
    np.testing.assert_allclose(average_uniqueness(np.array([0, 2, 4]), ends), [(1 + 1 + 0.5) / 3, (0.5 + 1) / 2, 1.0])


def test_labels_that_overlap_nowhere_are_unique() -> None:
    assert average_uniqueness(np.array([0, 3, 6]), np.arange(9) + 2).tolist() == [1.0, 1.0, 1.0]


@given(fits())
def test_uniqueness_agrees_with_the_slow_reference(fit: tuple[np.ndarray, np.ndarray]) -> None:
    rows, ends = fit
    found = average_uniqueness(rows, ends)
    np.testing.assert_allclose(found, slow_uniqueness(rows, ends), rtol=1e-12)
    assert ((found > 0.0) & (found <= 1.0)).all()


@given(fits())
def test_shares_of_every_row_that_a_label_covers_add_up_to_one(fit: tuple[np.ndarray, np.ndarray]) -> None:
    rows, ends = fit
    covered = {t for row in rows for t in range(row, ends[row] + 1)}
    lengths = ends[rows] - rows + 1
    assert float((average_uniqueness(rows, ends) * lengths).sum()) == pytest.approx(len(covered))


@given(fits(), st.integers(1, 3), st.integers(0, 99))
def test_return_attribution_agrees_with_the_slow_reference(
    fit: tuple[np.ndarray, np.ndarray], lag: int, seed: int
) -> None:
    rows, ends = fit
    ends = ends + lag
    prices = np.exp(np.random.default_rng(seed).normal(0.0, 0.1, int(ends.max()) + 1))
    found = return_attribution(rows, ends, prices, lag)
    np.testing.assert_allclose(found, slow_attribution(rows, ends, prices, lag), rtol=1e-9, atol=1e-12)


def test_a_label_alone_claims_its_own_return_and_none_before_its_entry() -> None:
    prices = np.array([1.0, 50.0, 2.0, 4.0, 3.0])
    assert return_attribution(np.array([0]), np.full(5, 3), prices, lag_trades=2)[0] == pytest.approx(math.log(2.0))


def test_return_attribution_needs_the_prices_of_its_intervals() -> None:
    for end in (5, 0):
        with pytest.raises(ValueError, match="between their entry and the last price"):
            return_attribution(np.array([0]), np.full(5, end), np.ones(5))


def test_labels_of_other_symbols_are_not_concurrent() -> None:
    ends = np.arange(6) + 2
    symbols = np.array([0, 1, 0, 1, 0, 1])
    rows = np.arange(6)
    each = average_uniqueness(rows, ends, symbols)
    for symbol in (0, 1):
        own = rows[symbols == symbol]
        np.testing.assert_array_equal(each[symbols == symbol], average_uniqueness(own, ends))
    assert (each > average_uniqueness(rows, ends)).all()


def test_linear_decay_runs_over_cumulative_uniqueness_to_c() -> None:
    uniqueness = np.array([1.0, 0.5, 0.5, 2.0])  # cumulative: 1, 1.5, 2, 4
    np.testing.assert_allclose(linear_decay(uniqueness, 0.5), [0.5 + 0.5 * x / 4 for x in (1, 1.5, 2, 4)])
    np.testing.assert_allclose(linear_decay(uniqueness, 0.0), [0.25, 0.375, 0.5, 1.0])
    assert linear_decay(uniqueness, 1.0).tolist() == [1.0] * 4


def test_a_negative_c_leaves_the_oldest_share_of_the_uniqueness_without_weight() -> None:
    # c = -1/4 of 4: zero up to a cumulative uniqueness of 1, then a line to 1 at 4.
    np.testing.assert_allclose(linear_decay(np.array([1.0, 0.5, 0.5, 2.0]), -0.25), [0.0, 0.5 / 3, 1.0 / 3, 1.0])


@pytest.mark.parametrize("oldest_weight", [-1.0, 1.01, math.nan])
def test_c_beyond_its_range_is_refused(oldest_weight: float) -> None:
    with pytest.raises(ValueError, match="oldest_weight"):
        linear_decay(np.ones(2), oldest_weight)


def test_exponential_decay_halves_with_each_half_life_of_rows() -> None:
    np.testing.assert_allclose(exponential_decay(np.array([10, 14, 17, 18]), 4.0), [0.25, 0.5, 0.5**0.25, 1.0])
    for half_life in (0.0, math.nan):
        with pytest.raises(ValueError, match="half_life_rows"):
            exponential_decay(np.array([1]), half_life)


@pytest.mark.parametrize("basis", ["equal", "uniqueness", "return_attribution"])
@given(fit=fits(), c=st.floats(-0.9, 1.0), half_life=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 99))
def test_weights_are_the_product_of_what_is_configured_with_a_mean_of_one(
    basis: str, fit: tuple[np.ndarray, np.ndarray], c: float, half_life: float, seed: int
) -> None:
    rows, ends = fit
    ends = ends + 2
    prices = np.exp(np.random.default_rng(seed).normal(0.0, 0.1, int(ends.max()) + 1))
    uniqueness = average_uniqueness(rows, ends)
    product = linear_decay(uniqueness, c)
    if basis != "equal":
        product = product * (uniqueness if basis == "uniqueness" else return_attribution(rows, ends, prices))
    if half_life:
        product = product * exponential_decay(rows, half_life)
    config = WeightConfig.model_validate({"basis": basis, "oldest_weight": c, "half_life_rows": half_life})
    found = sample_weights(rows, ends, prices, config)
    if rows.size:
        assert found.mean() == pytest.approx(1.0)
        np.testing.assert_allclose(found, product / product.mean())
    else:
        assert found.size == 0


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 40))
def test_rows_appended_change_no_weight_of_a_past_window(seed: int, horizon: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    prices = np.exp(np.cumsum(rng.normal(0.0, 0.01, 80 + more)))
    config = WeightConfig(oldest_weight=0.3, half_life_rows=7.0)

    def weights(rows: int) -> list[np.ndarray]:
        ends = fixed_horizon(prices[:rows], horizon).interval_end
        return [
            sample_weights(window.train_rows(ends), ends, prices[:rows], config)
            for window in walk_forward(rows, 30, 10, 5)
        ]

    for before, after in zip(weights(80), weights(80 + more), strict=False):
        np.testing.assert_array_equal(before, after)


def test_weights_that_sum_to_nothing_are_an_error_not_a_division() -> None:
    with pytest.raises(WeightsUndefined, match="the weights of 2 rows sum to 0"):
        sample_weights(np.array([0, 1]), np.arange(5) + 2, np.ones(5), WeightConfig(basis="return_attribution"))
    with pytest.raises(WeightsUndefined, match="nan"):
        normalised(np.array([1.0, math.nan]))


def test_return_attribution_of_a_panel_is_refused() -> None:
    with pytest.raises(ValueError, match="one symbol's rows"):
        sample_weights(
            np.array([0, 1]),
            np.arange(5) + 2,
            np.ones(5),
            WeightConfig(basis="return_attribution"),
            symbols=np.array([0, 1, 0, 1, 0]),
        )


def test_rows_out_of_order_and_intervals_that_end_early_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        average_uniqueness(np.array([1, 0]), np.arange(5))
    with pytest.raises(ValueError, match="ascending"):
        average_uniqueness(np.array([1, 1]), np.arange(5))
    with pytest.raises(ValueError, match="row 3 ends before it, at row 2"):
        average_uniqueness(np.array([0, 3]), np.array([1, 2, 3, 2, 5]))


def test_no_rows_have_no_weights() -> None:
    assert average_uniqueness(NOTHING, np.arange(3)).size == 0
    assert return_attribution(NOTHING, np.arange(3), np.ones(3)).size == 0
    assert linear_decay(np.empty(0), 0.5).size == 0
    assert exponential_decay(NOTHING, 2.0).size == 0
