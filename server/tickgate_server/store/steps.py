"""The kernels of the replica: many ticks at a time through the very functions that the engine calls for each."""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.fundamentals import append
from tickgate_server.features.micro10 import push
from tickgate_server.features.micro32 import take
from tickgate_server.kernels import kernel
from tickgate_server.ticks import market
from tickgate_server.ticks.market import ACCEPTED_AGAIN, ACCEPTED_BOTH, ACCEPTED_NEW, PRICE_JUMP, TRADE, apply

# Columns of the integers of an input, and of a tick that was accepted (there INDEX and TICK_NUMBER in place of others).
ROW, KIND, STAMP, SEQUENCE, CLOCK, HELD = range(6)
INTEGERS = 6
INDEX, TICK_NUMBER = 4, 5
# Columns of the numbers of both.
PRICE, SIZE, BID, ASK, BID_SIZE, ASK_SIZE = range(6)
FLOATS = 6
# Places of `limits` and of `thresholds`.
FUTURE_NS, STALE_NS = range(2)
JUMP_SIGMAS, JUMP_LEAST = range(2)


@kernel(
    "Tuple((int64, int64))(float64[:,::1], float64[:,::1], int64[:,::1], uint64[:,::1], int64[::1], boolean[::1],"
    " boolean[::1], int64[::1], float64[::1], int64[:,::1], float64[:,::1], int64, int64, int64[:,::1],"
    " float64[:,::1], int64, int64[::1])"
)
def apply_all(
    quotes_trades: NDArray[np.float64],
    volatilities: NDArray[np.float64],
    stamps: NDArray[np.int64],
    sequences: NDArray[np.uint64],
    ticks: NDArray[np.int64],
    waiting: NDArray[np.bool_],
    strange: NDArray[np.bool_],
    limits: NDArray[np.int64],
    thresholds: NDArray[np.float64],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    begin: int,
    end: int,
    out_integers: NDArray[np.int64],
    out_floats: NDArray[np.float64],
    accepted: int,
    verdict: NDArray[np.int64],
) -> tuple[int, int]:
    """Apply ticks that a journal says were applied to market state, and list those that were accepted.

    Args:
        quotes_trades: As `ticks.market.apply`.
        volatilities: As above.
        stamps: As above.
        sequences: As above.
        ticks: Accepted ticks of each row, int64 [rows]; counted here.
        waiting: Rows whose symbol has a stored state waiting; it ends at a tick of one that is blank.
        strange: Rows whose ticks came out otherwise than the journal says; set here.
        limits: FUTURE_NS, STALE_NS.
        thresholds: JUMP_SIGMAS, JUMP_LEAST.
        integers: int64 [n, INTEGERS]; sequences as their bits.
        floats: float64 [n, FLOATS].
        begin: The first input to apply.
        end: Before which to stop.
        out_integers: int64 [2 n, INTEGERS]: ticks that were accepted, those held back before among them.
        out_floats: float64 [2 n, FLOATS].
        accepted: How many it holds by now.
        verdict: int64 [1]: the last one.

    Returns:
        The input that it ended before, and how many the list holds then.
    """
    for i in range(begin, end):
        row = integers[i, ROW]
        if waiting[row] and stamps[row, market.LAST_KIND] == 0:
            return i, accepted
        kind = integers[i, KIND]
        said = apply(
            quotes_trades, volatilities, stamps, sequences, row, kind, integers[i, STAMP],
            np.uint64(integers[i, SEQUENCE]), floats[i, PRICE], floats[i, SIZE], floats[i, BID], floats[i, ASK],
            floats[i, BID_SIZE], floats[i, ASK_SIZE], integers[i, CLOCK], limits[FUTURE_NS], limits[STALE_NS],
            thresholds[JUMP_SIGMAS], thresholds[JUMP_LEAST],
        )  # fmt: skip
        verdict[0] = said
        if said == ACCEPTED_AGAIN:  # a STARTED request's
            continue
        taken = said == ACCEPTED_NEW or said == ACCEPTED_BOTH  # noqa: PLR1714 - numba takes no set of ints here
        if (said == PRICE_JUMP) != (integers[i, HELD] == 1) or not (taken or said == PRICE_JUMP):
            strange[row] = True
            continue
        if said == ACCEPTED_BOTH:
            ticks[row] += 1
            out_integers[accepted, ROW] = row
            out_integers[accepted, KIND] = -stamps[row, market.HELD_KIND]
            out_integers[accepted, STAMP] = stamps[row, market.HELD_NS]
            out_integers[accepted, SEQUENCE] = np.int64(sequences[row, market.HELD_SEQUENCE])
            out_integers[accepted, INDEX] = i
            out_integers[accepted, TICK_NUMBER] = ticks[row]
            for k in range(FLOATS):
                out_floats[accepted, k] = quotes_trades[row, market.HELD_PRICE + k]
            accepted += 1
        if taken:
            ticks[row] += 1
            out_integers[accepted, ROW] = row
            out_integers[accepted, KIND] = kind
            out_integers[accepted, STAMP] = integers[i, STAMP]
            out_integers[accepted, SEQUENCE] = integers[i, SEQUENCE]
            out_integers[accepted, INDEX] = i
            out_integers[accepted, TICK_NUMBER] = ticks[row]
            for k in range(FLOATS):
                out_floats[accepted, k] = floats[i, k]
            accepted += 1
    return end, accepted


