import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.risk.sizing import target_position
from tickgate_training.backtest import Market, Sizing, constant_position, decide, run
from tickgate_training.costs import Costs
from tickgate_training.errors import TooFewRows

SIZING = Sizing(capital=1000.0, risk_budget=10.0, horizon_trades=4, volatility_floor=1e-3, lot=0.01)


def market(marks: list[float] | NDArray[np.float64], half_spread: float = 0.001) -> Market:
    marks = np.asarray(marks, np.float64)
    return Market(marks, np.full(marks.size, half_spread), np.full(marks.size, 50.0), np.full(marks.size, 0.01))


@st.composite
def held(draw: st.DrawFn) -> tuple[list[float], list[float], int]:
    """Positions, marks, and the first row."""
    positions = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, -1.0, -3.0]), min_size=1, max_size=25))
    start = draw(st.integers(0, 5))
    size = start + len(positions) + 2
    marks = draw(st.lists(st.integers(80, 120).map(float), min_size=size, max_size=size))
    return positions, marks, start


def slow_run(
    positions: list[float], marks: list[float], start: int, costs: Costs, half_spread: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Gross and net returns a row, then of each round trip: one order after the other, as a broker would book."""
    gross, net = [0.0] * len(positions), [0.0] * len(positions)
    trips: list[list[float]] = []
    standing = 0.0

    for k, wanted in enumerate([*positions, 0.0]):
        row, into = start + k + 1, min(k, len(positions) - 1)
        change = wanted - standing
        fraction = half_spread + costs.fee + costs.impact * 0.1 * math.sqrt(abs(change) / 50.0)
        closed = min(abs(standing), abs(change)) if standing * change < 0 else 0.0
        opened = abs(change) - closed
        for size, opens in ((closed, False), (opened, True)):
            if size == 0.0:
                continue
            paid = size * marks[row] / 1000.0 * fraction
            net[into] -= paid
            if opens and (standing == 0.0 or standing * wanted < 0):
                trips.append([0.0, 0.0])
            trips[-1][1] -= paid
        standing = wanted
        if k < len(positions) and standing != 0.0:
            earned = standing * (marks[row + 1] - marks[row]) / 1000.0
            gross[k] += earned
            net[k] += earned
            trips[-1][0] += earned
            trips[-1][1] += earned
    return gross, net, [trip[0] for trip in trips], [trip[1] for trip in trips]


@given(held(), st.sampled_from([0.0, 0.5]))
def test_the_accounts_agree_with_a_slow_loop(case: tuple[list[float], list[float], int], impact: float) -> None:
    positions, marks, start = case
    costs = Costs(fee=0.0005, impact=impact)
    result = run(np.array(positions), market(marks), start, 1000.0, costs)
    gross, net, trip_gross, trip_net = slow_run(positions, marks, start, costs, 0.001)
    np.testing.assert_allclose(result.gross, gross, atol=1e-14)
    np.testing.assert_allclose(result.net, net, atol=1e-14)
    np.testing.assert_allclose(result.trip_gross, trip_gross, atol=1e-14)
    np.testing.assert_allclose(result.trip_net, trip_net, atol=1e-14)


@given(held())
def test_round_trips_add_up_to_the_returns(case: tuple[list[float], list[float], int]) -> None:
    positions, marks, start = case
    result = run(np.array(positions), market(marks), start, 1000.0, Costs(fee=0.001))
    assert result.trip_net.sum() == pytest.approx(result.net.sum(), abs=1e-13)
    assert result.trip_gross.sum() == pytest.approx(result.gross.sum(), abs=1e-13)


def test_a_decision_earns_the_move_after_the_next_trade() -> None:
    result = run(np.array([2.0, 0.0]), market([100.0, 110.0, 150.0, 999.0], 0.0), 0, 1000.0, Costs(0.0))
    np.testing.assert_allclose(result.net, [2 * (150 - 110) / 1000, 0.0])


def test_entry_and_exit_are_paid_where_they_happen() -> None:
    result = run(np.array([2.0, 0.0]), market([100.0, 110.0, 150.0, 160.0]), 0, 1000.0, Costs(fee=0.002))
    np.testing.assert_allclose(result.gross - result.net, [0.003 * 2 * 110 / 1000, 0.003 * 2 * 150 / 1000])
    np.testing.assert_allclose(result.traded, [0.22, 0.30])
    np.testing.assert_allclose(result.leverage, [0.22, 0.0])


def test_what_stands_at_the_end_is_closed_and_paid_for() -> None:
    result = run(np.array([1.0]), market([100.0, 100.0, 100.0]), 0, 1000.0, Costs(fee=0.0))
    np.testing.assert_allclose(result.net, [-2 * 0.001 * 100 / 1000])


def test_rows_without_two_more_marks_are_cut() -> None:
    result = run(np.ones(5), market([100.0] * 5), 0, 1000.0, Costs(0.0))
    assert result.positions.size == 3
    with pytest.raises(TooFewRows):
        run(np.ones(2), market([100.0] * 5), 3, 1000.0, Costs(0.0))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20), st.floats(0.5, 1.0))
def test_positions_are_the_servers_where_confident_and_none_elsewhere(chances: list[float], threshold: float) -> None:
    p = np.array(chances)
    marks = np.linspace(90.0, 110.0, p.size + 3)
    found = decide(p, threshold, market(marks), 1, SIZING)
    for k, chance in enumerate(chances):
        expected = target_position(2 * chance - 1, marks[k + 1], 0.01, 4, 10.0, 1e-3, 1.0, 0.01)
        assert found[k] == (expected if max(chance, 1 - chance) >= threshold else 0.0)


def test_what_is_not_known_is_not_traded() -> None:
    somewhere = market([100.0] * 6)
    somewhere.trade_volatilities[3] = np.nan
    found = decide(np.array([0.9, np.nan, 0.9, 0.9]), 0.5, somewhere, 1, SIZING)
    assert (found != 0.0).tolist() == [True, False, False, True]


def test_between_decisions_the_position_stands() -> None:
    p = np.array([0.9, 0.1, np.nan, 0.5, 0.9, 0.9, 0.2])
    found = decide(p, 0.6, market([100.0] * 10), 0, SIZING, decide_every=3)
    assert found[0] == found[1] == found[2] > 0
    assert found[3] == found[4] == found[5] == 0
    assert found[6] < 0


def test_later_rows_change_no_earlier_decision() -> None:
    rng = np.random.default_rng(1)
    p, marks = rng.random(30), rng.uniform(90, 110, 40)
    whole = decide(p, 0.6, market(marks), 2, SIZING, 3)
    np.testing.assert_array_equal(decide(p[:17], 0.6, market(marks[:25]), 2, SIZING, 3), whole[:17])


def test_always_long_holds_the_capital_at_the_first_execution() -> None:
    somewhere = market([100.0, 80.0, 88.0, 96.0])
    result = run(constant_position(somewhere, 0, 2, 1000.0, 1.0), somewhere, 0, 1000.0, Costs(0.0))
    np.testing.assert_allclose(result.gross, [0.1, 0.1])
    assert result.trip_net.size == 1


def test_costs_are_half_spread_fee_and_the_square_root_of_the_share_of_volume() -> None:
    costs = Costs(fee=0.001, impact=0.8)
    found = costs.fractions(
        np.array([4.0, 0.0]), np.array([0.002, 0.003]), np.array([0.05, 0.05]), np.array([16.0, 0.0])
    )
    np.testing.assert_allclose(found, [0.003 + 0.8 * 0.05 * 0.5, 0.004])


def test_impact_against_no_volume_is_infinite() -> None:
    found = Costs(0.0, 1.0).fractions(np.ones(1), np.zeros(1), np.full(1, 0.1), np.zeros(1))
    assert np.isposinf(found).all()


def test_without_impact_an_unknown_volatility_costs_nothing_extra() -> None:
    found = Costs(0.001).fractions(np.ones(1), np.full(1, 0.002), np.full(1, np.nan), np.zeros(1))
    np.testing.assert_allclose(found, [0.003])
