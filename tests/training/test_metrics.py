import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from tickgate_training.backtest import Backtest
from tickgate_training.errors import ArgumentInvalid
from tickgate_training.metrics import (
    Metrics,
    autocorrelation,
    kurtosis,
    max_drawdown,
    measure,
    sharpe_ratio,
    skewness,
)

returns_lists = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=30)


def result(net: list[float], trips: list[float], positions: list[float] | None = None) -> Backtest:
    n = np.array(net)
    held = np.array(positions if positions is not None else [1.0] * n.size)
    trip = np.array(trips)
    return Backtest(0, held, n + 0.01, n, np.abs(held) * 0.5, np.abs(held) * 0.2, trip + 0.03, trip)


def test_every_metric_by_hand() -> None:
    measured = measure(result([0.1, -0.2, 0.05, 0.0], [0.1, -0.2, 0.05], [1.0, 1.0, -1.0, 0.0]), 252.0)
    mean = -0.05 / 4
    deviation = math.sqrt(sum((r - mean) ** 2 for r in (0.1, -0.2, 0.05, 0.0)) / 3)
    assert measured.sharpe == pytest.approx(mean / deviation * math.sqrt(252))
    assert measured.t_statistic == pytest.approx(mean / deviation * 2)
    assert measured.total_return_summed == pytest.approx(-0.05)
    assert measured.total_return_compounded == pytest.approx(1.1 * 0.8 * 1.05 - 1)
    assert measured.max_drawdown == pytest.approx(0.2)
    assert measured.round_trips == 3
    assert measured.win_rate == pytest.approx(2 / 3)
    assert measured.mean_trip_return == pytest.approx(-0.05 / 3)
    assert measured.profit_factor == pytest.approx(0.15 / 0.2)
    assert measured.turnover == pytest.approx(0.5 * 3 / 4)
    assert measured.exposure == pytest.approx(3 / 4)
    assert measured.mean_leverage == pytest.approx(0.2 * 3 / 4)
    away = [r - mean for r in (0.1, -0.2, 0.05, 0.0)]
    second, third, fourth = (sum(x**k for x in away) / 4 for k in (2, 3, 4))
    assert measured.skewness == pytest.approx(third / second**1.5)
    assert measured.kurtosis == pytest.approx(fourth / second**2)
    assert measured.autocorrelation == pytest.approx(sum(away[k] * away[k + 1] for k in range(3)) / (4 * second))
    assert measured.periods == 4
    assert not measured.undefined


def test_gross_is_measured_before_costs() -> None:
    measured = measure(result([0.1, -0.2], [-0.1]), 1.0, net=False)
    assert measured.total_return_summed == pytest.approx(-0.1 + 0.02)
    assert measured.mean_trip_return == pytest.approx(-0.07)


def test_the_initial_equity_is_a_peak() -> None:
    assert max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(0.1)


@given(returns_lists)
def test_drawdown_agrees_with_a_loop_and_lies_between_nothing_and_all(returns: list[float]) -> None:
    equity = peak = 1.0
    worst = 0.0
    for r in returns:
        equity *= 1 + r
        peak = max(peak, equity)
        worst = max(worst, 1 - equity / peak)
    assert max_drawdown(np.array(returns)) == pytest.approx(worst)
    assert 0.0 <= worst < 1.0


@given(st.lists(st.integers(-50, 50).map(lambda k: k / 100), min_size=2, max_size=30), st.floats(0.1, 10.0))
def test_sharpe_does_not_depend_on_scale(returns: list[float], scale: float) -> None:
    one, why = sharpe_ratio(np.array(returns), 1.0)
    if not why:
        assert sharpe_ratio(np.array(returns) * scale, 1.0)[0] == pytest.approx(one, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("returns", "why"), [([0.1], "fewer than two"), ([0.1] * 3, "do not vary"), ([0.0, 5e-324], "do not vary")]
)
def test_an_undefined_sharpe_is_nan_with_a_reason(returns: list[float], why: str) -> None:
    measured = measure(result(returns, [0.1]), 252.0)
    assert math.isnan(measured.sharpe)
    assert math.isnan(measured.t_statistic)
    for name in ("sharpe", "t_statistic", "skewness", "kurtosis", "autocorrelation"):
        assert math.isnan(getattr(measured, name))
        assert why in measured.undefined[name]


def test_without_round_trips_their_metrics_are_nan_with_a_reason() -> None:
    measured = measure(result([0.0, 0.0], [], [0.0, 0.0]), 252.0)
    for name in ("win_rate", "mean_trip_return", "profit_factor"):
        assert math.isnan(getattr(measured, name))
        assert measured.undefined[name] == "no round trip"
    assert measured.exposure == 0.0


def test_without_a_loss_the_profit_factor_is_nan_with_a_reason() -> None:
    measured = measure(result([0.1, 0.2], [0.1, 0.2]), 252.0)
    assert math.isnan(measured.profit_factor)
    assert measured.undefined["profit_factor"] == "no losing round trip"