@kernel(
    "void(float64[:,::1], float64[:,::1], int64[:,::1], int64[::1], float64[:,::1], int64[:,::1], f4[:,::1],"
    " boolean[::1], int64[:,::1], boolean, int64, int64[:,::1], float64[:,::1], int64, f4[:,::1], boolean[::1])"
)
def take_all(
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    counts: NDArray[np.int64],
    carried: NDArray[np.float64],
    marks: NDArray[np.int64],
    vectors: NDArray[np.float32],
    ready: NDArray[np.bool_],
    known: NDArray[np.int64],
    with_quotes: bool,  # noqa: FBT001 - a kernel's
    session_gap_ns: int,
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    count: int,
    out: NDArray[np.float32],
    out_ready: NDArray[np.bool_],
) -> None:
    """Take accepted ticks into the windows of one feature set, and keep the vector after each trade.

    Args:
        prices: As `FeatureStore` has them, like those below.
        sizes: As above.
        stamps_ns: As above.
        counts: As above.
        carried: As above.
        marks: As above.
        vectors: As above.
        ready: As above.
        known: As above.
        with_quotes: Whether the set takes quotes.
        session_gap_ns: Of the set.
        integers: Of the ticks, as `apply_all` lists them.
        floats: As above.
        count: How many they are.
        out: float32 [count, width]: the vector after each.
        out_ready: bool [count]: whether that is a trade's, and complete.
    """
    for i in range(count):
        row = integers[i, ROW]
        kind = integers[i, KIND]
        vector = vectors[row]
        if with_quotes:
            ready[row] = take(
                prices, sizes, stamps_ns, counts, carried, marks, row, session_gap_ns, kind, integers[i, STAMP],
                floats[i, PRICE], floats[i, SIZE], floats[i, BID], floats[i, ASK], floats[i, BID_SIZE],
                floats[i, ASK_SIZE], vector, ready[row],
            )  # fmt: skip
        elif kind & TRADE:
            ready[row] = push(
                prices, sizes, stamps_ns, counts, row, session_gap_ns, integers[i, STAMP], floats[i, PRICE],
                floats[i, SIZE], vector,
            )  # fmt: skip
        complete = ready[row] and kind & TRADE != 0
        if complete and known.shape[0] > 0:
            complete = append(known, row, integers[i, STAMP], vector)
        out_ready[i] = complete
        for k in range(vector.size):
            out[i, k] = vector[k]
