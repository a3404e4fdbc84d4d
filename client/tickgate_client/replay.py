"""Recorded ticks through a server: what it answered, and how long it took.

result = replay("localhost:50051", read_csv("ticks.csv.gz"), stream=True)
result.by_reason, result.latency.round_trip.p99_us
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import EnumDescriptor

from tickgate.v1 import market_pb2, signal_pb2
from tickgate_client.call_errors import CallError, status_of
from tickgate_client.client import SignalClient
from tickgate_client.errors import ContractBroken
from tickgate_client.latency import CallRecorder, LatencySummary
from tickgate_client.routing import RoutedSignalClient

_OK = grpc.StatusCode.OK.name


@dataclass(frozen=True, slots=True)
class ReplayAnswer:
    """One tick's answer.

    Attributes:
        index: The tick's place in the replay, from 0; as text it is the request's id.
        symbol: Of the tick.
        code: Name of the gRPC status.
        message: What was wrong; empty for OK.
        response: None where code is not OK.
    """

    index: int
    symbol: str
    code: str
    message: str
    response: signal_pb2.PredictResponse | None


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of a replay.

    Attributes:
        load_shape: How the server was asked, for beside the latencies.
        sent: Ticks sent.
        answered: Those with a signal; HOLD is one.
        by_status: Answers by name of their gRPC status.
        by_action: Signals by action, without the enum's prefix: `HOLD`.
        by_reason: Signals by reason, without the enum's prefix: `FEATURES_NOT_READY`.
        latency: Of each unary call, or of each message of the stream.
        elapsed_s: From the first tick to the last answer, in seconds.
        stream_error: What ended the stream early; its last ticks then have no answer.
    """

    load_shape: str
    sent: int
    answered: int
    by_status: Mapping[str, int]
    by_action: Mapping[str, int]
    by_reason: Mapping[str, int]
    latency: LatencySummary
    elapsed_s: float
    stream_error: CallError | ContractBroken | None

    @property
    def complete(self) -> bool:
        """Every tick got a signal."""
        return self.answered == self.sent and self.stream_error is None


def replay(
    target: str,
    ticks: Iterable[market_pb2.Tick],
    *,
    model: str = "",
    budget_us: int = 0,
    deadline_s: float = 1.0,
    stream: bool = False,
    batch: int = 1,
    in_flight: int = 1,
    limit: int | None = None,
    connect_timeout_s: float = 5.0,
    channel_credentials: grpc.ChannelCredentials | None = None,
    routed: bool = False,
    latency: CallRecorder | None = None,
    on_answer: Callable[[ReplayAnswer], None] | None = None,
) -> ReplayResult:
    """Send ticks in order, and count the answers.

    The server should run with its clock checks off (replay mode), or recorded ticks are stale.

    Args:
        target: `host:port` or `unix:/path`.
        ticks: Taken one by one as they are sent.
        model: Empty: the server's default.
        budget_us: In microseconds; 0: as long as the deadline.
        deadline_s: Of a call, or the longest wait for a message's answer on the stream, in seconds.
        stream: PredictStream instead of one Predict a tick.
        batch: Ticks in one message of the stream.
        in_flight: Messages of the stream that may wait for their answers; latencies are honest at 1.
        limit: Ticks to send at most.
        connect_timeout_s: Longest wait for the connection, in seconds.
        channel_credentials: None: plain text.
        routed: Each tick to its symbol's worker, over a connection to each of the server's workers.
        latency: As SignalClient: an `sla.SlaMonitor` judges the calls. None: a recorder of its own.
        on_answer: Called with each answer in order, between two sends: what it takes is not in the latencies while
            one message is in flight, and slows the replay.

    A call or an item that fails is counted, and the replay goes on; a stream that ends badly ends it, and is in the
    result. Raises ServerUnavailable if there is no connection, and whatever `ticks` raises.
    """
    tally = _Tally(on_answer)
    numbered = tally.count_sent(itertools.islice(ticks, limit))
    stream_error: CallError | ContractBroken | None = None
    kind = RoutedSignalClient if routed else SignalClient
    with kind(
        target,
        deadline_s=deadline_s,
        budget_us=budget_us,
        model=model,
        channel_credentials=channel_credentials,
        latency=latency,
    ) as client:
        client.connect(connect_timeout_s)
        started_ns = time.perf_counter_ns()
        if stream:
            try:
                _replay_stream(client, numbered, tally, batch=batch, in_flight=in_flight)
            except (CallError, ContractBroken) as error:
                stream_error = error
        else:
            _replay_unary(client, numbered, tally)
        elapsed_s = (time.perf_counter_ns() - started_ns) / 1e9
        summary = client.latency.summary()
        connections = len(client.routes.targets) if isinstance(client, RoutedSignalClient) else 1
    return ReplayResult(
        load_shape=load_shape(stream=stream, batch=batch, in_flight=in_flight, connections=connections),
        sent=tally.sent,
        answered=tally.by_status[_OK],
        by_status=dict(tally.by_status),
        by_action=dict(tally.by_action),
        by_reason=dict(tally.by_reason),
        latency=summary,
        elapsed_s=elapsed_s,
        stream_error=stream_error,
    )


