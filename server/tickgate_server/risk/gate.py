"""The gate: every limit is measured, each value stands beside its limit, and the first that fails is the reason.

A check passes only if the value is finite and `value <= limit` (stage 1: `value >= limit`) is true, so NaN denies. The
stages after these two (portfolio VaR, correlation, regime, model health) take further places in `CHECKS`.
"""

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from tickgate_server.kernels import kernel
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.sizing import round_to_lot, target_position
from tickgate_server.ticks.market import ASK, BID, SIGMA
from tickgate_server.ticks.symbols import LOT, MINIMUM_SIZE, MULTIPLIER, TICK_SIZE


class Check(NamedTuple):
    """One limit: the reason it gives, and whether it is a lower bound."""

    reason: Reason
    at_least: bool


# Stage 1, then stage 2; values and limits are arrays in this order.
CHECKS = (
    Check(Reason.CONFIDENCE_BELOW_THRESHOLD, at_least=True),
    Check(Reason.POSITION_ORDER_SIZE, at_least=False),
    Check(Reason.POSITION_ORDER_NOTIONAL, at_least=False),
    Check(Reason.POSITION_SIZE, at_least=False),
    Check(Reason.POSITION_NOTIONAL, at_least=False),
)
CONFIDENCE, ORDER_SIZE, ORDER_NOTIONAL, POSITION_SIZE, POSITION_NOTIONAL = range(len(CHECKS))
PASSED = -1
_CHECK_COUNT = len(CHECKS)
_AT_LEAST = tuple(check.at_least for check in CHECKS)


