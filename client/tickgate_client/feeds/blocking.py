"""Publishes ticks to MarketDataService, from threads: `feeds.publisher` on an event loop of its own.

with MarketDataPublisher("localhost:50051", feed="venue-a") as publisher:
    publisher.connect(timeout_s=5)
    receipt = publisher.publish(ticks)  # waits only while too many are unacknowledged
    published = receipt.result(timeout=10)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client.call_errors import CallError
from tickgate_client.errors import PublisherClosed
from tickgate_client.feeds.counts import TickTally
from tickgate_client.feeds.publisher import AsyncMarketDataPublisher
from tickgate_client.feeds.window import Published

_T = TypeVar("_T")

_LEAVE_S = 0.5


class MarketDataPublisher:
    """Publishes a feed's ticks until they are acknowledged. Safe to use from several threads.

    Arguments, defaults, errors, and what is sent again when, are those of AsyncMarketDataPublisher. A thread of its own
    sends and takes acknowledgements, so that both go on while the caller does something else.
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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tickgate-publisher", daemon=True)
        self._thread.start()
        self._closing = threading.Lock()

        async def make() -> AsyncMarketDataPublisher:
            return AsyncMarketDataPublisher(
                target,
                feed=feed,
                deadline_s=deadline_s,
                patience_s=patience_s,
                window_ticks=window_ticks,
                channel_credentials=channel_credentials,
            )

        try:
            self._publisher = self._run(make())
        except BaseException:
            self._stop()
            raise

    @property
    def unacknowledged(self) -> int:
        """Ticks that were published and are not acknowledged."""
        return self._publisher.unacknowledged

    @property
    def reconnects(self) -> int:
        """Streams and calls that ended and were begun anew."""
        return self._publisher.reconnects

    @property
    def last_error(self) -> CallError | None:
        """Why the last of them ended; None: none did."""
        return self._publisher.last_error

    def connect(self, timeout_s: float = 5.0) -> None:
        """Ask for the topology, and wait until the connection to every worker stands.

        Raises a CallError (ServerUnavailable if it does not within timeout_s seconds).
        """
        self._run(self._publisher.connect(timeout_s))

    def publish(self, ticks: Sequence[market_pb2.Tick]) -> Future[Published]:
        """Send ticks, in order behind those published before; see AsyncMarketDataPublisher.publish."""
        return self._run(self._publish(ticks))

    def publish_batch(self, columns: market_data_pb2.TickColumns) -> TickTally:
        """Send columns of ticks and wait until acknowledged; see AsyncMarketDataPublisher.publish_batch."""
        return self._run(self._publisher.publish_batch(columns))

    def flush(self) -> None:
        """Wait until all that was published is acknowledged; raises what ended the publisher if that comes first."""
        self._run(self._publisher.flush())

    def close(self) -> None:
        """Close the connections; what is not acknowledged ends with PublisherClosed, and may have been applied."""
        with self._closing:
            if not self._loop.is_closed():
                self._run(self._publisher.close())
                self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave: without an error, once all is acknowledged."""
        try:
            if error is None and not self._loop.is_closed():
                self._run(self._publisher.finish())
        finally:
            self.close()

    async def _publish(self, ticks: Sequence[market_pb2.Tick]) -> Future[Published]:
        receipt: Future[Published] = Future()
        receipt.set_running_or_notify_cancel()  # what is on its way cannot be called back
        (await self._publisher.publish(ticks)).add_done_callback(lambda done: _hand_over(done, receipt))
        return receipt

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop.is_closed():
            work.close()
            raise PublisherClosed
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_others_end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _others_end() -> None:
    """Wait for calls of other threads, which a closed publisher ends; what gRPC has left of its own may never end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, left = await asyncio.wait(others, timeout=_LEAVE_S)
        for task in left:
            task.cancel()
        await asyncio.wait(others, timeout=_LEAVE_S)


def _hand_over(done: asyncio.Future[Published], receipt: Future[Published]) -> None:
    error = done.exception()
    if error is not None:
        receipt.set_exception(error)
    else:
        receipt.set_result(done.result())
