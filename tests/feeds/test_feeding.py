"""From a source to a server: what is read when, and what the source is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from tests.feeds.market_server import Break, Market, MarketServer, MarketWorker, tick, ticks

from tickgate.v1 import market_pb2
from tickgate_client import (
    AsyncMarketDataPublisher,
    RefusedTick,
    ServerUnavailable,
    SourceFailed,
    TickBatch,
    TickSource,
)
from tickgate_client.feeds.feeding import Feed


class ListSource(TickSource):
    """Batches of a list; it counts what was read, and keeps what it was told."""

    def __init__(self, given: list[list[market_pb2.Tick]], *, endless: bool = False) -> None:
        self.given = given
        self.endless = endless
        self.read = 0
        self.told: list[Any] = []
        self.aside: list[tuple[Any, int, int]] = []
        self.all_read = asyncio.Event()

    async def batches(self) -> AsyncGenerator[TickBatch, None]:
        for batch in self.given:
            self.read += 1
            yield TickBatch(batch, self.read)
        self.all_read.set()
        if self.endless:
            await asyncio.Event().wait()

    async def acknowledge(self, position: Any) -> None:
        self.told.append(position)

    async def refused(self, position: Any, refused: RefusedTick) -> None:
        self.aside.append((position, refused.index, refused.tick.sequence))

    async def close(self) -> None:
        """Nothing is held."""


class Strict(ListSource):
    """Puts nothing aside."""

    refused = TickSource.refused  # type: ignore[assignment]


def feed(
    target: str,
    make: Callable[[], ListSource],
    *,
    during: Callable[[ListSource, Feed, asyncio.Event], Awaitable[None]] | None = None,
    drain_s: float = 10.0,
    **publisher: Any,
) -> tuple[ListSource, Feed, bool]:
    async def run() -> tuple[ListSource, Feed, bool]:
        source = make()
        async with AsyncMarketDataPublisher(target, feed="f", **publisher) as opened:
            running, stop = Feed(source, opened), asyncio.Event()
            side = asyncio.create_task(during(source, running, stop)) if during else None
            through = await running.run(stop, drain_s=drain_s)
            if side is not None:
                await side
            if not through:
                await opened.close()
        return source, running, through

    return asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


def batches_of(size: int, count: int) -> list[list[market_pb2.Tick]]:
    return [ticks(size, begin=size * at) for at in range(count)]


def test_each_batch_is_acknowledged_in_order_and_all_is_counted(server: MarketServer, market: Market) -> None:
    source, running, through = feed(server.target, lambda: ListSource([*batches_of(10, 30), [tick("S0", 1)]]))
    assert through
    assert source.told == list(range(1, 32))
    counts = running.counts
    assert (counts.published, counts.answered, counts.tally.accepted) == (301, 301, 300)
    assert dict(counts.tally.rejected) == {"TICK_DUPLICATE": 1}
    assert [one.sequence for one in market.accepted] == list(range(1, 301))


def test_a_batch_wider_than_the_window_goes_in_parts_and_is_acknowledged_as_one(
    server: MarketServer, market: Market
) -> None:
    source, running, _ = feed(server.target, lambda: ListSource(batches_of(2500, 2)), window_ticks=700)
    assert (source.told, running.counts.tally.accepted) == ([1, 2], 5000)
    assert max(market.in_messages) <= 700


def test_the_source_is_not_read_while_too_much_is_unacknowledged(server: MarketServer, market: Market) -> None:
    held = market.lock

    async def during(source: ListSource, running: Feed, _stop: asyncio.Event) -> None:
        await until(lambda: running.publisher.unacknowledged == 50)
        for _ in range(100):
            await asyncio.sleep(0)
        # Five fit into the window, and the sixth waits for room in it.
        assert source.read == 6
        held.release()

    held.acquire()
    source, _, _ = feed(server.target, lambda: ListSource(batches_of(10, 40)), during=during, window_ticks=50)
    assert source.told == list(range(1, 41))


def test_when_it_is_stopped_it_waits_for_what_is_under_way_and_reads_no_more(
    server: MarketServer, market: Market
) -> None:
    async def during(source: ListSource, _running: Feed, stop: asyncio.Event) -> None:
        await source.all_read.wait()
        stop.set()

    source, running, through = feed(server.target, lambda: ListSource(batches_of(10, 20), endless=True), during=during)
    assert through
    assert (source.told, running.counts.answered) == (list(range(1, 21)), 200)
    assert len(market.accepted) == 200


def test_what_is_not_acknowledged_soon_after_a_stop_is_left_to_the_source(server: MarketServer, market: Market) -> None:
    market.fault = lambda _worker, message: (
        Break(grpc.StatusCode.UNAVAILABLE, "draining") if message[0].sequence > 100 else None
    )

    async def during(source: ListSource, running: Feed, stop: asyncio.Event) -> None:
        await until(lambda: source.all_read.is_set() and running.counts.answered == 100)
        stop.set()

    source, running, through = feed(
        server.target, lambda: ListSource(batches_of(10, 20), endless=True), during=during, drain_s=0.1
    )
    assert not through
    assert (source.told, running.counts.published, running.counts.answered) == (list(range(1, 11)), 200, 100)


def test_ticks_that_the_server_refuses_are_told_to_the_source_with_their_place(
    server: MarketServer, market: Market
) -> None:
    def fault(_worker: MarketWorker, message: list[market_pb2.Tick]) -> Break | None:
        at = next((at for at, one in enumerate(message) if one.sequence in {3, 1500, 2101}), None)
        return None if at is None else Break(grpc.StatusCode.INVALID_ARGUMENT, f"ticks[{at}].symbol: is odd")

    market.fault = fault
    source, running, _ = feed(server.target, lambda: ListSource([ticks(2000), ticks(200, begin=2000)]))
    assert source.aside == [(1, 2, 3), (1, 1499, 1500), (2, 100, 2101)]
    assert (source.told, running.counts.refused, running.counts.tally.accepted) == ([1, 2], 3, 2197)


def test_a_source_that_cannot_put_ticks_aside_ends_the_feed(server: MarketServer, market: Market) -> None:
    market.fault = lambda _worker, _ticks: Break(grpc.StatusCode.INVALID_ARGUMENT, "ticks[0].symbol: is odd")
    with pytest.raises(SourceFailed, match=r"batch 1, tick 0: INVALID_ARGUMENT: ticks\[0\].symbol: is odd"):
        feed(server.target, lambda: Strict(batches_of(1, 3)))


def test_a_publisher_that_fails_ends_the_feed(server: MarketServer, market: Market) -> None:
    market.fault = lambda _worker, _ticks: Break(grpc.StatusCode.UNAVAILABLE, "gone for good")
    with pytest.raises(ServerUnavailable):
        feed(server.target, lambda: ListSource(batches_of(1, 3), endless=True), patience_s=0.2)


def test_a_source_that_fails_ends_the_feed_once_what_it_gave_is_through(server: MarketServer, market: Market) -> None:
    class Failing(ListSource):
        async def batches(self) -> AsyncGenerator[TickBatch, None]:
            async for batch in super().batches():
                yield batch
            raise SourceFailed("list", "torn")

    made: list[ListSource] = []

    def make() -> ListSource:
        made.append(Failing(batches_of(10, 5)))
        return made[0]

    with pytest.raises(SourceFailed, match="list: torn"):
        feed(server.target, make)
    assert made[0].told == [1, 2, 3, 4, 5]
    assert len(market.accepted) == 50


def test_a_server_that_breaks_off_again_and_again_gets_every_tick_once_and_in_order(
    server: MarketServer, market: Market
) -> None:
    at = itertools.count(1)
    market.fault = lambda _worker, _ticks: (
        Break(grpc.StatusCode.UNAVAILABLE, "draining", applied=number % 2 == 0)
        if (number := next(at)) % 9 == 0
        else None
    )
    source, running, _ = feed(server.target, lambda: ListSource(batches_of(20, 30)), window_ticks=100)
    assert source.told == list(range(1, 31))
    assert running.counts.resent > 0
    assert [one.sequence for one in market.accepted] == list(range(1, 601))


def test_a_source_that_drops_a_cancellation_is_stopped_all_the_same(server: MarketServer) -> None:
    class Deaf(ListSource):
        async def batches(self) -> AsyncGenerator[TickBatch, None]:
            async for batch in super().batches():
                yield batch
            self.all_read.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    async def during(source: ListSource, _running: Feed, stop: asyncio.Event) -> None:
        await source.all_read.wait()
        stop.set()

    source, _, through = feed(server.target, lambda: Deaf(batches_of(10, 3)), during=during)
    assert (through, source.told) == (True, [1, 2, 3])
