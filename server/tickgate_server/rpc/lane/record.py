"""The journal's record of what the fast lane answered."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, integer_rows
from tickgate_server.journal.checksum import seal
from tickgate_server.journal.layout import DECISION, RecordKind
from tickgate_server.kernels import kernel
from tickgate_server.records import TICK, Stage
from tickgate_server.risk import request_ids
from tickgate_server.risk.gate import (
    CONFIDENT,
    EDGE,
    LIMIT_PRICE,
    ORDER,
    REDUCES,
    REGIME_SEEN,
    REMAINDER,
    TARGET,
    VALUES,
)
from tickgate_server.rpc.lane.facts import (
    ACTION,
    APPLIED,
    APPROVED,
    ASKED_BUDGET_NS,
    BUDGET_NS,
    CHECK_COUNT,
    CLOCK,
    FEATURES_TS_NS,
    READY,
    REASON,
    SCORED,
    STATUS,
    TRADES,
    VALID_FOR,
    WAITING_NS,
)
from tickgate_server.rpc.wire import (
    DATA,
    EXCHANGE_TS_NS,
    ID_AT,
    ID_LENGTH,
    KIND,
    MODEL_AT,
    MODEL_LENGTH,
    NUMBERS,
    SEQUENCE,
    SYMBOL_AT,
    SYMBOL_LENGTH,
)

_ENCODING = int(Stage.ENCODING)
_DECISION_KIND = int(RecordKind.DECISION)
_TICK = TICK


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
        | (np.uint64(CHECK_COUNT) * scored) << np.uint64(8)
        | np.uint64(model_index) << np.uint64(32)
    )
    words[at + _TRADES_WORD] = np.uint64(facts[TRADES]) | (np.uint64(vector.size) * ready) << np.uint64(32)
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
    approved = facts[REASON] == APPROVED
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
        for k in range(vector.size):
            values[at * 2 + _VECTOR_BYTE // 4 + k] = vector[k]
    if scored:
        for k in range(CHECK_COUNT):
            doubles[at + _CHECKS_WORD + k] = measured[VALUES + k]
    seal(words, at, sequence)
    words[at] = sequence


@kernel(
    types.void(
        TABLE,
        DATA,
        types.int64[::1],
        types.int64[::1],
        types.float64[::1],
        types.uint64,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
    )
)
def keep_answer(
    ids: NDArray[np.int64],
    data: bytes,
    spans: NDArray[np.int64],
    facts: NDArray[np.int64],
    measured: NDArray[np.float64],
    payload: int,
    sequence: int,
    model: int,
    now_ns: int,
    valid_for_us: int,
) -> None:
    """Keep the request's id and what it is answered with, as `Engine.conclude` does."""
    entry = request_ids.keep_id(ids, data, spans[ID_AT], spans[ID_LENGTH], payload)
    kept = integer_rows(ids, request_ids.IDS_FACTS)[entry]
    values = float_rows(ids, request_ids.IDS_VALUES)[entry]
    scored = facts[SCORED] != 0
    approved = facts[REASON] == APPROVED
    kept[request_ids.SEQUENCE] = sequence
    kept[request_ids.EXPIRES_NS] = now_ns + valid_for_us * 1000
    kept[request_ids.CLOCK_NS] = now_ns
    kept[request_ids.ACTION] = facts[ACTION]
    kept[request_ids.REASON] = facts[REASON]
    kept[request_ids.VALID_FOR_US] = facts[VALID_FOR]
    kept[request_ids.MODEL] = model
    kept[request_ids.SCORED] = facts[SCORED]
    kept[request_ids.REDUCING] = np.int64(measured[REDUCES]) if approved else 0
    kept[request_ids.REGIME] = np.int64(measured[REGIME_SEEN]) if scored else 0
    values[request_ids.SIZE] = abs(measured[ORDER]) if approved else 0.0
    values[request_ids.LIMIT_PRICE] = measured[LIMIT_PRICE] if approved else 0.0
    values[request_ids.TARGET] = measured[TARGET] if scored else 0.0
    values[request_ids.VALUE] = measured[EDGE] if scored else np.nan
    values[request_ids.CONFIDENCE] = measured[CONFIDENT] if scored else np.nan
    values[request_ids.REMAINING] = measured[REMAINDER] if approved else 0.0
