"""Where the time of calls went: the round trip, the server's part of it, and the network's.

Recording into an HdrHistogram takes about 0.8 µs in Python, three of them 2.5 µs. On the call's path a sample is
therefore only put into a preallocated buffer, and folded into the histograms later.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import weakref
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

from hdrh.histogram import HdrHistogram

LOWEST_NS = 1_000
"""Shortest time that is told apart: 1 µs. Shorter ones count as this."""

HIGHEST_NS = 60_000_000_000
"""Longest time that is told apart: 60 s. Longer ones count as this."""

SIGNIFICANT_DIGITS = 3

_NO_SERVER_TIME = -1


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of one duration, in microseconds, to three significant digits; NaN where count is 0."""

    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    count: int


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles of everything that is recorded.

    Attributes:
        round_trip: From handing the request to gRPC to having its answer, failures included.
        server: The server's own `Timing.total_ns`; of a message with several answers, the largest.
        network: Round trip less server: wire, both gRPC stacks and the client's Python. Percentiles of the
            differences of each call, which are not the differences of the percentiles.
    """

    round_trip: Percentiles
    server: Percentiles
    network: Percentiles


class CallRecorder(Protocol):
    """What a client tells about its calls: a LatencyRecorder, or an `sla.SlaMonitor` that judges them too."""

    def begin(self) -> int:
        """A call, or a message of a stream, is about to be sent; gives what `end` or `abandon` wants to know it by."""

    def end(self, call: int, status: int = 0, server_ns: int | None = None, ended_ns: int | None = None) -> None:
        """It has ended; to be called once for each `begin`, unless `abandon` is.

        Args:
            call: What `begin` gave.
            status: Number of its gRPC status; 0 is OK.
            server_ns: The server's part of its time, where that is known.
            ended_ns: When, on `time.perf_counter_ns`; None: now.
        """

    def abandon(self, call: int) -> None:
        """The caller does not wait for it any more: how long it would have taken is not known."""

    def record(self, round_trip_ns: int, server_ns: int | None = None) -> None:
        """Take a call that was measured elsewhere and answered OK."""

    def fold(self) -> None:
        """Move what is buffered into the histograms."""

    def reset(self) -> None:
        """Forget every sample."""

    def percentiles(self) -> Percentiles:
        """Percentiles of the round trip."""

    def summary(self) -> LatencySummary:
        """Percentiles of round trip, server and network, of all samples since the start or the last reset."""


class LatencyRecorder:
    """Collects latencies of calls; safe to use from several threads.

    At its bound, `capacity` samples, the call that fills the buffer folds it and is that much later in coming back
    to its caller (about 2.5 µs a sample: 10 ms by default); its own latency was measured before. No sample is ever
    dropped. A loop that cannot spare that calls `fold()` when the market is quiet.

    Args:
        capacity: Samples that the buffer holds; 16 bytes each.
    """

    def __init__(self, capacity: int = 4096) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, must be at least 1 sample")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._round_trips_ns = array("q", bytes(8 * capacity))
        self._servers_ns = array("q", bytes(8 * capacity))
        self._filled = 0
        self._round_trip = new_histogram()
        self._server = new_histogram()
        self._network = new_histogram()

    def begin(self) -> int:
        """A call is about to be sent: its time starts now."""
        return time.perf_counter_ns()

    def end(
        self,
        call: int,
        status: int = 0,  # noqa: ARG002 - all count alike
        server_ns: int | None = None,
        ended_ns: int | None = None,
    ) -> None:
        """It has ended, whatever became of it."""
        self.record((time.perf_counter_ns() if ended_ns is None else ended_ns) - call, server_ns)

    def abandon(self, call: int) -> None:
        """The caller does not wait any more: no sample."""

    def record(self, round_trip_ns: int, server_ns: int | None = None) -> None:
        """Keep one call's sample.

        Args:
            round_trip_ns: Measured by the caller on its monotonic clock.
            server_ns: The server's own total; None where the call got no timing from it.
        """
        with self._lock:
            at = self._filled
            self._round_trips_ns[at] = round_trip_ns
            self._servers_ns[at] = _NO_SERVER_TIME if server_ns is None else server_ns
            self._filled = at + 1
            if self._filled == self._capacity:
                self._fold()

    def fold(self) -> None:
        """Move the buffered samples into the histograms; reading does it too."""
        with self._lock:
            self._fold()

    def reset(self) -> None:
        """Forget every sample."""
        with self._lock:
            self._filled = 0
            for histogram in (self._round_trip, self._server, self._network):
                histogram.reset()

    def percentiles(self) -> Percentiles:
        """Percentiles of the round trip."""
        return self.summary().round_trip

    def summary(self) -> LatencySummary:
        """Percentiles of round trip, server and network, of all samples since the start or the last reset."""
        with self._lock:
            self._fold()
            return LatencySummary(
                round_trip=percentiles_of(self._round_trip),
                server=percentiles_of(self._server),
                network=percentiles_of(self._network),
            )

    def _fold(self) -> None:
        for at in range(self._filled):
            round_trip_ns = self._round_trips_ns[at]
            server_ns = self._servers_ns[at]
            self._round_trip.record_value(inside(round_trip_ns))
            if server_ns != _NO_SERVER_TIME:
                self._server.record_value(inside(server_ns))
                # Two clocks never run at quite the same rate: a difference below zero is zero.
                self._network.record_value(inside(round_trip_ns - server_ns))
        self._filled = 0


def new_histogram(word_size: int = 8) -> HdrHistogram:
    """An empty histogram of nanoseconds; `word_size` is the bytes of a count, 4 or 8."""
    # In units of 1 ns: with 1 µs for the unit, the three digits would hold from 1 ms upwards only.
    histogram = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS, word_size=word_size)
    # Its encoder refers back to it: a cycle of 100 kB and more that a gateway without garbage collection never frees.
    histogram.encoder.histogram = weakref.proxy(histogram)
    return histogram


def inside(duration_ns: int) -> int:
    """The duration as it counts: within the range that is told apart."""
    return min(max(duration_ns, LOWEST_NS), HIGHEST_NS)


def percentiles_of(histogram: HdrHistogram) -> Percentiles:
    """The percentiles of a histogram of nanoseconds by nearest rank: the p-th of n is the ceil(p n)-th smallest.

    The histogram's own reading rounds p n to the nearest rank instead, and so takes the 1,598th of 1,600 for the
    99.9th percentile.
    """
    count = histogram.get_total_count()
    if count == 0:
        return Percentiles(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    max_ns = histogram.max_value
    first = histogram.get_counts_array_index(histogram.get_min_value())
    last = histogram.get_counts_array_index(max_ns)
    running = list(itertools.accumulate(histogram.counts[first : last + 1]))

    def at_us(per_mille: int) -> float:
        index = first + bisect_left(running, -(-count * per_mille // 1000))
        # The upper end of a bucket may lie above the largest sample.
        return float(min(histogram.get_highest_equivalent_value(histogram.get_value_from_index(index)), max_ns)) / 1e3

    return Percentiles(at_us(500), at_us(900), at_us(990), at_us(999), max_ns / 1e3, count)
