"""What goes into the hot path and what comes out: one request, one decision, both reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action

if TYPE_CHECKING:  # readers of the journal know records, and need no ONNX Runtime
    from tickgate_server.models.loading import LoadedModel


class Stage(IntEnum):
    """The last stage that a request entered; ENCODING for one that was answered in full."""

    NONE = 0  # refused before the decision was begun: not decodable, or no such model
    WAITING = 1
    FEATURES = 2
    INFERENCE = 3
    RISK = 4
    ENCODING = 5


_WAITING = int(Stage.WAITING)  # looking a member up costs more than setting it


# What a request gives to score.
TICK, FEATURES, SYMBOL = 1, 2, 3

_HOLD = int(Action.HOLD)
_CHECK_COUNT = len(CHECKS)
_NAN = float("nan")


@dataclass(slots=True)
class Request:
    """One request as the transport decoded it; reused from request to request.

    `arrival_ns` is on `perf_counter_ns`'s clock, `budget_ns` counts from it (0: none). Which of the other fields count
    says `input`, and for a tick `kind`.
    """

    model: str = ""
    request_id: bytes = b""
    arrival_ns: int = 0
    budget_ns: int = 0
    input: int = 0
    symbol: str = ""
    exchange_ts_ns: int = 0
    sequence: int = 0
    kind: int = 0
    price: float = 0.0
    size: float = 0.0
    bid: float = 0.0
    ask: float = 0.0
    bid_size: float = 0.0
    ask_size: float = 0.0
    schema_id: str = ""
    values: Sequence[float] = ()
    reference_price: float = 0.0


# What does not depend on the clock that the request arrived by.
_STATED = (
    "input",
    "symbol",
    "exchange_ts_ns",
    "sequence",
    "kind",
    "price",
    "size",
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "reference_price",
)


def stated(request: Request, model: LoadedModel) -> dict[str, Any]:
    """A request as JSON can hold it, with the model that its reference meant, its schema that was checked left out."""
    found: dict[str, Any] = {name: getattr(request, name) for name in _STATED}
    found["values"] = list(request.values) if request.input == FEATURES else []
    return found | {"model": f"{model.name}:{model.version}"}


@dataclass(slots=True)
class Decision:
    """One decision; reused from request to request.

    `stage` is the last that the request entered, by number of `Stage`; at NONE nothing else here counts. `applied`:
    its tick changed state. `clock_ns`: the wall clock that was read for it, 0 where none was. `vector`: float32
    [width], what was scored, a view that is good until the next request. `scored`: a model ran. `judged`: the gate was
    reached; then `check_values`, `check_limits`, `check_passes` and `check_waived` (1.0 for yes) are in the order of
    `risk.checks.CHECKS`, and `order_id`, `remaining`, `reducing` and `regime` are the gate's too. `repeated`: the
    request id was answered before, and nothing was applied or scored. `payload`: hash of what was asked, where there is
    a request id. `sent_ns`: when a repeated answer left first. `row` is the symbol's, where it has one. `trial`: let
    through though its budget seemed too short. `ticket`: of a request whose model runs on a thread of its own, 1 to
    65535; 0 otherwise. `age_ns`: of the input, or of the symbol's latest tick, by `clock_ns`. `held_back`: its tick was
    rejected as a price jump, and the next one may confirm it; `confirmed`: it is the one that did, and both were
    applied.
    """

    stage: int = 0
    applied: bool = False
    clock_ns: int = 0
    vector: NDArray[np.float32] | None = None
    symbol: str = ""
    model: LoadedModel | None = None
    action: int = _HOLD
    reason: int = 0
    size: float = 0.0
    limit_price: float = 0.0
    valid_for_us: int = 0
    target: float = 0.0
    scored: bool = False
    value: float = _NAN
    confidence: float = _NAN
    judged: bool = False
    check_values: list[float] = field(default_factory=lambda: [_NAN] * _CHECK_COUNT)
    check_limits: list[float] = field(default_factory=lambda: [_NAN] * _CHECK_COUNT)
    check_passes: list[float] = field(default_factory=lambda: [0.0] * _CHECK_COUNT)
    check_waived: list[float] = field(default_factory=lambda: [0.0] * _CHECK_COUNT)
    order_id: int = 0
    remaining: float = 0.0
    reducing: bool = False
    regime: int = 0
    trading_state: int = 0
    repeated: bool = False
    held_back: bool = False
    confirmed: bool = False
    payload: int = 0
    sent_ns: int = 0
    trades_in_window: int = 0
    ready: bool = False
    features_ts_ns: int = 0
    age_ns: int = 0
    waiting_ns: int = 0
    features_ns: int = 0
    inference_ns: int = 0
    risk_ns: int = 0
    total_ns: int = 0
    budget_ns: int = 0
    row: int = -1
    trial: bool = False
    ticket: int = 0

    def begin(self, request: Request, model: LoadedModel, budget_ns: int, trading_state: int) -> None:
        """Forget the request before: from here on everything is this one's."""
        self.stage = _WAITING
        self.applied = False
        self.clock_ns = 0
        self.vector = None
        self.symbol = request.symbol
        self.model = model
        self.budget_ns = budget_ns
        self.action = _HOLD
        self.reason = 0
        self.size = self.limit_price = self.target = 0.0
        self.valid_for_us = 0
        self.scored = self.judged = self.ready = False
        self.value = self.confidence = _NAN
        self.trades_in_window = self.features_ts_ns = self.age_ns = 0
        self.features_ns = self.inference_ns = self.risk_ns = 0
        self.trial = False
        self.ticket = 0
        self.order_id = self.payload = self.sent_ns = self.regime = 0
        self.remaining = 0.0
        self.reducing = self.repeated = self.held_back = self.confirmed = False
        self.trading_state = trading_state
