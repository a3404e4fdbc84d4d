"""What is remembered of the latest records: latencies of five minutes by model, and answers that may be withdrawn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tickgate_server.control_block import MODEL_SLOTS
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.counters import BOUNDS_NS, BUCKETS

SLICE_NS = 10_000_000_000
SLICES = 30  # five minutes

# Decisions remembered until an UNSENT control, which follows at once, can no longer come.
ANSWERS = 65_536

_NAN = float("nan")


class RecentAnswers:
    """Action and reason of the latest decisions, by sequence."""

    def __init__(self) -> None:
        self._sequences = np.zeros(ANSWERS, np.uint64)
        self._actions = np.zeros(ANSWERS, np.uint8)
        self._reasons = np.zeros(ANSWERS, np.uint16)

    def add(self, decisions: Rows) -> None:
        """Add records of `layout.DECISION`, at most ANSWERS."""
        places = decisions["sequence"] % np.uint64(ANSWERS)
        self._sequences[places] = decisions["sequence"]
        self._actions[places] = decisions["action"]
        self._reasons[places] = decisions["reason"]

    def find(self, sequences: Sequence[int]) -> list[tuple[int, int]]:
        """Action and reason of those that are still remembered."""
        places = ((sequence, sequence % ANSWERS) for sequence in sequences)
        return [
            (int(self._actions[place]), int(self._reasons[place]))
            for sequence, place in places
            if self._sequences[place] == sequence
        ]


class RecentLatency:
    """Total latencies in slices of ten seconds of the server's wall clock, for models with an index below MODEL_SLOTS.

    Records without a clock, those of a server in replay mode, have no place in time and are not counted. So a journal
    that is read anew after hours brings back what belongs to the last five minutes, and nothing else.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((SLICES, MODEL_SLOTS, BUCKETS), np.int64)
        self._numbers = np.full(SLICES, -1, np.int64)  # which slice of time each place holds

    def clear(self) -> None:
        """Forget everything: a server began anew, and an index may mean another model."""
        self._numbers[:] = -1

    def add(self, decisions: Rows, now_ns: int) -> None:
        """Add records of `layout.DECISION`; `now_ns` is the wall clock."""
        numbers = decisions["clock_ns"] // SLICE_NS
        indices = decisions["model_index"]
        now = now_ns // SLICE_NS
        recent = (numbers > now - SLICES) & (numbers <= now) & (decisions["total_ns"] > 0)
        recent &= (indices >= 0) & (indices < MODEL_SLOTS)
        if not recent.any():
            return
        numbers, indices = numbers[recent], indices[recent].astype(np.int64)
        buckets = np.searchsorted(BOUNDS_NS, decisions["total_ns"][recent])
        for number in np.unique(numbers).tolist():
            place = number % SLICES
            if self._numbers[place] != number:
                self._numbers[place] = number
                self._counts[place] = 0
            of_slice = numbers == number
            found = np.bincount(indices[of_slice] * BUCKETS + buckets[of_slice], minlength=MODEL_SLOTS * BUCKETS)
            self._counts[place] += found.reshape(MODEL_SLOTS, BUCKETS)

    def us_p99(self, now_ns: int) -> NDArray[np.float64]:
        """99th percentile in microseconds of each model, float64 [MODEL_SLOTS]; NaN where there is none.

        Interpolated inside its bucket, as Prometheus does; what is slower than the last bound is that bound.
        """
        held = self._counts[self._numbers > now_ns // SLICE_NS - SLICES].sum(axis=0)
        return np.array([_us_p99(counts) for counts in held])


def _us_p99(counts: NDArray[np.int64]) -> float:
    cumulative = np.cumsum(counts)
    total = int(cumulative[-1])
    if total == 0:
        return _NAN
    rank = 0.99 * total
    bucket = int(np.searchsorted(cumulative, rank))
    if bucket >= BOUNDS_NS.size:
        return float(BOUNDS_NS[-1]) / 1e3
    below = float(BOUNDS_NS[bucket - 1]) if bucket else 0.0
    before = int(cumulative[bucket - 1]) if bucket else 0
    share = (rank - before) / int(counts[bucket])
    return (below + share * (float(BOUNDS_NS[bucket]) - below)) / 1e3
