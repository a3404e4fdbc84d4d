"""What an answer reserved ends with a caller that went away; what one id asked twice is reserved once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.desk import desk_of
from tests.support.messages import SECOND_NS, features, zigzag
from tests.support.packages import constant_onnx, publish_logistic, publish_model
from tests.support.processes import CALL_S, Served, served

from tickgate.v1 import signal_pb2 as pb

# Reservations outlast the test: what ends, ends because the caller had gone.
ENVIRONMENT = {"TICKGATE_RISK__VALID_FOR_US": str(10**9), "TICKGATE_RISK__RISK_BUDGET": "1"}
RISES = [2e-3] + [0.0] * 9


def warm(server: Served, symbol: str) -> None:
    for request in zigzag(symbol, 30, start_ns=time.time_ns() - SECOND_NS, step_ns=1_000):
        request.model = "calm"
        server.predict(request)


def asking(symbol: str, model: str, **fields: Any) -> pb.PredictRequest:
    request = features(symbol, RISES, at_ns=time.time_ns())
    request.model = model
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def publish(folder: Path) -> Path:
    publish_logistic(folder, name="eager", latency_budget_ms=60_000.0)
    publish_logistic(folder, name="calm", decision_threshold=1.0, latency_budget_ms=60_000.0)
    return folder


def until(watch: Iterator[Any], orders: int) -> None:
    """Until so many orders are open; the call's own deadline ends it."""
    for message in watch:
        if len(message.portfolio.orders) == orders:
            return
    raise AssertionError(f"the watch ended before {orders} orders were open")


def test_what_a_message_reserved_ends_when_its_caller_goes_away_before_it_was_answered(
    tmp_path: Path, transport: str
) -> None:
    publish_model(publish(tmp_path), constant_onnx(work=400_000), name="slow", latency_budget_ms=600_000.0)
    inline = {"TICKGATE_MODELS__INLINE_LIMIT_US": "1e9"}
    with (
        served(tmp_path, "--transport", transport, environment=ENVIRONMENT | inline) as server,
        desk_of(server) as desk,
    ):
        warm(server, "A")
        watch = desk.watch()
        message = [asking("A", "eager", request_id="first"), *[asking("A", "slow") for _ in range(1023)]]
        call = server.stub.PredictStream(iter([pb.PredictStreamRequest(requests=message)]), timeout=CALL_S)
        until(watch, 1)  # the message is at work: what its first item reserved is seen between two turns
        call.cancel()
        until(watch, 0)
        again = server.predict(asking("A", "eager", request_id="first"))
        assert again.signal.approved  # decided anew: nobody had that answer
        assert not again.repeated


def test_an_id_asked_twice_while_its_model_runs_is_reserved_once(tmp_path: Path, transport: str) -> None:
    own_thread = {"TICKGATE_MODELS__INLINE_LIMIT_US": "0", "TICKGATE_MODELS__STANDING_LIMIT": "32"}
    with (
        served(publish(tmp_path), "--transport", transport, environment=ENVIRONMENT | own_thread) as server,
        desk_of(server) as desk,
    ):
        for number in range(10):
            symbol = f"S{number}"
            warm(server, symbol)
            request = asking(symbol, "eager", request_id=symbol)
            both = [server.stub.Predict.future(request, timeout=CALL_S) for _ in range(2)]
            signals = [call.result().signal for call in both]
            assert all(signal.approved for signal in signals)
            assert signals[0].order_id == signals[1].order_id
            assert len(desk.portfolio(symbol).orders) == 1
