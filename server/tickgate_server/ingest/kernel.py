"""Published ticks applied one after the other: market state, features of every set, the book, the journal's record.

One kernel for many ticks, composed of the very kernels that a Predict's tick goes through: `ticks.market.apply`,
`features.micro10.push` or `features.micro32.take`, `risk.portfolio.advance`, `risk.valuation.mark`. It stops where
something has to be done that a kernel cannot do, says why, and is called again.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import (
    TABLE,
    flags,
    float_rows,
    floats,
    integer_rows,
    integers,
    single_rows,
    table_at,
    word_rows,
)
from tickgate_server.clocks import MONOTONIC, clock_ns
from tickgate_server.features.micro10 import push
from tickgate_server.features.micro32 import take
from tickgate_server.journal.checksum import WORDS, seal
from tickgate_server.journal.layout import NO_ROW, PUBLISHED, TICKS, TICKS_WIDTH, RecordKind, TickOutcome
from tickgate_server.kernels import kernel
from tickgate_server.risk.portfolio import advance
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.valuation import mark
from tickgate_server.ticks import market
from tickgate_server.ticks.market import QUOTE, TRADE, apply, in_range
from tickgate_server.ticks.symbols import FULL, UNKNOWN

# Columns of ticks that wait, int64 [ticks, INTEGERS] and float64 [ticks, NUMBERS]. CODE: of the symbol, see `waiting`.
# KIND: bits TRADE, QUOTE, and DROPPED. SEQUENCE: the bits of the feed's number. MESSAGE: the slot of the message that
# brought it, -1: none.
CODE, KIND, EXCHANGE_TS_NS, SEQUENCE, MESSAGE = range(5)
INTEGERS = 5
PRICE, SIZE, BID, ASK, BID_SIZE, ASK_SIZE = range(6)
NUMBERS = 6
DROPPED = 4  # in a replay: it was conflated

# Codes that are no symbol's, beside `symbols.UNKNOWN` and `FULL`; and the row of a symbol that has none yet.
INVALID, NEW = -3, -4

# Arrays by number.
(
    FACTS,
    THRESHOLDS,
    TIMESPEC,
    TICK_INTEGERS,
    TICK_NUMBERS,
    OUTCOMES,
    ROWS_OF,
    STATED,
    TALLIES,
    DONE,
    LATEST,
    QUOTES_TRADES,
    VOLATILITIES,
    STAMPS,
    SEQUENCES,
    BOOK,
    STORES,
) = range(17)
INGEST_ARRAYS = 17

# `facts`, int64: what `apply_ticks` is told, then what it says.
FUTURE_LIMIT_NS, STALE_LIMIT_NS, CONFLATING, WITH_BOOK, WHY, RECORDS, DONE_COUNT = range(7)
FACT_COUNT = 7
# Why it stopped: all were applied; the time is over; no slot is left for another record; a symbol has no row yet; the
# journal's segment does not name a row yet; a tick that confirmed the one held back was applied, and is not in the
# journal yet.
FINISHED, TIME_OVER, NO_ROOM, NEWCOMER, UNSTATED, CONFIRMED = range(6)

# Columns of `outcomes`, int64 [ticks, 2].
OUTCOME, REASON = range(2)
# Columns of `tallies`, int64 [messages, TALLY]; from REJECTED on one for each reason from TICK_UNKNOWN_SYMBOL on.
TOTAL, SETTLED, ACCEPTED, AGAIN, CONFLATED, REJECTED = range(6)
FIRST_REASON = int(Reason.TICK_UNKNOWN_SYMBOL)
LAST_REASON = int(Reason.TICK_INVALID_VALUE)
TALLY = REJECTED + LAST_REASON - FIRST_REASON + 1

# Columns of `latest`, int64 [codes, 4]: of the last tick that waits with a trade its number in the queue and its stamp,
# and the same of the last with a quote.
_TRADE_AT, _TRADE_NS, _QUOTE_AT, _QUOTE_NS = range(4)
LATEST_COLUMNS = 4

# Arrays of one feature store.
STORE_ARRAYS = 8

_ACCEPTED, _CONFIRMED, _AGAIN, _HELD_BACK, _REJECTED, _CONFLATED = (int(outcome) for outcome in TickOutcome)
_INVALID_VALUE, _PRICE_JUMP = int(Reason.TICK_INVALID_VALUE), int(Reason.TICK_PRICE_JUMP)
_UNKNOWN_SYMBOL, _TABLE_FULL = int(Reason.TICK_UNKNOWN_SYMBOL), int(Reason.TICK_SYMBOL_TABLE_FULL)
# By what `market.apply` says, from DUPLICATE on.
_REASONS = tuple(
    int(reason)
    for reason in (
        Reason.TICK_DUPLICATE,
        Reason.TICK_OUT_OF_ORDER,
        Reason.TICK_FROM_FUTURE,
        Reason.TICK_STALE,
        Reason.TICK_CROSSED_QUOTE,
        Reason.TICK_PRICE_JUMP,
    )
)
_TICKS_KIND = int(RecordKind.TICKS)
_WIDTH = TICKS_WIDTH
_NO_ROW = NO_ROW
# The record is written by the word.
_CLOCK_WORD, _TICKS_WORD = (int(TICKS.fields[name][1]) // 8 for name in ("clock_ns", "ticks"))  # type: ignore[index]  # it has fields
_TICK_WORDS = PUBLISHED.itemsize // 8
_LAYOUT = (("row", 0), ("kind", 4), ("outcome", 5), ("reason", 6), ("exchange_ts_ns", 8), ("tick_sequence", 16))
for _name, _at in (*_LAYOUT, ("price", 24), ("ask_size", 64)):
    if int(PUBLISHED.fields[_name][1]) != _at:  # type: ignore[index]  # as above
        raise ValueError(f"{_name} of a published tick: expected at byte {_at}")


@kernel(types.void(types.int64[:, ::1], types.float64[:, ::1], types.int64[:, ::1], types.int64, types.int64))
def note_latest(
    ticks: NDArray[np.int64], numbers: NDArray[np.float64], latest: NDArray[np.int64], first: int, plausible_ns: int
) -> None:
    """Note of each symbol where its last trade and its last quote wait, for ticks that come into the queue.

    Only a tick that may well be applied supersedes others: its numbers are in range, it is no older than the one noted
    before, nor newer than `plausible_ns`.

    Args:
        ticks: int64 [n, INTEGERS].
        numbers: float64 [n, NUMBERS].
        latest: int64 [codes, LATEST_COLUMNS].
        first: The number in the queue of the first of them.
        plausible_ns: The latest stamp that counts.
    """
    for i in range(len(ticks)):
        code, kind, stamp_ns = ticks[i, CODE], ticks[i, KIND], ticks[i, EXCHANGE_TS_NS]
        if code < 0 or stamp_ns > plausible_ns or not in_range(
            kind, stamp_ns, numbers[i, PRICE], numbers[i, SIZE], numbers[i, BID], numbers[i, ASK],
            numbers[i, BID_SIZE], numbers[i, ASK_SIZE],
        ):  # fmt: skip
            continue
        if kind & TRADE and stamp_ns >= latest[code, _TRADE_NS]:
            latest[code, _TRADE_AT] = first + i
            latest[code, _TRADE_NS] = stamp_ns
        if kind & QUOTE and stamp_ns >= latest[code, _QUOTE_NS]:
            latest[code, _QUOTE_AT] = first + i
            latest[code, _QUOTE_NS] = stamp_ns


@kernel(types.void(TABLE, types.int64, types.int64))
def apply_to_stores(state: NDArray[np.int64], row: int, i: int) -> None:
    """Take one accepted tick, or with `i` -1 the one held back before it, into every feature store."""
    stores = integer_rows(state, STORES)
    if i >= 0:
        ticks, numbers = integer_rows(state, TICK_INTEGERS), float_rows(state, TICK_NUMBERS)
        kind, stamp_ns, values = ticks[i, KIND], ticks[i, EXCHANGE_TS_NS], numbers[i]
    else:
        stamps = integer_rows(state, STAMPS)
        kind, stamp_ns = -stamps[row, market.HELD_KIND], stamps[row, market.HELD_NS]
        values = float_rows(state, QUOTES_TRADES)[row, market.HELD_PRICE :]
    for k in range(stores.shape[0]):
        store = table_at(stores[k, 0], STORE_ARRAYS)
        prices, sizes, ring_stamps = float_rows(store, 0), float_rows(store, 1), integer_rows(store, 2)
        counts, vectors, ready = integers(store, 3), single_rows(store, 4), flags(store, 5)
        if stores[k, 2] != 0:
            ready[row] = take(
                prices, sizes, ring_stamps, counts, float_rows(store, 6), integer_rows(store, 7), row, stores[k, 1],
                kind, stamp_ns, values[PRICE], values[SIZE], values[BID], values[ASK], values[BID_SIZE],
                values[ASK_SIZE], vectors[row], ready[row],
            )  # fmt: skip
        elif kind & TRADE:
            ready[row] = push(
                prices, sizes, ring_stamps, counts, row, stores[k, 1], stamp_ns, values[PRICE], values[SIZE],
                vectors[row],
            )  # fmt: skip


@kernel(types.Tuple((types.int64, types.int64))(TABLE, types.int64, types.int64, types.int64))
def apply_one(state: NDArray[np.int64], i: int, row: int, now_ns: int) -> tuple[int, int]:
    """Judge one tick of a symbol that has a row, and apply it: its TickOutcome and its reason, 0: none."""
    facts, thresholds = integers(state, FACTS), floats(state, THRESHOLDS)
    ticks, numbers = integer_rows(state, TICK_INTEGERS), float_rows(state, TICK_NUMBERS)
    verdict = apply(
        float_rows(state, QUOTES_TRADES), float_rows(state, VOLATILITIES), integer_rows(state, STAMPS),
        word_rows(state, SEQUENCES), row, ticks[i, KIND], ticks[i, EXCHANGE_TS_NS], np.uint64(ticks[i, SEQUENCE]),
        numbers[i, PRICE], numbers[i, SIZE], numbers[i, BID], numbers[i, ASK], numbers[i, BID_SIZE],
        numbers[i, ASK_SIZE], now_ns, facts[FUTURE_LIMIT_NS], facts[STALE_LIMIT_NS], thresholds[0], thresholds[1],
    )  # fmt: skip
    accepted = verdict == market.ACCEPTED_NEW or verdict == market.ACCEPTED_BOTH  # noqa: PLR1714 - numba takes no set
    if accepted:
        if verdict == market.ACCEPTED_BOTH:
            apply_to_stores(state, row, -1)
        apply_to_stores(state, row, i)
    if facts[WITH_BOOK] != 0:
        book = integer_rows(state, BOOK)
        if now_ns != 0:
            advance(book, now_ns)
        elif accepted:
            advance(book, ticks[i, EXCHANGE_TS_NS])
        if accepted and ticks[i, KIND] & TRADE:
            mark(book, row, numbers[i, PRICE])
    if accepted:
        return _CONFIRMED if verdict == market.ACCEPTED_BOTH else _ACCEPTED, 0
    if verdict == market.ACCEPTED_AGAIN:
        return _AGAIN, 0
    return _HELD_BACK if verdict == market.PRICE_JUMP else _REJECTED, _REASONS[verdict - market.DUPLICATE]


@kernel(types.void(TABLE, types.int64))
def count(state: NDArray[np.int64], i: int) -> None:
    """Count a tick for its message; one whose ticks are all settled is put on the list of those that are done."""
    message = integer_rows(state, TICK_INTEGERS)[i, MESSAGE]
    if message < 0:
        return
    found, tally = integer_rows(state, OUTCOMES)[i], integer_rows(state, TALLIES)[message]
    outcome = found[OUTCOME]
    if outcome == _ACCEPTED:
        tally[ACCEPTED] += 1
    elif outcome == _CONFIRMED:
        tally[ACCEPTED] += 2
    elif outcome == _AGAIN:
        tally[AGAIN] += 1
    elif outcome == _CONFLATED:
        tally[CONFLATED] += 1
    else:
        tally[REJECTED + found[REASON] - FIRST_REASON] += 1
    tally[SETTLED] += 1
    if tally[SETTLED] == tally[TOTAL]:
        facts = integers(state, FACTS)
        integers(state, DONE)[facts[DONE_COUNT]] = message
        facts[DONE_COUNT] += 1


@kernel(types.void(TABLE, types.uint64[::1], types.int64, types.int64, types.int64))
def write_tick(state: NDArray[np.int64], words: NDArray[np.uint64], at: int, i: int, row: int) -> None:
    """A tick and its outcome at `words[at]`, as `layout.PUBLISHED` has it; what its kind does not have is 0."""
    ticks, numbers = integer_rows(state, TICK_INTEGERS), float_rows(state, TICK_NUMBERS)
    found = integer_rows(state, OUTCOMES)[i]
    doubles = words.view(np.float64)
    kind = ticks[i, KIND] & (TRADE | QUOTE)
    words[at] = (
        np.uint64(row if row >= 0 else _NO_ROW)
        | np.uint64(kind) << np.uint64(32)
        | np.uint64(found[OUTCOME]) << np.uint64(40)
        | np.uint64(found[REASON]) << np.uint64(48)
    )
    words[at + 1] = np.uint64(ticks[i, EXCHANGE_TS_NS])
    words[at + 2] = np.uint64(ticks[i, SEQUENCE])
    for k in range(PRICE, BID):
        doubles[at + 3 + k] = numbers[i, k] if kind & TRADE else 0.0
    for k in range(BID, NUMBERS):
        doubles[at + 3 + k] = numbers[i, k] if kind & QUOTE else 0.0


@kernel(
    types.int64(
        TABLE,
        types.uint64[::1],
        types.int64,
        types.uint64,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
    )
)
def apply_ticks(  # noqa: C901, PLR0912, PLR0915 - one pass over the ticks, in their order
    state: NDArray[np.int64],
    words: NDArray[np.uint64],
    at: int,
    sequence: int,
    room: int,
    begin: int,
    end: int,
    first: int,
    now_ns: int,
    due_ns: int,
) -> int:
    """Apply ticks `begin` to `end` of those in `state`, and journal them.

    Args:
        state: The arrays, by number.
        words: The journal's segment.
        at: Where the next record goes in it; below 0: there is no journal.
        sequence: Of that record.
        room: How many records may follow each other there.
        begin: The first tick.
        end: Behind the last.
        first: Number in the queue of tick 0.
        now_ns: The server's clock, for all of them; 0: time is the ticks' own.
        due_ns: When to stop, on the monotonic clock, but not before one record's worth was done.

    Returns:
        The first tick that was not applied; with `facts[WHY]` CONFIRMED that one was. `facts[RECORDS]` is how many
        records were published, `outcomes` holds what became of each tick.
    """
    facts, timespec = integers(state, FACTS), integers(state, TIMESPEC)
    ticks, numbers = integer_rows(state, TICK_INTEGERS), float_rows(state, TICK_NUMBERS)
    outcomes, rows_of, stated = integer_rows(state, OUTCOMES), integers(state, ROWS_OF), flags(state, STATED)
    latest = integer_rows(state, LATEST)
    facts[WHY] = FINISHED
    facts[RECORDS] = 0
    held = 0  # ticks in the record that is being written
    i = begin
    while i < end:
        if held == 0:
            if at >= 0 and facts[RECORDS] == room:
                facts[WHY] = NO_ROOM
                break
            if i > begin and clock_ns(MONOTONIC, timespec) >= due_ns:
                facts[WHY] = TIME_OVER
                break
        code, kind, stamp_ns = ticks[i, CODE], ticks[i, KIND], ticks[i, EXCHANGE_TS_NS]
        row = rows_of[code] if code >= 0 else code
        if at >= 0 and row >= 0 and not stated[row]:
            facts[WHY] = UNSTATED
            break
        if now_ns != 0 and held == 0 and facts[WITH_BOOK] != 0:
            advance(integer_rows(state, BOOK), now_ns)  # with each record, whatever becomes of its ticks
        outcome, reason = _REJECTED, _INVALID_VALUE
        if kind & DROPPED:
            outcome, reason = _CONFLATED, 0
        elif row != INVALID and in_range(
            kind, stamp_ns, numbers[i, PRICE], numbers[i, SIZE], numbers[i, BID], numbers[i, ASK],
            numbers[i, BID_SIZE], numbers[i, ASK_SIZE],
        ):  # fmt: skip
            if row == NEW:
                facts[WHY] = NEWCOMER
                break
            if row == UNKNOWN:
                reason = _UNKNOWN_SYMBOL
            elif row == FULL:
                reason = _TABLE_FULL
            elif (
                facts[CONFLATING] != 0
                and (not kind & TRADE or (latest[code, _TRADE_AT] > first + i and latest[code, _TRADE_NS] >= stamp_ns))
                and (not kind & QUOTE or (latest[code, _QUOTE_AT] > first + i and latest[code, _QUOTE_NS] >= stamp_ns))
            ):
                outcome, reason = _CONFLATED, 0
            else:
                outcome, reason = apply_one(state, i, row, now_ns)
        outcomes[i, OUTCOME], outcomes[i, REASON] = outcome, reason
        count(state, i)
        if at >= 0:
            if outcome == _CONFIRMED:
                facts[WHY] = CONFIRMED
                break
            write_tick(state, words, at + _TICKS_WORD + held * _TICK_WORDS, i, row)
            held += 1
        i += 1
        if held == _WIDTH or (held > 0 and i == end):
            words[at + 2] = np.uint64(_TICKS_KIND) | np.uint64(held) << np.uint64(8)
            words[at + _CLOCK_WORD] = np.uint64(now_ns)
            seal(words, at, sequence)
            words[at] = sequence
            at += WORDS
            sequence += np.uint64(1)
            facts[RECORDS] += 1
            held = 0
    if held > 0:
        words[at + 2] = np.uint64(_TICKS_KIND) | np.uint64(held) << np.uint64(8)
        words[at + _CLOCK_WORD] = np.uint64(now_ns)
        seal(words, at, sequence)
        words[at] = sequence
        facts[RECORDS] += 1
    return i
