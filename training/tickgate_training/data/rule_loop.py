"""The loop over the kernel that judges live ticks, `tickgate_server.ticks.market.apply`, for ticks that were recorded.

State stays between two calls, so that a file of any size can be judged in pieces. What each tick looked like to the
rules is told beside the verdict: how long the symbol had been silent, how far a stamp stepped back, how many numbers
of the feed are missing before it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.ticks import market

INVALID = -1
"""Verdict on a tick with a number out of range, beside those of `ticks.market`."""
NUMBERS = ("price", "size", "bid", "ask", "bid_size", "ask_size")
_FINITE_PRICE, _FINITE_SIZE = "a price is finite and above 0", "a size is finite and not below 0"
FAULTS = (
    ("", "no fault"),
    ("kind", "a tick has a trade, a quote, or both"),
    ("exchange_ts_ns", "a stamp is above 0"),
    ("price", _FINITE_PRICE),
    ("size", _FINITE_SIZE),
    ("bid", _FINITE_PRICE),
    ("ask", _FINITE_PRICE),
    ("bid_size", _FINITE_SIZE),
    ("ask_size", _FINITE_SIZE),
)
"""Field and rule by what `faults` says."""
# Columns of `Verdicts.facts`.
SILENCE_NS, STEP_NS, SKIPPED, LATE, CONFIRMED = range(5)
FACTS = 5
_FIRST, _HIGHEST = range(2)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules are held to; the server's defaults.

    Attributes:
        future_ns, stale_ns: How far ahead of the clock and behind it a stamp may be.
        jump_sigmas, jump_least: As `ticks.market.apply` takes them.
    """

    future_ns: int = 1_000_000_000
    stale_ns: int = 5_000_000_000
    jump_sigmas: float = market.JUMP_SIGMAS
    jump_least: float = market.JUMP_LEAST


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of some ticks in a row.

    Attributes:
        codes: int8 [n]: `INVALID`, or what `ticks.market.apply` said.
        facts: int64 [n, FACTS]: nanoseconds since the symbol's last accepted tick, of one that was accepted, -1 where
            there was none; how far an OUT_OF_ORDER stamp stepped back; numbers of the feed between the tick's and the
            highest before it, be the tick accepted or not; 1 where a number comes late that may be one of these; and
            number of the tick that an ACCEPTED_BOTH confirmed, -1 elsewhere.
        moves: float64 [n]: log return from the symbol's last price, of a PRICE_JUMP; NaN elsewhere.
    """

    codes: NDArray[np.int8]
    facts: NDArray[np.int64]
    moves: NDArray[np.float64]


class RuleLoop:
    """The rules over ticks of up to `capacity` symbols, in pieces.

    Attributes:
        state: Of the symbols, by row.
        taken: Ticks judged so far.
    """

    def __init__(self, capacity: int, limits: Limits | None = None) -> None:
        self.state = market.MarketState(capacity)
        self.taken = 0
        self._limits = limits or Limits()
        self._held = np.full(capacity, -1, np.int64)
        self._seen = np.zeros((capacity, 2), np.uint64)

    def judge(
        self,
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        stamps_ns: NDArray[np.int64],
        sequences: NDArray[np.uint64],
        values: NDArray[np.float64],
        clocks_ns: NDArray[np.int64] | None = None,
    ) -> Verdicts:
        """Judge the next ticks, in order.

        Args:
            rows: Of each tick's symbol, int64 [n]; below 0: the tick is INVALID, as `faults` or the reader found.
            kinds: Bits TRADE and QUOTE of `ticks.market`, int64 [n].
            stamps_ns: Venue times, int64 [n].
            sequences: The feed's numbers, uint64 [n]; 0: none.
            values: float64 [n, 6] in the order of `NUMBERS`; NaN where a tick has no such part.
            clocks_ns: What a server's clock said, int64 [n]; 0 where that is not known: no tick is late or early then.
                Left out: known nowhere.
        """
        count = rows.size
        found = Verdicts(np.zeros(count, np.int8), np.zeros((count, FACTS), np.int64), np.full(count, np.nan))
        clocks_ns = np.zeros(count, np.int64) if clocks_ns is None else clocks_ns
        state, limits = self.state, self._limits
        _judge_each(
            state.quotes_trades, state.volatilities, state.stamps, state.sequences, self._held, self._seen, self.taken,
            rows, kinds, stamps_ns, sequences, values, clocks_ns, limits.future_ns, limits.stale_ns, limits.jump_sigmas,
            limits.jump_least, found.codes, found.facts, found.moves,
        )  # fmt: skip
        self.taken += count
        return found

    def holds(self, row: int) -> bool:
        """Whether a symbol's last trade is held back as a price jump, and waits for what confirms it."""
        return bool(self.state.stamps[row, market.HELD_KIND] > 0)


