"""The gate: every limit is measured, each value stands beside its limit, and the first that fails is the reason.

A check passes only if the value is finite and `value <= limit` (stage 1: `value >= limit`) is true, so NaN denies. The stages after these two
(portfolio VaR, correlation, regime, model health) take further places in `CHECKS`.
"""

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from tickgate_server.kernels import kernel
from tickgate_server.risk.reasons import Reason


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
    for k in range(POSITION_NOTIONAL, CONFIDENCE, -1):
        if not (values[k] <= limits[k] and values[k] < np.inf):
            failed = k
    if not (values[CONFIDENCE] >= limits[CONFIDENCE] and values[CONFIDENCE] < np.inf):
        failed = CONFIDENCE
    return failed


@kernel("float64(float64, float64, float64, float64)")
def limit_price(side: float, touch: float, offset: float, tick_size: float) -> float:
    """Worst price to accept: `offset` (a fraction) beyond the touch, rounded to the tick on the safe side.

    `side` is positive for a buy, whose price is rounded down, else up.
    """
    if side > 0.0:
        return float(np.floor(touch * (1.0 + offset) / tick_size + 1e-9)) * tick_size
    return float(np.ceil(touch * (1.0 - offset) / tick_size - 1e-9)) * tick_size


class Gate:
    """Stages 1 and 2 under one set of limits.

    Attributes:
        limits: As configured.
        values: float64 [len(CHECKS)]: what `judge` last measured.
        bounds: float64 [len(CHECKS)]: the limits beside them.
    """

    __slots__ = ("_confidence_threshold", "bounds", "limits", "values")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._confidence_threshold = limits.confidence_threshold
        self.values = np.full(len(CHECKS), np.nan)
        self.bounds = np.array(
            [
                limits.confidence_threshold,
                limits.max_order_size,
                limits.max_order_notional,
                limits.max_position_size,
                limits.max_position_notional,
            ]
        )

    def judge(
        self, confidence: float, model_threshold: float, order: float, position: float, price: float, multiplier: float
    ) -> int:
        """Evaluate every check for one order; see `evaluate`. The larger of the two thresholds holds."""
        self.bounds[CONFIDENCE] = max(self._confidence_threshold, model_threshold)
        return int(evaluate(confidence, order, position, price, multiplier, self.bounds, self.values))
