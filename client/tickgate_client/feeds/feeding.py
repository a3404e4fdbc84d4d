"""From a source to a server: reads only what the publisher has room for, and tells the source what is through.

A batch is acknowledged to the source when the server has answered for every tick of it, after all batches before it.
So what a feed that dies had read and not acknowledged comes again to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tickgate_client.feeds.counts import TickTally
from tickgate_client.feeds.publisher import AsyncMarketDataPublisher
from tickgate_client.feeds.sources import TickBatch, TickSource
from tickgate_client.feeds.tasks import end
from tickgate_client.feeds.window import MAX_TICKS, Published

_MOST_BATCHES = 1024
"""Batches that may wait to be acknowledged; at it, nothing is read."""


@dataclass(slots=True)
class FeedCounts:
    """What a feed did so far, in ticks.

    Attributes:
        published: Handed to the publisher.
        answered: Those that the server answered for.
        tally: What it did with them.
        refused: Those that it does not take: they break the contract.
        resent: Sent again because an acknowledgement was missing, counted each time.
    """

    published: int = 0
    answered: int = 0
    tally: TickTally = field(default_factory=TickTally)
    refused: int = 0
    resent: int = 0

    def add(self, published: Published) -> None:
        """Count what was answered."""
        self.answered += published.ticks
        self.tally.merge(published.tally)
        self.refused += len(published.refused)
        self.resent += published.resent


class Feed:
    """One source's way to one server.

    Args:
        source: Where ticks come from; closed by whoever opened it.
        publisher: Where they go; likewise.

    Attributes:
        counts: What it did so far.
    """

    def __init__(self, source: TickSource, publisher: AsyncMarketDataPublisher) -> None:
        self.counts = FeedCounts()
        self._source = source
        self._publisher = publisher
        self._step = min(MAX_TICKS, publisher.window_ticks)
        self._waiting: asyncio.Queue[_Given | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_MOST_BATCHES)

    @property
    def source_counts(self) -> Mapping[str, int]:
        """What the source counted."""
        return dict(self._source.counts())

    @property
    def publisher(self) -> AsyncMarketDataPublisher:
        """Where ticks go."""
        return self._publisher

    async def run(self, stop: asyncio.Event, *, drain_s: float = 10.0) -> bool:
        """Feed until the source ends, or until `stop`; then wait for what is under way.

        Args:
            stop: Read no more.
            drain_s: Longest wait, after `stop`, for acknowledgements, in seconds; what has none then is left to the
                source.

        Gives True if all that was published is acknowledged. Raises what ended the publisher or the source.
        """
        reading = asyncio.create_task(self._read())
        telling = asyncio.create_task(self._tell())
        stopping = asyncio.create_task(stop.wait())
        tasks: tuple[asyncio.Task[object], ...] = (reading, telling, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await end(reading)
            self._waiting.put_nowait(None)
            if not reading.cancelled() and reading.exception() is None:
                await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({telling}, timeout=drain_s)
            if telling.done():
                telling.result()
            if not reading.cancelled():
                reading.result()
            return telling.done()
        finally:
            await end(*tasks)

    async def _read(self) -> None:
        async with contextlib.aclosing(self._source.batches()) as batches:
            async for batch in batches:
                await self._room.acquire()
                receipts = []
                # A message's worth at once: a batch may be wider than the window.
                for begin in range(0, len(batch.ticks), self._step):
                    part = batch.ticks[begin : begin + self._step]
                    receipts.append(await self._publisher.publish(part))
                    self.counts.published += len(part)
                self._waiting.put_nowait(_Given(batch, receipts))

    async def _tell(self) -> None:
        """Tell the source what is through."""
        while (given := await self._waiting.get()) is not None:
            position = given.batch.position
            for number, receipt in enumerate(given.receipts):
                published = await receipt
                self.counts.add(published)
                for refused in published.refused:
                    await self._source.refused(position, replace(refused, index=number * self._step + refused.index))
            await self._source.acknowledge(position)
            self._room.release()


@dataclass(frozen=True, slots=True)
class _Given:
    """A batch that was published, and the receipts of its parts."""

    batch: TickBatch
    receipts: Sequence[asyncio.Future[Published]]
