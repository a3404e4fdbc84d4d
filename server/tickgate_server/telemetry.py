"""What the hot path counts: preallocated arrays that it adds to and the observer reads.

Adding is one kernel call a request. Readers may see a request half counted, never a torn number: each cell is one
aligned 64-bit word.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

# Upper bounds of the latency buckets in nanoseconds, 1-2-5 from 1 us to 10 s; what is slower falls in one more.
BOUNDS_NS = np.array([m * 10**e for e in range(3, 10) for m in (1, 2, 5)] + [10**10], np.int64)


class Stage(IntEnum):
    """Stages of a request, each with its own histogram."""

    WAITING = 0
    FEATURES = 1
    INFERENCE = 2
    RISK = 3
    TOTAL = 4


@kernel("void(int64[:,::1], int64[::1], int64[::1], int64, int64, int64, int64, int64)")
def _record(
    counts: NDArray[np.int64],
    sums_ns: NDArray[np.int64],
    bounds_ns: NDArray[np.int64],
    waiting_ns: int,
    features_ns: int,
    inference_ns: int,
    risk_ns: int,
    total_ns: int,
) -> None:
    durations = (waiting_ns, features_ns, inference_ns, risk_ns, total_ns)
    for stage in range(5):
        duration = durations[stage]
        bucket = 0
        while bucket < bounds_ns.size and duration > bounds_ns[bucket]:
            bucket += 1
        counts[stage, bucket] += 1
        sums_ns[stage] += duration


class Telemetry:
    """Counters and histograms of one engine.

    Attributes:
        latency_counts: int64 [stages, buckets + 1]; not cumulative.
        latency_sums_ns: int64 [stages].
        reasons: Decisions by number of `Reason`, int64 [128].
        actions: Decisions by number of `Action`, int64 [8].
        statuses: Requests by gRPC status code, int64 [17].
    """

    __slots__ = ("actions", "latency_counts", "latency_sums_ns", "reasons", "statuses")

    def __init__(self) -> None:
        self.latency_counts = np.zeros((len(Stage), BOUNDS_NS.size + 1), np.int64)
        self.latency_sums_ns = np.zeros(len(Stage), np.int64)
        self.reasons = np.zeros(128, np.int64)
        self.actions = np.zeros(8, np.int64)
        self.statuses = np.zeros(17, np.int64)

    def decided(
        self,
        reason: int,
        action: int,
        waiting_ns: int,
        features_ns: int,
        inference_ns: int,
        risk_ns: int,
        total_ns: int,
    ) -> None:
        """Count one decision and where its time went, in nanoseconds."""
        self.reasons[reason] += 1
        self.actions[action] += 1
        _record(
            self.latency_counts,
            self.latency_sums_ns,
            BOUNDS_NS,
            waiting_ns,
            features_ns,
            inference_ns,
            risk_ns,
            total_ns,
        )
