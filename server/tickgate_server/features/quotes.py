"""The quote side of a symbol's features: the quote in force, and the order flow since the last trade.

A trade joins the last quote strictly before it by the venue's time. So a quote that comes alone waits in NEXT until a
tick with a later stamp puts it in force; one that comes with a trade is, by the contract, the one in force just before
that trade, and takes the place of whatever waits under the same stamp. A quote that only repeats the latest is no
update: it says that this one still holds, so that stating it again with each trade changes nothing.

State of one symbol is a row in each of two arrays, which the caller owns, zeros at first:

| array | dtype, shape | content |
|---|---|---|
| carried | float64 [symbols, >= QUOTE_COLUMNS] | two slots of SLOT numbers: the quote in force, the one that waits |
| marks | int64 [symbols, >= QUOTE_MARKS] | when each was last stated, venue's time in ns; 0: there is none |
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

# Places in a slot: the quote, and the sums over the updates that led to it since the last trade.
BID, ASK, BID_SIZE, ASK_SIZE, FLOW, DEPTH, UPDATES = range(7)
SLOT = 7
IN_FORCE, NEXT = 0, 1
QUOTE_COLUMNS = 2 * SLOT
QUOTE_MARKS = 2


@kernel("void(float64[:,::1], int64[:,::1], int64, int64)")
def put_in_force(carried: NDArray[np.float64], marks: NDArray[np.int64], row: int, exchange_ts_ns: int) -> None:
    """Put the quote that waits in force, with its updates, if it is older than this tick."""
    if marks[row, NEXT] == 0 or marks[row, NEXT] >= exchange_ts_ns:
        return
    for k in range(FLOW):
        carried[row, k] = carried[row, SLOT + k]
    for k in range(FLOW, SLOT):
        carried[row, k] += carried[row, SLOT + k]
        carried[row, SLOT + k] = 0.0
    marks[row, IN_FORCE] = marks[row, NEXT]
    marks[row, NEXT] = 0


@kernel("boolean(int64, int64, int64)")
def holds(stated_ns: int, exchange_ts_ns: int, session_gap_ns: int) -> bool:
    """Whether a quote stated last at one time counts at another: there is one, and no session gap lies between."""
    return stated_ns != 0 and (session_gap_ns == 0 or exchange_ts_ns - stated_ns <= session_gap_ns)


@kernel("void(float64[:,::1], int64[:,::1], int64, int64, int64, float64, float64, float64, float64, boolean)")
def take_quote(
    carried: NDArray[np.float64],
    marks: NDArray[np.int64],
    row: int,
    session_gap_ns: int,
    exchange_ts_ns: int,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    with_trade: bool,  # noqa: FBT001 - a kernel's
) -> None:
    """Take one quote into a symbol's row, before the trade that it came with.

    Each update adds to the order flow imbalance of R. Cont, A. Kukanov and S. Stoikov, "The Price Impact of Order Book
    Events", J. of Financial Econometrics 12(1), 2014, 47-88: with P the prices and q the sizes at bid and ask,

        e_n = 1{Pb_n >= Pb_{n-1}} qb_n - 1{Pb_n <= Pb_{n-1}} qb_{n-1}
            - 1{Pa_n <= Pa_{n-1}} qa_n + 1{Pa_n >= Pa_{n-1}} qa_{n-1}

    The inequalities are not strict: at an unchanged price a side contributes the change of its size. Beside it, the
    depth (qb_n + qa_n) / 2 of each update, of which their average depth is the mean. The first quote, and the first
    after a silence longer than the session gap, follows none, and is no update.

    Args:
        carried: float64 [symbols, >= QUOTE_COLUMNS].
        marks: int64 [symbols, >= QUOTE_MARKS].
        row: The symbol's row.
        session_gap_ns: As `micro10.push`.
        exchange_ts_ns: Venue time of the tick, > 0; not below the symbol's last.
        bid: > 0 and finite.
        ask: >= bid and finite.
        bid_size: >= 0 and finite.
        ask_size: >= 0 and finite.
        with_trade: Whether it is the quote in force just before a trade of the same tick.
    """
    put_in_force(carried, marks, row, exchange_ts_ns)
    state = carried[row]
    if with_trade and marks[row, NEXT] != 0:
        marks[row, NEXT] = 0
        for k in range(FLOW, SLOT):
            state[SLOT + k] = 0.0
    latest = NEXT if marks[row, NEXT] != 0 else IN_FORCE
    into = IN_FORCE if with_trade else NEXT
    if holds(marks[row, latest], exchange_ts_ns, session_gap_ns):
        last = latest * SLOT
        if (
            bid == state[last + BID]
            and ask == state[last + ASK]
            and bid_size == state[last + BID_SIZE]
            and ask_size == state[last + ASK_SIZE]
        ):
            marks[row, latest] = exchange_ts_ns
            return
        flow = 0.0
        if bid >= state[last + BID]:
            flow += bid_size
        if bid <= state[last + BID]:
            flow -= state[last + BID_SIZE]
        if ask <= state[last + ASK]:
            flow -= ask_size
        if ask >= state[last + ASK]:
            flow += state[last + ASK_SIZE]
        state[into * SLOT + FLOW] += flow
        state[into * SLOT + DEPTH] += 0.5 * (bid_size + ask_size)
        state[into * SLOT + UPDATES] += 1.0
    at = into * SLOT
    state[at + BID] = bid
    state[at + ASK] = ask
    state[at + BID_SIZE] = bid_size
    state[at + ASK_SIZE] = ask_size
    marks[row, into] = exchange_ts_ns
