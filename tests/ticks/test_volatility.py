import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tickgate_server.ticks import volatility

prices = hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(1e-3, 1e6))


def slow(prices: list[float]) -> float:
    """sqrt(sum w r^2 / sum w) over all log returns, weights halving every 200; NaN below 20 returns."""
    returns = [math.log(after / before) for before, after in itertools.pairwise(prices)]
    if len(returns) < 20:
        return math.nan
    weights = [0.5 ** (age / 200.0) for age in reversed(range(len(returns)))]
    return math.sqrt(math.fsum(weight * r * r for weight, r in zip(weights, returns, strict=True)) / math.fsum(weights))


@given(prices)
def test_each_value_is_the_slow_one_over_the_trades_so_far(series: np.ndarray) -> None:
    wanted = [slow(series[: end + 1].tolist()) for end in range(series.size)]
    assert volatility.batch(series).tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)


def test_a_long_series_is_the_slow_one_at_its_end() -> None:
    series = 100.0 * np.exp(np.cumsum(np.random.default_rng(3).normal(0.0, 1e-3, 5_000)))
    assert volatility.batch(series)[-1] == pytest.approx(slow(series.tolist()), rel=1e-9)


@given(prices)
def test_batch_is_the_loop_over_update_bit_for_bit(series: np.ndarray) -> None:
    state = np.zeros((3, volatility.COLUMNS))
    looped = np.array([volatility.update(state, 1, price) for price in series.tolist()])
    assert volatility.batch(series).tobytes() == looped.tobytes()
    assert not state[[0, 2]].any()


@given(prices, st.integers(0, 60))
def test_later_trades_change_no_earlier_value(series: np.ndarray, cut: int) -> None:
    assert volatility.batch(series)[:cut].tobytes() == volatility.batch(series[:cut]).tobytes()


def test_it_is_unknown_until_twenty_returns_were_seen() -> None:
    series = np.where(np.arange(25) % 2, 100.0, 101.0)
    assert np.isnan(volatility.batch(series)).tolist() == [True] * 20 + [False] * 5


def test_returns_of_one_size_have_that_volatility_from_the_first_value_on() -> None:
    series = np.where(np.arange(30) % 2, 100.0, 101.0)
    assert volatility.batch(series)[20:] == pytest.approx(math.log(1.01), rel=1e-12)


def test_a_constant_price_has_volatility_zero() -> None:
    assert volatility.batch(np.full(25, 5.0))[20:].tolist() == [0.0] * 5
