"""Recorded ticks as a source: any format of `tickgate_client.readers`, as fast as possible or at the clock's pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from itertools import islice

from tickgate.v1 import market_pb2
from tickgate_client.feeds.sources import SourceOptions, TickBatch, TickSource
from tickgate_client.readers import read_ticks


class RecordedSource(TickSource):
    """Gives ticks once, in their order.

    Args:
        ticks: Read on a thread, `entries` at a time.
        speed: Times real time: 2 takes half as long as the recording did; 0: as fast as possible.
        restamp: Move the stamps, so that the first is now and the others follow at that speed: else a server that
            checks its clock finds them stale. Needs a speed.
        entries: Ticks of a batch at most.
        clock_ns: The wall clock.
    """

    def __init__(
        self,
        ticks: Iterator[market_pb2.Tick],
        *,
        speed: float = 0.0,
        restamp: bool = False,
        entries: int = 1000,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if restamp and not speed:
            raise ValueError("restamp needs a speed: without one there is no time between two ticks")
        self._ticks = ticks
        self._speed = speed
        self._restamp = restamp
        self._entries = entries
        self._clock_ns = clock_ns
        self._read = 0
        self._acknowledged = 0

    async def batches(self) -> AsyncGenerator[TickBatch, None]:
        """The ticks, those that are due together; raises what the reader does (BadTickFile for `csv`)."""
        pace = None
        while chunk := await asyncio.to_thread(lambda: list(islice(self._ticks, self._entries))):
            if not self._speed:
                yield self._batch(chunk)
                continue
            pace = pace or _Pace(chunk[0].exchange_ts_ns, self._clock_ns(), self._speed)
            while chunk:
                now_ns = self._clock_ns()
                due = next((at for at, tick in enumerate(chunk) if pace.due_ns(tick) > now_ns), len(chunk))
                if not due:
                    await asyncio.sleep((pace.due_ns(chunk[0]) - now_ns) / 1e9)
                    continue
                batch, chunk = chunk[:due], chunk[due:]
                if self._restamp:
                    for tick in batch:
                        tick.exchange_ts_ns = pace.due_ns(tick)
                yield self._batch(batch)

    async def acknowledge(self, position: int) -> None:
        """Count."""
        self._acknowledged = position

    def counts(self) -> Mapping[str, int]:
        """Ticks read, and those that are through."""
        return {"read": self._read, "through": self._acknowledged}

    async def close(self) -> None:
        """Nothing is held: the reader closes its file with its last tick."""

    def _batch(self, ticks: list[market_pb2.Tick]) -> TickBatch:
        self._read += len(ticks)
        return TickBatch(ticks, self._read)


class _Pace:
    """When a tick is due by the wall clock."""

    def __init__(self, first_ns: int, begin_ns: int, speed: float) -> None:
        self._first_ns = first_ns
        self._begin_ns = begin_ns
        self._speed = speed

    def due_ns(self, tick: market_pb2.Tick) -> int:
        return self._begin_ns + int((tick.exchange_ts_ns - self._first_ns) / self._speed)


def open_source(options: SourceOptions) -> RecordedSource:
    """The source `file`; raises BadSourceOption, UnknownTickReader and ExtraMissing."""
    path = options.text("path")
    speed = options.number("speed", 0.0)
    restamp = options.choice("restamp", ("no", "yes")) == "yes"
    if restamp and not speed:
        raise options.bad("restamp", "'yes' without a speed", "-o speed=1, or no restamp")
    return RecordedSource(
        read_ticks(options.text("format", "csv"), path),
        speed=speed,
        restamp=restamp,
        entries=options.count("entries", 1000),
    )