def load_shape(*, stream: bool, batch: int, in_flight: int, connections: int = 1) -> str:
    """How a replay asks, in words: a latency without it says nothing."""
    over = "1 connection" if connections == 1 else f"{connections} connections"
    if not stream:
        return f"unary, 1 in flight, {over}"
    per_message = "1 tick a message" if batch == 1 else f"{batch} ticks a message"
    return f"stream, {in_flight} in flight, {over}, {per_message}"


def answer_json(answer: ReplayAnswer) -> str:
    """One line of JSON, without timing: the same answers give the same bytes, so that `cmp` compares replays.

    Numbers that JSON has no word for are "NaN", "Infinity" and "-Infinity", as in protobuf's JSON.
    """
    response = answer.response or signal_pb2.PredictResponse()
    signal = response.signal
    has_prediction = response.HasField("prediction")
    answered = answer.response is not None
    return json.dumps(
        {
            "index": answer.index,
            "code": answer.code,
            "request_id": str(answer.index),
            "symbol": answer.symbol,
            "action": action_name(signal.action) if answered else None,
            "size": _json_number(signal.size) if answered else None,
            "limit_price": _json_number(signal.limit_price) if answered else None,
            "approved": signal.approved if answered else None,
            "reason": reason_name(signal.reason) if answered else None,
            "target_position": _json_number(signal.target_position) if answered else None,
            "value": _json_number(response.prediction.value) if has_prediction else None,
            "confidence": _json_number(response.prediction.confidence) if has_prediction else None,
            "model_name": response.model.name if answered else None,
            "model_version": response.model.version if answered else None,
            "checks": [
                {
                    "reason": reason_name(check.reason),
                    "value": _json_number(check.value),
                    "limit": _json_number(check.limit),
                    "at_least": check.at_least,
                    "passed": check.passed,
                }
                for check in signal.checks
            ],
        }
    )


def action_name(action: int) -> str:
    """The action without the enum's prefix; the number of one that this version does not know."""
    return _enum_name(signal_pb2.Action.DESCRIPTOR, "ACTION_", action)


def reason_name(reason: int) -> str:
    """The reason without the enum's prefix; the number of one that this version does not know."""
    return _enum_name(signal_pb2.Reason.DESCRIPTOR, "REASON_", reason)


class _Tally:
    def __init__(self, on_answer: Callable[[ReplayAnswer], None] | None) -> None:
        self._on_answer = on_answer
        self.sent = 0
        self.by_status: Counter[str] = Counter()
        self.by_action: Counter[str] = Counter()
        self.by_reason: Counter[str] = Counter()

    def count_sent(self, ticks: Iterable[market_pb2.Tick]) -> Iterator[tuple[int, market_pb2.Tick]]:
        for index, tick in enumerate(ticks):
            self.sent += 1
            yield index, tick

    def add(self, answer: ReplayAnswer) -> None:
        self.by_status[answer.code] += 1
        if answer.response is not None:
            self.by_action[action_name(answer.response.signal.action)] += 1
            self.by_reason[reason_name(answer.response.signal.reason)] += 1
        if self._on_answer is not None:
            self._on_answer(answer)


def _replay_unary(
    client: SignalClient | RoutedSignalClient, ticks: Iterable[tuple[int, market_pb2.Tick]], tally: _Tally
) -> None:
    for index, tick in ticks:
        try:
            response = client.predict(tick, request_id=str(index))
        except CallError as error:
            tally.add(ReplayAnswer(index, tick.symbol, error.status_code.name, error.message, None))
        else:
            tally.add(ReplayAnswer(index, tick.symbol, _OK, "", response))


def _replay_stream(
    client: SignalClient | RoutedSignalClient,
    ticks: Iterable[tuple[int, market_pb2.Tick]],
    tally: _Tally,
    *,
    batch: int,
    in_flight: int,
) -> None:
    # Never longer than what is in flight: the stream answers in order.
    waiting: deque[tuple[int, str]] = deque()

    def requests() -> Iterator[signal_pb2.PredictRequest]:
        for index, tick in ticks:
            waiting.append((index, tick.symbol))
            yield signal_pb2.PredictRequest(request_id=str(index), tick=tick)

    for result in client.predict_stream(requests(), batch, in_flight=in_flight):
        index, symbol = waiting.popleft()
        response = result.response if result.code == 0 else None
        tally.add(ReplayAnswer(index, symbol, status_of(result.code).name, result.message, response))


def _enum_name(enum: EnumDescriptor, prefix: str, number: int) -> str:
    known = enum.values_by_number.get(number)
    return str(number) if known is None else known.name.removeprefix(prefix)


def _json_number(number: float) -> float | str:
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"
