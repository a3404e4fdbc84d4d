"""The fast lane: from a request's bytes to its answer's and its journal record in one kernel.

Behind a gRPC call the caches are cold: what takes 15 us in a loop of Python takes 60 between two calls, and what costs
is how much code and memory a request touches. So the plain case (one tick of a known symbol that passes every rule, a
model that is a compiled forest, a budget that does not pinch) runs here, composed of the very kernels that the general
path calls: `ticks.market.apply`, `features.micro10.push`, `models.forest.score`, `risk.gate.judge`. Everything else is
left to the general path before anything has changed, and a test holds both to the same answers and the same journal.
"""

from time import perf_counter_ns
from typing import Any

import grpc
import numpy as np
from numba import carray, types  # type: ignore[attr-defined]  # not in its __all__
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine
from tickgate_server.features.micro10 import WIDTH, push
from tickgate_server.journal.checksum import seal
from tickgate_server.journal.layout import DECISION, HEADER_BYTES, RECORD_BYTES, RecordKind
from tickgate_server.kernels import kernel
from tickgate_server.models.forest import CompiledForest, score
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import TICK, Stage
from tickgate_server.risk.gate import BOUNDS, CHECKS, CONFIDENT, EDGE, LIMIT_PRICE, ORDER, PASSES, TARGET, VALUES, judge
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.rpc.status import Status
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
    SPANS,
    SYMBOL_AT,
    SYMBOL_LENGTH,
    put_double,
    put_length,
    put_text,
    put_varint,
    read_request,
)
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.market import ACCEPTED_AGAIN, ACCEPTED_NEW, QUOTE, TRADE, apply
from tickgate_server.ticks.symbol_index import find_row

# A request with less time than this goes the general way, which looks at the clock before each stage.
LANE_BUDGET_NS = 2_000_000
OUT_BYTES = 1024
# What `answer` says beside where the answer begins.
GENERAL, LATE = -1, -2

_REQUEST_ID_BYTES = 36
_REFERENCE_BYTES = 76
_CHECK_COUNT = len(CHECKS)
_REASONS = tuple(int(check.reason) for check in CHECKS)
_AT_LEAST = tuple(int(check.at_least) for check in CHECKS)
_HOLD, _BUY, _SELL = int(Action.HOLD), int(Action.BUY), int(Action.SELL)
_APPROVED, _INVALID_OUTPUT = int(Reason.APPROVED), int(Reason.MODEL_INVALID_OUTPUT)
_NOT_READY = int(Reason.FEATURES_NOT_READY)
_DEADLINE_EXCEEDED = 4
_ENCODING = int(Stage.ENCODING)
_DECISION_KIND = int(RecordKind.DECISION)
_TICK = TICK
_FOREST = 2  # tickgate.v1.INFERENCE_ENGINE_COMPILED_FOREST
_REALTIME, _MONOTONIC = 0, 1

_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "budget spent before sending")
_NO_WORDS = np.zeros(0, np.uint64)
_REQUESTS_TAG = 1 << 3 | 2

# Columns of a lane's `settings`, int64.
FUTURE_LIMIT_NS, STALE_LIMIT_NS, REPLAY, HORIZON, LATENCY_BUDGET_NS, MODEL_INDEX, VALID_FOR_US, GAP_NS = range(8)
SETTINGS = 8

# What `answer` and its parts hand each other, int64 [FACTS]; the five times in the order of the record's.
(
    WAITING_NS,
    FEATURES_NS,
    INFERENCE_NS,
    RISK_NS,
    TOTAL_NS,
    SCORED,
    READY,
    TRADES,
    FEATURES_TS_NS,
    BUDGET_NS,
    ASKED_BUDGET_NS,
    SEND_TS_NS,
    REASON,
    ACTION,
    VALID_FOR,
    APPLIED,
    CLOCK,
    STATUS,
) = range(18)
FACTS = 18

_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.CPointer(types.int64)))


def _word(name: str) -> int:
    """The 8-byte word of a record that a field begins in."""
    fields = DECISION.fields
    if fields is None:
        raise ValueError("the journal's record has no fields")
    return int(fields[name][1]) // 8


