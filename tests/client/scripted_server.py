"""The peer of the client's tests: a real gRPC server on a real socket that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc

from tickgate.v1 import market_pb2, signal_pb2
from tickgate.v1.signal_pb2_grpc import SignalServiceServicer, add_SignalServiceServicer_to_server


@dataclass(frozen=True)
class Refusal:
    """A status other than OK, for a unary call or for one item of a stream."""

    code: grpc.StatusCode
    text: str


@dataclass(frozen=True)
class SeenCall:
    """What the server saw of a unary call, or of one request on a stream."""

    request: signal_pb2.PredictRequest
    time_remaining_s: float
    requests_in_message: int


Answer = signal_pb2.PredictResponse | Refusal
StreamStep = Callable[[signal_pb2.PredictStreamRequest, grpc.ServicerContext], signal_pb2.PredictStreamResponse | None]


def symbol_of(request: signal_pb2.PredictRequest) -> str:
    kind = request.WhichOneof("input")
    return request.symbol if kind == "symbol" else getattr(request, kind).symbol


def hold(request: signal_pb2.PredictRequest) -> Answer:
    """A full answer not to trade."""
    return signal_pb2.PredictResponse(
        request_id=request.request_id,
        symbol=symbol_of(request),
        signal=signal_pb2.Signal(
            action=signal_pb2.ACTION_HOLD,
            reason=signal_pb2.REASON_CONFIDENCE_BELOW_THRESHOLD,
            checks=[
                signal_pb2.RiskCheck(
                    reason=signal_pb2.REASON_CONFIDENCE_BELOW_THRESHOLD, value=0.25, limit=0.75, at_least=True
                )
            ],
        ),
        prediction=signal_pb2.Prediction(value=-0.125, confidence=0.25, decision_threshold=0.75),
        timing=signal_pb2.Timing(
            waiting_ns=1_000,
            features_ns=2_000,
            inference_ns=3_000,
            risk_ns=4_000,
            total_ns=11_000,
            budget_ns=50_000_000,
        ),
        model=signal_pb2.ModelVersion(name="midmove", version=3, schema_id="micro10"),
        features=signal_pb2.FeatureState(trades_in_window=500, ready=True, exchange_ts_ns=1),
    )


@dataclass
class ScriptedServer(SignalServiceServicer):
    """Answers each request by `answer`; a test may replace it, or what a stream does with a whole message."""

    answer: Callable[[signal_pb2.PredictRequest], Answer] = hold
    stream_step: StreamStep | None = None
    seen: list[SeenCall] = field(default_factory=list)
    target: str = ""

    def Predict(  # noqa: N802 - gRPC's name
        self, request: signal_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> signal_pb2.PredictResponse:
        self.seen.append(SeenCall(request, context.time_remaining(), 1))
        answer = self.answer(request)
        if isinstance(answer, Refusal):
            context.abort(answer.code, answer.text)
        return answer

    def PredictStream(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[signal_pb2.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[signal_pb2.PredictStreamResponse]:
        for message in request_iterator:
            for request in message.requests:
                self.seen.append(SeenCall(request, context.time_remaining(), len(message.requests)))
            if self.stream_step is None:
                yield signal_pb2.PredictStreamResponse(results=[self.result(item) for item in message.requests])
                continue
            response = self.stream_step(message, context)
            if response is None:
                return
            yield response

    def result(self, request: signal_pb2.PredictRequest) -> signal_pb2.PredictStreamResult:
        answer = self.answer(request)
        if isinstance(answer, Refusal):
            return signal_pb2.PredictStreamResult(
                code=answer.code.value[0], message=answer.text, request_id=request.request_id
            )
        return signal_pb2.PredictStreamResult(response=answer, request_id=request.request_id)

    def start(self) -> grpc.Server:
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        add_SignalServiceServicer_to_server(self, server)
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        return server


def trade_tick(symbol: str = "BTCUSDT", sequence: int = 1, price: float = 100.0) -> market_pb2.Tick:
    return market_pb2.Tick(
        symbol=symbol,
        exchange_ts_ns=1_700_000_000_000_000_000 + sequence,
        sequence=sequence,
        trade=market_pb2.Trade(price=price, size=2.0, aggressor=market_pb2.AGGRESSOR_SIDE_BUY),
    )


def numbered_requests(count: int) -> list[signal_pb2.PredictRequest]:
    return [signal_pb2.PredictRequest(request_id=f"r{i}", tick=trade_tick(sequence=i + 1)) for i in range(count)]
