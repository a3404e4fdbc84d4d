"""The market as a paper venue knows it: quote in force, last trade, volume and volatility, and what may be taken."""

from __future__ import annotations

import math
from collections import deque

from tickgate_client.execution.orders import Side

SLICES = 60
"""The span of volume and volatility moves in so many parts."""

RETURNS_LEAST = 20
"""Trades that the volatility needs; the server's sizing wants as many."""


class PaperMarket:
    """One symbol.

    Args:
        half_spread: Where there is no quote: beyond the last trade's price, as a fraction of it.
        span_ns: What volume and volatility are counted over.
        quote_max_age_ns: An older quote counts as none.
        participation: Share of the traded volume that all orders together may be filled with; infinite: no cap.

    Attributes:
        bid: Of the last quote; NaN before the first.
        ask: Of it.
        price: Of the last trade; NaN before the first.
        allowance: Units that may be filled now.
    """

    def __init__(self, half_spread: float, span_ns: int, quote_max_age_ns: int, participation: float) -> None:
        self.bid = self.ask = self.price = math.nan
        self.allowance = math.inf if math.isinf(participation) else 0.0
        self._half_spread = half_spread
        self._slice_ns = max(span_ns // SLICES, 1)
        self._quote_max_age_ns = quote_max_age_ns
        self._participation = participation
        self._quote_ns = 0
        # Of each part: its number, volume, sum of squared log returns, returns.
        self._slices: deque[list[float]] = deque()

    def on_quote(self, bid: float, ask: float, now_ns: int) -> None:
        """A quote is in force."""
        self.bid, self.ask, self._quote_ns = bid, ask, now_ns

    def on_trade(self, price: float, size: float, now_ns: int) -> None:
        """Somebody traded: its volume may be taken part in."""
        self._forget(now_ns)
        number = now_ns // self._slice_ns
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append([number, 0.0, 0.0, 0.0])
        current = self._slices[-1]
        current[1] += size
        if not math.isnan(self.price):
            current[2] += math.log(price / self.price) ** 2
            current[3] += 1.0
        self.price = price
        if not math.isinf(self._participation):
            most = self._participation * self.volume(now_ns)
            self.allowance = min(self.allowance + self._participation * size, most)

    def take(self, size: float) -> None:
        """So many units were filled."""
        self.allowance = max(self.allowance - size, 0.0)

    def has_quote(self, now_ns: int) -> bool:
        """Whether a quote is in force."""
        return not math.isnan(self.bid) and now_ns - self._quote_ns <= self._quote_max_age_ns

    def touch(self, side: Side, now_ns: int) -> float:
        """What an order of that side crosses to: the quote in force, else the last trade and the half spread.

        NaN where neither is known.
        """
        if self.has_quote(now_ns):
            return self.ask if side is Side.BUY else self.bid
        return self.price * (1.0 + side.sign * self._half_spread)

    def volume(self, now_ns: int) -> float:
        """Units traded over the span."""
        self._forget(now_ns)
        return math.fsum(part[1] for part in self._slices)

    def volatility(self, now_ns: int) -> float:
        """Realised volatility of trade-to-trade log returns over the span; NaN below RETURNS_LEAST of them.

        Square root of the sum of their squares (Andersen and Bollerslev, International Economic Review 39, 1998). The
        bounce between bid and ask is in it: it errs to the expensive side.
        """
        self._forget(now_ns)
        if sum(part[3] for part in self._slices) < RETURNS_LEAST:
            return math.nan
        return math.sqrt(math.fsum(part[2] for part in self._slices))

    def _forget(self, now_ns: int) -> None:
        oldest = now_ns // self._slice_ns - SLICES
        while self._slices and self._slices[0][0] <= oldest:
            self._slices.popleft()
