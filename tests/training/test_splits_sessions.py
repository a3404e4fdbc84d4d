"""Windows that count sessions: tiling, purging and embargo in rows, sessions and time, gaps, and what is too short."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.errors import RowInvalid, TooFewRows
from tickgate_training.splits import Block, Embargo, latest_sessions, walk_forward, walk_forward_sessions


@st.composite
def histories(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Session numbers with some left out, stamps with equal ones, random label intervals, and block lengths."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    blocks = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)))
    count = sum(blocks) + draw(st.integers(0, 8))
    numbers = np.cumsum(rng.integers(1, 4, count))
    sessions = np.repeat(numbers, rng.integers(1, 6, count))
    rows = sessions.size
    within = np.cumsum(rng.integers(0, 5, rows))
    return sessions, sessions * 1_000 + within, np.arange(rows) + rng.integers(1, 9, rows), blocks


def test_daily_bars_give_the_windows_of_rows() -> None:
    sessions = np.arange(5031)
    assert list(walk_forward_sessions(sessions)) == list(walk_forward(5031, 252, 63, 21))
    assert len(list(walk_forward_sessions(sessions))) == 224


def test_blocks_hold_the_rows_of_their_sessions() -> None:
    sessions = np.array([4, 4, 4, 5, 7, 7, 8, 8, 8, 9, 20])  # 6 is missing, and so is much before 20
    windows = list(walk_forward_sessions(sessions, 2, 1, 1))
    assert [(w.train, w.validation, w.test) for w in windows] == [
        (Block(0, 4), Block(4, 6), Block(6, 9)),
        (Block(3, 6), Block(6, 9), Block(9, 10)),
        (Block(4, 9), Block(9, 10), Block(10, 11)),
    ]


@pytest.mark.parametrize("anchored", [False, True])
@given(history=histories())
def test_blocks_are_half_open_whole_sessions_and_tests_tile(
    *, history: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]], anchored: bool
) -> None:
    sessions, _, _, blocks = history
    windows = list(walk_forward_sessions(sessions, *blocks, anchored=anchored))
    for window in windows:
        assert window.train.stop == window.validation.start
        assert window.validation.stop == window.test.start
        held = [np.unique(sessions[block.rows]) for block in (window.train, window.validation, window.test)]
        assert [len(own) for own in held[1:]] == list(blocks[1:])
        assert len(held[0]) == blocks[0] + (window.number * blocks[2] if anchored else 0)
        assert sum(len(own) for own in held) == np.unique(np.concatenate(held)).size  # none is in two blocks
    for one, other in pairwise(windows):
        assert one.test.stop == other.test.start
    assert np.unique(sessions[windows[-1].test.stop :]).size < blocks[2]


@given(histories(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 3_000))
def test_rows_are_kept_exactly_where_the_interval_ends_before_the_block_in_rows_sessions_and_time(
    history: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]],
    embargo_rows: int,
    embargo_sessions: int,
    embargo_ns: int,
) -> None:
    sessions, stamps, ends, blocks = history
    embargo = Embargo(embargo_rows, embargo_sessions, embargo_ns)
    ordinal = np.unique(sessions, return_inverse=True)[1]

    def clear(row: int, after: int) -> bool:
        end = ends[row]
        if end >= after:
            return False
        return bool(
            end + embargo_rows < after
            and ordinal[end] + embargo_sessions < ordinal[after]
            and stamps[end] + embargo_ns < stamps[after]
        )

    for window in walk_forward_sessions(sessions, *blocks, embargo=embargo, stamps_ns=stamps):
        for kept, block, after in (
            (window.train_rows(ends), window.train, window.validation),
            (window.validation_rows(ends), window.validation, window.test),
        ):
            assert kept.tolist() == [row for row in range(block.start, block.stop) if clear(row, after.start)]


@given(histories(), st.integers(0, 3))
def test_no_train_interval_meets_a_validation_or_test_interval(
    history: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]], embargo_rows: int
) -> None:
    sessions, stamps, ends, blocks = history
    for window in walk_forward_sessions(sessions, *blocks, embargo=Embargo(rows=embargo_rows), stamps_ns=stamps):
        train, validation = window.train_rows(ends), window.validation_rows(ends)
        test = np.arange(window.test.start, window.test.stop)
        for earlier, later in ((train, validation), (train, test), (validation, test)):
            for row in earlier:
                assert ((later > ends[row]) | (ends[later] < row)).all()


@given(histories(), st.integers(1, 20))
def test_appended_sessions_add_windows_and_change_none(
    history: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]], more: int
) -> None:
    sessions, stamps, _, blocks = history
    longer = np.concatenate((sessions, sessions[-1] + 1 + np.arange(more)))
    later = np.concatenate((stamps, stamps[-1] + 1 + np.arange(more)))
    embargo = Embargo(1, 1, 500)
    before = list(walk_forward_sessions(sessions, *blocks, embargo=embargo, stamps_ns=stamps))
    after = list(walk_forward_sessions(longer, *blocks, embargo=embargo, stamps_ns=later))
    assert after[: len(before)] == before


@given(histories(), st.integers(1, 5))
def test_a_session_that_is_not_over_is_in_no_block_so_its_rows_to_come_change_none(
    history: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]], more: int
) -> None:
    sessions, _, _, blocks = history
    begun = np.append(sessions, sessions[-1] + 1)
    longer = np.concatenate((begun, np.full(more, begun[-1])))
    before = list(walk_forward_sessions(begun, *blocks, last_session_over=False))
    assert before == list(walk_forward_sessions(longer, *blocks, last_session_over=False))
    assert before == list(walk_forward_sessions(sessions, *blocks))


def test_equal_stamps_on_both_sides_of_an_edge_are_purged_as_one_time() -> None:
    sessions, stamps = np.array([0, 0, 0, 1, 2]), np.array([10, 20, 30, 30, 40])
    ends = np.array([1, 2, 3, 4, 5])
    (in_rows,) = walk_forward_sessions(sessions, 1, 1, 1)
    (in_time,) = walk_forward_sessions(sessions, 1, 1, 1, stamps_ns=stamps)
    assert in_rows.train_rows(ends).tolist() == [0, 1]
    assert in_time.train_rows(ends).tolist() == [0]


def test_fewer_sessions_than_a_window_says_how_many_there_are_and_are_needed() -> None:
    sessions = np.repeat(np.arange(335), 10)
    with pytest.raises(TooFewRows, match="one window: 335 sessions, at least 336 needed") as raised:
        list(walk_forward_sessions(sessions))
    assert (raised.value.found, raised.value.needed, raised.value.unit) == (335, 336, "sessions")
    with pytest.raises(TooFewRows, match="latest train and validation blocks: 314 sessions, at least 315 needed"):
        latest_sessions(sessions[:3140])
    with pytest.raises(TooFewRows, match="one window: 335 sessions"):
        list(walk_forward_sessions(np.arange(336), last_session_over=False))
    with pytest.raises(TooFewRows, match=": 0 sessions"):
        list(walk_forward_sessions(np.empty(0, np.int64)))


def test_the_latest_blocks_end_with_the_last_session_that_is_over() -> None:
    sessions, stamps = np.repeat(np.arange(10), 2), np.arange(20) * 10
    ends = np.arange(20) + 1
    window = latest_sessions(sessions, 4, 2, embargo=Embargo(sessions=1), stamps_ns=stamps)
    assert (window.train, window.validation, window.test) == (Block(8, 16), Block(16, 20), Block(20, 20))
    assert window.train_rows(ends)[-1] == 12  # its label ends with row 13, the last session but one before row 16
    assert window.validation_rows(ends)[-1] == 16
    begun = latest_sessions(sessions, 4, 2, last_session_over=False)
    assert (begun.train, begun.validation, begun.test) == (Block(6, 14), Block(14, 18), Block(18, 18))
    assert latest_sessions(sessions, 4, 2, anchored=True).train == Block(0, 16)


def test_an_embargo_in_time_holds_before_the_end_of_the_data_too() -> None:
    sessions, stamps, ends = np.arange(6), np.arange(6) * 100, np.arange(6) + 1
    window = latest_sessions(sessions, 3, 3, embargo=Embargo(duration_ns=150), stamps_ns=stamps)
    assert window.train_rows(ends).tolist() == [0]
    assert window.validation_rows(ends).tolist() == []
    free = latest_sessions(sessions, 3, 3, stamps_ns=stamps)
    assert free.validation_rows(ends).tolist() == [3, 4]


def test_sessions_out_of_order_are_refused_with_their_row() -> None:
    with pytest.raises(RowInvalid, match="'session', row 2: found 3, but sessions do not decrease, here from 4"):
        list(walk_forward_sessions(np.array([3, 4, 3]), 1, 1, 1))


@pytest.mark.parametrize(
    ("blocks", "embargo", "says"),
    [
        ((0, 1, 1), Embargo(), "at least 1"),
        ((1, 1, 0), Embargo(), "at least 1"),
        ((1, 1, 1), Embargo(rows=-1), "embargo at least 0"),
        ((1, 1, 1), Embargo(sessions=-1), "embargo at least 0"),
        ((1, 1, 1), Embargo(duration_ns=-1), "embargo at least 0"),
        ((1, 1, 1), Embargo(duration_ns=1), "needs stamps_ns"),
    ],
)
def test_lengths_and_embargoes_out_of_range_are_refused(
    blocks: tuple[int, int, int], embargo: Embargo, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        list(walk_forward_sessions(np.arange(9), *blocks, embargo=embargo))
