"""Publishes ticks to MarketDataService, from asyncio; `feeds.blocking` is the same without.

async with AsyncMarketDataPublisher("localhost:50051", feed="venue-a") as publisher:
    await publisher.connect(timeout_s=5)
    receipt = await publisher.publish(ticks)  # waits only while too many are unacknowledged
    published = await receipt
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client.call_errors import (
    CallCancelled,
    CallError,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    ServerUnavailable,
    WrongWorker,
    error_of_call,
)
from tickgate_client.errors import PublisherClosed
from tickgate_client.feeds.columns import check, cut, split_columns
from tickgate_client.feeds.counts import TickTally
from tickgate_client.feeds.lane import Lane
from tickgate_client.feeds.tasks import end
from tickgate_client.feeds.window import Message, Published, Receipts, messages_of
from tickgate_client.feeds.workers import Workers
from tickgate_client.routes import Routes

PASSING = (ServerUnavailable, DeadlineExceeded, Overloaded, CallCancelled, WrongWorker)
"""Errors after which a publisher connects and sends again: a server that restarts, is cut off, or has no room."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Before it tries again: doubling, from the first to the longest; as the channels' own reconnecting."""

_MAX_FEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """How a publisher publishes.

    Attributes:
        feed: Whose ticks these are: up to 32 bytes.
        deadline_s: Longest wait for one acknowledgement before the connection is given up and what is unacknowledged is
            sent again, in seconds.
        patience_s: Longest time without any acknowledgement while ticks wait for one, in seconds; then the publisher
            fails. `math.inf`: it never does.
        window_ticks: Ticks that may be unacknowledged; what is published beyond waits.
    """

    feed: str
    deadline_s: float
    patience_s: float
    window_ticks: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.feed.encode()) <= _MAX_FEED_BYTES:
            raise ValueError(f"feed is {self.feed!r}, must be 1 to {_MAX_FEED_BYTES} bytes of UTF-8")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s is {self.deadline_s}, must be positive and finite")
        if not self.patience_s >= 0:
            raise ValueError(f"patience_s is {self.patience_s}, must not be negative")
        if self.window_ticks < 1:
            raise ValueError(f"window_ticks is {self.window_ticks}, must be positive")


@dataclass(frozen=True, slots=True)
class _Fleet:
    """One topology, and a lane to each of its workers."""

    routes: Routes
    lanes: tuple[Lane, ...]