_KINDS_WORD, _READY_WORD, _MODEL_WORD, _TRADES_WORD = map(
    _word, ("kind", "ready", "model_asked_bytes", "trades_in_window")
)
_CLOCK_WORD, _WAITING_WORD, _PRICE_WORD = _word("clock_ns"), _word("waiting_ns"), _word("price")
_ORDER_WORD = _word("order_size")
_BYTES = RECORD_BYTES
_WORDS = RECORD_BYTES // 8
_HEADER_WORDS = HEADER_BYTES // 8
_SYMBOL_BYTE, _ID_BYTE, _ASKED_BYTE, _VECTOR_BYTE, _CHECKS_WORD = (
    int(DECISION.fields[name][1]) // (8 if name == "checks" else 1)  # type: ignore[index]  # looked at above
    for name in ("symbol", "request_id", "model_asked", "vector", "checks")
)
# The record is written by the word: each word is the fields named here, and only they.
_LAYOUT = {
    _KINDS_WORD: ("kind", "input", "flags", "tick_kind", "status", "stage", "applied"),
    _READY_WORD: ("ready", "scored", "judged", "action", "reason", "symbol_bytes", "request_id_bytes"),
    _MODEL_WORD: ("model_asked_bytes", "check_count", "ticket", "model_index"),
    _TRADES_WORD: ("trades_in_window", "vector_width"),
    _CLOCK_WORD: ("clock_ns",),
    _CLOCK_WORD + 1: ("exchange_ts_ns",),
    _CLOCK_WORD + 2: ("tick_sequence",),
    _CLOCK_WORD + 3: ("asked_budget_ns",),
    _CLOCK_WORD + 4: ("budget_ns",),
    _CLOCK_WORD + 5: ("valid_for_us",),
    _CLOCK_WORD + 6: ("features_ts_ns",),
}
for _at, _names in _LAYOUT.items():
    _found = tuple(name for name in DECISION.names or () if _word(name) == _at)
    if _found != _names:
        raise ValueError(f"word {_at} of the journal's record: expected {_names}, found {_found}")


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


@kernel(
    types.int64(
        types.uint8[::1],
        DATA,
        types.int64[::1],
        types.uint8[::1],
        types.int64[::1],
        types.float64[::1],
        types.float64,
    )
)
def write_response(
    out: NDArray[np.uint8],
    data: bytes,
    spans: NDArray[np.int64],
    model: NDArray[np.uint8],
    facts: NDArray[np.int64],
    measured: NDArray[np.float64],
    threshold: float,
) -> int:
    """A `PredictResponse` at the end of `out`; returns where it begins. `model` is the model's field, serialized."""
    at = out.size
    scored = facts[SCORED] != 0
    # 7 features
    end = at
    at = put_varint(out, at, 3 << 3, np.uint64(facts[FEATURES_TS_NS]))
    at = put_varint(out, at, 2 << 3, np.uint64(facts[READY]))
    at = put_varint(out, at, 1 << 3, np.uint64(facts[TRADES]))
    at = put_length(out, at, 7 << 3 | 2, end)
    # 6 model
    at -= model.size
    for k in range(model.size):
        out[at + k] = model[k]
    # 5 timing
    end = at
    if scored:
        at = put_varint(out, at, 8 << 3, np.uint64(_FOREST))
    at = put_varint(out, at, 7 << 3, np.uint64(facts[BUDGET_NS]))
    at = put_varint(out, at, 6 << 3, np.uint64(facts[SEND_TS_NS]))
    for k in range(5):
        at = put_varint(out, at, (5 - k) << 3, np.uint64(facts[TOTAL_NS - k]))
    at = put_length(out, at, 5 << 3 | 2, end)
    # 4 prediction
    if scored:
        end = at
        at = put_double(out, at, 3 << 3 | 1, threshold)
        at = put_double(out, at, 2 << 3 | 1, measured[CONFIDENT])
        at = put_double(out, at, 1 << 3 | 1, measured[EDGE])
        at = put_length(out, at, 4 << 3 | 2, end)
    # 3 signal
    signal_end = at
    approved = facts[REASON] == _APPROVED
    if scored:
        for k in range(_CHECK_COUNT - 1, -1, -1):
            end = at
            at = put_varint(out, at, 5 << 3, np.uint64(_AT_LEAST[k]))
            at = put_varint(out, at, 4 << 3, np.uint64(measured[PASSES + k]))
            at = put_double(out, at, 3 << 3 | 1, measured[BOUNDS + k])
            at = put_double(out, at, 2 << 3 | 1, measured[VALUES + k])
            at = put_varint(out, at, 1 << 3, np.uint64(_REASONS[k]))
            at = put_length(out, at, 8 << 3 | 2, end)
        at = put_double(out, at, 7 << 3 | 1, measured[TARGET])
    at = put_varint(out, at, 6 << 3, np.uint64(facts[REASON]))
    if approved:
        at = put_varint(out, at, 5 << 3, np.uint64(1))
        at = put_varint(out, at, 4 << 3, np.uint64(facts[VALID_FOR]))
        at = put_double(out, at, 3 << 3 | 1, measured[LIMIT_PRICE])
        at = put_double(out, at, 2 << 3 | 1, abs(measured[ORDER]))
    at = put_varint(out, at, 1 << 3, np.uint64(facts[ACTION]))
    at = put_length(out, at, 3 << 3 | 2, signal_end)
    at = put_text(out, at, 2 << 3 | 2, data, spans[SYMBOL_AT], spans[SYMBOL_LENGTH])
    return put_text(out, at, 1 << 3 | 2, data, spans[ID_AT], spans[ID_LENGTH])


