"""Sliding windows over what calls did: histograms and counts in slices, the oldest of which fall out.

A sample goes into one open slice of 5 s. A slice that is over is added to each window's ring of thirteen: a window of
one minute moves in steps of 5 s, five minutes in 25 s, an hour in 5 minutes. So a window holds its span and up to a
twelfth of it more, a sample costs the same however many windows there are, and memory is bounded: 41 slices of three
histograms of 110 kB, 14 MB, and a fourth histogram in those with failed calls. Counts have four bytes: one bucket, a
thousandth wide, takes 4.3e9 calls.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from hdrh.histogram import HdrHistogram

from tickgate_client.latency import LatencySummary, inside, new_histogram, percentiles_of
from tickgate_client.sla.objectives import WINDOWS_S

SLICE_S = 5
STEPS = 12
_SLICE_NS = SLICE_S * 1_000_000_000
_COUNT_BYTES = 4


class Slice:
    """What the calls of some time did.

    Attributes:
        round_trip: Nanoseconds of every call, and of those that a fixed rate says were omitted.
        server: Of answered calls whose server said it.
        network: Round trip less server, call by call.
        failed: Round trips of the calls that were not OK; None if all were.
        omitted: Calls that a stalled caller did not make, see `add`.
        by_status: Calls by number of their gRPC status.
        bad: Calls that were bad, omitted ones among them, for each objective.
        sum_ns: Of all round trips.
    """

    __slots__ = ("bad", "by_status", "failed", "network", "omitted", "round_trip", "server", "sum_ns")

    def __init__(self, objectives: int) -> None:
        self.round_trip = new_histogram(_COUNT_BYTES)
        self.server = new_histogram(_COUNT_BYTES)
        self.network = new_histogram(_COUNT_BYTES)
        self.failed: HdrHistogram | None = None
        self.omitted = 0
        self.by_status: Counter[int] = Counter()
        self.bad = [0] * objectives
        self.sum_ns = 0

    @property
    def calls(self) -> int:
        """Calls that count, omitted ones among them."""
        count: int = self.round_trip.get_total_count()
        return count

    def add(
        self, round_trip_ns: int, server_ns: int | None, status: int, *, interval_ns: int, limits_ns: Sequence[int]
    ) -> None:
        """Count one call, and those that it kept from being made.

        A caller that asks every `interval_ns` and waits for each answer omits the calls that were due during a long
        one; they would have waited for round_trip - interval, round_trip - 2 interval, ... down to the interval. This
        is HdrHistogram's correction (G. Tene, "How NOT to Measure Latency", 2013; Java's
        AbstractHistogram.recordValueWithExpectedInterval; the Python port also adds the remainder below one interval,
        which is the next call's own sample). It is right for one call at a time. Only the round trip is corrected:
        what the server would have said of calls that were not made is not known. Calls omitted during one that failed
        count as bad.

        Args:
            round_trip_ns: As measured.
            server_ns: None if the server did not say.
            status: Number of the gRPC status.
            interval_ns: 0 if the caller has no fixed rate.
            limits_ns: Longest good round trip of each objective.
        """
        took_ns = inside(round_trip_ns)
        self.by_status[status] += 1
        omitted = max(took_ns // interval_ns - 1, 0) if interval_ns else 0
        self.omitted += omitted
        self.sum_ns += (1 + omitted) * took_ns - interval_ns * omitted * (omitted + 1) // 2
        _record(self.round_trip, took_ns, interval_ns)
        if server_ns is not None:
            self.server.record_value(inside(server_ns))
            # Two clocks never run at quite the same rate: a difference below zero is the least one.
            self.network.record_value(inside(round_trip_ns - server_ns))
        if status:
            self.failed = self.failed or new_histogram(_COUNT_BYTES)
            _record(self.failed, took_ns, interval_ns)
        for at, limit_ns in enumerate(limits_ns):
            if status:
                self.bad[at] += 1 + omitted
            elif took_ns > limit_ns:
                # took - k interval > limit, k = 0, 1, ...
                late = -((limit_ns - took_ns) // interval_ns) if interval_ns else 1
                self.bad[at] += min(late, 1 + omitted)

    def merge(self, other: Slice) -> None:
        """Count everything of another slice too."""
        for own, others in (
            (self.round_trip, other.round_trip),
            (self.server, other.server),
            (self.network, other.network),
        ):
            if others.get_total_count():
                most = max(own.max_value, others.max_value)
                own.add(others)
                own.max_value = most  # adding takes the upper end of its bucket
        if other.failed is not None:
            self.failed = self.failed or new_histogram(_COUNT_BYTES)
            self.failed.add(other.failed)
        self.omitted += other.omitted
        self.sum_ns += other.sum_ns
        self.by_status.update(other.by_status)
        for at, bad in enumerate(other.bad):
            self.bad[at] += bad

    def latency(self) -> LatencySummary:
        """Percentiles of the three times."""
        return LatencySummary(
            round_trip=percentiles_of(self.round_trip),
            server=percentiles_of(self.server),
            network=percentiles_of(self.network),
        )


class Windows:
    """The sliding windows of WINDOWS_S, and everything since the start. Not safe to use from several threads.

    Args:
        objectives: How many there are.
    """

    def __init__(self, objectives: int) -> None:
        self._objectives = objectives
        self._open: Slice | None = None
        self._open_key = 0
        self._before = Slice(objectives)
        self._rings: dict[int, deque[tuple[int, Slice]]] = {span_s: deque() for span_s in WINDOWS_S}

    def at(self, now_ns: int) -> Slice:
        """The open slice of that time; one that is over is closed first. Time never goes back."""
        self.turn(now_ns)
        if self._open is None:
            self._open = Slice(self._objectives)
        return self._open

    def turn(self, now_ns: int) -> None:
        """Let time pass: close the open slice if it is over, and let slices fall out of the windows."""
        key = max(now_ns // _SLICE_NS, self._open_key)
        if key == self._open_key:
            return
        if self._open is not None:
            self._close(self._open)
        self._open, self._open_key = None, key
        for span_s, ring in self._rings.items():
            width_ns = _width_ns(span_s)
            while ring and (ring[0][0] + 1) * width_ns <= key * _SLICE_NS - span_s * 1_000_000_000:
                ring.popleft()

    def window(self, span_s: int) -> Slice:
        """Everything of one window, in a slice of its own."""
        return self._sum([closed for _, closed in self._rings[span_s]])

    def everything(self) -> Slice:
        """Everything since the start, in a slice of its own."""
        return self._sum([self._before])

    def counts(self, span_s: int) -> tuple[int, list[int]]:
        """The calls of one window, and how many of them were bad for each objective."""
        slices = [closed for _, closed in self._rings[span_s]]
        if self._open is not None:
            slices.append(self._open)
        bad = [sum(part.bad[at] for part in slices) for at in range(self._objectives)]
        return sum(part.calls for part in slices), bad

    def _sum(self, slices: Sequence[Slice]) -> Slice:
        total = Slice(self._objectives)
        for part in slices:
            total.merge(part)
        if self._open is not None:
            total.merge(self._open)
        return total

    def _close(self, over: Slice) -> None:
        self._before.merge(over)
        for span_s, ring in self._rings.items():
            key = self._open_key * _SLICE_NS // _width_ns(span_s)
            if not ring or ring[-1][0] != key:
                ring.append((key, Slice(self._objectives)))
            ring[-1][1].merge(over)


def _width_ns(span_s: int) -> int:
    return span_s * 1_000_000_000 // STEPS


def _record(histogram: HdrHistogram, took_ns: int, interval_ns: int) -> None:
    """Record took, took - interval, ... as long as they are at least one interval; 0 is no interval."""
    histogram.record_value(took_ns)
    if not interval_ns:
        return
    value_ns = took_ns - interval_ns
    while value_ns >= interval_ns:
        # All that fall into one bucket at once: a minute's stall at 100,000 calls a second is six million values.
        lowest_ns = max(histogram.get_lowest_equivalent_value(value_ns), interval_ns)
        count = (value_ns - lowest_ns) // interval_ns + 1
        histogram.record_value(value_ns, count)
        value_ns -= count * interval_ns
