"""Counting in batches gives what counting one by one gives."""

import math
import time
from collections import Counter

import numpy as np
import pytest

from tickgate_server.control_block import MODEL_SLOTS
from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import DECISION, Flags, RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.counters import (
    BOUNDS_NS,
    BUCKETS,
    CONFIDENCE_BOUNDS,
    DEADLINE_EXCEEDED,
    MAX_SERIES,
    OTHER,
    Counters,
    Series,
    TimedStage,
    decisions_of,
)
from tickgate_server.observer.recent import ANSWERS, SLICE_NS, SLICES, RecentAnswers, RecentLatency

NOW_NS = 1_700_000_000_000_000_000


def models(count: int) -> dict[int, Model]:
    return {index: Model(index, f"m{index % 2}", index, "schema", "hash") for index in range(count)}


def decisions(count: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, DECISION)
    rows["kind"] = RecordKind.DECISION
    rows["sequence"] = np.arange(1, count + 1)
    rows["status"] = random.choice([0, 0, 0, 3, DEADLINE_EXCEEDED, 200], count)
    rows["stage"] = random.integers(0, 7, count)
    rows["action"] = random.integers(0, 5, count)
    rows["reason"] = random.integers(0, 300, count)
    rows["model_index"] = random.integers(-1, 6, count)
    for stage in TimedStage:
        durations = random.choice([0, -5, 1, 1000, 1001, 10**10, 10**10 + 1], count)
        rows[f"{stage.name.lower()}_ns"] = np.where(random.random(count) < 0.5, durations, random.integers(0, 10**9))
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_batches_of_any_size_count_as_one_by_one(seed: int) -> None:
    rows = decisions(500, seed)
    counters = Counters()
    series = counters.series_of(models(4))  # indices 4 and 5 are those of models that are not known
    for batch in np.split(rows, sorted(np.random.default_rng(seed).integers(0, len(rows), 7))):
        if batch.size:
            counters.add(batch, series)
    statuses: Counter[int] = Counter()
    answers: Counter[tuple[str, int]] = Counter()
    deadlines: Counter[int] = Counter()
    buckets: Counter[tuple[Series, TimedStage, int]] = Counter()
    sums: Counter[tuple[Series, TimedStage]] = Counter()
    for row in rows:
        statuses[int(row["status"])] += 1
        if row["status"] == 0:
            answers["action", int(row["action"])] += 1
            answers["reason", int(row["reason"])] += 1
        if row["status"] == DEADLINE_EXCEEDED:
            deadlines[int(row["stage"])] += 1
        index = int(row["model_index"])
        who = Series(f"m{index % 2}", str(index)) if 0 <= index < 4 else OTHER
        for stage in TimedStage:
            duration = int(row[f"{stage.name.lower()}_ns"])
            if duration > 0:
                place = next((k for k, bound in enumerate(BOUNDS_NS.tolist()) if duration <= bound), BUCKETS - 1)
                buckets[who, stage, place] += 1
                sums[who, stage] += duration
    assert dict(enumerate(counters.statuses.tolist())) == {k: statuses[k] for k in range(256)}
    assert counters.actions.tolist() == [answers["action", k] for k in range(256)]
    assert counters.reasons[:400].tolist() == [answers["reason", k] for k in range(400)]
    assert counters.deadlines.tolist() == [deadlines[k] for k in range(256)]
    for who, at in counters.series.items():
        for stage in TimedStage:
            assert counters.latency_counts[at, stage].tolist() == [buckets[who, stage, k] for k in range(BUCKETS)]
            assert int(counters.latency_sums_ns[at, stage]) == sums[who, stage]


def test_sums_stay_exact_where_a_float_no_longer_is() -> None:
    rows = decisions(1, 0)
    rows["total_ns"] = 10**10 + 1
    counters = Counters()
    series = counters.series_of({})
    counters.latency_sums_ns[0, TimedStage.TOTAL] = 2**60
    counters.add(rows, series)
    assert int(counters.latency_sums_ns[0, TimedStage.TOTAL]) == 2**60 + 10**10 + 1


def test_model_versions_beyond_the_bound_share_one_series() -> None:
    counters = Counters()
    rows = counters.series_of(models(MAX_SERIES + 10))
    assert len(counters.series) == MAX_SERIES
    assert rows[MAX_SERIES - 2] == MAX_SERIES - 1
    assert set(rows[MAX_SERIES - 1 :]) == {0}


def test_controls_are_no_decisions() -> None:
    rows = decisions(4, 0)
    rows["kind"][1:3] = RecordKind.CONTROL
    assert decisions_of(rows)["sequence"].tolist() == [1, 4]


def test_an_answer_that_was_withdrawn_counts_as_what_it_became() -> None:
    rows = decisions(3, 0)
    rows["status"] = 0
    rows["action"], rows["reason"] = 2, [7, 8, 9]
    counters = Counters()
    counters.add(rows, counters.series_of({}))
    answers = RecentAnswers()
    answers.add(rows)
    counters.withdraw(answers.find([2, 3, 2 + ANSWERS]), DEADLINE_EXCEEDED)
    assert counters.statuses[[0, DEADLINE_EXCEEDED]].tolist() == [1, 2]
    assert counters.actions[2] == 1
    assert counters.reasons[[7, 8, 9]].tolist() == [1, 0, 0]
    assert counters.deadlines.sum() == 2


def recent_rows(latencies_ns: list[int], clock_ns: int, index: int = 0) -> Rows:
    rows = np.zeros(len(latencies_ns), DECISION)
    rows["total_ns"], rows["clock_ns"], rows["model_index"] = latencies_ns, clock_ns, index
    return rows