@kernel(
    types.void(
        types.uint64[::1],
        types.int64,
        types.uint64,
        DATA,
        types.int64[::1],
        types.uint64[::1],
        types.int64[::1],
        types.float64[::1],
        types.float32[::1],
        types.int64,
    )
)
def write_record(
    words: NDArray[np.uint64],
    at: int,
    sequence: int,
    data: bytes,
    spans: NDArray[np.int64],
    bits: NDArray[np.uint64],
    facts: NDArray[np.int64],
    measured: NDArray[np.float64],
    vector: NDArray[np.float32],
    model_index: int,
) -> None:
    """The journal's record at `words[at]`, as `JournalWriter.append_decision` makes it, sealed and published."""
    doubles = words.view(np.float64)
    octets = words.view(np.uint8)
    scored = np.uint64(facts[SCORED])
    ready = np.uint64(facts[READY])
    words[at + _KINDS_WORD] = (
        np.uint64(_DECISION_KIND)
        | np.uint64(_TICK) << np.uint64(8)
        | np.uint64(spans[KIND]) << np.uint64(32)
        | np.uint64(facts[STATUS]) << np.uint64(40)
        | np.uint64(_ENCODING) << np.uint64(48)
        | np.uint64(facts[APPLIED]) << np.uint64(56)
    )
    words[at + _READY_WORD] = (
        ready
        | scored << np.uint64(8)
        | scored << np.uint64(16)
        | np.uint64(facts[ACTION]) << np.uint64(24)
        | np.uint64(facts[REASON]) << np.uint64(32)
        | np.uint64(spans[SYMBOL_LENGTH]) << np.uint64(48)
        | np.uint64(spans[ID_LENGTH]) << np.uint64(56)
    )
    words[at + _MODEL_WORD] = (
        np.uint64(spans[MODEL_LENGTH])
        | (np.uint64(_CHECK_COUNT) * scored) << np.uint64(8)
        | np.uint64(model_index) << np.uint64(32)
    )
    words[at + _TRADES_WORD] = np.uint64(facts[TRADES]) | (np.uint64(WIDTH) * ready) << np.uint64(32)
    words[at + _CLOCK_WORD] = np.uint64(facts[CLOCK])
    words[at + _CLOCK_WORD + 1] = np.uint64(spans[EXCHANGE_TS_NS])
    words[at + _CLOCK_WORD + 2] = np.uint64(spans[SEQUENCE])
    words[at + _CLOCK_WORD + 3] = np.uint64(facts[ASKED_BUDGET_NS])
    words[at + _CLOCK_WORD + 4] = np.uint64(facts[BUDGET_NS])
    words[at + _CLOCK_WORD + 5] = np.uint64(facts[VALID_FOR])
    words[at + _CLOCK_WORD + 6] = np.uint64(facts[FEATURES_TS_NS])
    for k in range(5):
        words[at + _WAITING_WORD + k] = np.uint64(facts[WAITING_NS + k])
    for k in range(NUMBERS):
        words[at + _PRICE_WORD + k] = bits[k]
    words[at + _PRICE_WORD + NUMBERS] = 0  # reference price
    order = at + _ORDER_WORD
    approved = facts[REASON] == _APPROVED
    doubles[order] = abs(measured[ORDER]) if approved else 0.0
    doubles[order + 1] = measured[LIMIT_PRICE] if scored else 0.0
    doubles[order + 2] = measured[TARGET] if scored else 0.0
    doubles[order + 3] = measured[EDGE] if scored else np.nan
    doubles[order + 4] = measured[CONFIDENT] if scored else np.nan
    base = at * 8
    for k in range(spans[SYMBOL_LENGTH]):
        octets[base + _SYMBOL_BYTE + k] = data[spans[SYMBOL_AT] + k]
    for k in range(spans[ID_LENGTH]):
        octets[base + _ID_BYTE + k] = data[spans[ID_AT] + k]
    for k in range(spans[MODEL_LENGTH]):
        octets[base + _ASKED_BYTE + k] = data[spans[MODEL_AT] + k]
    if ready:
        values = words.view(np.float32)
        for k in range(WIDTH):
            values[at * 2 + _VECTOR_BYTE // 4 + k] = vector[k]
    if scored:
        for k in range(_CHECK_COUNT):
            doubles[at + _CHECKS_WORD + k] = measured[VALUES + k]
    seal(words, at, sequence)
    words[at] = sequence


def _address_as_pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""
    del context

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


_void_pointer: Any = intrinsic(_address_as_pointer)


@kernel(types.int64(DATA, types.int64, types.int64, types.uint64[::1], types.int64, types.uint64, types.int64[:, ::1]))
def answer(  # noqa: C901, PLR0911, PLR0912, PLR0915 - the general path's whole way in a row
    data: bytes,
    arrival_ns: int,
    deadline_ns: int,
    words: NDArray[np.uint64],
    at: int,
    sequence: int,
    state: NDArray[np.int64],
) -> int:
    """Answer one request in `state`'s `out`, and journal it; see the module's docstring.

    Args:
        data: The request.
        arrival_ns: When it arrived, on the monotonic clock.
        deadline_ns: What its gRPC deadline left then; 0: none.
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
    facts[ACTION] = _HOLD
    facts[REASON] = _NOT_READY
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
        facts[SCORED] = 0 if reason == _INVALID_OUTPUT else 1
        if reason == _APPROVED:
            facts[ACTION] = _BUY if measured[ORDER] > 0.0 else _SELL
            facts[VALID_FOR] = settings[VALID_FOR_US]
        facts[RISK_NS] = clock_ns(_MONOTONIC, timespec) - inference_end_ns
    facts[TOTAL_NS] = clock_ns(_MONOTONIC, timespec) - arrival_ns
    facts[SEND_TS_NS] = clock_ns(_REALTIME, timespec)
    begin = write_response(out, data, spans, model_field, facts, measured, thresholds[0])
    if clock_ns(_MONOTONIC, timespec) - arrival_ns >= budget_ns:
        facts[STATUS] = _DEADLINE_EXCEEDED
    if at >= 0:
        write_record(words, at, sequence, data, spans, bits, facts, measured, vectors[row], settings[MODEL_INDEX])
    return LATE if facts[STATUS] else begin


class FastLane:
    """The fast lane of one engine to one of its models; one thread at a time, the engine's."""

    __slots__ = ("_arrays", "_engine", "_facts", "_journal", "_out", "_spans", "_state")

    def __init__(self, engine: Engine, model: LoadedModel, forest: CompiledForest) -> None:
        self._engine = engine
        self._journal = engine.journal
        self._facts = np.zeros(FACTS, np.int64)
        parts = engine.parts
        bits = np.zeros(NUMBERS, np.uint64)
        settings = np.zeros(SETTINGS, np.int64)
        settings[FUTURE_LIMIT_NS] = engine.settings.future_limit_ns
        settings[STALE_LIMIT_NS] = engine.settings.stale_limit_ns
        settings[REPLAY] = engine.settings.replay
        settings[HORIZON] = model.horizon_trades
        settings[LATENCY_BUDGET_NS] = model.latency_budget_ns
        settings[MODEL_INDEX] = -1 if self._journal is None else self._journal.add_model(model)
        settings[VALID_FOR_US] = parts.gate.limits.valid_for_us
        settings[GAP_NS] = model.features.session_gap_ns
        references = [reference.encode() for reference in engine.registry.references_of(model)]
        table = np.zeros((len(references), _REFERENCE_BYTES), np.uint8)
        for row, reference in enumerate(references):
            table[row, : len(reference)] = np.frombuffer(reference, np.uint8)
        field = pb.PredictResponse(
            model=pb.ModelVersion(name=model.name, version=model.version, schema_id=model.schema_id)
        ).SerializeToString()
        threshold = max(model.threshold, parts.gate.limits.confidence_threshold)
        store, state, index = parts.store, parts.market, engine.symbols.index
        self._out = np.zeros(OUT_BYTES, np.uint8)
        self._spans = np.zeros(SPANS, np.int64)
        self._arrays: tuple[NDArray[Any], ...] = (
            self._spans,
            bits,
            bits.view(np.float64),
            self._facts,
            np.zeros(2, np.int64),
            self._out,
            settings,
            np.array([model.threshold, threshold]),
            table,
            np.array([len(reference) for reference in references], np.int64),
            np.frombuffer(field, np.uint8).copy(),
            index.slots,
            index.names,
            index.lengths,
            state.quotes_trades,
            state.volatilities,
            state.stamps,
            state.sequences,
            store.prices,
            store.sizes,
            store.stamps_ns,
            store.counts,
            store.vectors,
            store.ready,
            forest.nodes,
            forest.roots,
            forest.keys,
            forest.program,
            forest.registers,
            parts.positions,
            engine.symbols.contracts,
            parts.gate.policy,
            parts.gate.bounds,
            parts.gate.out,
        )
        self._state = np.zeros((len(self._arrays), 3), np.int64)
        for row, array in enumerate(self._arrays):
            if not array.flags.c_contiguous:
                raise ValueError(f"array {row} of the lane is not contiguous")
            self._state[row, : 1 + array.ndim] = (array.ctypes.data, *array.shape)

    def predict(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | Status | None:
        """As `Answers.predict`; None where the request is the general path's, and nothing has changed."""
        journal = self._journal
        sequence = 0
        if journal is None:
            begin = answer(data, arrival_ns, deadline_ns, _NO_WORDS, -1, 0, self._state)
            if begin == GENERAL:
                return None
        else:
            words, at, sequence = journal.place()
            begin = answer(data, arrival_ns, deadline_ns, words, at, sequence, self._state)
            if begin == GENERAL:
                return None
            journal.placed()
        if begin == LATE:
            return _LATE
        answer_bytes = self._out[begin:].tobytes()
        if perf_counter_ns() - arrival_ns >= self._facts[BUDGET_NS]:  # the thread was held up since
            self._engine.unsent([] if journal is None else [sequence], _DEADLINE_EXCEEDED)
            return _LATE
        return answer_bytes

    def predict_one(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | None:
        """The same for a `PredictStreamRequest` of one request: the `PredictStreamResponse`, or None."""
        if len(data) < 2 or data[0] != _REQUESTS_TAG:  # field 1
            return None
        length, begin = data[1], 2
        if length >= 0x80:
            if len(data) < 3 or data[2] >= 0x80:
                return None
            length, begin = length & 0x7F | data[2] << 7, 3
        if begin + length != len(data):
            return None
        request = data[begin:]
        found = self.predict(request, arrival_ns, deadline_ns)
        if found is None:
            return None
        at, size = self._spans[ID_AT], self._spans[ID_LENGTH]
        identity = b"\x22" + _varint(int(size)) + request[at : at + size] if size else b""
        if isinstance(found, Status):
            result = pb.PredictStreamResult(code=found.number, message=found.message).SerializeToString() + identity
        else:
            result = b"\x1a" + _varint(len(found)) + found + identity
        return b"\x0a" + _varint(len(result)) + result


def _varint(value: int) -> bytes:
    """A length below 2^14."""
    return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))


def lanes_of(engine: Engine) -> list[FastLane]:
    """A lane for each model that may have one: a compiled forest, on the engine's only feature set."""
    if len(engine.feature_stores) != 1:
        return []
    return [
        FastLane(engine, model, model.scorer)
        for model in engine.registry.models
        if isinstance(model.scorer, CompiledForest)
    ]
