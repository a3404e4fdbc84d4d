"""One request in one kernel, from its bytes to its answer's."""

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]  # not in its __all__
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tickgate_server.features.micro10 import push
from tickgate_server.kernels import kernel
from tickgate_server.models.forest import score
from tickgate_server.risk.gate import ORDER, judge
from tickgate_server.rpc.lane.facts import (
    ACTION,
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
    MODEL_INDEX,
    NOT_READY,
    READY,
    REASON,
    REPLAY,
    RISK_NS,
    SCORED,
    SELL,
    SEND_TS_NS,
    STALE_LIMIT_NS,
    STATUS,
    TOTAL_NS,
    TRADES,
    VALID_FOR,
    VALID_FOR_US,
    WAITING_NS,
)
from tickgate_server.rpc.lane.record import write_record
from tickgate_server.rpc.lane.response import write_response
from tickgate_server.rpc.wire import (
    ASK,
    ASK_SIZE,
    BID,
    BID_SIZE,
    BUDGET_US,
    DATA,
    EXCHANGE_TS_NS,
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
from tickgate_server.ticks.market import ACCEPTED_AGAIN, ACCEPTED_NEW, QUOTE, TRADE, apply
from tickgate_server.ticks.symbol_index import find_row

# A request with less time than this goes the general way, which looks at the clock before each stage.
LANE_BUDGET_NS = 2_000_000
# What `answer` says beside where the answer begins.
GENERAL, LATE = -1, -2

_REQUEST_ID_BYTES = 36
_DEADLINE_EXCEEDED = 4
_REALTIME, _MONOTONIC = 0, 1

_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.CPointer(types.int64)))


@kernel(types.int64(types.int32, types.int64[::1]))
def clock_ns(clock: int, timespec: NDArray[np.int64]) -> int:
    """A clock of the kernel's, as `time.time_ns` or `time.perf_counter_ns` read it."""
    _clock_gettime(clock, timespec.ctypes)
    return timespec[0] * 1_000_000_000 + timespec[1]


@kernel(types.boolean(types.int64, types.float64[::1]))
def tick_in_range(kind: int, numbers: NDArray[np.float64]) -> bool:
    """Every number as the contract asks; the general path names the one that is not."""
    if kind & TRADE and not (0.0 < numbers[PRICE] < np.inf and 0.0 <= numbers[SIZE] < np.inf):
        return False
    return not kind & QUOTE or (
        0.0 < numbers[BID] < np.inf
        and 0.0 < numbers[ASK] < np.inf
        and 0.0 <= numbers[BID_SIZE] < np.inf
        and 0.0 <= numbers[ASK_SIZE] < np.inf
    )


def _address_as_pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""
    del context

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


