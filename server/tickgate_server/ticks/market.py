"""Each symbol's market state, and the rules a tick passes before it changes any of it.

State of one symbol is a row in each array of `MarketState`; `apply` is the only writer. A tick's numbers are looked at
before (`tickgate_server.engine`): here they are finite and in range.

**Price jumps.** A trade that is too far from the last accepted one is held back. The next trade confirms it, if it is
near, and both are accepted then, in order; else it is dropped, and the next one is judged by itself. What is sent again
word for word confirms nothing. Quotes go on meanwhile. One trade a symbol is held; it is no part of any state but its
own columns.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.ticks import volatility

# Columns of `quotes_trades`, float64 [symbols, VALUES]; NaN until known. From HELD_PRICE on: the tick held back last.
BID, ASK, BID_SIZE, ASK_SIZE, PRICE, SIZE, SIGMA = range(7)
HELD_PRICE, HELD_SIZE, HELD_BID, HELD_ASK, HELD_BID_SIZE, HELD_ASK_SIZE = range(7, 13)
VALUES = 13
# Columns of `stamps`, int64 [symbols, STAMPS]. HELD_KIND: of the tick held back, 0 where none is; once it was accepted
# beside the next one, as what it was, with the sign turned.
LAST_TICK_NS, LAST_TRADE_NS, LAST_KIND, ACCEPTED, HELD_NS, HELD_KIND = range(6)
STAMPS = 6
# Columns of `sequences`, uint64: the highest accepted, the latest accepted, of the tick held back, then the ring of the
# last RECENT.
HIGHEST, LATEST, HELD_SEQUENCE, RECENT_AT = range(4)
RECENT = 1024
# From when on a trade is a price jump, by default: volatilities a trade, and absolute log return.
JUMP_SIGMAS, JUMP_LEAST = 10.0, 0.005

# Kinds of tick, as bits.
TRADE, QUOTE = 1, 2

# What `apply` says.
ACCEPTED_NEW, ACCEPTED_AGAIN, DUPLICATE, OUT_OF_ORDER, FROM_FUTURE, STALE, CROSSED_QUOTE = range(7)
PRICE_JUMP, ACCEPTED_BOTH = 7, 8


@kernel("boolean(int64, int64, float64, float64, float64, float64, float64, float64)")
def in_range(
    kind: int,
    exchange_ts_ns: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
) -> bool:
    """Whether a tick's numbers are what the contract asks: finite, prices above 0, sizes not below; and it is one."""
    if kind & (TRADE | QUOTE) == 0 or exchange_ts_ns <= 0:
        return False
    if kind & TRADE and not (0.0 < price < np.inf and 0.0 <= size < np.inf):
        return False
    return not kind & QUOTE or (
        0.0 < bid < np.inf and 0.0 < ask < np.inf and 0.0 <= bid_size < np.inf and 0.0 <= ask_size < np.inf
    )


@kernel("boolean(float64, float64, float64, float64, float64)")
def jumps(price: float, last: float, sigma: float, jump_sigmas: float, jump_least: float) -> bool:
    """Whether a trade's price is a jump from the last one's: false while the volatility is not known."""
    if not abs(price - last) > 0.5 * jump_least * last:  # for the plain case, without a logarithm
        return False
    change = abs(math.log(price / last))
    return change > jump_least and change > jump_sigmas * sigma


@kernel(
    "void(float64[:,::1], float64[:,::1], int64[:,::1], uint64[:,::1], int64, int64, int64, uint64,"
    " float64, float64, float64, float64, float64, float64)"
)
def _take(
    quotes_trades: NDArray[np.float64],
    volatilities: NDArray[np.float64],
    stamps: NDArray[np.int64],
    sequences: NDArray[np.uint64],
    row: int,
    kind: int,
    exchange_ts_ns: int,
    sequence: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
) -> None:
    """Take one accepted tick into a symbol's row."""
    stamps[row, LAST_TICK_NS] = exchange_ts_ns
    stamps[row, LAST_KIND] = kind
    sequences[row, LATEST] = sequence
    if sequence != 0:
        # A ring over the accepted ticks that had a number.
        accepted = stamps[row, ACCEPTED]
        sequences[row, RECENT_AT + accepted % RECENT] = sequence
        stamps[row, ACCEPTED] = accepted + 1
        sequences[row, HIGHEST] = max(sequences[row, HIGHEST], sequence)
    if kind & QUOTE:
        quotes_trades[row, BID] = bid
        quotes_trades[row, ASK] = ask
        quotes_trades[row, BID_SIZE] = bid_size
        quotes_trades[row, ASK_SIZE] = ask_size
    if kind & TRADE:
        stamps[row, LAST_TRADE_NS] = exchange_ts_ns
        quotes_trades[row, PRICE] = price
        quotes_trades[row, SIZE] = size
        quotes_trades[row, SIGMA] = volatility.update(volatilities, row, price)


