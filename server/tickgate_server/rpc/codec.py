"""Between the contract's messages and the engine's records. Nothing is decided here."""

import time

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.errors import FieldInvalid
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request
from tickgate_server.risk.gate import CHECKS
from tickgate_server.ticks.market import QUOTE, TRADE

REQUEST_ID_BYTES = 36
STREAM_ITEMS = 1024

_NS_PER_US = 1_000
_INFINITY = float("inf")
_CHECKS = tuple((int(check.reason), check.at_least) for check in CHECKS)


def decode(message: pb.PredictRequest, request: Request) -> None:
    """Fill `request` from a message; times and budget are the transport's to add.

    Raises:
        FieldInvalid: `request_id` is too long.
    """
    if len(message.request_id) > REQUEST_ID_BYTES // 4 and len(message.request_id.encode()) > REQUEST_ID_BYTES:
        raise FieldInvalid("request_id", f"up to {REQUEST_ID_BYTES} bytes of UTF-8", message.request_id)
    request.model = message.model
    given = message.WhichOneof("input")
    if given == "tick":
        tick = message.tick
        request.input = TICK
        request.symbol = tick.symbol
        request.exchange_ts_ns = tick.exchange_ts_ns
        request.sequence = tick.sequence
        kind = 0
        if tick.HasField("trade"):
            kind = TRADE
            trade = tick.trade
            request.price = trade.price
            request.size = trade.size
        if tick.HasField("quote"):
            kind |= QUOTE
            quote = tick.quote
            request.bid = quote.bid
            request.ask = quote.ask
            request.bid_size = quote.bid_size
            request.ask_size = quote.ask_size
        request.kind = kind
    elif given == "features":
        features = message.features
        request.input = FEATURES
        request.symbol = features.symbol
        request.schema_id = features.schema_id
        request.values = features.values
        request.exchange_ts_ns = features.exchange_ts_ns
        request.reference_price = features.reference_price
    elif given == "symbol":
        request.input = SYMBOL
        request.symbol = message.symbol
    else:
        request.input = 0
        request.symbol = ""


def encode(decision: Decision, response: pb.PredictResponse) -> None:
    """Fill an empty response from a decision."""
    response.symbol = decision.symbol
    signal = response.signal
    signal.action = decision.action  # type: ignore[assignment]  # an int of the same numbers
    signal.reason = decision.reason  # type: ignore[assignment]  # an int of the same numbers
    if decision.size:
        signal.size = decision.size
        signal.limit_price = decision.limit_price
        signal.valid_for_us = decision.valid_for_us
        signal.approved = True
    if decision.scored:
        prediction = response.prediction
        prediction.value = decision.value
        prediction.confidence = decision.confidence
    if decision.judged:
        signal.target_position = decision.target
        checks = signal.checks
        for (reason, at_least), value, limit in zip(_CHECKS, decision.check_values, decision.check_limits, strict=True):
            passed = value < _INFINITY and (value >= limit if at_least else value <= limit)
            checks.add(reason=reason, value=value, limit=limit, passed=passed, at_least=at_least)
    model = decision.model
    if model is not None:
        version = response.model
        version.name = model.name
        version.version = model.version
        version.schema_id = model.schema_id
        if decision.scored:
            response.prediction.decision_threshold = model.threshold
    features = response.features
    features.trades_in_window = decision.trades_in_window
    features.ready = decision.ready
    features.exchange_ts_ns = decision.features_ts_ns
    timing = response.timing
    timing.waiting_ns = decision.waiting_ns
    timing.features_ns = decision.features_ns
    timing.inference_ns = decision.inference_ns
    timing.risk_ns = decision.risk_ns
    timing.total_ns = decision.total_ns
    timing.budget_ns = decision.budget_ns
    if decision.scored:
        timing.engine = pb.INFERENCE_ENGINE_ONNXRUNTIME
    timing.server_send_ts_ns = time.time_ns()


def budget_ns(budget_us: int, deadline_ns: int) -> int:
    """The lesser of a request's budget and what its gRPC deadline leaves, in nanoseconds; 0 stands for none."""
    budget = budget_us * _NS_PER_US
    if deadline_ns <= 0:
        return budget
    return min(budget, deadline_ns) if budget else deadline_ns
