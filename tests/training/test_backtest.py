import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.risk.sizing import target_position
from tickgate_training.backtest import Backtest, Market, Sizing, constant_position, decide, run
from tickgate_training.costs import Costs
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid, TooFewRows
from tickgate_training.labels import fixed_horizon

SIZING = Sizing(capital=1000.0, risk_budget=10.0, horizon_trades=4, volatility_floor=1e-3, lot=0.01)


def market(marks: list[float] | NDArray[np.float64], half_spread: float = 0.001) -> Market:
    marks = np.asarray(marks, np.float64)
    return Market(marks, np.full(marks.size, half_spread), np.full(marks.size, 50.0), np.full(marks.size, 0.01))


@dataclass
class Case:
    """Positions to hold from a row on, and a market with everything different on each row."""

    positions: NDArray[np.float64]
    market: Market
    start: int
    lag: int
    capital: float
    costs: Costs


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 0.3, -1.0, -0.3, -3.0, 1e-9, -1e-9])
    positions = draw(st.lists(sizes, min_size=1, max_size=25))
    start, lag, spare = draw(st.integers(0, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    rows = start + len(positions) + lag + 1 + spare
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    somewhere = Market(
        rng.uniform(50.0, 150.0, rows),
        rng.uniform(0.0, 0.01, rows),
        rng.uniform(0.5, 100.0, rows),
        rng.uniform(0.0, 0.05, rows),
    )
    costs = Costs(fee=draw(st.sampled_from([0.0, 5e-4, -1e-4])), impact=draw(st.sampled_from([0.0, 0.5, 1.3])))
    return Case(np.array(positions), somewhere, start, lag, draw(st.sampled_from([1.0, 1000.0])), costs)


@dataclass
class Books:
    """What a broker would have booked."""

    gross: list[float]
    net: list[float]
    traded: list[float]
    leverage: list[float]
    trip_gross: list[float]
    trip_net: list[float]


def slow_run(case: Case) -> Books:
    """One order after the other: what is traded at a row is paid there, what stands earns the move to the next row."""
    rows = len(case.positions)
    books = Books([0.0] * rows, [0.0] * rows, [0.0] * rows, [0.0] * rows, [], [])
    standing = 0.0
    for k, wanted in enumerate([*case.positions.tolist(), 0.0]):
        row, into = case.start + k + case.lag, min(k, rows - 1)
        mark = float(case.market.marks[row])
        change = wanted - standing
        share_of_volume = abs(change) / float(case.market.volumes[row])
        span_volatility = float(case.market.trade_volatilities[row]) * math.sqrt(100)
        fraction = float(case.market.half_spreads[row]) + case.costs.fee
        fraction += case.costs.impact * span_volatility * math.sqrt(share_of_volume)
        closed = min(abs(standing), abs(change)) if standing * change < 0 else 0.0
        for size, opens in ((closed, False), (abs(change) - closed, True)):
            if size == 0.0:
                continue
            paid = size * mark / case.capital * fraction
            books.net[into] -= paid
            books.traded[into] += size * mark / case.capital
            if opens and (standing == 0.0 or standing * wanted < 0):
                books.trip_gross.append(0.0)
                books.trip_net.append(0.0)
            books.trip_net[-1] -= paid
        standing = wanted
        if k < rows and standing != 0.0:
            earned = standing * (float(case.market.marks[row + 1]) - mark) / case.capital
            books.gross[k] += earned
            books.net[k] += earned
            books.trip_gross[-1] += earned
            books.trip_net[-1] += earned
            books.leverage[k] = abs(standing) * mark / case.capital
    return books


def run_case(case: Case) -> Backtest:
    return run(case.positions, case.market, case.start, case.capital, case.costs, case.lag)


@given(cases())
def test_the_accounts_agree_with_a_slow_loop(case: Case) -> None:
    result, books = run_case(case), slow_run(case)
    for name in ("gross", "net", "traded", "leverage", "trip_gross", "trip_net"):
        np.testing.assert_allclose(getattr(result, name), getattr(books, name), rtol=1e-10, atol=1e-12, err_msg=name)
    assert result.held.tolist() == [position != 0.0 for position in case.positions]


@given(cases())
def test_round_trips_add_up_to_the_returns(case: Case) -> None:
    result = run_case(case)
    assert result.trip_net.sum() == pytest.approx(result.net.sum(), abs=1e-9)
    assert result.trip_gross.sum() == pytest.approx(result.gross.sum(), abs=1e-9)


@given(cases(), st.data())
def test_later_marks_change_no_earlier_return(case: Case, data: st.DataObject) -> None:
    whole = run_case(case)
    kept = data.draw(st.integers(1, case.positions.size))
    market = case.market.until(case.start + kept + case.lag + 1)
    part = run(case.positions, market, case.start, case.capital, case.costs, case.lag)
    assert part.positions.size == kept
    np.testing.assert_array_equal(part.gross, whole.gross[:kept])
    np.testing.assert_array_equal(part.net[:-1], whole.net[: kept - 1])  # the last pays its closing


@given(cases())
def test_a_longer_lag_is_the_same_decisions_on_later_rows(case: Case) -> None:
    result = run_case(case)
    later = run(case.positions, case.market, case.start + case.lag - 1, case.capital, case.costs)
    np.testing.assert_array_equal(result.net, later.net)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_unit_of_capital_earns_the_label_of_the_same_lag(lag: int, seed: int) -> None:
    prices = np.random.default_rng(seed).uniform(90.0, 110.0, 12)
    labels = fixed_horizon(prices, 1, lag)
    for row in range(12 - lag - 1):
        result = run(np.array([1.0 / prices[row + lag]]), market(prices), row, 1.0, Costs(0.0), lag)
        assert result.gross[0] == pytest.approx(labels.returns[row], abs=1e-14)


@pytest.mark.parametrize(("lag", "start", "capital"), [(0, 0, 1.0), (-1, 0, 1.0), (1, -1, 1.0), (1, 0, 0.0)])
def test_what_cannot_be_traded_is_refused(lag: int, start: int, capital: float) -> None:
    with pytest.raises(ArgumentInvalid):
        run(np.ones(2), market([100.0] * 6), start, capital, Costs(0.0), lag)


def test_a_position_or_a_mark_that_is_no_number_is_named_by_its_row() -> None:
    with pytest.raises(SeriesInvalid, match="positions, row 1: found nan") as positions:
        run(np.array([1.0, np.nan]), market([100.0] * 6), 0, 1.0, Costs(0.0))
    assert positions.value.row == 1
    with pytest.raises(SeriesInvalid, match="marks, row 3: found inf"):
        run(np.ones(2), market([100.0, 100.0, 100.0, np.inf, 1.0]), 0, 1.0, Costs(0.0))


def test_a_cost_that_is_not_known_is_in_the_return() -> None:
    somewhere = market([100.0] * 6)
    somewhere.half_spreads[2] = np.nan  # where the position is changed
    somewhere.half_spreads[3] = np.nan  # where it is not
    result = run(np.array([1.0, 2.0, 2.0]), somewhere, 0, 1.0, Costs(0.0))
    assert np.isnan(result.net).tolist() == [False, True, False]


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
    late = run(constant_position(somewhere, 0, 1, 1000.0, 1.0, 2), somewhere, 0, 1000.0, Costs(0.0), 2)
    np.testing.assert_allclose(late.gross, [8 / 88])