def test_the_recent_percentile_lies_in_its_bucket_and_is_each_models_own() -> None:
    recent = RecentLatency()
    recent.add(recent_rows([3_000] * 980 + [40_000] * 20, NOW_NS, 0), NOW_NS)
    recent.add(recent_rows([15 * 10**9], NOW_NS, MODEL_SLOTS - 1), NOW_NS)
    found = recent.us_p99(NOW_NS)
    assert 20.0 <= found[0] <= 50.0
    assert found[MODEL_SLOTS - 1] == 1e7
    assert all(math.isnan(value) for value in found[1:-1])


@pytest.mark.parametrize(
    ("clock_ns", "index"),
    [
        (0, 0),
        (NOW_NS - SLICES * SLICE_NS, 0),
        (NOW_NS + SLICE_NS, 0),
        (NOW_NS, -1),
        (NOW_NS, MODEL_SLOTS),
    ],
    ids=["without a clock", "too long ago", "from the future", "no model", "beyond the slots"],
)
def test_what_is_not_of_the_last_five_minutes_is_not_counted(clock_ns: int, index: int) -> None:
    recent = RecentLatency()
    recent.add(recent_rows([3_000], clock_ns, index), NOW_NS)
    assert np.isnan(recent.us_p99(NOW_NS)).all()


def test_recent_latencies_pass_and_can_be_forgotten() -> None:
    recent = RecentLatency()
    recent.add(recent_rows([3_000], NOW_NS), NOW_NS)
    later_ns = NOW_NS + SLICES * SLICE_NS
    assert np.isnan(recent.us_p99(later_ns)).all()
    recent.add(recent_rows([300_000], later_ns), later_ns)  # takes the place of the slice that passed
    assert 200.0 <= recent.us_p99(later_ns)[0] <= 500.0
    recent.clear()
    assert np.isnan(recent.us_p99(time.time_ns())).all()


def test_the_row_of_the_version_that_was_unloaded_first_is_given_to_one_that_is_loaded() -> None:
    counters = Counters()
    known = models(MAX_SERIES - 1)
    versions = {index: Series(found.name, str(found.version)) for index, found in known.items()}
    for version in versions.values():
        counters.load(version)
    rows = counters.series_of(known)
    assert sorted(rows[:-1]) == list(range(1, MAX_SERIES))
    taken = decisions(200, 0)
    taken["model_index"], taken["scored"], taken["confidence"] = 7, True, 0.6
    counters.add(taken, rows)
    newer = {MAX_SERIES: Model(MAX_SERIES, "new", 1, "schema", "hash")}
    counters.load(Series("new", "1"))
    assert counters.series_of(newer)[MAX_SERIES] == 0  # all others are loaded
    counters.unload(versions[7])
    counters.unload(versions[9])
    assert counters.series_of(newer)[MAX_SERIES] == rows[7]
    assert counters.evictions == 1
    assert versions[7] not in counters.series
    assert not counters.latency_counts[rows[7]].any()
    assert not counters.exemplars[rows[7]]["request_id"].any()
    assert not counters.confidence_counts[rows[7]].any()
    assert counters.series_of(known)[7] == 0  # it is not loaded, and takes nobody's row
    counters.load(versions[9])
    counters.load(Series("newest", "1"))
    newest = {0: Model(0, "newest", 1, "schema", "hash")}
    assert counters.series_of(newest)[0] == 0  # 9 came back before


def test_a_version_that_another_journal_still_has_loaded_keeps_its_row() -> None:
    counters = Counters()
    version = Series("m0", "0")
    counters.load(version)
    counters.load(version)
    counters.series_of(models(MAX_SERIES))
    counters.unload(version)
    counters.load(Series("new", "1"))
    newer = {0: Model(0, "new", 1, "schema", "hash")}
    counters.series_of(newer)
    assert version in counters.series


def test_exemplars_are_the_newest_request_with_an_id_in_each_bucket() -> None:
    rows = decisions(4, 0)
    for stage in TimedStage:
        rows[f"{stage.name.lower()}_ns"] = 0
    rows["total_ns"] = [1500, 1600, 1700, 30_000]
    rows["request_id"] = [b"a", b"b", b"", b"d"]
    rows["request_id_bytes"] = [1, 1, 0, 1]
    rows["clock_ns"] = [10, 11, 12, 13]
    rows["model_index"] = -1
    counters = Counters()
    counters.add(rows, counters.series_of({}))
    found = counters.exemplars[0, TimedStage.TOTAL]
    told = {int(k): found[k].item() for k in np.flatnonzero(found["request_id"])}
    assert told == {1: (b"b", 11, 1600), 5: (b"d", 13, 30_000)}
    assert not counters.exemplars[0, : TimedStage.TOTAL]["request_id"].any()


def test_confidences_and_ages_are_those_of_predictions_made_once() -> None:
    rows = np.zeros(5, DECISION)
    rows["kind"] = RecordKind.DECISION
    rows["scored"] = [True, True, False, True, True]
    rows["confidence"] = [0.55, 0.551, 0.9, math.nan, 0.9]
    rows["flags"][4] = Flags.REPEATED
    rows["clock_ns"] = NOW_NS
    rows["features_ts_ns"] = [NOW_NS - 150_000, NOW_NS + 5, 0, NOW_NS, NOW_NS]
    rows["model_index"] = -1
    counters = Counters()
    counters.add(rows, counters.series_of({}))
    places = np.searchsorted(CONFIDENCE_BOUNDS, [0.55, 0.551])
    assert np.flatnonzero(counters.confidence_counts[0]).tolist() == places.tolist()
    assert counters.confidence_counts.sum() == 2
    assert counters.confidence_sums[0] == pytest.approx(1.101)
    assert counters.age_counts[[0, 1]].tolist() == [1, 1]  # below 0 is 0
    assert (counters.age_counts.sum(), counters.age_sum_ns) == (2, 150_000)
