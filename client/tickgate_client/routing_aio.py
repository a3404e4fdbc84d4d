"""The asyncio client of a server with several workers: `tickgate_client.routing` with `await`.

async with AsyncRoutedSignalClient("localhost:50051", deadline_s=0.05) as client:
    await client.connect(timeout_s=5)
    answer = await client.predict(tick)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import grpc

from tickgate.v1 import signal_pb2
from tickgate_client.aio import AsyncOpenStream, AsyncSignalClient, chunks
from tickgate_client.call_errors import CallError, ServerUnavailable, WrongWorker
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
    clients: tuple[AsyncSignalClient, ...]

    def client_of(self, request: signal_pb2.PredictRequest) -> AsyncSignalClient:
        return self.clients[self.routes.owner(symbol_of(request))]


class AsyncRoutedSignalClient:
    """Asks a server for signals, over one connection to each of its workers; belongs to the event loop that runs.

    Arguments, defaults, errors, and what is sent again when, are those of RoutedSignalClient.
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
            AsyncSignalClient, deadline_s=deadline_s, channel_credentials=channel_credentials, latency=self.latency
        )
        self.resend_lost = resend_lost
        self._lock = asyncio.Lock()
        self._first = self._make(target)
        self._fleet: _Fleet | None = None
        self._retired: list[AsyncSignalClient] = []
        self._refresh_after_loss_from = 0.0

    async def routes(self) -> Routes:
        """The topology in use; asks for it, within the client's deadline, if it never did."""
        return (await self.fleet(self._defaults.deadline_s)).routes

    async def connect(self, timeout_s: float = 5.0) -> None:
        """Ask for the topology, and wait until the connection to every worker stands.

        Raises ServerUnavailable if one does not within timeout_s seconds.
        """
        due = time.monotonic() + timeout_s
        await self._first.connect(timeout_s)
        for client in (await self.fleet(left(due))).clients:
            if client is not self._first:
                await client.connect(left(due))

    async def predict(
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
        return await self.ask(request, deadline_s)

    async def ask(self, request: signal_pb2.PredictRequest, deadline_s: float) -> signal_pb2.PredictResponse:
        """Send one request to its symbol's worker, as it is; `predict` makes it from its parts."""
        due = time.monotonic() + deadline_s
        fleet = await self.fleet(deadline_s)
        try:
            return await fleet.client_of(request).ask(request, left(due))
        except WrongWorker:
            fleet = await self._refresh(fleet, left(due))
        except ServerUnavailable as error:
            await self.lost(fleet, error, left(due))
            if not self.resend_lost:
                raise
            fleet = await self.fleet(left(due))
        return await fleet.client_of(request).ask(request, left(due))

    def predict_stream(
        self,
        requests: Iterable[signal_pb2.PredictRequest] | AsyncIterable[signal_pb2.PredictRequest],
        batch: int = 1,
        *,
        in_flight: int = 1,
        deadline_s: float | None = None,
        stream_deadline_s: float = STREAM_DEADLINE_S,
    ) -> AsyncIterator[signal_pb2.PredictStreamResult]:
        """Ask for many signals over one stream a worker; see RoutedSignalClient.predict_stream.

        A plain iterable is read on the event loop: one that blocks blocks the loop.
        """
        shape = StreamShape(batch, in_flight, self._defaults.deadline_of(deadline_s), stream_deadline_s)
        return self._drive(requests, shape)

    async def close(self) -> None:
        """Close every connection; calls under way end with asyncio.CancelledError, as grpc.aio has it."""
        async with self._lock:
            for client in {self._first, *(self._fleet.clients if self._fleet else ()), *self._retired}:
                await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def fleet(self, timeout_s: float) -> _Fleet:
        """The topology in use and its clients."""
        return self._fleet or await self._refresh(None, timeout_s)

    async def lost(self, fleet: _Fleet, error: ServerUnavailable, timeout_s: float) -> None:
        """A worker was not there: see whether the topology is another, now and then.

        A failure to ask is noted on the error, which is the one to raise.
        """
        if time.monotonic() < self._refresh_after_loss_from:
            return
        self._refresh_after_loss_from = time.monotonic() + REFRESH_AFTER_LOSS_S
        try:
            await self._refresh(fleet, timeout_s)
        except CallError as unanswered:
            error.add_note(f"nor could the topology be asked for: {unanswered}")

    def message(
        self, requests: Iterable[signal_pb2.PredictRequest], deadline_s: float
    ) -> signal_pb2.PredictStreamRequest:
        """Copies of the requests, with this client's defaults."""
        return self._defaults.message(requests, deadline_s)

    async def _refresh(self, old: _Fleet | None, timeout_s: float) -> _Fleet:
        """Ask for the topology, unless another task has since `old` was in use."""
        async with self._lock:
            if self._fleet is not None and self._fleet is not old:
                return self._fleet
            routes = await self._ask_any(old, timeout_s)
            if old is not None and (old.routes.epoch, old.routes.targets) == (routes.epoch, routes.targets):
                return old
            known = {client.target: client for client in (self._first, *(old.clients if old else ()))}
            fleet = _Fleet(routes, tuple(known.get(target) or self._make(target) for target in routes.targets))
            # Calls may be under way on the connections that are not needed any more: they get until the next change.
            for client in self._retired:
                await client.close()
            self._retired = [client for client in known.values() if client not in {*fleet.clients, self._first}]
            self._fleet = fleet
            return fleet

    async def _ask_any(self, old: _Fleet | None, timeout_s: float) -> Routes:
        """The topology, from whoever answers first: any worker knows it."""
        due = time.monotonic() + timeout_s
        candidates = list(dict.fromkeys((self._first, *(old.clients if old else ()))))
        while True:
            client = candidates.pop(0)
            try:
                return read_routes(await client.topology(left(due) / (1 + len(candidates))), client.target)
            except CallError:
                if not candidates:
                    raise

    async def _drive(
        self,
        requests: Iterable[signal_pb2.PredictRequest] | AsyncIterable[signal_pb2.PredictRequest],
        shape: StreamShape,
    ) -> AsyncIterator[signal_pb2.PredictStreamResult]:
        lanes = _Lanes(self, await self.fleet(shape.deadline_s), shape)
        waiting: deque[_Sent] = deque()
        try:
            async for chunk in chunks(requests, shape.batch):
                if self._fleet is not lanes.fleet:
                    # A symbol may have another worker now: what is under way is settled before anything follows it.
                    while waiting:
                        for result in await lanes.collect(waiting.popleft()):
                            yield result
                    lanes.close()
                    lanes = _Lanes(self, await self.fleet(shape.deadline_s), shape)
                waiting.append(await lanes.send(chunk))
                if len(waiting) == shape.in_flight:
                    for result in await lanes.collect(waiting.popleft()):
                        yield result
            await lanes.finish()
            while waiting:
                for result in await lanes.collect(waiting.popleft()):
                    yield result
        finally:
            lanes.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one worker got of some requests."""

    stream: AsyncOpenStream
    message: signal_pb2.PredictStreamRequest


@dataclass(frozen=True, slots=True)
class _Sent:
    """Requests that were sent together: the worker of each, and each worker's part."""

    owners: list[int]
    parts: dict[int, _Part]


class _Lanes:
    """The streams of one routed stream, one for each worker that it has asked, under one topology."""

    def __init__(self, client: AsyncRoutedSignalClient, fleet: _Fleet, shape: StreamShape) -> None:
        self.fleet = fleet
        self._client = client
        self._shape = shape
        self._streams: dict[int, AsyncOpenStream] = {}
        self._failed: dict[AsyncOpenStream, CallError] = {}

    async def send(self, requests: Sequence[signal_pb2.PredictRequest]) -> _Sent:
        """Send each worker its own."""
        owners, by_worker = split(requests, self.fleet.routes)
        parts = {}
        for worker, own in by_worker.items():
            stream = self._streams.get(worker)
            if stream is None or stream in self._failed:
                stream = self._streams[worker] = self.fleet.clients[worker].open_stream(self._shape)
            message = self._client.message(own, self._shape.deadline_s)
            try:
                await stream.send(message)
            except CallError as error:  # told when it is collected
                self._fail(stream, error)
            parts[worker] = _Part(stream, message)
        return _Sent(owners, parts)

    async def collect(self, sent: _Sent) -> Iterable[signal_pb2.PredictStreamResult]:
        """The results of requests that were sent together, in their order."""
        return in_order(sent.owners, {worker: await self._results(part) for worker, part in sent.parts.items()})

    async def _results(self, part: _Part) -> list[signal_pb2.PredictStreamResult]:
        requests = part.message.requests
        try:
            if part.stream in self._failed:
                raise self._failed[part.stream]
            results = await part.stream.receive()
        except CallError as error:
            self._fail(part.stream, error)
            if isinstance(error, ServerUnavailable):
                await self._client.lost(self.fleet, error, self._shape.deadline_s)
                if self._client.resend_lost:
                    return [await self._ask(request) for request in requests]
            return [failed(request, error) for request in requests]
        return [
            await self._ask(request) if went_astray(result) else result
            for request, result in zip(requests, results, strict=True)
        ]

    def _fail(self, stream: AsyncOpenStream, error: CallError) -> None:
        self._failed.setdefault(stream, error)
        stream.close()

    async def _ask(self, request: signal_pb2.PredictRequest) -> signal_pb2.PredictStreamResult:
        try:
            return answered(request, await self._client.ask(request, self._shape.deadline_s))
        except CallError as error:
            return failed(request, error)

    async def finish(self) -> None:
        """Say to every worker that no more is sent."""
        for stream in self._streams.values():
            if stream not in self._failed:
                await stream.finish()

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams.values():
            stream.close()
