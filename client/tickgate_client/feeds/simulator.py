"""Ticks of nothing, for trying out and for load: each symbol a geometric random walk with a quote around it."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from tickgate.v1 import market_pb2
from tickgate_client.feeds.sources import SourceOptions, TickBatch, TickSource

_STEP = 1e-4
"""Standard deviation of a tick's log return."""

_TICK_SIZE = 0.01


class SimulatedSource(TickSource):
    """Trades with the quote before them, the symbols in turn, so many a second.

    The same seed gives the same prices and sizes; stamps are the clock's, and sequences begin with its microseconds, so
    that a server which saw an earlier run takes those of this one. Where ticks are taken more slowly than they are
    due, they are late, and stamped when they are given.

    Args:
        symbols: How many: SIM0000 and so on.
        rate: Ticks a second over all symbols.
        seed: Of the walks.
        limit: Ticks in all; 0: without an end.
        clock_ns: The wall clock.
    """

    def __init__(
        self,
        *,
        symbols: int = 10,
        rate: float = 1000.0,
        seed: int = 1,
        limit: int = 0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not (symbols >= 1 and rate > 0):
            raise ValueError(f"symbols is {symbols}, rate {rate}: both must be positive")
        self._names = [f"SIM{at:04d}" for at in range(symbols)]
        self._random = random.Random(seed)
        self._prices = [100.0 * math.exp(self._random.gauss()) for _ in self._names]
        self._rate = rate
        self._limit = limit
        self._clock_ns = clock_ns
        self._given = 0

    async def batches(self) -> AsyncGenerator[TickBatch, None]:
        """The ticks that are due, at most 1,024 at once."""
        begin_ns = self._clock_ns()
        while not self._limit or self._given < self._limit:
            now_ns = self._clock_ns()
            due = int((now_ns - begin_ns) / 1e9 * self._rate) + 1 - self._given
            count = min(due, 1024, self._limit - self._given if self._limit else due)
            if count < 1:
                await asyncio.sleep(self._given / self._rate - (now_ns - begin_ns) / 1e9)
                continue
            ticks = [self._tick(self._given + at, begin_ns // 1000, now_ns) for at in range(count)]
            self._given += count
            yield TickBatch(ticks, self._given)

    async def acknowledge(self, position: int) -> None:
        """Nothing to do: ticks of nothing need not come again."""

    def counts(self) -> Mapping[str, int]:
        """Ticks made."""
        return {"made": self._given}

    async def close(self) -> None:
        """Nothing is held."""

    def _tick(self, number: int, first_sequence: int, now_ns: int) -> market_pb2.Tick:
        at = number % len(self._names)
        draw = self._random
        # The quote stands around the price before.
        mid = max(round(self._prices[at] / _TICK_SIZE), 2)
        self._prices[at] *= math.exp(_STEP * draw.gauss())
        price = max(round(self._prices[at] / _TICK_SIZE), 1)
        quote = market_pb2.Quote(
            bid=(mid - 1) * _TICK_SIZE,
            ask=(mid + 1) * _TICK_SIZE,
            bid_size=1 + draw.randrange(100),
            ask_size=1 + draw.randrange(100),
        )
        return market_pb2.Tick(
            symbol=self._names[at],
            exchange_ts_ns=now_ns,
            sequence=first_sequence + number,
            trade=market_pb2.Trade(price=price * _TICK_SIZE, size=1 + draw.randrange(10)),
            quote=quote,
        )


def open_source(options: SourceOptions) -> SimulatedSource:
    """The source `simulator`; raises BadSourceOption."""
    return SimulatedSource(
        symbols=options.count("symbols", 10, most=65_536),
        rate=options.number("rate", 1000.0, least=1e-6),
        seed=options.count("seed", 1, least=0),
        limit=options.count("ticks", 0, least=0),
    )
