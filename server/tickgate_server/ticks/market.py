"""Each symbol's market state, and the rules a tick passes before it changes any of it.

State of one symbol is a row in each array of `MarketState`; `apply` is the only writer. A tick's numbers are looked at
before (`tickgate_server.engine`): here they are finite and in range.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.ticks import volatility

# Columns of `quotes_trades`, float64 [symbols, VALUES]; NaN until known.
BID, ASK, BID_SIZE, ASK_SIZE, PRICE, SIZE, SIGMA = range(7)
VALUES = 7
# Columns of `stamps`, int64 [symbols, STAMPS].
LAST_TICK_NS, LAST_TRADE_NS, LAST_KIND, ACCEPTED = range(4)
STAMPS = 4
# Columns of `sequences`, uint64: the highest accepted, the latest accepted, then the ring of the last RECENT.
HIGHEST, LATEST, RECENT_AT = range(3)
RECENT = 1024

# Kinds of tick, as bits.
TRADE, QUOTE = 1, 2

# What `apply` says.
ACCEPTED_NEW, ACCEPTED_AGAIN, DUPLICATE, OUT_OF_ORDER, FROM_FUTURE, STALE, CROSSED_QUOTE = range(7)


@kernel(
    "int64(float64[:,::1], float64[:,::1], int64[:,::1], uint64[:,::1], int64, int64, int64, uint64,"
    " float64, float64, float64, float64, float64, float64, int64, int64, int64)"
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

    Returns:
        ACCEPTED_NEW; ACCEPTED_AGAIN for the symbol's latest tick sent once more, which changes nothing; else the rule
        that rejected it.
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

    stamps[row, LAST_TICK_NS] = exchange_ts_ns
    stamps[row, LAST_KIND] = kind
    sequences[row, LATEST] = sequence
    if sequence != 0:
        # A ring over the accepted ticks that had a number.
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
    return ACCEPTED_NEW


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
