"""How a paper venue treats orders, and what it knows of symbols."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tickgate_client.execution.latency import Latency, LognormalLatency


@dataclass(frozen=True, slots=True)
class PaperInstrument:
    """What a paper venue knows of a symbol.

    Attributes:
        lot: Sizes are multiples of it, units.
        multiplier: Money that a price of 1 is, a unit.
    """

    lot: float = 1e-8
    multiplier: float = 1.0


@dataclass(frozen=True, slots=True)
class PaperTerms:
    """How a paper venue treats orders.

    Attributes:
        seed: Of everything that is drawn.
        latency: How long orders and cancels are on their way.
        half_spread_bps: Where there is no quote, basis points of the last trade's price.
        impact: Y of the square-root law; 0: none.
        span_s: What its volume and volatility are counted over.
        participation: Share of the traded volume that may be filled, above 0; infinite: no cap.
        quote_max_age_s: An older quote counts as none.
        fee_bps: Of the notional, on each fill; negative: a rebate.
        reject_probability: Of an order that nothing else is wrong with.
        max_order_size: Units of one order.
        max_order_notional: Money of one order, at its limit price.
        max_open_orders: Of all symbols.
    """

    seed: int = 0
    latency: Latency = field(default_factory=lambda: LognormalLatency(median_us=500.0, sigma=0.5))
    half_spread_bps: float = 1.0
    impact: float = 1.0
    span_s: float = 300.0
    participation: float = 0.1
    quote_max_age_s: float = 60.0
    fee_bps: float = 0.0
    reject_probability: float = 0.0
    max_order_size: float = math.inf
    max_order_notional: float = math.inf
    max_open_orders: int = 1024

    def __post_init__(self) -> None:
        self._require("half_spread_bps", ok=0.0 <= self.half_spread_bps < 1e4, expected="from 0 to below 10,000")
        self._require("impact", ok=0.0 <= self.impact < math.inf, expected="finite and at least 0")
        self._require("span_s", ok=0.0 < self.span_s < math.inf, expected="finite and above 0")
        self._require("participation", ok=self.participation > 0.0, expected="above 0")
        self._require("quote_max_age_s", ok=0.0 < self.quote_max_age_s < math.inf, expected="finite and above 0")
        self._require("fee_bps", ok=math.isfinite(self.fee_bps), expected="finite")
        self._require("reject_probability", ok=0.0 <= self.reject_probability <= 1.0, expected="from 0 to 1")
        self._require("max_order_size", ok=self.max_order_size > 0.0, expected="above 0")
        self._require("max_order_notional", ok=self.max_order_notional > 0.0, expected="above 0")
        self._require("max_open_orders", ok=self.max_open_orders >= 1, expected="at least 1")

    def _require(self, name: str, *, ok: bool, expected: str) -> None:
        if not ok:
            raise ValueError(f"{name} is {getattr(self, name)}, must be {expected}")
