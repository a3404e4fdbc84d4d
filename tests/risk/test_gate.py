import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from tickgate_server.risk import gate
from tickgate_server.risk.gate import CHECKS, PASSED, Gate, Limits, limit_price
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.sizing import round_to_lot, target_position
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.market import MarketState
from tickgate_server.ticks.symbols import SymbolTable

# An order whose five measured values are exactly at the limits beside them.
AT_LIMITS: dict[str, float] = {"confidence": 0.6, "order": -2.0, "position": 3.0, "price": 10.0, "multiplier": 5.0}
LIMITS: dict[str, float] = {
    "confidence_threshold": 0.6,
    "max_order_size": 2.0,
    "max_order_notional": 100.0,
    "max_position_size": 3.0,
    "max_position_notional": 150.0,
}


def denied_for(limits: dict[str, float] | None = None, **changes: float) -> Reason | None:
    """The reason for which an order is denied, None where it passes."""
    bounds = np.array(list((LIMITS | (limits or {})).values()))
    failed = gate.evaluate(*(AT_LIMITS | changes).values(), bounds, np.empty(len(CHECKS)))
    return None if failed == PASSED else CHECKS[failed].reason


def test_an_order_exactly_at_every_limit_passes() -> None:
    assert denied_for() is None


@pytest.mark.parametrize(("reason", "name"), list(zip([check.reason for check in CHECKS], LIMITS, strict=True)))
def test_each_check_denies_alone_just_beyond_its_limit(reason: Reason, name: str) -> None:
    tighter = math.nextafter(LIMITS[name], math.inf if name == "confidence_threshold" else 0.0)
    assert denied_for({name: tighter}) is reason


# What makes a check's value NaN or infinite, with the checks before it passing.
NAN = math.nan
INF = math.inf
ANY = dict.fromkeys(list(LIMITS)[1:], INF)
NOT_FINITE: list[tuple[Reason, dict[str, float], dict[str, float]]] = [
    (Reason.CONFIDENCE_BELOW_THRESHOLD, {}, {"confidence": NAN}),
    (Reason.CONFIDENCE_BELOW_THRESHOLD, {}, {"confidence": INF}),
    (Reason.CONFIDENCE_BELOW_THRESHOLD, {}, {"confidence": -INF}),
    (Reason.POSITION_ORDER_SIZE, ANY, {"order": NAN}),
    (Reason.POSITION_ORDER_SIZE, ANY, {"order": INF}),
    (Reason.POSITION_ORDER_SIZE, ANY, {"order": -INF}),
    (Reason.POSITION_ORDER_NOTIONAL, ANY, {"price": NAN}),
    (Reason.POSITION_ORDER_NOTIONAL, ANY, {"price": INF}),
    (Reason.POSITION_ORDER_NOTIONAL, ANY, {"multiplier": NAN}),
    (Reason.POSITION_SIZE, ANY, {"position": NAN}),
    (Reason.POSITION_SIZE, ANY, {"position": -INF}),
    (Reason.POSITION_NOTIONAL, ANY, {"position": 1e308, "price": 1e3}),
]


@pytest.mark.parametrize(("reason", "limits", "changes"), NOT_FINITE)
def test_a_value_that_is_no_finite_number_is_denied_under_any_limit(
    reason: Reason, limits: dict[str, float], changes: dict[str, float]
) -> None:
    assert denied_for(limits, **changes) is reason


@pytest.mark.parametrize("index", range(len(CHECKS)))
def test_a_limit_that_is_nan_denies(index: int) -> None:
    limits = np.array(list(LIMITS.values()))
    limits[index] = NAN
    assert gate.evaluate(*AT_LIMITS.values(), limits, np.empty(len(CHECKS))) == index


anything = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 0.55, NAN, INF, -INF]), st.floats(-10.0, 10.0))


@given(st.tuples(*[anything] * 5), st.lists(anything, min_size=5, max_size=5))
def test_every_value_is_measured_and_the_first_that_fails_is_the_reason(
    order: tuple[float, float, float, float, float], limits: list[float]
) -> None:
    confidence, size, position, price, multiplier = order
    wanted = [
        confidence,
        abs(size),
        abs(size) * price * multiplier,
        abs(position),
        abs(position) * price * multiplier,
    ]
    passes = [
        math.isfinite(value) and (value >= limit if check.at_least else value <= limit)
        for check, value, limit in zip(CHECKS, wanted, limits, strict=True)
    ]
    values = np.full(len(CHECKS), 7.0)
    failed = gate.evaluate(*order, np.array(limits), values)
    assert values.tolist() == pytest.approx(wanted, nan_ok=True, rel=0, abs=0)
    assert failed == (passes.index(False) if False in passes else PASSED)


SYMBOL = {"tick_size": 0.25, "lot": 1.0, "minimum_size": 3.0, "multiplier": 50.0}
POLICY = {"risk_budget": 1000.0, "volatility_floor": 1e-4, "limit_offset_bps": 10.0}


