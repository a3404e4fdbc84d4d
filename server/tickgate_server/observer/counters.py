"""What the observer counts: numpy arrays, to which a batch of records is added at once.

Sums are exact: a batch's own are float64 holding integers far below 2**53, what they are added to is int64.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import REQUEST_ID_BYTES, Flags, RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.tick_counts import TickCounts
from tickgate_server.records import Stage

# Upper bounds of the latency buckets in nanoseconds, 1-2-5 from 1 us to 10 s; what is slower falls in one more.
BOUNDS_NS = np.array([m * 10**e for e in range(3, 10) for m in (1, 2, 5)] + [10**10], np.int64)
BUCKETS = BOUNDS_NS.size + 1

# The same of a prediction's confidence; below 0.5 only where a model has more than two classes.
CONFIDENCE_BOUNDS = np.array([0.5, 0.525, 0.55, 0.575, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0])
CONFIDENCE_BUCKETS = CONFIDENCE_BOUNDS.size + 1

# The same of the age of features, from 100 us to 1000 s.
AGE_BOUNDS_NS = np.array([m * 10**e for e in range(5, 12) for m in (1, 2, 5)] + [10**12], np.int64)

# Model versions with histograms of their own, `OTHER` among them.
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

EXEMPLAR = np.dtype([("request_id", f"S{REQUEST_ID_BYTES}"), ("clock_ns", np.int64), ("duration_ns", np.int64)])


class Counters:
    """Counts over every record that was added, whichever journal it came from.

    A version has a row in what is counted by version. Where all `MAX_SERIES` are taken, one that is loaded gets the row
    of the version that was unloaded first, whose counts are forgotten; while all others are loaded it shares `OTHER`'s.

    Attributes:
        series: Row of each model version; OTHER has row 0.
        evictions: Rows that were taken from one version and given to another: what `series_of` said before is void.
        latency_counts: int64 [rows, stages, buckets], not cumulative.
        latency_sums_ns: int64 [rows, stages].
        exemplars: EXEMPLAR [rows, stages, buckets]: the newest request with an id in each bucket; empty: none yet.
        confidence_counts: int64 [rows, confidence buckets], not cumulative.
        confidence_sums: float64 [rows].
        age_counts: Of the features' age, int64 [age buckets], not cumulative.
        age_sum_ns: Of these.
        statuses: Requests by gRPC status code, int64 [256].
        actions: Answered requests by number of `Action`, int64 [256].
        reasons: Answered requests by number of `Reason`, int64 [65536].
        deadlines: Requests answered DEADLINE_EXCEEDED by the last stage that they entered, int64 [256].
        ticks: Those that came in, by what became of them.
        changes: Of versions, by what happened to them.
    """

    def __init__(self) -> None:
        self.series: dict[Series, int] = {OTHER: 0}
        self.evictions = 0
        self._loads: Counter[Series] = Counter()  # journals in which each is loaded
        self._unloaded: dict[Series, None] = {}  # of those with a row, the one that has been so for longest first
        self.latency_counts = np.zeros((MAX_SERIES, _STAGES, BUCKETS), np.int64)
        self.latency_sums_ns = np.zeros((MAX_SERIES, _STAGES), np.int64)
        self.exemplars = np.zeros((MAX_SERIES, _STAGES, BUCKETS), EXEMPLAR)
        self.confidence_counts = np.zeros((MAX_SERIES, CONFIDENCE_BUCKETS), np.int64)
        self.confidence_sums = np.zeros(MAX_SERIES)
        self.age_counts = np.zeros(AGE_BOUNDS_NS.size + 1, np.int64)
        self.age_sum_ns = 0
        self.statuses = np.zeros(256, np.int64)
        self.actions = np.zeros(256, np.int64)
        self.reasons = np.zeros(65_536, np.int64)
        self.deadlines = np.zeros(256, np.int64)
        self.ticks = TickCounts()
        self.changes: Counter[str] = Counter()

    def load(self, version: Series) -> None:
        """A version was loaded in one journal: it keeps its row while it is."""
        self._loads[version] += 1
        self._unloaded.pop(version, None)

    def unload(self, version: Series) -> None:
        """A version that was loaded in one journal is no longer: once it is in none, another may take its row."""
        self._loads[version] -= 1
        if self._loads[version] <= 0:
            del self._loads[version]
            if version in self.series:
                self._unloaded[version] = None

    def series_of(self, models: Mapping[int, Model]) -> NDArray[np.int64]:
        """Row of each model by its index in a segment, int64 [highest index + 2]; the last is for no model, -1."""
        rows = np.zeros(max(models, default=-1) + 2, np.int64)
        keys = {index: Series(model.name, str(model.version)) for index, model in models.items()}
        for key in keys.values():
            self._give_row(key)
        for index, key in keys.items():
            rows[index] = self.series.get(key, 0)
        return rows

    def _give_row(self, key: Series) -> None:
        if key in self.series:
            return
        if len(self.series) < MAX_SERIES:
            self.series[key] = len(self.series)
            if key not in self._loads:
                self._unloaded[key] = None
        elif key in self._loads and self._unloaded:
            gone = next(iter(self._unloaded))
            del self._unloaded[gone]
            row = self.series[key] = self.series.pop(gone)
            counts = (self.latency_counts, self.latency_sums_ns, self.confidence_counts, self.confidence_sums)
            for array in counts:
                array[row] = 0
            self.exemplars[row] = np.zeros((), EXEMPLAR)
            self.evictions += 1

    def add(self, decisions: Rows, series: NDArray[np.int64]) -> None:
        """Add records of `layout.DECISION`; `series` as `series_of` their segment's models."""
        statuses = decisions["status"]
        self.statuses += np.bincount(statuses, minlength=256)
        answered = statuses == 0  # columns by themselves: records are wide
        self.actions += np.bincount(decisions["action"][answered], minlength=256)
        reasons = np.bincount(decisions["reason"][answered])
        self.reasons[: reasons.size] += reasons
        self.deadlines += np.bincount(decisions["stage"][statuses == DEADLINE_EXCEEDED], minlength=256)
        indices = decisions["model_index"]
        rows = np.where(indices < series.size - 1, series[np.minimum(indices, series.size - 1)], 0)
        self._add_latencies(decisions, rows)
        self._add_predictions(decisions, rows)
        self.ticks.add_decisions(decisions)

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

    def _add_latencies(self, decisions: Rows, rows: NDArray[np.int64]) -> None:
        """A stage that a request did not complete took no time, and is not counted: it would draw the median to 0."""
        known = len(self.series)
        named = decisions["request_id_bytes"] > 0
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
            told = named[taken]
            if told.any():
                # Of those that fall in one bucket the last stays: they are assigned in order.
                places = (at[told], stage, buckets[told])
                self.exemplars["request_id"][places] = decisions["request_id"][taken][told]
                self.exemplars["clock_ns"][places] = decisions["clock_ns"][taken][told]
                self.exemplars["duration_ns"][places] = durations[told]

    def _add_predictions(self, decisions: Rows, rows: NDArray[np.int64]) -> None:
        """An answer given again is the prediction of an earlier decision."""
        confidences = decisions["confidence"]
        scored = decisions["scored"] & np.isfinite(confidences) & ((decisions["flags"] & Flags.REPEATED) == 0)
        if not scored.any():
            return
        confidences, at, known = confidences[scored], rows[scored], len(self.series)
        places = at * CONFIDENCE_BUCKETS + np.searchsorted(CONFIDENCE_BOUNDS, confidences)
        found = np.bincount(places, minlength=known * CONFIDENCE_BUCKETS)
        self.confidence_counts[:known] += found.reshape(known, CONFIDENCE_BUCKETS)
        self.confidence_sums[:known] += np.bincount(at, weights=confidences, minlength=known)
        clocks_ns, stamps_ns = decisions["clock_ns"][scored], decisions["features_ts_ns"][scored]
        live = (clocks_ns > 0) & (stamps_ns > 0)
        ages_ns = np.maximum(clocks_ns[live] - stamps_ns[live], 0)
        self.age_counts += np.bincount(np.searchsorted(AGE_BOUNDS_NS, ages_ns), minlength=self.age_counts.size)
        self.age_sum_ns += int(ages_ns.sum())


def decisions_of(rows: Rows) -> Rows:
    """Those of polled rows that are decisions."""
    kinds = rows["kind"] == RecordKind.DECISION
    return rows if kinds.all() else rows[kinds]
