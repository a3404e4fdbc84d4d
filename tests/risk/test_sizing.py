import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tickgate_server.risk.sizing import round_to_lot, target_position, target_positions

NOT_NUMBERS = [math.nan, math.inf, -math.inf]

edges = st.floats(-1.0, 1.0)
prices = st.floats(1e-3, 1e6)
volatilities = st.floats(0.0, 0.5)
horizons = st.integers(1, 500)
budgets = st.floats(1.0, 1e6)
floors = st.floats(1e-6, 0.1)
multipliers = st.sampled_from([0.01, 1.0, 50.0, 1000.0])
lots = st.sampled_from([1e-8, 0.001, 0.1, 1.0, 7.0, 100.0])


def exact_lots(
    edge: float, price: float, volatility: float, horizon: int, budget: float, floor: float, multiplier: float,
    lot: float,
) -> Fraction:  # fmt: skip
    """The target in lots before rounding, without rounding errors but that of the square root."""
    over_horizon = max(Fraction(volatility) * Fraction(math.sqrt(horizon)), Fraction(floor))
    notional = Fraction(budget) * Fraction(edge) / over_horizon
    return notional / (Fraction(price) * Fraction(multiplier)) / Fraction(lot)


@given(edges, prices, volatilities, horizons, budgets, floors, multipliers, lots)
def test_the_target_is_the_exact_one_rounded_toward_zero_to_the_lot(
    edge: float, price: float, volatility: float, horizon: int, budget: float, floor: float, multiplier: float,
    lot: float,
) -> None:  # fmt: skip
    wanted = exact_lots(edge, price, volatility, horizon, budget, floor, multiplier, lot)
    nearest = round(wanted)
    # Beyond, a double's own error is near the billionth of a lot that counts as a multiple.
    assume(abs(wanted) < 1e5)
    assume(not 9e-10 < abs(wanted - nearest) < 1.1e-9)
    whole = nearest if abs(wanted - nearest) <= 1e-9 else math.trunc(wanted)
    assert target_position(edge, price, volatility, horizon, budget, floor, multiplier, lot) == whole * lot


@given(edges, prices, volatilities, horizons, budgets, floors, multipliers, lots)
def test_the_target_never_exceeds_the_risk_budget_and_has_the_edges_sign(
    edge: float, price: float, volatility: float, horizon: int, budget: float, floor: float, multiplier: float,
    lot: float,
) -> None:  # fmt: skip
    target = target_position(edge, price, volatility, horizon, budget, floor, multiplier, lot)
    allowed = budget * abs(edge) / max(volatility * math.sqrt(horizon), floor)
    assert abs(target) * price * multiplier <= allowed * (1 + 1e-12) + 1e-9 * lot * price * multiplier
    assert target * edge >= 0.0
    assert target == np.rint(target / lot) * lot


ARGUMENTS = {
    "edge": 0.2,
    "price": 100.0,
    "trade_volatility": 0.001,
    "horizon_trades": 5,
    "risk_budget": 1000.0,
    "volatility_floor": 1e-4,
    "multiplier": 1.0,
    "lot": 0.1,
}


def target_with(**changes: float) -> float:
    return target_position(*(ARGUMENTS | changes).values())


def test_the_target_of_a_worked_example() -> None:
    # 1000 x 0.2 / (0.001 x sqrt 5) = 89,442.7 of notional at 100.
    assert target_with() == pytest.approx(894.4)


@pytest.mark.parametrize("bad", NOT_NUMBERS)
@pytest.mark.parametrize("argument", [name for name in ARGUMENTS if name != "horizon_trades"])
def test_an_input_that_is_no_finite_number_gives_nan(argument: str, bad: float) -> None:
    assert math.isnan(target_with(**{argument: bad}))


@pytest.mark.parametrize(
    ("argument", "bad"),
    [("price", 0.0), ("price", -1.0), ("trade_volatility", -1e-9), ("lot", 0.0), ("lot", -1.0), ("multiplier", 0.0)],
)
def test_an_input_out_of_its_range_gives_nan(argument: str, bad: float) -> None:
    assert math.isnan(target_with(**{argument: bad}))


def test_a_target_too_large_for_a_double_is_nan() -> None:
    assert math.isnan(target_with(price=1e-300, risk_budget=1e300))


def test_a_volatility_below_the_floor_counts_as_the_floor() -> None:
    assert target_with(trade_volatility=0.0) == target_with(trade_volatility=1e-9)
    assert target_with(trade_volatility=0.0) == pytest.approx(1000.0 * 0.2 / 1e-4 / 100.0)


@pytest.mark.parametrize(
    ("size", "lot", "wanted"),
    [(0.3, 0.1, 0.3), (-0.3, 0.1, -0.3), (2.999, 1.0, 2.0), (-2.999, 1.0, -2.0), (0.999, 1.0, 0.0), (7.0, 7.0, 7.0)],
)
def test_sizes_round_toward_zero_unless_they_are_a_multiple_but_for_the_doubles_error(
    size: float, lot: float, wanted: float
) -> None:
    assert round_to_lot(size, lot) == pytest.approx(wanted, rel=1e-12, abs=0)


@given(st.floats(-1e14, 1e14), lots)
def test_rounding_twice_is_rounding_once(count: float, lot: float) -> None:
    once = round_to_lot(count * lot, lot)
    assert round_to_lot(once, lot) == once


@pytest.mark.parametrize("bad", NOT_NUMBERS)
def test_a_size_that_is_no_finite_number_never_becomes_one(bad: float) -> None:
    assert not math.isfinite(round_to_lot(bad, 0.1))


def test_many_targets_are_the_loop_over_one_bit_for_bit() -> None:
    rng = np.random.default_rng(11)
    columns = np.stack([rng.uniform(-1, 1, 200), rng.uniform(1, 1e4, 200), rng.uniform(0, 0.01, 200)])
    columns[:, ::17] = np.nan
    columns[0, 5] = np.inf
    edge, price, volatility = columns
    looped = np.array([target_position(*row, 5, 1000.0, 1e-4, 50.0, 0.1) for row in columns.T.tolist()])
    assert target_positions(edge, price, volatility, 5, 1000.0, 1e-4, 50.0, 0.1).tobytes() == looped.tobytes()
