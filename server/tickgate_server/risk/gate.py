"""The gate: every limit is measured, each value stands beside its limit, and the first that fails is the reason.

A check passes only if the value is finite and `value <= limit` (stage 1: `value >= limit`) is true, so NaN denies.
Limits hold for the worse of filled + open buys and filled - open sells, with the order in it. A reducing order faces
only the checks that are marked `always`, and a limit that is off does not bind: both are measured and shown all the
same, as waived.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, floats, integer_rows, integers
from tickgate_server.kernels import kernel
from tickgate_server.risk import value_at_risk
from tickgate_server.risk.book import (
    ACCOUNT,
    ACCOUNT_TOKENS,
    ACCOUNT_TOKENS_NS,
    ALLOWED_REGIMES,
    BOUNDS,
    CONTRACTS,
    COVARIANCE,
    DEGRADED,
    DOWN_NOTIONAL,
    ENDED_HEAD,
    EXPOSED,
    FILLED,
    FRESH,
    GROSS,
    LAST_ORDER,
    LIMIT_OFFSET,
    MARK,
    MEMBER,
    METHOD,
    MODELS,
    NET_DOWN,
    NET_UP,
    NOTIONAL,
    NOW_NS,
    OFF,
    OPEN_BUYS,
    OPEN_SELLS,
    ORDERS_LIMIT,
    ORDERS_PER_S,
    ORDERS_PER_S_SYMBOL,
    OUT,
    OUTSIDERS,
    PEAK,
    PNL,
    POINT_VALUE,
    POLICY,
    QUOTES_TRADES,
    REGIME,
    REPEATS,
    RESTRICTED,
    RISK_BUDGET,
    RISK_TOTALS,
    ROW_FACTS,
    ROW_LIMITS,
    ROWS,
    SCENARIO_PNL,
    SCENARIOS,
    SCRATCH,
    SIGMA_W,
    STATE,
    TOKENS,
    TOKENS_NS,
    TRADING,
    UNUSED,
    UP_NOTIONAL,
    VOLATILITY_FLOOR,
    WEIGHTS,
    Z,
)
from tickgate_server.risk.checks import (
    CHECKS,
    COLLAR,
    CONFIDENCE,
    CORRELATION,
    DAILY_LOSS,
    DRAWDOWN,
    GROSS_EXPOSURE,
    HALTED,
    MODEL_HEALTH,
    NET_EXPOSURE,
    ORDER_NOTIONAL,
    ORDER_SIZE,
    POSITION_NOTIONAL,
    POSITION_SIZE,
    RATE_OF_ALL,
    RATE_OF_SYMBOL,
    REDUCING_ONLY,
    REGIME_ALLOWED,
    REPEATED,
    RESTRICTED_SYMBOL,
    SELF_TRADE,
    VAR,
)
from tickgate_server.risk.portfolio import tokens_at
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.risk.sizing import round_to_lot, target_position
from tickgate_server.ticks.market import ASK, BID, PRICE, SIGMA
from tickgate_server.ticks.symbols import LOT, MINIMUM_SIZE, TICK_SIZE

PASSED = -1
_CHECK_COUNT = len(CHECKS)
_AT_LEAST = tuple(check.at_least for check in CHECKS)
_ALWAYS = tuple(check.always for check in CHECKS)

# What `judge` writes, float64 [OUT_VALUES]: some numbers, then of each check value, limit, 1 if it passed, 1 if waived.
TARGET, ORDER, LIMIT_PRICE, EDGE, CONFIDENT, REMAINDER, REDUCES, REGIME_SEEN = range(8)
VALUES = 8
LIMITS = VALUES + _CHECK_COUNT
PASSES = LIMITS + _CHECK_COUNT
WAIVED = PASSES + _CHECK_COUNT
OUT_VALUES = WAIVED + _CHECK_COUNT

_REASONS = tuple(int(check.reason) for check in CHECKS)
_APPROVED = int(Reason.APPROVED)
_INVALID_OUTPUT = int(Reason.MODEL_INVALID_OUTPUT)
_NO_VOLATILITY = int(Reason.SIZING_NO_VOLATILITY)
_BELOW_MINIMUM = int(Reason.SIZING_BELOW_MINIMUM)
_PRICE_BELOW_TICK = int(Reason.SIZING_PRICE_BELOW_TICK)
_ORDERS_FULL = int(Reason.PORTFOLIO_ORDERS_FULL)
_UNKNOWN = int(Regime.UNKNOWN)
_ACTIVE, _REDUCING = float(TradingState.ACTIVE), float(TradingState.REDUCING)


@kernel("boolean(float64, float64, boolean)")
def passes(value: float, limit: float, at_least: bool) -> bool:  # noqa: FBT001 - kernels take flat scalars
    """Whether one measured value passes its limit: only if it is finite and the comparison is true."""
    if not np.isfinite(value):
        return False
    return value >= limit if at_least else value <= limit


@kernel("float64(float64, float64, float64, float64)")
def limit_price(side: float, touch: float, offset: float, tick_size: float) -> float:
    """Worst price to accept: `offset` (a fraction) beyond the touch, rounded to the tick on the safe side.

    `side` is positive for a buy, whose price is rounded down, else up.
    """
    if side > 0.0:
        return float(np.floor(touch * (1.0 + offset) / tick_size + 1e-9)) * tick_size
    return float(np.ceil(touch * (1.0 - offset) / tick_size - 1e-9)) * tick_size


@kernel("float64(float64, float64, float64)")
def exit_room(filled: float, open_buys: float, open_sells: float) -> float:
    """Units that orders may still take off a position: what no open exit takes off already; 0 where flat."""
    exits = open_sells if filled > 0.0 else open_buys
    return max(abs(filled) - exits, 0.0)


@kernel("UniTuple(float64, 2)(float64, float64, float64, float64, float64, float64)")
def split_order(
    target: float, filled: float, open_buys: float, open_sells: float, lot: float, minimum_size: float
) -> tuple[float, float]:
    """The order that a target asks for, target - filled - open orders, and what of it is left for later.

    One that takes off a position and would go beyond is split: its exit now, the entry with the next request.
    """
    whole = round_to_lot(target - filled - (open_buys - open_sells), lot)
    if filled == 0.0 or not np.isfinite(whole) or (whole > 0.0) == (filled > 0.0):
        return whole, 0.0
    room = round_to_lot(exit_room(filled, open_buys, open_sells), lot)
    if room <= 0.0 or abs(whole) <= room or room < minimum_size:
        return whole, 0.0
    exit_order = room if whole > 0.0 else -room
    return exit_order, whole - exit_order


@kernel(types.void(TABLE, types.int64, types.float64, types.float64))
def _measure_portfolio(table: NDArray[np.int64], row: int, order: float, point_price: float) -> None:
    """What the whole portfolio would be with the order in it: VaR, correlation, exposures."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    out = floats(table, OUT)
    values = rows[row]
    up = values[FILLED] + values[OPEN_BUYS] + max(order, 0.0)
    down = values[FILLED] - values[OPEN_SELLS] + min(order, 0.0)
    if not np.isfinite(order):  # which a maximum would hide
        up = down = np.nan
    worst = up if abs(up) >= abs(down) else down
    notional = worst * point_price if worst != 0.0 else 0.0
    up_notional = up * point_price if up != 0.0 else 0.0
    down_notional = down * point_price if down != 0.0 else 0.0
    out[VALUES + POSITION_SIZE] = abs(worst)
    out[VALUES + POSITION_NOTIONAL] = abs(notional)
    out[VALUES + GROSS_EXPOSURE] = account[GROSS] - abs(values[NOTIONAL]) + abs(notional)
    net_up = account[NET_UP] - values[UP_NOTIONAL] + up_notional
    net_down = account[NET_DOWN] - values[DOWN_NOTIONAL] + down_notional
    out[VALUES + NET_EXPOSURE] = max(abs(net_up), abs(net_down)) if np.isfinite(net_up + net_down) else np.nan
    member = facts[row, MEMBER]
    own = 1 if values[NOTIONAL] != 0.0 else 0
    others = state[EXPOSED] - own
    outsiders = state[OUTSIDERS] - (own if member < 0 else 0)
    known = state[FRESH] == 1 and member >= 0 and outsiders == 0
    out[VALUES + VAR] = np.nan
    out[VALUES + CORRELATION] = 0.0 if others == 0 else np.nan
    if not known:
        return
    covariance = float_rows(table, COVARIANCE)
    weights = floats(table, WEIGHTS)
    sigma_w = floats(table, SIGMA_W)
    totals = floats(table, RISK_TOTALS)
    out[VALUES + VAR] = value_at_risk.value_at_risk(
        state[METHOD],
        floats(table, POLICY)[Z],
        member,
        notional - values[NOTIONAL],
        covariance,
        float_rows(table, SCENARIOS),
        weights,
        sigma_w,
        floats(table, SCENARIO_PNL),
        totals,
        floats(table, SCRATCH),
    )
    if others > 0:
        out[VALUES + CORRELATION] = value_at_risk.correlation_with_others(
            member, order * point_price, covariance, weights, sigma_w, totals
        )


