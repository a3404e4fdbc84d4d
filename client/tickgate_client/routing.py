"""The client of a server with several workers: each request goes to the worker that has its symbol.

with RoutedSignalClient("localhost:50051", deadline_s=0.05) as client:
    client.connect(timeout_s=5)
    answer = client.predict(tick)
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import grpc

from tickgate.v1 import signal_pb2
from tickgate_client.call_errors import CallError, ServerUnavailable, WrongWorker
from tickgate_client.client import OpenStream, SignalClient
from tickgate_client.latency import CallRecorder, LatencyRecorder
from tickgate_client.options import STREAM_DEADLINE_S, CallDefaults, Input, StreamShape
from tickgate_client.routes import (
    REFRESH_AFTER_LOSS_S,
    Routes,
    answered,
    failed,
    in_order,
    left,
    read_routes,
    split,
    symbol_of,
    went_astray,
)


@dataclass(frozen=True, slots=True)
class _Fleet:
    """One topology, and a client of each of its workers."""

    routes: Routes
    clients: tuple[SignalClient, ...]

    def client_of(self, request: signal_pb2.PredictRequest) -> SignalClient:
        return self.clients[self.routes.owner(symbol_of(request))]


class RoutedSignalClient:
    """Asks a server for signals, over one connection to each of its workers. Safe to use from several threads.

    It asks for the topology when it connects, and again when a worker says that the topology is out of date, or is
    lost. A request that reached the wrong worker was not applied: it is sent once more, to the right one, within its
    deadline. One that was lost with its worker may have been applied, and is not, unless `resend_lost`.

    Args:
        target: Any worker: `host:port`, `unix:/path`, or any name that gRPC resolves.
        deadline_s: As SignalClient.
        budget_us: As SignalClient.
        model: As SignalClient.
        channel_credentials: As SignalClient.
        latency: A recorder to share with other clients, or an `sla.SlaMonitor`; None: one recorder for all workers.
        resend_lost: Send a request once more after UNAVAILABLE. A tick with a sequence is applied once all the same.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline_s: float = 1.0,
        budget_us: int = 0,
        model: str = "",
        channel_credentials: grpc.ChannelCredentials | None = None,
        latency: CallRecorder | None = None,
        resend_lost: bool = False,
    ) -> None:
        self.target = target
        self.latency: CallRecorder = LatencyRecorder() if latency is None else latency
        self._defaults = CallDefaults(deadline_s=deadline_s, budget_us=budget_us, model=model)
        self._make = partial(
            SignalClient, deadline_s=deadline_s, channel_credentials=channel_credentials, latency=self.latency
        )
        self.resend_lost = resend_lost
        self._lock = threading.Lock()
        self._first = self._make(target)
        self._fleet: _Fleet | None = None
        self._retired: list[SignalClient] = []
        self._refresh_after_loss_from = 0.0

    @property
    def routes(self) -> Routes:
        """The topology in use; asks for it, within the client's deadline, if it never did."""
        return self.fleet(self._defaults.deadline_s).routes

    def connect(self, timeout_s: float = 5.0) -> None:
        """Ask for the topology, and wait until the connection to every worker stands.

        Raises ServerUnavailable if one does not within timeout_s seconds.
        """
        due = time.monotonic() + timeout_s
        self._first.connect(timeout_s)
        for client in self.fleet(left(due)).clients:
            if client is not self._first:
                client.connect(left(due))

    def predict(
        self,
        what: Input,
        *,
        model: str | None = None,
        budget_us: int | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> signal_pb2.PredictResponse:
        """Ask the symbol's worker for one signal; see SignalClient.predict."""
        deadline_s = self._defaults.deadline_of(deadline_s)
        request = self._defaults.request(
            what, model=model, budget_us=budget_us, deadline_s=deadline_s, request_id=request_id
        )
        return self.ask(request, deadline_s)

    def ask(self, request: signal_pb2.PredictRequest, deadline_s: float) -> signal_pb2.PredictResponse:
        """Send one request to its symbol's worker, as it is; `predict` makes it from its parts."""
        due = time.monotonic() + deadline_s
        fleet = self.fleet(deadline_s)
        try:
            return fleet.client_of(request).ask(request, left(due))
        except WrongWorker:
            fleet = self._refresh(fleet, left(due))
        except ServerUnavailable as error:
            self.lost(fleet, error, left(due))
            if not self.resend_lost:
                raise
            fleet = self.fleet(left(due))
        return fleet.client_of(request).ask(request, left(due))

    def predict_stream(
        self,
        requests: Iterable[signal_pb2.PredictRequest],
        batch: int = 1,
        *,
        in_flight: int = 1,
        deadline_s: float | None = None,
        stream_deadline_s: float = STREAM_DEADLINE_S,
    ) -> Iterator[signal_pb2.PredictStreamResult]:
        """Ask for many signals over one stream a worker; yields their results in the order of the requests.

        As SignalClient.predict_stream, but `batch` requests are split into a message for each worker that has a symbol
        among them, and these count as one in flight. A worker's stream that ends badly ends nothing else: what it did
        not answer is yielded with its status, and the next request for that worker opens another.
        """
        shape = StreamShape(batch, in_flight, self._defaults.deadline_of(deadline_s), stream_deadline_s)
        return self._drive(iter(requests), shape)

    def close(self) -> None:
        """Close every connection; calls under way end with CallCancelled."""
        with self._lock:
            for client in {self._first, *(self._fleet.clients if self._fleet else ()), *self._retired}:
                client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fleet(self, timeout_s: float) -> _Fleet:
        """The topology in use and its clients."""
        return self._fleet or self._refresh(None, timeout_s)

    def lost(self, fleet: _Fleet, error: ServerUnavailable, timeout_s: float) -> None:
        """A worker was not there: see whether the topology is another, now and then.

        A failure to ask is noted on the error, which is the one to raise.
        """
        if time.monotonic() < self._refresh_after_loss_from:
            return
        self._refresh_after_loss_from = time.monotonic() + REFRESH_AFTER_LOSS_S
        try:
            self._refresh(fleet, timeout_s)
        except CallError as unanswered:
            error.add_note(f"nor could the topology be asked for: {unanswered}")

    def message(
        self, requests: Iterable[signal_pb2.PredictRequest], deadline_s: float
    ) -> signal_pb2.PredictStreamRequest:
        """Copies of the requests, with this client's defaults."""
        return self._defaults.message(requests, deadline_s)

    def _refresh(self, old: _Fleet | None, timeout_s: float) -> _Fleet:
        """Ask for the topology, unless another thread has since `old` was in use."""
        with self._lock:
            if self._fleet is not None and self._fleet is not old:
                return self._fleet
            routes = self._ask_any(old, timeout_s)
            if old is not None and (old.routes.epoch, old.routes.targets) == (routes.epoch, routes.targets):
                return old
            known = {client.target: client for client in (self._first, *(old.clients if old else ()))}
            fleet = _Fleet(routes, tuple(known.get(target) or self._make(target) for target in routes.targets))
            # Calls may be under way on the connections that are not needed any more: they get until the next change.
            for client in self._retired:
                client.close()
            self._retired = [client for client in known.values() if client not in {*fleet.clients, self._first}]
            self._fleet = fleet
            return fleet

    def _ask_any(self, old: _Fleet | None, timeout_s: float) -> Routes:
        """The topology, from whoever answers first: any worker knows it."""
        due = time.monotonic() + timeout_s
        candidates = list(dict.fromkeys((self._first, *(old.clients if old else ()))))
        while True:
            client = candidates.pop(0)
            try:
                return read_routes(client.topology(left(due) / (1 + len(candidates))), client.target)
            except CallError:
                if not candidates:
                    raise

    def _drive(
        self, requests: Iterator[signal_pb2.PredictRequest], shape: StreamShape
    ) -> Iterator[signal_pb2.PredictStreamResult]:
        lanes = _Lanes(self, self.fleet(shape.deadline_s), shape)
        waiting: deque[_Sent] = deque()
        try:
            while chunk := list(itertools.islice(requests, shape.batch)):
                if self._fleet is not lanes.fleet:
                    # A symbol may have another worker now: what is under way is settled before anything follows it.
                    while waiting:
                        yield from lanes.collect(waiting.popleft())
                    lanes.close()
                    lanes = _Lanes(self, self.fleet(shape.deadline_s), shape)
                waiting.append(lanes.send(chunk))
                if len(waiting) == shape.in_flight:
                    yield from lanes.collect(waiting.popleft())
            lanes.finish()
            while waiting:
                yield from lanes.collect(waiting.popleft())
        finally:
            lanes.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one worker got of some requests."""

    stream: OpenStream
    message: signal_pb2.PredictStreamRequest


@dataclass(frozen=True, slots=True)
class _Sent:
    """Requests that were sent together: the worker of each, and each worker's part."""

    owners: list[int]
    parts: dict[int, _Part]


class _Lanes:
    """The streams of one routed stream, one for each worker that it has asked, under one topology."""

    def __init__(self, client: RoutedSignalClient, fleet: _Fleet, shape: StreamShape) -> None:
        self.fleet = fleet
        self._client = client
        self._shape = shape
        self._streams: dict[int, OpenStream] = {}
        self._failed: dict[OpenStream, CallError] = {}

    def send(self, requests: Sequence[signal_pb2.PredictRequest]) -> _Sent:
        """Send each worker its own."""
        owners, by_worker = split(requests, self.fleet.routes)
        parts = {}
        for worker, own in by_worker.items():
            stream = self._streams.get(worker)
            if stream is None or stream in self._failed:
                stream = self._streams[worker] = self.fleet.clients[worker].open_stream(self._shape)
            message = self._client.message(own, self._shape.deadline_s)
            stream.send(message)
            parts[worker] = _Part(stream, message)
        return _Sent(owners, parts)

    def collect(self, sent: _Sent) -> Iterator[signal_pb2.PredictStreamResult]:
        """The results of requests that were sent together, in their order."""
        return in_order(sent.owners, {worker: self._results(part) for worker, part in sent.parts.items()})

    def _results(self, part: _Part) -> list[signal_pb2.PredictStreamResult]:
        requests = part.message.requests
        try:
            if part.stream in self._failed:
                raise self._failed[part.stream]
            results = part.stream.receive()
        except CallError as error:
            if part.stream not in self._failed:
                self._failed[part.stream] = error
                part.stream.close()
            if isinstance(error, ServerUnavailable):
                self._client.lost(self.fleet, error, self._shape.deadline_s)
                if self._client.resend_lost:
                    return [self._ask(request) for request in requests]
            return [failed(request, error) for request in requests]
        return [
            self._ask(request) if went_astray(result) else result
            for request, result in zip(requests, results, strict=True)
        ]

    def _ask(self, request: signal_pb2.PredictRequest) -> signal_pb2.PredictStreamResult:
        try:
            return answered(request, self._client.ask(request, self._shape.deadline_s))
        except CallError as error:
            return failed(request, error)

    def finish(self) -> None:
        """Say to every worker that no more is sent."""
        for stream in self._streams.values():
            stream.finish()

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams.values():
            stream.close()