@kernel(
    "boolean(float64[:,::1], int64[:,::1], uint64[:,::1], int64, int64, int64, uint64, float64, float64, float64,"
    " float64, float64, float64)"
)
def _is_held(
    quotes_trades: NDArray[np.float64],
    stamps: NDArray[np.int64],
    sequences: NDArray[np.uint64],
    row: int,
    kind: int,
    exchange_ts_ns: int,
    sequence: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
) -> bool:
    """Whether a tick is the one held back, word for word."""
    held = quotes_trades[row]
    same = stamps[row, HELD_KIND] == kind and stamps[row, HELD_NS] == exchange_ts_ns
    same = same and sequences[row, HELD_SEQUENCE] == sequence
    same = same and held[HELD_PRICE] == price and held[HELD_SIZE] == size
    if kind & QUOTE:
        same = same and held[HELD_BID] == bid and held[HELD_ASK] == ask
        same = same and held[HELD_BID_SIZE] == bid_size and held[HELD_ASK_SIZE] == ask_size
    return bool(same)


@kernel(
    "int64(float64[:,::1], float64[:,::1], int64[:,::1], uint64[:,::1], int64, int64, int64, uint64,"
    " float64, float64, float64, float64, float64, float64, int64, int64, int64, float64, float64)"
)
def apply(
    quotes_trades: NDArray[np.float64],
    volatilities: NDArray[np.float64],
    stamps: NDArray[np.int64],
    sequences: NDArray[np.uint64],
    row: int,
    kind: int,
    exchange_ts_ns: int,
    sequence: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    now_ns: int,
    future_limit_ns: int,
    stale_limit_ns: int,
    jump_sigmas: float,
    jump_least: float,
) -> int:
    """Judge one tick in the order of the rules, and take it into the symbol's row only if none rejects it.

    Args:
        quotes_trades: float64 [symbols, VALUES].
        volatilities: State of `ticks.volatility`, float64 [symbols, COLUMNS].
        stamps: int64 [symbols, STAMPS].
        sequences: uint64 [symbols, RECENT_AT + RECENT].
        row: The symbol's row.
        kind: TRADE, QUOTE or both.
        exchange_ts_ns: Venue time.
        sequence: The feed's number; 0: none.
        price: Of the trade; ignored without one, as the quote's fields are without a quote.
        size: As above.
        bid: As above.
        ask: As above.
        bid_size: As above.
        ask_size: As above.
        now_ns: The server's clock; 0: a replay, in which no tick is late or early.
        future_limit_ns: How far ahead of the clock a tick may be.
        stale_limit_ns: How far behind it.
        jump_sigmas: A trade is a jump if its absolute log return is above so many volatilities a trade, known as
            `ticks.volatility` knows it, and above `jump_least`; 0: nothing is one.
        jump_least: As above; up to 1.

    Returns:
        ACCEPTED_NEW; ACCEPTED_AGAIN for the symbol's latest tick sent once more, which changes nothing; ACCEPTED_BOTH:
        the tick held back (the columns HELD_..., its kind with the sign turned) was accepted and then this one, which
        is within half the jump of it; else the rule that rejected it: only with PRICE_JUMP it changed anything, namely
        what is held back.
    """
    again = False
    accepted = stamps[row, ACCEPTED]
    if sequence != 0 and sequence <= sequences[row, HIGHEST]:
        held = min(accepted, RECENT)
        for k in range(held):
            if sequences[row, RECENT_AT + k] == sequence:
                # Known. Only the very latest tick, unchanged, may be asked about again.
                again = (
                    sequence == sequences[row, LATEST]
                    and exchange_ts_ns == stamps[row, LAST_TICK_NS]
                    and kind == stamps[row, LAST_KIND]
                )
                if kind & TRADE:
                    again = again and price == quotes_trades[row, PRICE] and size == quotes_trades[row, SIZE]
                if kind & QUOTE:
                    again = (
                        again
                        and bid == quotes_trades[row, BID]
                        and ask == quotes_trades[row, ASK]
                        and bid_size == quotes_trades[row, BID_SIZE]
                        and ask_size == quotes_trades[row, ASK_SIZE]
                    )
                if not again:
                    return DUPLICATE
                break
    if stamps[row, LAST_KIND] != 0 and exchange_ts_ns < stamps[row, LAST_TICK_NS]:
        return OUT_OF_ORDER
    if now_ns > 0:
        if exchange_ts_ns - now_ns > future_limit_ns:
            return FROM_FUTURE
        if now_ns - exchange_ts_ns > stale_limit_ns:
            return STALE
    if kind & QUOTE and bid > ask:
        return CROSSED_QUOTE
    if again:
        return ACCEPTED_AGAIN

    verdict = ACCEPTED_NEW
    if kind & TRADE and jump_sigmas > 0.0:
        last = quotes_trades[row, PRICE]
        held_kind = stamps[row, HELD_KIND]
        if held_kind > 0:
            if _is_held(
                quotes_trades, stamps, sequences, row, kind, exchange_ts_ns, sequence, price, size, bid, ask, bid_size,
                ask_size,
            ):  # fmt: skip
                return PRICE_JUMP
            held = quotes_trades[row, HELD_PRICE]
            if sequence != 0 and sequence == sequences[row, HELD_SEQUENCE]:
                return DUPLICATE  # another tick with its number
            near = abs(math.log(price / held)) <= 0.5 * abs(math.log(held / last))
            if near and exchange_ts_ns >= stamps[row, HELD_NS]:
                verdict = ACCEPTED_BOTH
        if verdict == ACCEPTED_NEW:
            if jumps(price, last, quotes_trades[row, SIGMA], jump_sigmas, jump_least):
                stamps[row, HELD_KIND] = kind
                stamps[row, HELD_NS] = exchange_ts_ns
                sequences[row, HELD_SEQUENCE] = sequence
                quotes_trades[row, HELD_PRICE] = price
                quotes_trades[row, HELD_SIZE] = size
                quotes_trades[row, HELD_BID] = bid
                quotes_trades[row, HELD_ASK] = ask
                quotes_trades[row, HELD_BID_SIZE] = bid_size
                quotes_trades[row, HELD_ASK_SIZE] = ask_size
                return PRICE_JUMP
            stamps[row, HELD_KIND] = 0
        else:
            if stamps[row, HELD_NS] < stamps[row, LAST_TICK_NS]:
                held_kind = TRADE  # quotes came meanwhile: its own is not in force any more
            stamps[row, HELD_KIND] = -held_kind
            _take(
                quotes_trades, volatilities, stamps, sequences, row, held_kind, stamps[row, HELD_NS],
                sequences[row, HELD_SEQUENCE], quotes_trades[row, HELD_PRICE], quotes_trades[row, HELD_SIZE],
                quotes_trades[row, HELD_BID], quotes_trades[row, HELD_ASK], quotes_trades[row, HELD_BID_SIZE],
                quotes_trades[row, HELD_ASK_SIZE],
            )  # fmt: skip
    _take(
        quotes_trades, volatilities, stamps, sequences, row, kind, exchange_ts_ns, sequence, price, size, bid, ask,
        bid_size, ask_size,
    )  # fmt: skip
    return verdict


class MarketState:
    """The arrays of up to `capacity` symbols; memory is touched only for symbols that were seen.

    About 8.4 kB a symbol, nearly all of it the last 1,024 sequence numbers.
    """

    __slots__ = ("quotes_trades", "sequences", "stamps", "volatilities")

    def __init__(self, capacity: int) -> None:
        self.quotes_trades = np.full((capacity, VALUES), np.nan)
        self.volatilities = np.zeros((capacity, volatility.COLUMNS))
        self.stamps = np.zeros((capacity, STAMPS), np.int64)
        self.sequences = np.zeros((capacity, RECENT_AT + RECENT), np.uint64)

    def held(self, row: int) -> tuple[int, int, float, float, float, float, float, float]:
        """The tick that `apply` accepted beside the one it was given: its kind, its venue time, then its numbers."""
        kind, stamp_ns = int(-self.stamps[row, HELD_KIND]), int(self.stamps[row, HELD_NS])
        price, size, bid, ask, bid_size, ask_size = self.quotes_trades[row, HELD_PRICE:].tolist()
        return kind, stamp_ns, price, size, bid, ask, bid_size, ask_size