def faults(kinds: NDArray[np.int64], stamps_ns: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int8]:
    """The first field of each tick that is out of range, int8 [n], by its place in `FAULTS`; 0: none is.

    These are the numbers that the server looks at before its other rules (`tickgate_server.intake`). NaN is in no
    range.

    Args:
        kinds: Bits TRADE and QUOTE of `ticks.market`, int64 [n].
        stamps_ns: Venue times, int64 [n].
        values: float64 [n, 6] in the order of `NUMBERS`; what a tick has not is not looked at.
    """
    prices, sizes = (values > 0.0) & (values < np.inf), (values >= 0.0) & (values < np.inf)
    trades, quotes = kinds & market.TRADE != 0, kinds & market.QUOTE != 0
    broken = [~(trades | quotes), stamps_ns <= 0, trades & ~prices[:, 0], trades & ~sizes[:, 1]]
    broken += [quotes & ~prices[:, k] for k in (2, 3)] + [quotes & ~sizes[:, k] for k in (4, 5)]
    return np.select(broken, [np.int8(k) for k in range(1, len(FAULTS))], np.int8(0))


@kernel("void(uint64[:,::1], int64, uint64, boolean, int64[::1])")
def _follow(seen: NDArray[np.uint64], row: int, number: int, repeated: bool, facts: NDArray[np.int64]) -> None:  # noqa: FBT001 - numba takes no keywords
    """Say which of the feed's numbers a tick's skips, or that it comes late itself."""
    highest = seen[row, _HIGHEST]
    if highest == 0:
        seen[row, _FIRST] = seen[row, _HIGHEST] = number
    elif number > highest:
        facts[SKIPPED] = np.int64(number - highest - np.uint64(1))
        seen[row, _HIGHEST] = number
    elif not repeated:
        facts[LATE] = seen[row, _FIRST] < number < highest


@kernel(
    "void(float64[:,::1], float64[:,::1], int64[:,::1], uint64[:,::1], int64[::1], uint64[:,::1], int64,"
    " int64[::1], int64[::1], int64[::1], uint64[::1], float64[:,::1], int64[::1], int64, int64, float64, float64,"
    " int8[::1], int64[:,::1], float64[::1])"
)
def _judge_each(
    quotes_trades: NDArray[np.float64],
    volatilities: NDArray[np.float64],
    stamps: NDArray[np.int64],
    sequences: NDArray[np.uint64],
    held: NDArray[np.int64],
    seen: NDArray[np.uint64],
    first: int,
    rows: NDArray[np.int64],
    kinds: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    numbers: NDArray[np.uint64],
    values: NDArray[np.float64],
    clocks_ns: NDArray[np.int64],
    future_limit_ns: int,
    stale_limit_ns: int,
    jump_sigmas: float,
    jump_least: float,
    codes: NDArray[np.int8],
    facts: NDArray[np.int64],
    moves: NDArray[np.float64],
) -> None:
    for i in range(rows.size):
        row, kind, stamp_ns = rows[i], kinds[i], stamps_ns[i]
        facts[i, SILENCE_NS] = facts[i, CONFIRMED] = -1
        if row < 0:
            codes[i] = INVALID
            continue
        known = stamps[row, market.LAST_KIND] != 0
        last_ns, last_price = stamps[row, market.LAST_TICK_NS], quotes_trades[row, market.PRICE]
        code = market.apply(
            quotes_trades, volatilities, stamps, sequences, row, kind, stamp_ns, numbers[i], values[i, 0], values[i, 1],
            values[i, 2], values[i, 3], values[i, 4], values[i, 5], clocks_ns[i], future_limit_ns, stale_limit_ns,
            jump_sigmas, jump_least,
        )  # fmt: skip
        codes[i] = code
        if code in (market.ACCEPTED_NEW, market.ACCEPTED_BOTH):
            if known:
                facts[i, SILENCE_NS] = stamp_ns - last_ns
            if code == market.ACCEPTED_BOTH:
                facts[i, CONFIRMED] = held[row]
        elif code == market.OUT_OF_ORDER:
            facts[i, STEP_NS] = last_ns - stamp_ns
        elif code == market.PRICE_JUMP:
            held[row] = first + i
            moves[i] = np.log(values[i, 0] / last_price)
        if numbers[i] != 0:
            _follow(seen, row, numbers[i], code in (market.ACCEPTED_AGAIN, market.DUPLICATE), facts[i])
