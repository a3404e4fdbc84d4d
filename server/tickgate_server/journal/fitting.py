"""What a record cannot hold as it was given, brought to what it can, with the flags that say so. Rare, and slow."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.layout import (
    CHECKS_WIDTH,
    DECISION,
    MODEL_ASKED_BYTES,
    REQUEST_ID_BYTES,
    SYMBOL_BYTES,
    VECTOR_WIDTH,
    Flags,
)
from tickgate_server.records import Decision, Request

# Numbers of a request and a decision, by the field that holds them.
_REQUEST = {
    "input": "input",
    "kind": "tick_kind",
    "exchange_ts_ns": "exchange_ts_ns",
    "sequence": "tick_sequence",
    "budget_ns": "asked_budget_ns",
    "price": "price",
    "size": "size",
    "bid": "bid",
    "ask": "ask",
    "bid_size": "bid_size",
    "ask_size": "ask_size",
    "reference_price": "reference_price",
}
_DECISION = {
    "action": "action",
    "reason": "reason",
    "trades_in_window": "trades_in_window",
    "budget_ns": "budget_ns",
    "valid_for_us": "valid_for_us",
    "features_ts_ns": "features_ts_ns",
    "waiting_ns": "waiting_ns",
    "features_ns": "features_ns",
    "inference_ns": "inference_ns",
    "risk_ns": "risk_ns",
    "total_ns": "total_ns",
    "size": "order_size",
    "limit_price": "limit_price",
    "target": "target",
    "value": "value",
    "confidence": "confidence",
}


class Fitted(NamedTuple):
    """The arguments of an append, made to fit; `flags` says what was changed, 0 that nothing was."""

    request: Request
    decision: Decision
    request_id: str
    status: int
    clock_ns: int
    vector: NDArray[np.float32] | None
    flags: int


def fit(
    request: Request,
    decision: Decision,
    request_id: str,
    status: int,
    clock_ns: int,
    vector: NDArray[np.float32] | None,
) -> Fitted:
    """Copies that fit a record: text cut between characters, sequences cut, numbers clamped."""
    changed: list[Flags] = []
    symbol = _text(request.symbol, SYMBOL_BYTES, Flags.SYMBOL_CUT, changed)
    asked = _text(request.model, MODEL_ASKED_BYTES, Flags.MODEL_ASKED_CUT, changed)
    request_id = _text(request_id, REQUEST_ID_BYTES, Flags.REQUEST_ID_CUT, changed)
    if vector is not None and vector.size > VECTOR_WIDTH:
        vector = vector[:VECTOR_WIDTH]
        changed.append(Flags.VECTOR_CUT)
    checks = [_number(value, "checks", changed) for value in decision.check_values[:CHECKS_WIDTH]]
    if len(decision.check_values) > CHECKS_WIDTH:
        changed.append(Flags.CHECKS_CUT)
    asked_numbers: dict[str, Any] = {
        name: _number(getattr(request, name), field, changed) for name, field in _REQUEST.items()
    }
    decided_numbers: dict[str, Any] = {
        name: _number(getattr(decision, name), field, changed) for name, field in _DECISION.items()
    }
    status = _number(status, "status", changed)
    clock_ns = _number(clock_ns, "clock_ns", changed)
    flags = 0
    for flag in changed:
        flags |= flag
    return Fitted(
        replace(request, symbol=symbol, model=asked, **asked_numbers),
        replace(decision, check_values=checks, **decided_numbers),
        request_id,
        status,
        clock_ns,
        vector,
        flags,
    )


def _text(text: str, limit: int, cut: Flags, changed: list[Flags]) -> str:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode(errors="replace")
        changed.append(Flags.TEXT_REPLACED)
    if len(data) > limit:
        changed.append(cut)
    return data[:limit].decode(errors="ignore")


def _number(value: Any, name: str, changed: list[Flags]) -> Any:
    field = DECISION[name].base
    if field.kind == "f":
        try:
            float(value)
        except OverflowError:
            changed.append(Flags.NUMBER_CLAMPED)
            return float("inf") if value > 0 else float("-inf")
        return value
    bounds = np.iinfo(field.str)
    clamped = min(max(value, int(bounds.min)), int(bounds.max))
    if clamped != value:
        changed.append(Flags.NUMBER_CLAMPED)
    return clamped
