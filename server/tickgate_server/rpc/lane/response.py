"""The answer's bytes: a `PredictResponse`, or the `PredictStreamResponse` around it."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.gate import (
    CONFIDENT,
    EDGE,
    LIMIT_PRICE,
    LIMITS,
    ORDER,
    PASSES,
    REDUCES,
    REGIME_SEEN,
    REMAINDER,
    TARGET,
    VALUES,
    WAIVED,
)
from tickgate_server.rpc.lane.facts import (
    ACTION,
    AGE_US,
    APPROVED,
    BUDGET_NS,
    CHECK_COUNT,
    FEATURES_TS_NS,
    ORDER_ID,
    READY,
    REASON,
    SCORED,
    SEND_TS_NS,
    TOTAL_NS,
    TRADES,
    TRADING_STATE,
    VALID_FOR,
)
from tickgate_server.rpc.wire import (
    DATA,
    ID_AT,
    ID_LENGTH,
    SYMBOL_AT,
    SYMBOL_LENGTH,
    put_double,
    put_length,
    put_text,
    put_varint,
)

_REASONS = tuple(int(check.reason) for check in CHECKS)
_AT_LEAST = tuple(int(check.at_least) for check in CHECKS)
_FOREST = 2  # tickgate.v1.INFERENCE_ENGINE_COMPILED_FOREST


@kernel(
    types.int64(
        types.uint8[::1],
        DATA,
        types.int64[::1],
        types.uint8[::1],
        types.int64[::1],
        types.float64[::1],
        types.float64,
        types.int64,
    )
)
def write_response(  # noqa: C901, PLR0915 - the message from its end to its front
    out: NDArray[np.uint8],
    data: bytes,
    spans: NDArray[np.int64],
    model: NDArray[np.uint8],
    facts: NDArray[np.int64],
    measured: NDArray[np.float64],
    threshold: float,
    framed: int,
) -> int:
    """A `PredictResponse` at the end of `out`; returns where it begins.

    Args:
        out: uint8 [bytes], written from its end.
        data: The request, with its texts at `spans`.
        spans: int64, see `rpc.wire`.
        model: The response's field `model`, serialized.
        facts: int64, see `facts`.
        measured: float64, the gate's.
        threshold: The model's.
        framed: Not 0: as the only result of a `PredictStreamResponse`.
    """
    at = out.size
    if framed != 0:
        at = put_text(out, at, 4 << 3 | 2, data, spans[ID_AT], spans[ID_LENGTH])
    response_end = at
    scored = facts[SCORED] != 0
    # 7 features
    end = at
    at = put_varint(out, at, 4 << 3, np.uint64(facts[AGE_US]))
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
    approved = facts[REASON] == APPROVED
    at = put_varint(out, at, 13 << 3, np.uint64(facts[TRADING_STATE]))
    if scored:
        at = put_varint(out, at, 12 << 3, np.uint64(measured[REGIME_SEEN]))
    if approved:
        at = put_double(out, at, 11 << 3 | 1, measured[REMAINDER])
        at = put_varint(out, at, 10 << 3, np.uint64(measured[REDUCES]))
        at = put_varint(out, at, 9 << 3, np.uint64(facts[ORDER_ID]))
    if scored:
        for k in range(CHECK_COUNT - 1, -1, -1):
            end = at
            at = put_varint(out, at, 6 << 3, np.uint64(measured[WAIVED + k]))
            at = put_varint(out, at, 5 << 3, np.uint64(_AT_LEAST[k]))
            at = put_varint(out, at, 4 << 3, np.uint64(measured[PASSES + k]))
            at = put_double(out, at, 3 << 3 | 1, measured[LIMITS + k])
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
    at = put_text(out, at, 1 << 3 | 2, data, spans[ID_AT], spans[ID_LENGTH])
    if framed != 0:
        at = put_length(out, at, 3 << 3 | 2, response_end)
        at = put_length(out, at, 1 << 3 | 2, out.size)
    return at
