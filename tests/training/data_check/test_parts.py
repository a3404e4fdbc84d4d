"""What counts in bounded memory, each against a slow reference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.data_check.largest import Largest
from tickgate_training.data_check.sketch import RELATIVE_ERROR, Sketch
from tickgate_training.data_check.timeline import BINS, Timeline


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-5, 1e11)), min_size=1, max_size=60),
    st.floats(0, 1),
    st.integers(0, 60),
)
def test_a_sketched_quantile_is_within_its_error_of_the_value_of_that_rank(
    values: list[float], share: float, cut: int
) -> None:
    sketch = Sketch()
    for part in (values[:cut], values[cut:]):
        sketch.take(np.array(part))
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    assert sketch.quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-9))
    assert (sketch.total, sketch.least, sketch.greatest) == (len(values), min(values), max(values))


def test_an_empty_sketch_has_no_quantile_and_one_value_is_all_of_them() -> None:
    sketch = Sketch()
    sketch.take(np.array([]))
    assert math.isnan(sketch.quantile(0.5))
    assert math.isnan(sketch.least)
    sketch.take(np.array([0.25]))
    assert [sketch.quantile(share) for share in (0.0, 0.5, 1.0)] == [0.25] * 3


@given(st.lists(st.floats(0, 10), max_size=30), st.integers(1, 6))
def test_the_largest_are_kept_first_come_of_equals(values: list[float], limit: int) -> None:
    kept: Largest[int] = Largest(limit)
    for place, value in enumerate(values):
        kept.offer(value, place)
    assert kept.items() == sorted(range(len(values)), key=lambda place: (-values[place], place))[:limit]


stamps = st.integers(1, 2**62)


@given(st.lists(st.lists(st.tuples(stamps, st.integers(0, 1)), max_size=8), min_size=1, max_size=6))
def test_a_timeline_counts_every_stamp_in_the_bin_that_it_lies_in(pieces: list[list[tuple[int, int]]]) -> None:
    timeline = Timeline(2)
    for piece in pieces:
        timeline.take(
            np.array([stamp for stamp, _ in piece], np.int64), np.array([kind for _, kind in piece], np.int64)
        )
    expected = np.zeros((2, BINS), np.int64)
    for stamp, kind in (one for piece in pieces for one in piece):
        assert timeline.begin_ns is not None
        assert timeline.begin_ns % timeline.width_ns == 0
        expected[kind, (stamp - timeline.begin_ns) // timeline.width_ns] += 1
    assert timeline.counts.tolist() == expected.tolist()


def test_a_timeline_is_no_coarser_than_its_span_asks_for() -> None:
    timeline = Timeline(1)
    begin = 1_700_000_000_000_000_000
    timeline.take(np.array([begin, begin + 60_000_000_000]), np.zeros(2, np.int64))
    assert timeline.width_ns <= 2 * 60_000_000_000 / (BINS - 1) * 2
    assert timeline.used().sum() == 2