Positive = Annotated[FiniteFloat, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Limits(BaseModel):
    """The desk's policy and limits; sizes in units of the instrument, notionals in its currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    confidence_threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.55
    """Least confidence; the model's own decision threshold holds where it is larger."""
    risk_budget: Positive = 1_000.0
    """Currency at risk (one standard deviation over the model's horizon) at an edge of 1."""
    volatility_floor: Positive = 1e-4
    """Least volatility over the horizon that positions are sized by, as a fraction."""
    max_order_size: NotNegative = float("inf")
    max_order_notional: NotNegative = 100_000.0
    max_position_size: NotNegative = float("inf")
    max_position_notional: NotNegative = 250_000.0
    limit_offset_bps: Annotated[float, Field(ge=0.0, lt=10_000.0)] = 5.0
    """How far beyond the touch (without a quote: the last price) an order may go, in basis points."""
    valid_for_us: Annotated[int, Field(gt=0, lt=2**63)] = 5_000_000
    """How long an approved signal may be executed, in microseconds from the server's send stamp."""


@kernel("boolean(float64, float64, boolean)")
def passes(value: float, limit: float, at_least: bool) -> bool:  # noqa: FBT001 - kernels take flat scalars
    """Whether one measured value passes its limit: only if it is finite and the comparison is true."""
    if not np.isfinite(value):
        return False
    return value >= limit if at_least else value <= limit


@kernel("int64(float64, float64, float64, float64, float64, float64[::1], float64[::1])")
def evaluate(
    confidence: float,
    order: float,
    position: float,
    price: float,
    multiplier: float,
    limits: NDArray[np.float64],
    values: NDArray[np.float64],
) -> int:
    """Measure every check and return the index of the first that fails in `CHECKS`, or `PASSED`.

    Args:
        confidence: Probability of the predicted direction.
        order: Signed size of the order, in units.
        position: Signed position once it is filled, in units.
        price: Reference price.
        multiplier: Currency per unit and point.
        limits: float64 [len(CHECKS)].
        values: float64 [len(CHECKS)]; receives the measured values.
    """
    values[CONFIDENCE] = confidence
    values[ORDER_SIZE] = abs(order)
    values[ORDER_NOTIONAL] = abs(order) * price * multiplier
    values[POSITION_SIZE] = abs(position)
    values[POSITION_NOTIONAL] = abs(position) * price * multiplier
    failed = PASSED
    for k in range(_CHECK_COUNT - 1, -1, -1):
        if not passes(values[k], limits[k], _AT_LEAST[k]):
            failed = k
    return failed


@kernel("float64(float64, float64, float64, float64)")
def limit_price(side: float, touch: float, offset: float, tick_size: float) -> float:
    """Worst price to accept: `offset` (a fraction) beyond the touch, rounded to the tick on the safe side.

    `side` is positive for a buy, whose price is rounded down, else up.
    """
    if side > 0.0:
        return float(np.floor(touch * (1.0 + offset) / tick_size + 1e-9)) * tick_size
    return float(np.ceil(touch * (1.0 - offset) / tick_size - 1e-9)) * tick_size


# Columns of a gate's `policy`, float64 [POLICY].
RISK_BUDGET, VOLATILITY_FLOOR, LIMIT_OFFSET = range(3)
POLICY = 3
# What `judge` writes, float64 [OUT]: five numbers, then of each check the value, the limit, and 1 if it passed.
TARGET, ORDER, LIMIT_PRICE, EDGE, CONFIDENT = range(5)
VALUES = 5
BOUNDS = VALUES + len(CHECKS)
PASSES = BOUNDS + len(CHECKS)
OUT = PASSES + len(CHECKS)

_REASONS = tuple(int(check.reason) for check in CHECKS)
_APPROVED = int(Reason.APPROVED)
_INVALID_OUTPUT = int(Reason.MODEL_INVALID_OUTPUT)
_LOW_CONFIDENCE = int(Reason.CONFIDENCE_BELOW_THRESHOLD)
_NO_VOLATILITY = int(Reason.SIZING_NO_VOLATILITY)
_BELOW_MINIMUM = int(Reason.SIZING_BELOW_MINIMUM)
_PRICE_BELOW_TICK = int(Reason.SIZING_PRICE_BELOW_TICK)


@kernel(
    "int64(float64, float64, int64, int64, float64, float64, float64[:,::1], float64[:,::1], float64[::1],"
    " float64[::1], float64[::1])"
)
def judge(
    probability_up: float,
    price: float,
    row: int,
    horizon_trades: int,
    threshold: float,
    position: float,
    quotes_trades: NDArray[np.float64],
    contracts: NDArray[np.float64],
    policy: NDArray[np.float64],
    limits: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """From a prediction to an order and a reason: size it, measure every check, set the limit price.

    Args:
        probability_up: As the model gave it.
        price: Reference price.
        row: The symbol's row.
        horizon_trades: The model's.
        threshold: Least confidence, the larger of the model's and the policy's.
        position: Filled position, in units.
        quotes_trades: `ticks.market.MarketState.quotes_trades`.
        contracts: `ticks.symbols.SymbolTable.contracts`.
        policy: float64 [POLICY].
        limits: float64 [len(CHECKS)]; that of confidence is replaced by `threshold`.
        out: float64 [OUT]; receives what was measured. Undefined where the output is invalid.

    Returns:
        The number of a `Reason`; the order in `out` may be sent only if it is APPROVED.
    """
    if not (probability_up >= 0.0 and probability_up <= 1.0):
        return _INVALID_OUTPUT
    edge = 2.0 * probability_up - 1.0
    confidence = max(probability_up, 1.0 - probability_up)
    lot = contracts[row, LOT]
    multiplier = contracts[row, MULTIPLIER]
    target = target_position(
        edge,
        price,
        quotes_trades[row, SIGMA],
        horizon_trades,
        policy[RISK_BUDGET],
        policy[VOLATILITY_FLOOR],
        multiplier,
        lot,
    )
    order = round_to_lot(target - position, lot)
    limits[CONFIDENCE] = threshold
    failed = evaluate(confidence, order, position + order, price, multiplier, limits, out[VALUES:BOUNDS])
    out[TARGET] = target
    out[ORDER] = order
    out[LIMIT_PRICE] = 0.0
    out[EDGE] = edge
    out[CONFIDENT] = confidence
    for k in range(_CHECK_COUNT):
        out[BOUNDS + k] = limits[k]
        out[PASSES + k] = 1.0 if passes(out[VALUES + k], limits[k], _AT_LEAST[k]) else 0.0
    if failed == CONFIDENCE:
        return _LOW_CONFIDENCE
    if not np.isfinite(order):
        return _NO_VOLATILITY
    if order == 0.0 or not abs(order) >= contracts[row, MINIMUM_SIZE]:
        return _BELOW_MINIMUM
    if failed != PASSED:
        return _REASONS[failed]
    touch = quotes_trades[row, ASK] if order > 0.0 else quotes_trades[row, BID]
    if np.isnan(touch):  # no quote was seen
        touch = price
    out[LIMIT_PRICE] = limit_price(order, touch, policy[LIMIT_OFFSET], contracts[row, TICK_SIZE])
    return _APPROVED if 0.0 < out[LIMIT_PRICE] < np.inf else _PRICE_BELOW_TICK


class Gate:
    """Stages 1 and 2 under one set of limits, in the arrays that `judge` takes.

    Attributes:
        limits: As configured.
        policy: float64 [POLICY].
        bounds: float64 [len(CHECKS)].
        out: float64 [OUT]: what `judge` last measured.
    """

    __slots__ = ("bounds", "limits", "out", "policy")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.policy = np.array([limits.risk_budget, limits.volatility_floor, limits.limit_offset_bps / 1e4])
        self.bounds = np.array(
            [
                limits.confidence_threshold,
                limits.max_order_size,
                limits.max_order_notional,
                limits.max_position_size,
                limits.max_position_notional,
            ]
        )
        self.out = np.full(OUT, np.nan)
