"""Combinatorial purged splits: every choice, every path once, nothing fitted that a test label or embargo reaches."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from skfolio.model_selection import CombinatorialPurgedCV

from tickgate_training.errors import TooFewRows
from tickgate_training.labels import fixed_horizon, panel_ends
from tickgate_training.splits import Block
from tickgate_training.splits.combinatorial import CombinatorialConfig, combinatorial, recombine


@st.composite
def choices(draw: st.DrawFn) -> tuple[int, int, int, int, np.ndarray]:
    """Rows, groups, test groups, embargo, and label intervals of random lengths."""
    groups = draw(st.integers(3, 6))
    tested = draw(st.integers(2, groups - 1))
    rows = draw(st.integers(groups, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rows, groups, tested, draw(st.integers(0, 6)), np.arange(rows) + rng.integers(1, 8, rows)


def test_six_groups_two_at_a_time_are_the_books_fifteen_splits_and_five_paths() -> None:
    splits = combinatorial(60, 6, 2)
    assert [split.number for split in splits] == list(range(15))
    assert {path for split in splits for path in split.paths} == set(range(5))
    assert splits[0].tests == (Block(0, 10), Block(10, 20))
    assert splits[-1].tests == (Block(40, 50), Block(50, 60))


@given(choices())
def test_every_row_is_in_exactly_phi_paths_and_each_path_scores_it_once(
    choice: tuple[int, int, int, int, np.ndarray],
) -> None:
    rows, groups, tested, embargo, _ = choice
    splits = combinatorial(rows, groups, tested, embargo)
    phi = tested * comb(groups, tested) // groups
    assert len(splits) == comb(groups, tested)
    times = np.zeros((phi, rows), np.int64)
    for split in splits:
        for test, path in zip(split.tests, split.paths, strict=True):
            times[path, test.rows] += 1
    assert (times == 1).all()
    # A score that says from which split it comes: each path takes every row from a split that tested it.
    paths = recombine(splits, [np.full(split.test_rows().size, float(split.number)) for split in splits])
    assert paths.shape == (phi, rows)
    for row in range(rows):
        assert sorted(paths[:, row]) == [split.number for split in splits if row in split.test_rows()]


@given(choices())
@settings(max_examples=50)
def test_no_train_interval_meets_a_test_interval_nor_the_embargo_after_it(
    choice: tuple[int, int, int, int, np.ndarray],
) -> None:
    rows, groups, tested, embargo, ends = choice
    for split in combinatorial(rows, groups, tested, embargo):
        train, test = split.train_rows(ends), split.test_rows()
        assert not set(train) & set(test)
        scored = test[ends[test] < rows]
        for row in train:
            assert ((ends[scored] < row) | (scored > ends[row])).all()
            assert ((test < row) | (test > ends[row])).all()
        for block in split.tests:
            inside = np.arange(block.start, block.stop)
            last = max([block.stop - 1, *ends[inside][ends[inside] < rows].tolist()])
            assert not set(train) & set(range(block.start, last + embargo + 1))


@given(choices())
@settings(max_examples=50)
def test_every_row_that_touches_neither_is_kept(choice: tuple[int, int, int, int, np.ndarray]) -> None:
    rows, groups, tested, embargo, ends = choice
    for split in combinatorial(rows, groups, tested, embargo):
        spans = []
        for block in split.tests:
            inside = [end for end in ends[block.rows].tolist() if end < rows]
            spans.append((block.start, max([block.stop - 1, *inside])))
        free = [row for row in range(rows) if all(ends[row] < first or row > last + embargo for first, last in spans)]
        assert split.train_rows(ends).tolist() == free


@given(
    groups=st.integers(3, 6),
    length=st.integers(9, 14),
    horizon=st.integers(1, 3),
    embargo=st.integers(0, 3),
    tested=st.integers(2, 5),
)
@settings(max_examples=50)
def test_with_labels_of_one_length_purging_is_that_of_skfolio(
    groups: int, length: int, horizon: int, embargo: int, tested: int
) -> None:
    rows, tested = groups * length, min(tested, groups - 1)
    ends = fixed_horizon(np.ones(rows), horizon).interval_end
    theirs = CombinatorialPurgedCV(groups, tested, purged_size=horizon + 1, embargo_size=embargo)
    ours = combinatorial(rows, groups, tested, embargo)
    for split, (train, tests) in zip(ours, theirs.split(np.zeros((rows, 1))), strict=True):
        np.testing.assert_array_equal(split.train_rows(ends), train)
        np.testing.assert_array_equal(split.test_rows(), np.concatenate(tests))


def test_a_long_embargo_is_kept_after_every_test_group() -> None:
    ends = np.arange(60) + 2
    for split in combinatorial(60, 6, 2, embargo_rows=5):
        train = set(split.train_rows(ends))
        for block in split.tests:
            assert not train & set(range(block.stop, block.stop + 2 + 5))
            if block.stop + 7 < 60 and not any(block.stop <= other.start < block.stop + 10 for other in split.tests):
                assert block.stop + 7 in train  # and no longer


def test_groups_can_be_whole_sessions() -> None:
    sessions = np.repeat([1, 2, 5, 6, 9], [3, 1, 4, 2, 2])
    splits = combinatorial(12, 3, 2, sessions=sessions)
    assert [split.tests for split in splits] == [
        (Block(0, 3), Block(3, 8)),
        (Block(0, 3), Block(8, 12)),
        (Block(3, 8), Block(8, 12)),
    ]


def test_a_symbol_that_ends_early_in_a_panel_purges_nothing_but_its_own_rows() -> None:
    stamps = np.repeat(np.arange(30), 2)
    symbols = np.tile([0, 1], 30)
    there = ~((symbols == 1) & (stamps >= 8))  # symbol 1 ends within the first group
    stamps, symbols = stamps[there], symbols[there]
    own = np.empty(stamps.size, np.int64)
    for symbol in (0, 1):
        rows = np.flatnonzero(symbols == symbol)
        own[rows] = fixed_horizon(np.ones(rows.size), 1).interval_end
    ends = panel_ends(stamps, symbols, own)
    split = combinatorial(stamps.size, 3, 2)[0]
    last = stamps[split.tests[-1].stop - 1]
    assert stamps[split.train_rows(ends)].min() == last + 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((60, 2, 2), "at least 3"), ((60, 6, 1), "at least 2"), ((60, 6, 6), "greater"), ((60, 6, 2, -1), "embargo")],
)
def test_groups_and_embargo_out_of_range_are_refused(arguments: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        combinatorial(*arguments)


def test_fewer_rows_or_sessions_than_groups_is_an_error_with_numbers() -> None:
    with pytest.raises(TooFewRows, match="5 rows, at least 6 needed"):
        combinatorial(5, 6, 2)
    with pytest.raises(TooFewRows, match="2 sessions, at least 3 needed"):
        combinatorial(9, 3, 2, sessions=np.repeat([0, 1], [4, 5]))
    with pytest.raises(ValueError, match="10 rows, but 9 session numbers"):
        combinatorial(10, 3, 2, sessions=np.arange(9))


def test_a_path_is_made_of_all_splits_and_all_their_scores() -> None:
    splits = combinatorial(12, 3, 2)
    scores = [np.zeros(8)] * 3
    with pytest.raises(ValueError, match="scored not once"):
        recombine([*splits[:2], splits[1]], scores)
    with pytest.raises(ValueError, match=r"split 1: scores have shape \(7,\), expected \(8,\)"):
        recombine(splits, [scores[0], np.zeros(7), scores[2]])
    with pytest.raises(ValueError, match="no split"):
        recombine([], [])


def test_configured_groups_are_more_than_those_tested() -> None:
    assert CombinatorialConfig() == CombinatorialConfig(groups=6, test_groups=2, embargo_rows=0)
    with pytest.raises(ValidationError, match="test_groups"):
        CombinatorialConfig(groups=4, test_groups=4)