@kernel(types.void(TABLE, types.int64, types.int64, types.float64))
def _measure_desk(table: NDArray[np.int64], row: int, model: int, order: float) -> None:
    """The desk's own controls, and stages 5 and 6."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    policy = floats(table, POLICY)
    models = integer_rows(table, MODELS)
    out = floats(table, OUT)
    now_ns = state[NOW_NS]
    out[VALUES + HALTED] = out[VALUES + REDUCING_ONLY] = float(state[TRADING])
    out[VALUES + RESTRICTED_SYMBOL] = float(facts[row, RESTRICTED])
    regime = facts[row, REGIME] if state[FRESH] == 1 else _UNKNOWN
    out[REGIME_SEEN] = float(regime)
    out[VALUES + REGIME_ALLOWED] = 0.0 if models[model, ALLOWED_REGIMES] >> regime & 1 else 1.0
    out[VALUES + MODEL_HEALTH] = float(models[model, DEGRADED])
    out[VALUES + SELF_TRADE] = rows[row, OPEN_SELLS] if order > 0.0 else rows[row, OPEN_BUYS]
    same = rows[row, LAST_ORDER] == order and facts[row, REPEATS] > 0
    out[VALUES + REPEATED] = float(facts[row, REPEATS] + 1 if same else 1)
    lacks = 1.0 - tokens_at(rows[row, TOKENS], facts[row, TOKENS_NS], now_ns, policy[ORDERS_PER_S_SYMBOL])
    out[VALUES + RATE_OF_SYMBOL] = max(0.0, lacks)
    lacks = 1.0 - tokens_at(account[ACCOUNT_TOKENS], state[ACCOUNT_TOKENS_NS], now_ns, policy[ORDERS_PER_S])
    out[VALUES + RATE_OF_ALL] = max(0.0, lacks)
    out[VALUES + DAILY_LOSS] = -account[PNL]
    out[VALUES + DRAWDOWN] = account[PEAK] - account[PNL]


@kernel(types.int64(TABLE, types.int64, types.float64, types.float64))
def _conclude(table: NDArray[np.int64], row: int, threshold: float, reducing: float) -> int:
    """Compare every value with its limit; the first check that fails and binds, or `PASSED`."""
    bounds = floats(table, BOUNDS)
    off = floats(table, OFF)
    own = float_rows(table, ROW_LIMITS)
    out = floats(table, OUT)
    failed = PASSED
    for k in range(_CHECK_COUNT - 1, -1, -1):
        limit = threshold if k == CONFIDENCE else bounds[k]
        if ORDER_SIZE <= k <= POSITION_NOTIONAL:
            limit = own[row, k - ORDER_SIZE]
        passed = passes(out[VALUES + k], limit, _AT_LEAST[k])
        waived = off[k] != 0.0 or (reducing != 0.0 and not _ALWAYS[k])
        out[LIMITS + k] = limit
        out[PASSES + k] = 1.0 if passed else 0.0
        out[WAIVED + k] = 1.0 if waived else 0.0
        if not passed and not waived:
            failed = k
    return failed


@kernel(types.float64(TABLE))
def portfolio_value_at_risk(table: NDArray[np.int64]) -> float:
    """Value at risk of what is held and open, in the base currency; NaN where it is not known."""
    state = integers(table, STATE)
    if state[EXPOSED] == 0:
        return 0.0
    if state[FRESH] != 1 or state[OUTSIDERS] != 0:
        return np.nan
    return value_at_risk.value_at_risk(
        state[METHOD],
        floats(table, POLICY)[Z],
        -1,
        0.0,
        float_rows(table, COVARIANCE),
        float_rows(table, SCENARIOS),
        floats(table, WEIGHTS),
        floats(table, SIGMA_W),
        floats(table, SCENARIO_PNL),
        floats(table, RISK_TOTALS),
        floats(table, SCRATCH),
    )


@kernel(types.int64(TABLE, types.int64))
def exposure_over_limit(table: NDArray[np.int64], row: int) -> int:
    """The first check of positions and exposures that what is held and open does not pass, or `PASSED`."""
    values = float_rows(table, ROWS)[row]
    own = float_rows(table, ROW_LIMITS)
    account = floats(table, ACCOUNT)
    bounds = floats(table, BOUNDS)
    off = floats(table, OFF)
    up = values[FILLED] + values[OPEN_BUYS]
    down = values[FILLED] - values[OPEN_SELLS]
    if not passes(max(abs(up), abs(down)), own[row, POSITION_SIZE - ORDER_SIZE], _AT_LEAST[POSITION_SIZE]):
        return POSITION_SIZE
    if not passes(abs(values[NOTIONAL]), own[row, POSITION_NOTIONAL - ORDER_SIZE], _AT_LEAST[POSITION_NOTIONAL]):
        return POSITION_NOTIONAL
    if off[GROSS_EXPOSURE] == 0.0 and not passes(account[GROSS], bounds[GROSS_EXPOSURE], _AT_LEAST[GROSS_EXPOSURE]):
        return GROSS_EXPOSURE
    net = (
        max(abs(account[NET_UP]), abs(account[NET_DOWN]))
        if np.isfinite(account[NET_UP] + account[NET_DOWN])
        else np.nan
    )
    if off[NET_EXPOSURE] == 0.0 and not passes(net, bounds[NET_EXPOSURE], _AT_LEAST[NET_EXPOSURE]):
        return NET_EXPOSURE
    if off[VAR] == 0.0 and portfolio_value_at_risk(table) > bounds[VAR]:  # where it is known
        return VAR
    return PASSED


@kernel(types.int64(types.float64, types.float64, types.int64, types.int64, types.float64, types.int64, TABLE))
def judge(  # noqa: PLR0911 - a reason each
    probability_up: float,
    price: float,
    row: int,
    horizon_trades: int,
    threshold: float,
    model: int,
    table: NDArray[np.int64],
) -> int:
    """From a prediction to an order and a reason: size it, set its limit price, measure every check. Nothing changes.

    Args:
        probability_up: As the model gave it.
        price: Reference price.
        row: The symbol's row.
        horizon_trades: The model's.
        threshold: Least confidence, the larger of the model's and the policy's.
        model: Its number in the book's MODELS.
        table: The book's; `OUT` receives what was measured, undefined where the output is invalid.

    Returns:
        The number of a `Reason`; the order in `OUT` may be sent only if it is APPROVED, and once it is reserved.
    """
    if not (probability_up >= 0.0 and probability_up <= 1.0):
        return _INVALID_OUTPUT
    rows = float_rows(table, ROWS)
    quotes_trades = float_rows(table, QUOTES_TRADES)
    contracts = float_rows(table, CONTRACTS)
    policy = floats(table, POLICY)
    state = integers(table, STATE)
    out = floats(table, OUT)
    edge = 2.0 * probability_up - 1.0
    lot, minimum_size = contracts[row, LOT], contracts[row, MINIMUM_SIZE]
    filled = rows[row, FILLED]
    target = target_position(
        edge,
        price,
        quotes_trades[row, SIGMA],
        horizon_trades,
        policy[RISK_BUDGET],
        policy[VOLATILITY_FLOOR],
        rows[row, POINT_VALUE],
        lot,
    )
    order, remainder = split_order(target, filled, rows[row, OPEN_BUYS], rows[row, OPEN_SELLS], lot, minimum_size)
    # Fills add up to a multiple of the lot but for rounding: 0.8 is no larger than 0.7999999999999999.
    room = round_to_lot(exit_room(filled, rows[row, OPEN_BUYS], rows[row, OPEN_SELLS]), lot)
    reducing = 1.0 if order * filled < 0.0 and abs(order) <= room else 0.0
    touch = quotes_trades[row, ASK] if order > 0.0 else quotes_trades[row, BID]
    if np.isnan(touch):  # no quote was seen
        touch = price
    limit = limit_price(order, touch, policy[LIMIT_OFFSET], contracts[row, TICK_SIZE]) if order != 0.0 else np.nan
    mark = rows[row, MARK]
    point_price = (price if np.isnan(mark) else mark) * rows[row, POINT_VALUE]
    out[TARGET] = target
    out[ORDER] = order
    out[LIMIT_PRICE] = 0.0
    out[EDGE] = edge
    out[CONFIDENT] = out[VALUES + CONFIDENCE] = max(probability_up, 1.0 - probability_up)
    out[REMAINDER] = remainder
    out[REDUCES] = reducing
    out[VALUES + ORDER_SIZE] = abs(order)
    out[VALUES + ORDER_NOTIONAL] = abs(order) * price * rows[row, POINT_VALUE]
    last = quotes_trades[row, PRICE]
    deviation = abs(price / last - 1.0)
    if order != 0.0 and not np.isnan(deviation):
        from_limit = abs(limit / last - 1.0)
        deviation = max(deviation, from_limit)
    out[VALUES + COLLAR] = deviation
    _measure_portfolio(table, row, order, point_price)
    _measure_desk(table, row, model, order)
    failed = _conclude(table, row, threshold, reducing)
    if failed in (HALTED, CONFIDENCE):
        return _REASONS[failed]
    if not np.isfinite(order):
        return _NO_VOLATILITY
    if order == 0.0 or not abs(order) >= minimum_size:
        return _BELOW_MINIMUM
    if not (limit > 0.0 and limit < np.inf):
        return _PRICE_BELOW_TICK
    if failed != PASSED:
        return _REASONS[failed]
    if state[UNUSED] == ORDERS_LIMIT and state[ENDED_HEAD] < 0:
        return _ORDERS_FULL
    out[LIMIT_PRICE] = limit
    return _APPROVED
