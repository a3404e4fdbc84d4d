"""What both clients ask of a call and of a channel: one place, so that sync and asyncio cannot differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tickgate.v1 import market_pb2, signal_pb2

Input = market_pb2.Tick | signal_pb2.FeatureVector | str
"""What to score: a tick, features computed by the caller, or the symbol whose latest features to use."""

MAX_BATCH = 1024
"""Requests in one message of a stream; the contract's bound."""

MAX_IN_FLIGHT = 1024
"""Messages of one stream that may wait for their answers."""

STREAM_DEADLINE_S = 86_400.0
"""gRPC deadline of a stream as a whole: a forgotten one ends after a day."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A signal asked for again is a different signal: the caller decides, gRPC never repeats a call by itself.
    ("grpc.enable_retries", 0),
    # Nor does a service config from DNS switch retries on.
    ("grpc.service_config_disable_resolution", 1),
    # A connection of its own for each client: what is measured is one connection, and closing closes it.
    ("grpc.use_local_subchannel_pool", 1),
    # Come back soon after a server's restart; gRPC's own defaults are 1 s growing to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # `http_proxy` in a desk's environment is meant for browsers, not for the trading path.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """What a call has where it says nothing itself.

    Attributes:
        deadline_s: gRPC deadline of a unary call; on a stream, the longest wait for one message's answer.
        budget_us: What the server may take from arrival to answer; 0: as long as the deadline.
        model: `name`, `name@alias` or `name:version`; empty: the server's default model.
    """

    deadline_s: float
    budget_us: int
    model: str

    def __post_init__(self) -> None:
        _check_deadline(self.deadline_s)
        _check_budget(self.budget_us)

    def deadline_of(self, deadline_s: float | None) -> float:
        """The deadline in force, in seconds."""
        if deadline_s is None:
            return self.deadline_s
        _check_deadline(deadline_s)
        return deadline_s

    def budget_of(self, budget_us: int | None, deadline_s: float) -> int:
        """The budget in force, in microseconds, never 0: that would mean none."""
        if budget_us is None:
            budget_us = self.budget_us
        else:
            _check_budget(budget_us)
        return budget_us or max(1, int(deadline_s * 1e6))

    def request(
        self, what: Input, *, model: str | None, budget_us: int | None, deadline_s: float, request_id: str | None
    ) -> signal_pb2.PredictRequest:
        """The message for one call; the input is copied into it.

        Args:
            what: What to score.
            model: None for the default.
            budget_us: None for the default.
            deadline_s: The one in force.
            request_id: None for none.
        """
        request = signal_pb2.PredictRequest(
            request_id=request_id or "",
            model=self.model if model is None else model,
            budget_us=self.budget_of(budget_us, deadline_s),
        )
        if isinstance(what, market_pb2.Tick):
            request.tick.CopyFrom(what)
        elif isinstance(what, signal_pb2.FeatureVector):
            request.features.CopyFrom(what)
        else:
            request.symbol = what
        return request

    def message(
        self, requests: Iterable[signal_pb2.PredictRequest], deadline_s: float
    ) -> signal_pb2.PredictStreamRequest:
        """One message of a stream: copies of the requests, with the defaults where they leave model or budget empty."""
        message = signal_pb2.PredictStreamRequest()
        for request in requests:
            item = message.requests.add()
            item.CopyFrom(request)
            if not item.model:
                item.model = self.model
            if not item.budget_us:
                item.budget_us = self.budget_of(None, deadline_s)
        return message


@dataclass(frozen=True, slots=True)
class StreamShape:
    """How a stream is driven.

    Attributes:
        batch: Requests in a message, 1 to MAX_BATCH.
        in_flight: Messages that may wait for their answers, 1 to MAX_IN_FLIGHT.
        deadline_s: Longest wait for one message's answer.
        stream_deadline_s: gRPC deadline of the stream as a whole.
    """

    batch: int
    in_flight: int
    deadline_s: float
    stream_deadline_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch is {self.batch}, must be 1 to {MAX_BATCH} requests")
        if not 1 <= self.in_flight <= MAX_IN_FLIGHT:
            raise ValueError(f"in_flight is {self.in_flight}, must be 1 to {MAX_IN_FLIGHT} messages")
        _check_deadline(self.stream_deadline_s)


def _check_deadline(deadline_s: float) -> None:
    if not (deadline_s > 0 and math.isfinite(deadline_s)):
        raise ValueError(f"a deadline is {deadline_s} s, must be positive and finite")


def _check_budget(budget_us: int) -> None:
    if budget_us < 0:
        raise ValueError(f"budget_us is {budget_us}, must not be negative")