_void_pointer: Any = intrinsic(_address_as_pointer)


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
        sequence: Of the record.
        state: int64 [arrays, 3]: address, rows and columns of each; to hand over the arrays themselves takes 5 us.

    Returns:
        Where the answer begins in `out`; GENERAL: nothing has changed, the general path is to take the request; LATE:
        the budget was spent on the way, which is journaled as such.
    """
    # In the order of `FastLane.__init__`.
    spans = carray(_void_pointer(state[0, 0]), (state[0, 1],), np.int64)
    bits = carray(_void_pointer(state[1, 0]), (state[1, 1],), np.uint64)
    numbers = carray(_void_pointer(state[2, 0]), (state[2, 1],), np.float64)
    facts = carray(_void_pointer(state[3, 0]), (state[3, 1],), np.int64)
    timespec = carray(_void_pointer(state[4, 0]), (state[4, 1],), np.int64)
    out = carray(_void_pointer(state[5, 0]), (state[5, 1],), np.uint8)
    settings = carray(_void_pointer(state[6, 0]), (state[6, 1],), np.int64)
    thresholds = carray(_void_pointer(state[7, 0]), (state[7, 1],), np.float64)
    references = carray(_void_pointer(state[8, 0]), (state[8, 1], state[8, 2]), np.uint8)
    reference_lengths = carray(_void_pointer(state[9, 0]), (state[9, 1],), np.int64)
    model_field = carray(_void_pointer(state[10, 0]), (state[10, 1],), np.uint8)
    slots = carray(_void_pointer(state[11, 0]), (state[11, 1],), np.int64)
    names = carray(_void_pointer(state[12, 0]), (state[12, 1], state[12, 2]), np.uint8)
    lengths = carray(_void_pointer(state[13, 0]), (state[13, 1],), np.int64)
    quotes_trades = carray(_void_pointer(state[14, 0]), (state[14, 1], state[14, 2]), np.float64)
    volatilities = carray(_void_pointer(state[15, 0]), (state[15, 1], state[15, 2]), np.float64)
    stamps = carray(_void_pointer(state[16, 0]), (state[16, 1], state[16, 2]), np.int64)
    sequences = carray(_void_pointer(state[17, 0]), (state[17, 1], state[17, 2]), np.uint64)
    prices = carray(_void_pointer(state[18, 0]), (state[18, 1], state[18, 2]), np.float64)
    sizes = carray(_void_pointer(state[19, 0]), (state[19, 1], state[19, 2]), np.float64)
    ring_stamps = carray(_void_pointer(state[20, 0]), (state[20, 1], state[20, 2]), np.int64)
    counts = carray(_void_pointer(state[21, 0]), (state[21, 1],), np.int64)
    vectors = carray(_void_pointer(state[22, 0]), (state[22, 1], state[22, 2]), np.float32)
    ready = carray(_void_pointer(state[23, 0]), (state[23, 1],), np.bool_)
    nodes = carray(_void_pointer(state[24, 0]), (state[24, 1],), np.int64)
    roots = carray(_void_pointer(state[25, 0]), (state[25, 1],), np.uint64)
    keys = carray(_void_pointer(state[26, 0]), (state[26, 1],), np.int64)
    program = carray(_void_pointer(state[27, 0]), (state[27, 1], state[27, 2]), np.int64)
    registers = carray(_void_pointer(state[28, 0]), (state[28, 1],), np.float64)
    positions = carray(_void_pointer(state[29, 0]), (state[29, 1],), np.float64)
    contracts = carray(_void_pointer(state[30, 0]), (state[30, 1], state[30, 2]), np.float64)
    policy = carray(_void_pointer(state[31, 0]), (state[31, 1],), np.float64)
    limits = carray(_void_pointer(state[32, 0]), (state[32, 1],), np.float64)
    measured = carray(_void_pointer(state[33, 0]), (state[33, 1],), np.float64)
    start_ns = clock_ns(_MONOTONIC, timespec)
    for k in range(NUMBERS):
        bits[k] = 0
    if not read_request(data, spans, bits):
        return GENERAL
    if not 0 < spans[SYMBOL_LENGTH] <= SYMBOL_BYTES or spans[ID_LENGTH] > _REQUEST_ID_BYTES:
        return GENERAL
    if spans[EXCHANGE_TS_NS] <= 0 or not tick_in_range(spans[KIND], numbers):
        return GENERAL
    known = False
    for k in range(reference_lengths.size):
        if reference_lengths[k] == spans[MODEL_LENGTH]:
            known = True
            for i in range(spans[MODEL_LENGTH]):
                if references[k, i] != data[spans[MODEL_AT] + i]:
                    known = False
                    break
            if known:
                break
    if not known:
        return GENERAL
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
    now_ns = np.int64(0)
    if settings[REPLAY] == 0:
        now_ns = clock_ns(_REALTIME, timespec)
    verdict = apply(
        quotes_trades, volatilities, stamps, sequences, row, spans[KIND], spans[EXCHANGE_TS_NS],
        np.uint64(spans[SEQUENCE]), numbers[PRICE], numbers[SIZE], numbers[BID], numbers[ASK], numbers[BID_SIZE],
        numbers[ASK_SIZE], now_ns, settings[FUTURE_LIMIT_NS], settings[STALE_LIMIT_NS],
    )  # fmt: skip
    if verdict != ACCEPTED_NEW and verdict != ACCEPTED_AGAIN:  # noqa: PLR1714 - numba takes no set of ints here
        return GENERAL  # a rejected tick changed nothing
    # From here on the request is ours to finish.
    if verdict == ACCEPTED_NEW and spans[KIND] & TRADE:
        ready[row] = push(
            prices, sizes, ring_stamps, counts, row, settings[GAP_NS], spans[EXCHANGE_TS_NS], numbers[PRICE],
            numbers[SIZE], vectors[row],
        )  # fmt: skip
    facts[WAITING_NS] = start_ns - arrival_ns
    facts[APPLIED] = 1 if verdict == ACCEPTED_NEW else 0
    facts[CLOCK] = now_ns
    facts[READY] = 1 if ready[row] else 0
    facts[TRADES] = counts[row]
    facts[FEATURES_TS_NS] = stamps[row, market.LAST_TRADE_NS]
    facts[BUDGET_NS] = budget_ns
    facts[ASKED_BUDGET_NS] = asked_ns
    facts[INFERENCE_NS] = facts[RISK_NS] = facts[SCORED] = facts[VALID_FOR] = facts[STATUS] = 0
    facts[ACTION] = HOLD
    facts[REASON] = NOT_READY
    features_end_ns = clock_ns(_MONOTONIC, timespec)
    facts[FEATURES_NS] = features_end_ns - start_ns
    if ready[row]:
        probability_up = score(vectors[row], nodes, roots, keys, program, registers)
        inference_end_ns = clock_ns(_MONOTONIC, timespec)
        facts[INFERENCE_NS] = inference_end_ns - features_end_ns
        reason = judge(
            probability_up, quotes_trades[row, market.PRICE], row, settings[HORIZON], thresholds[1], positions[row],
            quotes_trades, contracts, policy, limits, measured,
        )  # fmt: skip
        facts[REASON] = reason
        facts[SCORED] = 0 if reason == INVALID_OUTPUT else 1
        if reason == APPROVED:
            facts[ACTION] = BUY if measured[ORDER] > 0.0 else SELL
            facts[VALID_FOR] = settings[VALID_FOR_US]
        facts[RISK_NS] = clock_ns(_MONOTONIC, timespec) - inference_end_ns
    facts[TOTAL_NS] = clock_ns(_MONOTONIC, timespec) - arrival_ns
    facts[SEND_TS_NS] = clock_ns(_REALTIME, timespec)
    begin = write_response(out, data, spans, model_field, facts, measured, thresholds[0], framed)
    if clock_ns(_MONOTONIC, timespec) - arrival_ns >= budget_ns:
        facts[STATUS] = _DEADLINE_EXCEEDED
    if at >= 0:
        write_record(words, at, sequence, data, spans, bits, facts, measured, vectors[row], settings[MODEL_INDEX])
    return LATE if facts[STATUS] else begin