def reason_by_hand(
    up: float, price: float, sigma: float, threshold: float, position: float, limits: list[float]
) -> Reason:
    """The order of the rules, one after the other."""
    if not 0.0 <= up <= 1.0:
        return Reason.MODEL_INVALID_OUTPUT
    if max(up, 1.0 - up) < threshold:
        return Reason.CONFIDENCE_BELOW_THRESHOLD
    target = target_position(2.0 * up - 1.0, price, sigma, 5, 1000.0, 1e-4, 50.0, 1.0)
    if math.isnan(target):
        return Reason.SIZING_NO_VOLATILITY
    order = round_to_lot(target - position, 1.0)
    if order == 0.0 or abs(order) < 3.0:
        return Reason.SIZING_BELOW_MINIMUM
    sizes = [abs(order), abs(order) * price * 50.0, abs(position + order), abs(position + order) * price * 50.0]
    for check, value, limit in zip(CHECKS[1:], sizes, limits, strict=True):
        if not value <= limit:
            return check.reason
    return Reason.APPROVED


@given(
    up=st.floats(0.0, 1.0) | st.sampled_from([NAN, INF, -0.1, 1.1, 0.5]),
    price=st.floats(1.0, 1e4),
    sigma=st.floats(0.0, 0.01) | st.just(NAN),
    threshold=st.sampled_from([0.5, 0.55, 0.9]),
    position=st.integers(-50, 50).map(float),
    limits=st.lists(st.sampled_from([0.0, 10.0, 1e3, 1e5, INF]), min_size=4, max_size=4),
    quote=st.none() | st.just((0.999, 1.001)),
)
def test_an_order_is_approved_only_if_every_rule_passes_and_else_held_for_the_first(
    up: float,
    price: float,
    sigma: float,
    threshold: float,
    position: float,
    limits: list[float],
    quote: tuple[float, float] | None,
) -> None:
    names = ("max_order_size", "max_order_notional", "max_position_size", "max_position_notional")
    judging = Gate(Limits(**POLICY, **dict(zip(names, limits, strict=True))))
    table = SymbolTable(Universe({"S": Instrument(symbol="S", **SYMBOL)}, closed=True), 1)
    state = MarketState(1).quotes_trades
    state[0, market.SIGMA] = sigma
    if quote is not None:
        state[0, [market.BID, market.ASK]] = price * quote[0], price * quote[1]
    reason = gate.judge(
        up, price, 0, 5, threshold, position, state, table.contracts, judging.policy, judging.bounds, judging.out
    )
    assert reason == reason_by_hand(up, price, sigma, threshold, position, limits)
    if reason == Reason.APPROVED:
        order = judging.out[gate.ORDER]
        side = 1 if order > 0.0 else -1
        touch = price if quote is None else price * quote[1 if side > 0 else 0]
        beyond = side * (judging.out[gate.LIMIT_PRICE] - touch * (1.0 + side * 1e-3))
        assert -0.25 - 1e-6 <= beyond <= 1e-6
        assert judging.out[gate.PASSES :].tolist() == [1.0] * len(CHECKS)


def test_a_buy_below_one_tick_has_no_limit_price_and_is_held() -> None:
    judging = Gate(Limits(max_order_notional=math.inf, max_position_notional=math.inf))
    table = SymbolTable(Universe({"S": Instrument(symbol="S", tick_size=1.0)}, closed=True), 1)
    state = MarketState(1).quotes_trades
    state[0, market.SIGMA] = 0.01
    arrays = (state, table.contracts, judging.policy, judging.bounds, judging.out)
    assert gate.judge(0.9, 0.5, 0, 5, 0.5, 0.0, *arrays) == Reason.SIZING_PRICE_BELOW_TICK
    assert gate.judge(0.9, 1.5, 0, 5, 0.5, 0.0, *arrays) == Reason.APPROVED


@given(st.floats(1e-2, 1e6), st.floats(0.0, 0.05), st.sampled_from([1e-4, 0.01, 0.05, 0.25, 1.0]))
def test_a_limit_price_is_on_the_tick_grid_and_the_last_one_that_the_offset_allows(
    touch: float, offset: float, tick_size: float
) -> None:
    assume(touch > 2 * tick_size)
    slack = tick_size * 1e-8 + touch * 1e-12
    highest, lowest = touch * (1.0 + offset), touch * (1.0 - offset)
    buy = limit_price(1.0, touch, offset, tick_size)
    sell = limit_price(-1.0, touch, offset, tick_size)
    assert highest - tick_size - slack <= buy <= highest + slack
    assert lowest - slack <= sell <= lowest + tick_size + slack
    assert [buy, sell] == [round(buy / tick_size) * tick_size, round(sell / tick_size) * tick_size]


def test_a_touch_on_the_grid_without_offset_is_its_own_limit_price() -> None:
    # 0.3 / 0.1 is 2.9999999999999996 in doubles.
    assert [limit_price(side, 0.3, 0.0, 0.1) for side in (1.0, -1.0)] == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence_threshold": 0.49},
        {"confidence_threshold": 1.01},
        {"confidence_threshold": NAN},
        {"risk_budget": 0.0},
        {"risk_budget": INF},
        {"volatility_floor": 0.0},
        {"volatility_floor": NAN},
        {"max_order_size": -1.0},
        {"max_order_notional": NAN},
        {"max_position_size": NAN},
        {"max_position_notional": -0.1},
        {"limit_offset_bps": NAN},
        {"limit_offset_bps": INF},
        {"limit_offset_bps": 10_000.0},
        {"valid_for_us": 0},
        {"valid_for_us": 2**63},
        {"max_orders": 1},
    ],
)
def test_limits_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        Limits(**changes)
