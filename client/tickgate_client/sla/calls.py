"""The callers' side of the monitor: what a call costs its caller, and what must not wait for the monitor's thread."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence

from tickgate_client.sla.judge import Judge
from tickgate_client.sla.objectives import Objective

_UNAVAILABLE = 14
# CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server has not
# answered. With the others it has, if only to say that the request is no good.
_UNANSWERED = frozenset({1, 2, 4, 8, 13, _UNAVAILABLE, 15})

_JUST_AFTER_S = 1e-4

Sample = tuple[int, int, int | None, int]
"""When a call ended, its round trip, the server's time of it, all in ns, and the number of its gRPC status."""


class CallLog:
    """Calls in flight, and ended ones that wait to be folded. Safe to use from several threads.

    At its bound, `capacity` samples that nobody has folded, a sample is dropped and counted; a call that stalls or
    loses the server is noticed all the same.

    Attributes:
        dropped: Samples for which there was no room.
        abandoned: Calls whose caller did not wait for the end.
    """

    def __init__(self, objectives: Sequence[Objective], capacity: int, clock: Callable[[], int]) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, must be at least 1 sample")
        self.dropped = 0
        self.abandoned = 0
        self._capacity = capacity
        self._clock = clock
        self._judges = tuple(Judge(objective) for objective in objectives)
        self._least_stall_ns = min((objective.stall_ns for objective in objectives), default=1 << 62)
        self._wake = threading.Event()
        # Each change of these is one operation of the interpreter, or under the lock.
        self._numbers = itertools.count(1)
        self._in_flight: dict[int, int] = {}
        self._samples: deque[Sample] = deque()
        self._owed_since_ns: int | None = None
        self._lost_ns: int | None = None
        self._lost_for: str | None = None
        self._rarely = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Calls without an answer."""
        return len(self._in_flight)

    def begin(self) -> int:
        """A call, or a message of a stream, is about to be sent."""
        call = next(self._numbers)
        self._in_flight[call] = self._clock()
        return call

    def end(self, call: int, status: int = 0, server_ns: int | None = None, ended_ns: int | None = None) -> None:
        """It has ended; see `latency.CallRecorder.end`. Raises ValueError for one that had ended before."""
        now_ns = self._clock() if ended_ns is None else ended_ns
        began_ns = self._in_flight.get(call)
        if began_ns is None:
            raise ValueError(f"call {call} is not in flight: it has ended before, or was never begun")
        took_ns = now_ns - began_ns
        # What is wrong is said before the call leaves the table: no order slips through in between.
        if status in _UNANSWERED:
            self._unanswered(status, began_ns, now_ns)
        elif self._owed_since_ns is not None:
            self._owed_since_ns = None
        if took_ns > self._least_stall_ns:
            self._stalled(took_ns, now_ns)
        del self._in_flight[call]
        self._append((now_ns, took_ns, server_ns, status))

    def abandon(self, call: int) -> None:
        """The caller does not wait for it any more: no sample, but a stall if it was one already."""
        now_ns = self._clock()
        began_ns = self._in_flight.get(call)
        if began_ns is None:
            raise ValueError(f"call {call} is not in flight: it has ended before, or was never begun")
        if now_ns - began_ns > self._least_stall_ns:
            self._stalled(now_ns - began_ns, now_ns)
        del self._in_flight[call]
        with self._rarely:
            self.abandoned += 1

    def record(self, round_trip_ns: int, server_ns: int | None = None) -> None:
        """Take a call that was measured elsewhere, answered OK, and has just ended."""
        now_ns = self._clock()
        self._owed_since_ns = None
        if round_trip_ns > self._least_stall_ns:
            self._stalled(round_trip_ns, now_ns)
        self._append((now_ns, round_trip_ns, server_ns, 0))

    def server_lost(self, why: str) -> None:
        """Say that the server is lost, for who learns it otherwise: a watch of the trading state that broke, say."""
        self._lost_ns = self._clock()
        self._lost_for = why
        self._hurry()

    def server_found(self) -> None:
        """Take `server_lost` back; the breach ends when everything was well for the clean time."""
        if self._lost_for is not None:
            self._lost_ns = self._clock()
        self._lost_for = None

    def _append(self, sample: Sample) -> None:
        if len(self._samples) >= self._capacity:
            with self._rarely:
                self.dropped += 1
            return
        self._samples.append(sample)

    def _unanswered(self, status: int, began_ns: int, now_ns: int) -> None:
        if self._owed_since_ns is None:
            self._owed_since_ns = began_ns
        if status == _UNAVAILABLE:
            self._lost_ns = now_ns
            self._hurry()

    def _stalled(self, took_ns: int, now_ns: int) -> None:
        for judge in self._judges:
            if took_ns > judge.objective.stall_ns:
                judge.stalled(now_ns)
        self._hurry()

    def _hurry(self) -> None:
        """Have the thread look now, where that can begin a breach."""
        if any(judge.breach is None for judge in self._judges):
            self._wake.set()

    def _judge_outstanding(self, now_ns: int) -> None:
        """Notice a call that is outstanding for too long, and a server that has answered none for so long."""
        since_ns = self._owing_since()
        if since_ns is not None and now_ns - since_ns > self._least_stall_ns:
            self._stalled(now_ns - since_ns, now_ns)

    def _stall_in_s(self) -> float:
        """Seconds until the oldest call outstanding is a stall; infinite without one, or where it already is."""
        since_ns = self._owing_since()
        left_ns = -1 if since_ns is None else since_ns + self._least_stall_ns - self._clock()
        return left_ns / 1e9 + _JUST_AFTER_S if left_ns >= 0 else math.inf

    def _owing_since(self) -> int | None:
        """Since when the server owes an answer."""
        # One copy by the interpreter: other threads go on adding and removing.
        since_ns = min(list(self._in_flight.values()), default=None)
        owed_ns = self._owed_since_ns
        if since_ns is None or owed_ns is None:
            return owed_ns if since_ns is None else since_ns
        return min(since_ns, owed_ns)
