import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.backtest import Backtest
from tickgate_training.metrics import Metrics, max_drawdown, measure, sharpe_ratio

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


@pytest.mark.parametrize(("returns", "why"), [([0.1], "fewer than two"), ([0.1] * 3, "do not vary")])
def test_an_undefined_sharpe_is_nan_with_a_reason(returns: list[float], why: str) -> None:
    measured = measure(result(returns, [0.1]), 252.0)
    assert math.isnan(measured.sharpe)
    assert math.isnan(measured.t_statistic)
    assert why in measured.undefined["sharpe"]
    assert why in measured.undefined["t_statistic"]


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