class AsyncMarketDataPublisher:
    """Publishes a feed's ticks, each symbol's to its worker, until they are acknowledged; belongs to one event loop.

    What was not acknowledged when a connection ended is sent again on the next: the server sees every tick at least
    once, and a symbol's in order. It knows the repeated ones by their sequence; ticks without one it may apply twice.

    Args:
        target: A worker's data listener: `host:port`, `unix:/path`, or any name that gRPC resolves; or the service
            listener of a server of one process.
        feed: Whose ticks these are, up to 32 bytes: the server's settings may give a feed a reorder window.
        deadline_s: Longest wait for one acknowledgement, in seconds; then it reconnects.
        patience_s: Longest time without any acknowledgement while ticks wait for one, in seconds; then it fails.
        window_ticks: Ticks that may be unacknowledged.
        channel_credentials: From `grpc.ssl_channel_credentials(...)`; None: plain text.

    Attributes:
        reconnects: Streams and calls that ended and were begun anew.
        last_error: Why the last of them ended; None: none did.
    """

    def __init__(
        self,
        target: str,
        *,
        feed: str,
        deadline_s: float = 10.0,
        patience_s: float = 60.0,
        window_ticks: int = 16_384,
        channel_credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = target
        self.reconnects = 0
        self.last_error: CallError | None = None
        self._settings = PublisherSettings(feed, deadline_s, patience_s, window_ticks)
        self._workers = Workers(target, channel_credentials)
        self._receipts = Receipts()
        self._fleet: _Fleet | None = None
        self._serving: asyncio.Task[None] | None = None
        self._moved: asyncio.Future[Routes]
        self._failure: BaseException | None = None
        self._progress_at = time.monotonic()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def unacknowledged(self) -> int:
        """Ticks that were published and are not acknowledged."""
        return self._receipts.ticks

    @property
    def window_ticks(self) -> int:
        """Ticks that may be unacknowledged."""
        return self._settings.window_ticks

    async def connect(self, timeout_s: float = 5.0) -> None:
        """Ask for the topology, and wait until the connection to every worker stands.

        Raises a CallError (ServerUnavailable if it does not within timeout_s seconds).
        """
        due = time.monotonic() + timeout_s
        await self._workers.connect(await self._workers.routes(timeout_s), due)

    async def publish(self, ticks: Sequence[market_pb2.Tick]) -> asyncio.Future[Published]:
        """Send ticks, in order behind those published before.

        Waits until there is room for them in the window. The ticks must not change until they are acknowledged.

        Args:
            ticks: At least one, at most `window_ticks`; of any symbols.

        Gives a future of what became of them: they are acknowledged in the order of publishing, and it holds what ended
        the publisher if that comes first. Raises that too.
        """
        if not 1 <= len(ticks) <= self._settings.window_ticks:
            raise ValueError(f"{len(ticks)} ticks, must be 1 to {self._settings.window_ticks}, the window")
        async with self._turn:
            fleet = await self._room_for(len(ticks))
            if not len(self._receipts):
                self._progress_at = time.monotonic()
            batch = self._receipts.open(len(ticks))
            messages = messages_of(batch, ticks, range(len(ticks)), fleet.routes.owner)
            batch.waiting = len(messages)
            for worker, message in messages:
                fleet.lanes[worker].push(message)
            return batch.receipt

    async def publish_batch(self, columns: market_data_pb2.TickColumns) -> TickTally:
        """Send columns of ticks behind all that was published before, and wait until they are acknowledged.

        For many ticks at once: several thousand a call. `feeds.columns` makes columns.

        Raises BadColumns before anything is sent; InvalidRequest for a value that the server refuses, when the message
        that has it (up to 32,768 ticks of one worker) was not applied; a CallError when `patience_s` is over.
        """
        check(columns)
        async with self._turn:
            await self._room_for(self._settings.window_ticks)  # all that was published is acknowledged then
            tally = TickTally()
            for part in cut(columns):
                tally.merge(await self._publish_part(part, time.monotonic()))
            return tally

    async def flush(self) -> None:
        """Wait until all that was published is acknowledged; raises what ended the publisher if that comes first."""
        async with self._turn:
            await self._settled()

    async def close(self) -> None:
        """Close the connections; what is not acknowledged ends with PublisherClosed, and may have been applied."""
        if self._failure is None:
            self._fail(PublisherClosed())
        if self._serving is not None:
            await end(self._serving)
        await self._workers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave: without an error, once all is acknowledged."""
        try:
            if error is None and not isinstance(self._failure, PublisherClosed):
                await self.finish()
        finally:
            await self.close()

    async def finish(self) -> None:
        """Wait until all is acknowledged, and end the streams in good order; only `close` may follow."""
        await self.flush()
        if self._fleet is not None and self._serving is not None:
            for lane in self._fleet.lanes:
                lane.finish()
            await asyncio.wait({self._serving}, timeout=self._settings.deadline_s)
            self._failure = self._failure or PublisherClosed()

    async def _settled(self) -> None:
        while len(self._receipts) and self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure

    async def _room_for(self, ticks: int) -> _Fleet:
        """Wait until the workers are known and so many ticks may be published."""
        if self._serving is None and self._failure is None:
            self._progress_at = time.monotonic()
            self._serving = asyncio.create_task(self._serve())
        while True:
            if self._failure is not None:
                raise self._failure
            if self._fleet is not None and self._receipts.ticks + ticks <= self._settings.window_ticks:
                return self._fleet
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self) -> None:
        """Keep a stream to each worker, under one topology after the other."""
        try:
            routes: Routes | None = await self._first_routes()
            while routes is not None:
                fleet = self._move(routes)
                await self._workers.keep(routes)
                routes = await self._keep_all(fleet, self._moved)
        except Exception as error:  # noqa: BLE001 - told to whoever publishes or waits
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._receipts.fail(error)
        self._changed.set()

    def _move(self, routes: Routes) -> _Fleet:
        """Lanes for these routes; what is unacknowledged goes over to them, a symbol's ticks in order."""
        stubs = [self._workers.stub(target) for target in routes.targets]
        settings = self._settings
        lanes = tuple(Lane(stub.PublishTicks, settings.feed, settings.deadline_s, self._answered) for stub in stubs)
        left_over = [message for lane in self._fleet.lanes for message in lane.window.take_all()] if self._fleet else []
        # A symbol's messages came from one lane, in order; sorting by batch is stable and keeps that.
        for old in sorted(left_over, key=lambda message: message.batch.number):
            messages = messages_of(old.batch, old.ticks, old.indexes, routes.owner)
            old.batch.waiting += len(messages) - 1
            for worker, message in messages:
                message.sent = old.sent
                lanes[worker].push(message)
        self._fleet = _Fleet(routes, lanes)
        self._moved = asyncio.get_running_loop().create_future()
        self._changed.set()
        return self._fleet

    async def _keep_all(self, fleet: _Fleet, moved: asyncio.Future[Routes]) -> Routes | None:
        """Run all lanes until the topology is another one, and give that; None after `finish`."""
        tasks = {asyncio.create_task(self._keep(lane, fleet.routes)) for lane in fleet.lanes}
        under_way: set[asyncio.Future[Any]] = {*tasks}
        try:
            while under_way:
                done, _ = await asyncio.wait({*under_way, moved}, return_when=asyncio.FIRST_COMPLETED)
                if moved in done:
                    return moved.result()
                for task in done:
                    task.result()
                under_way -= done
            return None
        finally:
            await end(*tasks)

    async def _keep(self, lane: Lane, routes: Routes) -> None:
        """One stream after the other, until `finish`."""
        pause_s = FIRST_PAUSE_S
        while True:
            answers = lane.answers
            try:
                await lane.stream()
            except InvalidRequest as error:
                lane.refused(error)
                continue
            except PASSING as error:
                self._lost(error, self._progress_at if len(self._receipts) else time.monotonic())
            else:
                return
            pause_s = FIRST_PAUSE_S if lane.answers > answers else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            await self._look_elsewhere(routes)

    def _lost(self, error: CallError, since: float) -> None:
        """Count a connection that ended; raises the error where nothing has gone on for too long."""
        if time.monotonic() - since > self._settings.patience_s:
            raise error
        self.reconnects += 1
        self.last_error = error

    async def _first_routes(self) -> Routes:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._workers.routes(self._settings.deadline_s)
            except PASSING as error:
                self._lost(error, self._progress_at)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _look_elsewhere(self, known: Routes) -> None:
        """Ask for the topology, and have all move if it is another one; if nobody tells, the old one may still do."""
        try:
            found = await self._workers.routes(self._settings.deadline_s)
        except PASSING as error:
            self.last_error = error
            return
        if found.targets != known.targets and not self._moved.done():
            self._moved.set_result(found)

    def _answered(self, message: Message, counts: market_data_pb2.TickCounts | None) -> None:
        batch = message.batch
        batch.waiting -= 1
        if counts is not None:
            batch.tally.add(counts)
        self._progress_at = time.monotonic()
        if self._receipts.settle():
            self._changed.set()

    async def _publish_part(self, columns: market_data_pb2.TickColumns, since: float) -> TickTally:
        """Send each worker its own of what fits into one message."""
        fleet = await self._room_for(0)
        parts = split_columns(columns, fleet.routes.owner)
        tally = TickTally()
        calls = [self._call(fleet, *part, since) for part in parts.items()]
        # All of them end, whatever one ends with: nothing may overtake the others' next ticks.
        for found in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            tally.merge(found)
        return tally

    async def _call(self, fleet: _Fleet, worker: int, columns: market_data_pb2.TickColumns, since: float) -> TickTally:
        """Send one worker its columns until they are acknowledged, or others have become their workers."""
        stub = self._workers.stub(fleet.routes.targets[worker])
        request = market_data_pb2.PublishBatchRequest(feed=self._settings.feed, ticks=columns)
        pause_s = FIRST_PAUSE_S
        while self._fleet is fleet:
            try:
                response = await stub.PublishBatch(request, timeout=self._settings.deadline_s)
            except grpc.RpcError as error:
                failure = error_of_call(error)
                if not isinstance(failure, PASSING):
                    raise failure from error
                self._lost(failure, since)
            else:
                tally = TickTally()
                tally.add(response.counts)
                return tally
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            await self._look_elsewhere(fleet.routes)
            await asyncio.sleep(0)  # those that move take their turn
        return await self._publish_part(columns, since)