def test_a_return_that_loses_all_leaves_compounding_undefined() -> None:
    measured = measure(result([0.5, -1.0, 0.5], [0.0]), 252.0)
    assert math.isnan(measured.total_return_compounded)
    assert math.isnan(measured.max_drawdown)
    assert "capital is gone" in measured.undefined["max_drawdown"]
    assert measured.total_return_summed == pytest.approx(0.0)


def test_every_nan_has_its_reason() -> None:
    measured = measure(result([0.0], [], [0.0]), 252.0)
    numbers = {name: getattr(measured, name) for name in Metrics.__dataclass_fields__ if name != "undefined"}
    missing = {name for name, value in numbers.items() if math.isnan(value)}
    assert missing == set(measured.undefined)


def test_a_losing_trip_that_rounds_to_nothing_is_no_loss() -> None:
    assert measure(result([0.1, -0.1], [0.1, -0.0]), 1.0).undefined["profit_factor"] == "no losing round trip"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("net", [True, False])
def test_a_return_that_is_no_number_leaves_all_that_is_made_of_it_undefined(broken: float, *, net: bool) -> None:
    measured = measure(result([0.1, broken, 0.2], [0.1, broken]), 252.0, net=net)
    for name in (
        "sharpe",
        "t_statistic",
        "total_return_compounded",
        "total_return_summed",
        "max_drawdown",
        "skewness",
        "kurtosis",
        "autocorrelation",
    ):
        assert math.isnan(getattr(measured, name))
        assert measured.undefined[name] == f"return 1 of 3 is {broken}"
    for name in ("win_rate", "mean_trip_return", "profit_factor"):
        assert math.isnan(getattr(measured, name))
        assert measured.undefined[name] == f"round trip 1 of 2 is {broken}"
    assert measured.round_trips == 2
    assert measured.exposure == 1.0


def test_of_no_returns_nothing_is_known() -> None:
    measured = measure(result([], []), 252.0)
    assert measured.periods == measured.round_trips == 0
    assert set(measured.undefined) == set(Metrics.__dataclass_fields__) - {
        "periods",
        "round_trips",
        "periods_per_year",
        "undefined",
    }
    assert measured.undefined["total_return_summed"] == "no return"
    assert measured.undefined["exposure"] == "no period"


@pytest.mark.parametrize("periods_per_year", [0.0, -1.0, math.nan, math.inf])
def test_a_year_without_periods_is_refused(periods_per_year: float) -> None:
    with pytest.raises(ArgumentInvalid, match="periods_per_year"):
        measure(result([0.1, -0.1], [0.1]), periods_per_year)


def test_mean_and_deviation_are_of_the_same_periods() -> None:
    # A year of daily returns: by the day, or each pair of days as one period, the annual ratio is near the same.
    returns = np.random.default_rng(5).normal(0.001, 0.01, 2520)
    daily, pairs = sharpe_ratio(returns, 252.0)[0], sharpe_ratio(returns.reshape(-1, 2).sum(axis=1), 126.0)[0]
    assert pairs == pytest.approx(daily, rel=0.05)


@given(st.lists(st.integers(-50, 50).map(lambda k: k / 1000), min_size=3, max_size=40))
def test_moments_agree_with_scipys(returns: list[float]) -> None:
    series = np.array(returns)
    if series.max() == series.min():
        return
    assert skewness(series)[0] == pytest.approx(stats.skew(series), rel=1e-9, abs=1e-9)
    assert kurtosis(series)[0] == pytest.approx(stats.kurtosis(series, fisher=False), rel=1e-9)
    assert -1.0 < autocorrelation(series)[0] < 1.0
    assert kurtosis(series)[0] >= 1.0 + skewness(series)[0] ** 2 - 1e-9


def test_kurtosis_is_raw_and_a_normals_is_three() -> None:
    assert kurtosis(np.random.default_rng(1).standard_normal(200_000))[0] == pytest.approx(3.0, abs=0.05)
    assert kurtosis(np.array([1.0, -1.0] * 10))[0] == pytest.approx(1.0)


def test_autocorrelation_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(2)
    series = np.zeros(50_000)
    for k in range(1, series.size):
        series[k] = 0.3 * series[k - 1] + rng.standard_normal()
    assert autocorrelation(series)[0] == pytest.approx(0.3, abs=0.02)
    assert autocorrelation(np.array([1.0, -1.0] * 50))[0] == pytest.approx(-0.99)


@given(returns_lists)
def test_compounding_agrees_with_a_loop(returns: list[float]) -> None:
    equity = 1.0
    for r in returns:
        equity *= 1 + r
    measured = measure(result(returns, [0.1]), 1.0)
    assert measured.total_return_compounded == pytest.approx(equity - 1, abs=1e-12)
    assert measured.total_return_summed == pytest.approx(math.fsum(returns), abs=1e-12)


def test_a_round_trip_that_earns_nothing_is_no_win_and_no_loss() -> None:
    measured = measure(result([0.1, 0.0, -0.05], [0.1, 0.0, -0.05, 0.0]), 1.0)
    assert measured.win_rate == 0.25
    assert measured.profit_factor == pytest.approx(2.0)
