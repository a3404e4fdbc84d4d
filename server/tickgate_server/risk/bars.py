"""Synchronous bars of several symbols: one fixed grid of time, the last price of each symbol in each bar, and returns.

Bar k holds ticks stamped from k x bar_s to before (k + 1) x bar_s, on the venues' clock since the epoch. It closes as
soon as a tick of any symbol lies behind it, so a bar never knows of anything that came later. A stretch without a tick
of any symbol (a closed market) gives no bars at all: no returns of zero pull a volatility down.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.data import SYMBOLS_LIMIT

RETURN_LIMIT = 1e6
"""A simple return beyond it is an error of data, not of the market, and counts as missing."""

_NEVER_NS = -(1 << 62)
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Bar:
    """One closed bar; n is the number of symbols seen by then, the first of `Bars.symbols`.

    Attributes:
        as_of_ns: Stamp of the newest tick taken in by then.
        prices: float64 [n]: last price; NaN where the symbol has none that is recent enough.
        returns: float64 [n]: simple return since the symbol's last bar with a price, over the square root of the number
            of bars that it spans; NaN where there is none.
    """

    as_of_ns: int
    prices: NDArray[np.float64]
    returns: NDArray[np.float64]


class Bars:
    """Makes bars of ticks, in the order in which they were applied.

    A symbol without a trade in a bar keeps its last price as long as that was stamped at most `carry_age_s` before the
    bar began; after that it is missing. When it is back, the move over the gap counts as one return, divided by the
    square root of the bars it took: a jump over a halt is not lost, and a move of a week is not one minute's.

    Attributes:
        symbols: In the order in which they came.
        ticks_ignored: Ticks of symbols beyond the limit.

    Args:
        bar_s: Length of a bar in seconds, above 0.
        carry_age_s: See above; at least 0.
        symbols_limit: Symbols kept, those that come first.
    """

    def __init__(self, bar_s: float, carry_age_s: float, symbols_limit: int = SYMBOLS_LIMIT) -> None:
        self.symbols: list[str] = []
        self.ticks_ignored = 0
        self._bar_ns = round(bar_s * _NS_PER_S)
        self._carry_ns = round(carry_age_s * _NS_PER_S)
        self._limit = symbols_limit
        self._rows: dict[bytes, int] = {}
        self._seen = 0  # symbols with a tick that was taken: the rest of a batch is not known yet when a bar closes
        self._restarted = False
        self._number: int | None = None  # of the open bar
        self._as_of_ns = 0
        self._stamps = np.empty(symbols_limit, np.int64)
        self._prices = np.empty(symbols_limit)
        self._bases = np.empty(symbols_limit)  # price in the symbol's last bar that had one
        self._spans = np.empty(symbols_limit)  # bars closed since
        self._clear()

    def add(self, symbols: NDArray[np.bytes_], stamps_ns: NDArray[np.int64], prices: NDArray[np.float64]) -> list[Bar]:
        """Take ticks with a trade, and return the bars that they closed, oldest first.

        Args:
            symbols: UTF-8, bytes [m].
            stamps_ns: Venue times, int64 [m]. One that lies in a bar that is closed already counts in the one that is
                open; one before its own symbol's newest is ignored.
            prices: float64 [m]; what is not finite and above 0 is ignored.
        """
        rows = self._rows_of(symbols)
        usable = (rows >= 0) & np.isfinite(prices) & (prices > 0.0)
        if not usable.all():
            rows, stamps_ns, prices = rows[usable], stamps_ns[usable], prices[usable]
        if not rows.size:
            return []
        numbers = stamps_ns // self._bar_ns
        number = self._number
        if number is not None and self._restarted and numbers[0] < number:
            self._clear()
            number = None
        self._restarted = False
        number = int(numbers[0]) if number is None else number
        numbers = np.maximum(np.maximum.accumulate(numbers), number)
        begins = [0, *np.flatnonzero(np.diff(numbers)) + 1]
        closed = []
        for begin, end in zip(begins, [*begins[1:], rows.size], strict=True):
            if numbers[begin] > number:
                closed.append(self._close(number))
                number = int(numbers[begin])
            self._take(rows[begin:end], stamps_ns[begin:end], prices[begin:end])
        self._number = number
        return closed

    def finish(self) -> Bar | None:
        """Close the bar that is open, where no more ticks will come; None if there is none."""
        if self._number is None:
            return None
        bar = self._close(self._number)
        self._clear()
        return bar

    def restart(self) -> None:
        """A server begins: if the next tick is before the open bar, time goes back, and prices so far are forgotten."""
        self._restarted = True

    def _clear(self) -> None:
        self._number = None
        self._as_of_ns = 0
        self._stamps[:] = _NEVER_NS
        self._prices[:] = np.nan
        self._bases[:] = np.nan
        self._spans[:] = 0.0

    def _rows_of(self, symbols: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Row of each tick's symbol, int64 [m]; -1 where there is no room for it."""
        known = self._rows
        found = []
        for symbol in symbols.tolist():
            row = known.get(symbol, -1)
            if row < 0:
                if len(known) < self._limit:
                    row = known[symbol] = len(known)
                    self.symbols.append(symbol.decode(errors="replace"))
                else:
                    self.ticks_ignored += 1
            found.append(row)
        return np.array(found, np.int64)

    def _take(self, rows: NDArray[np.int64], stamps_ns: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        """Take ticks into the open bar: of each symbol the newest, and of equal stamps the last."""
        if not rows.size:
            return
        order = np.lexsort((stamps_ns, rows))
        rows, stamps_ns, prices = rows[order], stamps_ns[order], prices[order]
        last = np.append(rows[1:] != rows[:-1], True)
        rows, stamps_ns, prices = rows[last], stamps_ns[last], prices[last]
        newer = stamps_ns >= self._stamps[rows]
        rows = rows[newer]
        self._seen = max(self._seen, int(rows.max(initial=-1)) + 1)
        self._stamps[rows] = stamps_ns[newer]
        self._prices[rows] = prices[newer]
        self._as_of_ns = max(self._as_of_ns, int(stamps_ns.max()))

    def _close(self, number: int) -> Bar:
        n = self._seen
        age_ns = number * self._bar_ns - self._stamps[:n]
        prices = np.where(age_ns <= self._carry_ns, self._prices[:n], np.nan)
        spans, bases = self._spans[:n], self._bases[:n]
        spans += 1.0
        with np.errstate(over="ignore"):
            returns = (prices / bases - 1.0) / np.sqrt(spans)
        returns[~(np.abs(returns) <= RETURN_LIMIT)] = np.nan
        priced = ~np.isnan(prices)
        bases[priced] = prices[priced]
        spans[priced] = 0.0
        return Bar(self._as_of_ns, prices, returns)


def decay_a_bar(decay_a_day: float, bars_a_day: float) -> float:
    """A day's lambda rescaled to a bar: after a day's bars an observation weighs `decay_a_day` of what it did."""
    return math.exp(math.log(decay_a_day) / bars_a_day)
