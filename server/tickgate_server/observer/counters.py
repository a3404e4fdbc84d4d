"""What the observer counts: numpy arrays, to which a batch of records is added at once.

Sums are exact: a batch's own are float64 holding integers far below 2**53, what they are added to is int64.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.records import Stage

# Upper bounds of the latency buckets in nanoseconds, 1-2-5 from 1 us to 10 s; what is slower falls in one more.
BOUNDS_NS = np.array([m * 10**e for e in range(3, 10) for m in (1, 2, 5)] + [10**10], np.int64)
BUCKETS = BOUNDS_NS.size + 1

# Model versions with histograms of their own; those beyond share one.
MAX_SERIES = 256
DEADLINE_EXCEEDED = 4  # google.rpc.Code


class TimedStage(IntEnum):
    """Stages of a request, each with its own histogram; TOTAL is arrival to encoding."""

    WAITING = 0
    FEATURES = 1
    INFERENCE = 2
    RISK = 3
    TOTAL = 4


_DURATIONS = tuple(f"{stage.name.lower()}_ns" for stage in TimedStage)
_STAGES = len(TimedStage)


class Series(NamedTuple):
    """A model version that latencies are told by."""

    model: str
    version: str


OTHER = Series("", "")
"""Of decisions whose model is not known: its record is lost, or there are too many."""


class Counters:
    """Counts over every record that was added, whichever journal it came from.

    Attributes:
        series: Row of each model version in the latencies; OTHER has row 0.
        latency_counts: int64 [rows, stages, buckets], not cumulative.
        latency_sums_ns: int64 [rows, stages].
        statuses: Requests by gRPC status code, int64 [256].
        actions: Answered requests by number of `Action`, int64 [256].
        reasons: Answered requests by number of `Reason`, int64 [65536].
        deadlines: Requests answered DEADLINE_EXCEEDED by the last stage that they entered, int64 [256].
    """

    def __init__(self) -> None:
        self.series: dict[Series, int] = {OTHER: 0}
        self.latency_counts = np.zeros((MAX_SERIES, _STAGES, BUCKETS), np.int64)
        self.latency_sums_ns = np.zeros((MAX_SERIES, _STAGES), np.int64)
        self.statuses = np.zeros(256, np.int64)
        self.actions = np.zeros(256, np.int64)
        self.reasons = np.zeros(65_536, np.int64)
        self.deadlines = np.zeros(256, np.int64)

    def series_of(self, models: Mapping[int, Model]) -> NDArray[np.int64]:
        """Row of each model by its index in a segment, int64 [highest index + 2]; the last is for no model, -1."""
        rows = np.zeros(max(models, default=-1) + 2, np.int64)
        for index, model in models.items():
            key = Series(model.name, str(model.version))
            if key not in self.series and len(self.series) < MAX_SERIES:
                self.series[key] = len(self.series)
            rows[index] = self.series.get(key, 0)
        return rows

    def add(self, decisions: Rows, series: NDArray[np.int64]) -> None:
        """Add records of `layout.DECISION`; `series` as `series_of` their segment's models."""
        statuses = decisions["status"]
        self.statuses += np.bincount(statuses, minlength=256)
        answered = decisions[statuses == 0]
        self.actions += np.bincount(answered["action"], minlength=256)
        reasons = np.bincount(answered["reason"])
        self.reasons[: reasons.size] += reasons
        self.deadlines += np.bincount(decisions["stage"][statuses == DEADLINE_EXCEEDED], minlength=256)
        self._add_latencies(decisions, series)

    def withdraw(self, answers: Iterable[tuple[int, int]], status: int) -> None:
        """Take back that decisions were answered OK: found late as they left, they were answered with `status`.

        Args:
            answers: Action and reason of each.
            status: google.rpc.Code.
        """
        for action, reason in answers:
            self.statuses[0] -= 1
            self.statuses[status] += 1
            self.actions[action] -= 1
            self.reasons[reason] -= 1
            if status == DEADLINE_EXCEEDED:
                self.deadlines[Stage.ENCODING] += 1

    def _add_latencies(self, decisions: Rows, series: NDArray[np.int64]) -> None:
        """A stage that a request did not complete took no time, and is not counted: it would draw the median to 0."""
        indices = decisions["model_index"]
        known = len(self.series)
        rows = np.where(indices < series.size - 1, series[np.minimum(indices, series.size - 1)], 0)
        for stage, name in enumerate(_DURATIONS):
            durations = decisions[name]
            taken = durations > 0
            durations = durations[taken]
            if not durations.size:
                continue
            at = rows[taken]
            buckets = np.searchsorted(BOUNDS_NS, durations)
            found = np.bincount(at * BUCKETS + buckets, minlength=known * BUCKETS)
            self.latency_counts[:known, stage] += found.reshape(known, BUCKETS)
            sums = np.bincount(at, weights=durations, minlength=known)
            self.latency_sums_ns[:known, stage] += sums.astype(np.int64)


def decisions_of(rows: Rows) -> Rows:
    """Those of polled rows that are decisions."""
    kinds = rows["kind"] == RecordKind.DECISION
    return rows if kinds.all() else rows[kinds]
