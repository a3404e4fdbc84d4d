"""One request in one kernel, from its bytes to its answer's."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import (
    byte_rows,
    flags,
    float_rows,
    floats,
    integer_rows,
    integers,
    octets,
    single_rows,
    table_at,
    word_rows,
)
from tickgate_server.arrays import words as words_of
from tickgate_server.clocks import MONOTONIC, REALTIME, clock_ns
from tickgate_server.features.fundamentals import append
from tickgate_server.features.micro10 import push
from tickgate_server.features.micro32 import take
from tickgate_server.kernels import kernel
from tickgate_server.models.canary import place
from tickgate_server.models.forest import score
from tickgate_server.records import TICK
from tickgate_server.risk.book import BOUNDS, NOW_NS, OUT, POLICY, STATE, TRADING
from tickgate_server.risk.book import VALID_FOR as POLICY_VALID_FOR
from tickgate_server.risk.checks import CONFIDENCE
from tickgate_server.risk.gate import ORDER, judge
from tickgate_server.risk.portfolio import advance, reserve
from tickgate_server.risk.request_ids import find_id, payload_hash
from tickgate_server.risk.valuation import mark
from tickgate_server.rpc.lane.facts import (
    ACTION,
    AGE_US,
    APPLIED,
    APPROVED,
    ASKED_BUDGET_NS,
    BUDGET_NS,
    BUY,
    CLOCK,
    FEATURES_NS,
    FEATURES_TS_NS,
    FUTURE_LIMIT_NS,
    GAP_NS,
    HOLD,
    HORIZON,
    INFERENCE_NS,
    INVALID_OUTPUT,
    LATENCY_BUDGET_NS,
    MODEL_ARRAYS,
    MODEL_INDEX,
    MODEL_NUMBER,
    NOT_READY,
    ORDER_ID,
    READY,
    REASON,
    REFERENCES,
    REPLAY,
    RISK_NS,
    SCORED,
    SELL,
    SEND_TS_NS,
    SLOT,
    STALE_LIMIT_NS,
    STATUS,
    STORE,
    TOTAL_NS,
    TRADES,
    TRADING_STATE,
    VALID_FOR,
    WAITING_NS,
    WITH_QUOTES,
)
from tickgate_server.rpc.lane.record import keep_answer, write_record
from tickgate_server.rpc.lane.response import write_response
from tickgate_server.rpc.wire import (
    ASK,
    ASK_SIZE,
    BID,
    BID_SIZE,
    BUDGET_US,
    DATA,
    EXCHANGE_TS_NS,
    ID_AT,
    ID_LENGTH,
    KIND,
    MODEL_AT,
    MODEL_LENGTH,
    NUMBERS,
    PRICE,
    SEQUENCE,
    SIZE,
    SYMBOL_AT,
    SYMBOL_LENGTH,
    read_request,
)
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.market import ACCEPTED_AGAIN, ACCEPTED_NEW, TRADE, apply, in_range
from tickgate_server.ticks.symbol_index import find_row

# A request with less time than this goes the general way, which looks at the clock before each stage.
LANE_BUDGET_NS = 2_000_000
# What `answer` says beside where the answer begins.
GENERAL, LATE = -1, -2

_REQUEST_ID_BYTES = 36
_DEADLINE_EXCEEDED = 4
_TICK = TICK
# Of `thresholds`: the model's, and when a trade is a price jump.
_DECISION, JUMP_SIGMAS, JUMP_LEAST = range(3)


@kernel(
    types.int64(
        DATA,
        types.int64,
        types.int64,
        types.int64,
        types.uint64[::1],
        types.int64,
        types.uint64,
        types.int64[:, ::1],
    )
)
def answer(  # noqa: C901, PLR0911, PLR0912, PLR0915 - the general path's whole way in a row
    data: bytes,
    arrival_ns: int,
    deadline_ns: int,
    framed: int,
    words: NDArray[np.uint64],
    at: int,
    sequence: int,
    state: NDArray[np.int64],
) -> int:
    """Answer one request in `state`'s `out`, and journal it; see the package's docstring.

    Args:
        data: The request.
        arrival_ns: When it arrived, on the monotonic clock.
        deadline_ns: What its gRPC deadline left then; 0: none.
        framed: As `write_response`.
        words: The journal's segment.
        at: Where the record goes in it; below 0: there is no journal.
        sequence: Of the record, and so of an order that is approved.
        state: Of the lane's arrays, see `arrays`: to hand over the arrays themselves takes 5 us.

    Returns:
        Where the answer begins in `out`; GENERAL: nothing has changed, the general path is to take the request; LATE:
        the budget was spent on the way, which is journaled as such.
    """
    # In the order of `FastLane.__init__`.
    spans = integers(state, 0)
    bits = words_of(state, 1)
    numbers = floats(state, 2)
    facts = integers(state, 3)
    timespec = integers(state, 4)
    out = octets(state, 5)
    slots = integers(state, 6)
    names = byte_rows(state, 7)
    lengths = integers(state, 8)
    quotes_trades = float_rows(state, 9)
    volatilities = float_rows(state, 10)
    stamps = integer_rows(state, 11)
    sequences = word_rows(state, 12)
    book = integer_rows(state, 13)
    ids = integer_rows(state, 14)
    measured = floats(book, OUT)
    desk = integers(book, STATE)
    start_ns = clock_ns(MONOTONIC, timespec)
    for k in range(NUMBERS):
        bits[k] = 0
    if not read_request(data, spans, bits):
        return GENERAL
    if not 0 < spans[SYMBOL_LENGTH] <= SYMBOL_BYTES or spans[ID_LENGTH] > _REQUEST_ID_BYTES:
        return GENERAL
    if not in_range(
        spans[KIND], spans[EXCHANGE_TS_NS], numbers[PRICE], numbers[SIZE], numbers[BID], numbers[ASK],
        numbers[BID_SIZE], numbers[ASK_SIZE],
    ):  # fmt: skip
        return GENERAL
    reference = find_row(
        data, spans[MODEL_AT], spans[MODEL_LENGTH], integers(state, REFERENCES), byte_rows(state, REFERENCES + 1),
        integers(state, REFERENCES + 2),
    )  # fmt: skip
    if reference < 0:
        return GENERAL
    meant = integer_rows(state, REFERENCES + 3)
    address = meant[reference, 0]
    share_percent = floats(state, REFERENCES + 4)[reference]
    if share_percent > 0.0 and 100.0 * place(data, spans[SYMBOL_AT], spans[SYMBOL_LENGTH]) < share_percent:
        address = meant[reference, 1]
    if address == 0:  # it has no lane
        return GENERAL
    model = table_at(address, MODEL_ARRAYS)
    settings = integers(model, 0)
    thresholds = floats(model, 1)
    asked_us = spans[BUDGET_US]
    if asked_us < 0 or asked_us > np.int64(1) << 50:
        return GENERAL
    asked_ns = asked_us * 1000
    if deadline_ns > 0 and (asked_ns == 0 or deadline_ns < asked_ns):
        asked_ns = deadline_ns
    budget_ns = settings[LATENCY_BUDGET_NS]
    if 0 < asked_ns < budget_ns:
        budget_ns = asked_ns
    if arrival_ns + budget_ns - start_ns < LANE_BUDGET_NS:
        return GENERAL
    row = find_row(data, spans[SYMBOL_AT], spans[SYMBOL_LENGTH], slots, names, lengths)
    if row < 0:
        return GENERAL
    if spans[ID_LENGTH] > 0 and find_id(ids, data, spans[ID_AT], spans[ID_LENGTH]) >= 0:
        return GENERAL
    now_ns = np.int64(0)
    if settings[REPLAY] == 0:
        now_ns = max(clock_ns(REALTIME, timespec), desk[NOW_NS])
    if stamps[row, market.HELD_KIND] > 0 and spans[KIND] & TRADE:
        return GENERAL  # which knows what to do with the trade held back
    if stamps[row, market.LAST_KIND] == 0:
        return GENERAL  # which knows whether a stored state waits for the symbol's first tick
    verdict = apply(
        quotes_trades, volatilities, stamps, sequences, row, spans[KIND], spans[EXCHANGE_TS_NS],
        np.uint64(spans[SEQUENCE]), numbers[PRICE], numbers[SIZE], numbers[BID], numbers[ASK], numbers[BID_SIZE],
        numbers[ASK_SIZE], now_ns, settings[FUTURE_LIMIT_NS], settings[STALE_LIMIT_NS], thresholds[JUMP_SIGMAS],
        thresholds[JUMP_LEAST],
    )  # fmt: skip
    if verdict != ACCEPTED_NEW and verdict != ACCEPTED_AGAIN:  # noqa: PLR1714 - numba takes no set of ints here
        return GENERAL  # a rejected tick changed nothing, and one held back is known again
    # From here on the request is ours to finish.
    prices = float_rows(state, STORE)
    sizes = float_rows(state, STORE + 1)
    ring_stamps = integer_rows(state, STORE + 2)
    counts = integers(state, STORE + 3)
    vectors = single_rows(state, STORE + 4)
    ready = flags(state, STORE + 5)
    carried = float_rows(state, STORE + 6)
    marks = integer_rows(state, STORE + 7)
    fundamentals = integer_rows(state, STORE + 8)
    if now_ns:
        advance(book, now_ns)
    elif verdict == ACCEPTED_NEW:
        advance(book, spans[EXCHANGE_TS_NS])
    if verdict == ACCEPTED_NEW and spans[KIND] & TRADE:
        mark(book, row, numbers[PRICE])
    if verdict == ACCEPTED_NEW and settings[WITH_QUOTES]:
        ready[row] = take(
            prices, sizes, ring_stamps, counts, carried, marks, row, settings[GAP_NS], spans[KIND],
            spans[EXCHANGE_TS_NS], numbers[PRICE], numbers[SIZE], numbers[BID], numbers[ASK], numbers[BID_SIZE],
            numbers[ASK_SIZE], vectors[row], ready[row],
        )  # fmt: skip
    elif verdict == ACCEPTED_NEW and spans[KIND] & TRADE:
        ready[row] = push(
            prices, sizes, ring_stamps, counts, row, settings[GAP_NS], spans[EXCHANGE_TS_NS], numbers[PRICE],
            numbers[SIZE], vectors[row],
        )  # fmt: skip
    complete = ready[row]
    if complete and fundamentals.shape[0] > 0:
        complete = append(fundamentals, row, stamps[row, market.LAST_TICK_NS], vectors[row])
    facts[WAITING_NS] = start_ns - arrival_ns
    facts[APPLIED] = 1 if verdict == ACCEPTED_NEW else 0
    facts[CLOCK] = now_ns
    facts[AGE_US] = max(now_ns - spans[EXCHANGE_TS_NS], 0) // 1000 if now_ns else 0
    facts[READY] = 1 if complete else 0
    facts[TRADES] = counts[row]
    facts[FEATURES_TS_NS] = stamps[row, market.LAST_TRADE_NS]
    facts[BUDGET_NS] = budget_ns
    facts[ASKED_BUDGET_NS] = asked_ns
    facts[INFERENCE_NS] = facts[RISK_NS] = facts[SCORED] = facts[VALID_FOR] = facts[STATUS] = 0
    facts[ACTION] = HOLD
    facts[REASON] = NOT_READY
    facts[ORDER_ID] = 0
    facts[SLOT] = -1
    facts[TRADING_STATE] = desk[TRADING]
    features_end_ns = clock_ns(MONOTONIC, timespec)
    facts[FEATURES_NS] = features_end_ns - start_ns
    if complete:
        probability_up = score(
            vectors[row], integers(model, 3), words_of(model, 4), integers(model, 5), integer_rows(model, 6),
            floats(model, 7),
        )  # fmt: skip
        inference_end_ns = clock_ns(MONOTONIC, timespec)
        facts[INFERENCE_NS] = inference_end_ns - features_end_ns
        threshold = max(thresholds[_DECISION], floats(book, BOUNDS)[CONFIDENCE])
        reason = judge(
            probability_up, quotes_trades[row, market.PRICE], row, settings[HORIZON], threshold,
            settings[MODEL_NUMBER], book,
        )  # fmt: skip
        facts[REASON] = reason
        facts[SCORED] = 0 if reason == INVALID_OUTPUT else 1
        if reason == APPROVED:
            facts[ACTION] = BUY if measured[ORDER] > 0.0 else SELL
            facts[VALID_FOR] = np.int64(floats(book, POLICY)[POLICY_VALID_FOR])
            facts[ORDER_ID] = sequence
        facts[RISK_NS] = clock_ns(MONOTONIC, timespec) - inference_end_ns
    facts[TOTAL_NS] = clock_ns(MONOTONIC, timespec) - arrival_ns
    facts[SEND_TS_NS] = clock_ns(REALTIME, timespec)
    begin = write_response(out, data, spans, octets(model, 2), facts, measured, thresholds[_DECISION], framed)
    if clock_ns(MONOTONIC, timespec) - arrival_ns >= budget_ns:
        facts[STATUS] = _DEADLINE_EXCEEDED
    elif facts[REASON] == APPROVED:
        facts[SLOT] = reserve(book, row, measured[ORDER], facts[VALID_FOR], sequence)
    if facts[STATUS] == 0 and spans[ID_LENGTH] > 0:
        payload = payload_hash(
            _TICK, spans[KIND], spans[EXCHANGE_TS_NS], np.uint64(spans[SEQUENCE]), bits, 0.0, vectors[row, :0], data,
            spans[SYMBOL_AT], spans[SYMBOL_LENGTH], spans[MODEL_AT], spans[MODEL_LENGTH],
        )  # fmt: skip
        keep_answer(
            ids, data, spans, facts, measured, payload, sequence, settings[MODEL_NUMBER], desk[NOW_NS],
            np.int64(floats(book, POLICY)[POLICY_VALID_FOR]),
        )  # fmt: skip
    if at >= 0:
        write_record(words, at, sequence, data, spans, bits, facts, measured, vectors[row], settings[MODEL_INDEX])
    return LATE if facts[STATUS] else begin
