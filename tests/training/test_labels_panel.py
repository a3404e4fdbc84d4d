"""Label intervals of several symbols in one table: by hand, and purged by the same windows as one symbol."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.errors import RowInvalid
from tickgate_training.labels import Labels, fixed_horizon, panel_ends, panel_labels
from tickgate_training.splits import Embargo, walk_forward, walk_forward_sessions


@st.composite
def panels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps, symbols and sessions of up to four symbols that begin late, pause, end early and share stamps."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    symbols, instants, sessions = draw(st.integers(1, 4)), draw(st.integers(12, 60)), draw(st.integers(4, 9))
    present = rng.random((instants, symbols)) < rng.uniform(0.2, 1.0, symbols)
    begin, end = rng.integers(0, instants // 2, symbols), rng.integers(instants // 2, instants + 1, symbols)
    at = np.arange(instants)[:, np.newaxis]
    present &= (at >= begin) & (at < end)
    present[:, 0] |= ~present.any(axis=1) & (rng.random(instants) < 0.9)
    instant, symbol = np.nonzero(present)
    stamps = np.cumsum(rng.integers(1, 50, instants))[instant]
    return stamps, symbol, np.sort(rng.integers(0, sessions, instants))[instant]


def label_symbol(stamps: np.ndarray, horizon: int, lag: int) -> Labels:
    prices = 100.0 + np.sin(stamps.astype(np.float64))
    return fixed_horizon(prices, horizon, lag)


def label_panel(stamps: np.ndarray, symbols: np.ndarray, horizon: int, lag: int) -> Labels:
    return panel_labels(stamps, symbols, lambda rows: label_symbol(stamps[rows], horizon, lag))


def stamp_of_end(stamps: np.ndarray, symbols: np.ndarray, row: int, span: int) -> float:
    """When the label of a row is known, found by walking on through its symbol's rows; infinite where it never is."""
    own = [int(stamps[k]) for k in range(row, stamps.size) if symbols[k] == symbols[row]]
    return own[span] if span < len(own) else np.inf


def test_an_interval_ends_with_the_last_row_of_its_end_stamp() -> None:
    stamps = np.array([10, 10, 20, 30, 30, 30, 40])
    symbols = np.array([0, 1, 0, 0, 1, 2, 1])
    own_ends = np.array([2, 1, 3, 4, 2, 1, 3])  # symbols have 3, 3 and 1 rows: 3, 4, 3 and symbol 2's 1 are not there
    assert panel_ends(stamps, symbols, own_ends).tolist() == [5, 5, 7, 7, 6, 7, 7]


def test_each_symbol_is_labelled_by_its_own_rows() -> None:
    stamps = np.array([1, 1, 2, 2, 3, 3])
    symbols = np.array([0, 1, 0, 1, 0, 1])
    prices = np.array([1.0, 9.0, 2.0, 8.0, 4.0, 6.0])
    labels = panel_labels(stamps, symbols, lambda rows: fixed_horizon(prices[rows], 1))
    assert labels.direction.tolist() == [1, 0, -1, -1, -1, -1]
    np.testing.assert_allclose(labels.returns[:2], [1.0, -0.25])
    assert labels.interval_end.tolist() == [5, 5, 6, 6, 6, 6]


@pytest.mark.parametrize(
    ("stamps", "symbols", "says"),
    [
        ([1, 3, 2], [0, 1, 0], "'exchange_ts_ns', row 2: found 2"),
        ([1, 1, 1], [0, 2, 1], "'symbol', row 2: found 1"),
    ],
)
def test_a_panel_out_of_order_is_refused_with_its_row(stamps: list[int], symbols: list[int], says: str) -> None:
    with pytest.raises(RowInvalid, match=says):
        panel_ends(np.array(stamps), np.array(symbols), np.array([1, 2, 3]))
    with pytest.raises(RowInvalid, match=says):
        label_panel(np.array(stamps), np.array(symbols), 1, 1)


def test_an_empty_panel_has_no_labels() -> None:
    nothing = np.empty(0, np.int64)
    assert panel_ends(nothing, nothing, nothing).size == 0


@given(panels(), st.integers(1, 4), st.integers(1, 2), st.integers(0, 3), st.integers(0, 60))
def test_no_label_of_any_symbol_is_known_as_late_as_the_block_after_it(
    panel: tuple[np.ndarray, np.ndarray, np.ndarray], horizon: int, lag: int, embargo_rows: int, embargo_ns: int
) -> None:
    stamps, symbols, sessions = panel
    if np.unique(sessions).size < 4:
        return
    ends = label_panel(stamps, symbols, horizon, lag).interval_end
    embargo = Embargo(rows=embargo_rows, duration_ns=embargo_ns)
    by_session = walk_forward_sessions(sessions, 2, 1, 1, embargo=embargo, stamps_ns=stamps)
    by_row = walk_forward(stamps.size, 5, 2, 2, embargo_rows) if stamps.size >= 9 else []
    for window, distance_ns in [*((w, embargo_ns) for w in by_session), *((w, 0) for w in by_row)]:
        for kept, after in (
            (window.train_rows(ends), window.validation),
            (window.validation_rows(ends), window.test),
        ):
            for row in kept:
                known = stamp_of_end(stamps, symbols, int(row), horizon + lag)
                assert known + distance_ns < stamps[after.start]


@given(panels(), st.integers(1, 4), st.integers(5, 50))
def test_rows_appended_to_a_panel_change_no_label_that_was_there(
    panel: tuple[np.ndarray, np.ndarray, np.ndarray], horizon: int, cut: int
) -> None:
    stamps, symbols, _ = panel
    cut = int(np.searchsorted(stamps, stamps[min(cut, stamps.size - 1)]))  # appended rows come later
    before, after = label_panel(stamps[:cut], symbols[:cut], horizon, 1), label_panel(stamps, symbols, horizon, 1)
    there = before.interval_end < cut
    for name in ("direction", "returns", "interval_end"):
        np.testing.assert_array_equal(getattr(after, name)[:cut][there], getattr(before, name)[there])
    assert (after.interval_end[:cut][~there] >= cut).all()
