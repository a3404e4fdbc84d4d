import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.errors import TooFewRows
from tickgate_training.labels import fixed_horizon
from tickgate_training.splits import Block, latest, walk_forward

lengths = st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 10))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, tuple[int, int, int], int, int, int]:
    """Rows, block lengths, embargo, horizon and lag."""
    blocks = draw(lengths)
    rows = sum(blocks) + draw(st.integers(0, 60))
    return rows, blocks, draw(st.integers(0, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 3))


def test_daily_lengths_over_twenty_years_give_224_windows() -> None:
    windows = list(walk_forward(5031, 252, 63, 21))
    assert len(windows) == 224
    assert windows[0].test == Block(315, 336)


@given(layouts())
def test_blocks_are_half_open_adjacent_and_tests_tile(layout: tuple[int, tuple[int, int, int], int, int, int]) -> None:
    rows, (train, validation, test), embargo, _, _ = layout
    windows = list(walk_forward(rows, train, validation, test, embargo))
    tested = np.concatenate([np.arange(rows)[window.test.rows] for window in windows])
    np.testing.assert_array_equal(tested, np.arange(train + validation, train + validation + tested.size))
    assert rows - (train + validation + tested.size) < test
    for window in windows:
        assert window.train.stop == window.validation.start
        assert window.validation.stop == window.test.start
        assert window.train.stop - window.train.start == train
        assert window.validation.stop - window.validation.start == validation
        assert window.test.stop - window.test.start == test


@given(layouts())
def test_no_label_interval_reaches_the_block_after_it(
    layout: tuple[int, tuple[int, int, int], int, int, int],
) -> None:
    rows, (train, validation, test), embargo, horizon, lag = layout
    ends = fixed_horizon(np.ones(rows), horizon, lag).interval_end
    for window in walk_forward(rows, train, validation, test, embargo):
        for kept, block, after in (
            (window.train_rows(ends), window.train, window.validation),
            (window.validation_rows(ends), window.validation, window.test),
        ):
            assert all(row + lag + horizon + embargo < after.start for row in kept)
            dropped = set(range(block.start, block.stop)) - set(kept.tolist())
            assert all(row + lag + horizon + embargo >= after.start for row in dropped)
        assert not set(window.train_rows(ends)) & set(window.validation_rows(ends))


@given(layouts(), st.integers(1, 50))
def test_appended_rows_add_windows_and_change_none(
    layout: tuple[int, tuple[int, int, int], int, int, int], more: int
) -> None:
    rows, (train, validation, test), embargo, _, _ = layout
    before = list(walk_forward(rows, train, validation, test, embargo))
    after = list(walk_forward(rows + more, train, validation, test, embargo))
    assert after[: len(before)] == before


def test_too_few_rows_for_one_window_says_how_many_are_needed() -> None:
    with pytest.raises(TooFewRows, match="335 rows, at least 336 needed"):
        list(walk_forward(335, 252, 63, 21))


@pytest.mark.parametrize("blocks", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_block_is_refused(blocks: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(walk_forward(100, *blocks))


def test_the_latest_blocks_end_with_the_last_row() -> None:
    window = latest(100, 60, 20, embargo_rows=2)
    assert (window.train, window.validation) == (Block(20, 80), Block(80, 100))
    ends = np.arange(100) + 2
    assert window.train_rows(ends)[-1] == 75
    assert window.validation_rows(ends)[-1] == 95


def test_the_latest_blocks_need_their_rows() -> None:
    with pytest.raises(TooFewRows):
        latest(79, 60, 20)


@given(layouts())
def test_anchored_windows_differ_in_where_the_train_block_begins_alone(
    layout: tuple[int, tuple[int, int, int], int, int, int],
) -> None:
    rows, blocks, embargo, horizon, lag = layout
    ends = fixed_horizon(np.ones(rows), horizon, lag).interval_end
    rolling = list(walk_forward(rows, *blocks, embargo))
    anchored = list(walk_forward(rows, *blocks, embargo, anchored=True))
    for one, other in zip(rolling, anchored, strict=True):
        assert other.train == Block(0, one.train.stop)
        assert (other.validation, other.test) == (one.validation, one.test)
        assert other.train_rows(ends).tolist() == list(range(len(other.train_rows(ends))))
        assert set(one.train_rows(ends)) <= set(other.train_rows(ends))


def test_the_latest_anchored_window_takes_every_row() -> None:
    window = latest(100, 60, 20, anchored=True)
    assert (window.train, window.validation, window.test) == (Block(0, 80), Block(80, 100), Block(100, 100))


def test_the_embargo_is_kept_in_every_window_not_in_the_first_alone() -> None:
    ends = np.arange(60) + 2  # entered a row after the decision, held for one
    windows = list(walk_forward(60, 20, 10, 5, embargo_rows=4))
    assert len(windows) == 6
    for window in windows:
        assert window.train_rows(ends)[-1] == window.validation.start - 1 - 2 - 4
        assert window.validation_rows(ends)[-1] == window.test.start - 1 - 2 - 4


def test_a_test_block_begins_with_the_row_after_validation_not_at_the_end_of_a_label() -> None:
    windows = list(walk_forward(30, 10, 5, 5))
    assert [window.test.start for window in windows] == [15, 20, 25]
    assert [window.validation.stop for window in windows] == [15, 20, 25]


@pytest.mark.parametrize("embargo", [-1])
def test_an_embargo_below_zero_is_refused(embargo: int) -> None:
    with pytest.raises(ValueError, match="embargo at least 0"):
        list(walk_forward(100, 10, 5, 5, embargo))
    with pytest.raises(ValueError, match="embargo at least 0"):
        latest(100, 10, 5, embargo)
