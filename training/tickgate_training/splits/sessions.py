"""Walk-forward windows whose lengths count sessions of many rows.

What counts is a session that has rows: one without any, a feed's outage or a halt, is no session, and a window reaches
further back instead; one that was cut short counts like any other. So no block is empty, and tests tile through gaps.
A last session that is not over yet belongs to no block, for rows to come would change the window that it is in.

Blocks, purging and embargo are those of `splits.windows`, and the embargo may be given in sessions and in time as well:
the longest one counts. Where stamps are given, intervals are compared in time: one that ends at the stamp of the next
block's first row meets it, even if rows of equal stamp fell on both sides of the edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import RowInvalid
from tickgate_training.splits.windows import Block, Window, check_lengths, newest, tile


@dataclass(frozen=True, slots=True)
class Embargo:
    """Distance kept between the label intervals that are fitted and the next block's first row; each at least 0.

    Attributes:
        rows: In rows.
        sessions: In whole sessions that have rows.
        duration_ns: In time; needs stamps.
    """

    rows: int = 0
    sessions: int = 0
    duration_ns: int = 0


_NONE = Embargo()


def walk_forward_sessions(
    sessions: NDArray[np.int64],
    train_sessions: int = 252,
    validation_sessions: int = 63,
    test_sessions: int = 21,
    *,
    embargo: Embargo = _NONE,
    stamps_ns: NDArray[np.int64] | None = None,
    anchored: bool = False,
    last_session_over: bool = True,
) -> Iterator[Window]:
    """Windows over rows in time order; appended sessions add windows and change none.

    Args:
        sessions: Number of the session of each row, int64 [n], not decreasing; numbers may be left out.
        train_sessions: Length of the train block, at least 1; likewise the next two. Anchored: of the first one.
        validation_sessions: Length of the validation block.
        test_sessions: Length of the test block, and the step from window to window.
        embargo: Kept free before each block that is scored.
        stamps_ns: int64 [n], not decreasing.
        anchored: Whether the train block always begins with row 0.
        last_session_over: Whether the last session can get no more rows; if not, its rows are in no block.

    Raises:
        TooFewRows: Not one window fits; its numbers are sessions.
        RowInvalid: Session numbers decrease.
        ValueError: A length is out of range, or an embargo in time comes without stamps.
    """
    check_lengths(train_sessions, validation_sessions, test_sessions, embargo.rows, embargo.sessions)
    edges = session_edges(sessions, last_session_over=last_session_over)
    limit = _Limit(edges, embargo, stamps_ns)
    for number, (train, validation, test) in enumerate(
        tile(edges, train_sessions, validation_sessions, test_sessions, "sessions", anchored=anchored)
    ):
        yield Window(number, train, validation, test, limit.before(validation), limit.before(test))


def latest_sessions(
    sessions: NDArray[np.int64],
    train_sessions: int = 252,
    validation_sessions: int = 63,
    *,
    embargo: Embargo = _NONE,
    stamps_ns: NDArray[np.int64] | None = None,
    anchored: bool = False,
    last_session_over: bool = True,
) -> Window:
    """The train and validation blocks that end with the last session that is over, and an empty test block after them.

    Arguments and errors as in `walk_forward_sessions`.
    """
    check_lengths(train_sessions, validation_sessions, 1, embargo.rows, embargo.sessions)
    edges = session_edges(sessions, last_session_over=last_session_over)
    limit = _Limit(edges, embargo, stamps_ns)
    train, validation, test = newest(edges, train_sessions, validation_sessions, "sessions", anchored=anchored)
    return Window(0, train, validation, test, limit.before(validation), limit.before(test))


def session_edges(sessions: NDArray[np.int64], *, last_session_over: bool = True) -> NDArray[np.int64]:
    """First row of each session that has rows, and the row after the last one, int64 [sessions + 1].

    Raises:
        RowInvalid: Session numbers decrease.
    """
    steps = np.diff(sessions)
    if (back := np.flatnonzero(steps < 0)).size:
        row = int(back[0]) + 1
        raise RowInvalid("session", row, str(sessions[row]), f"sessions do not decrease, here from {sessions[row - 1]}")
    if sessions.size == 0:
        return np.zeros(1, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(steps) + 1))
    return np.append(starts, sessions.size) if last_session_over else starts


class _Limit:
    """The row before which label intervals must end, ahead of a block."""

    def __init__(self, edges: NDArray[np.int64], embargo: Embargo, stamps_ns: NDArray[np.int64] | None) -> None:
        if embargo.duration_ns < 0:
            raise ValueError("block lengths must be at least 1 and the embargo at least 0")
        if embargo.duration_ns and stamps_ns is None:
            raise ValueError("an embargo in time needs stamps_ns")
        self._edges = edges
        self._embargo = embargo
        self._stamps_ns = stamps_ns

    def before(self, block: Block) -> int:
        number = int(np.searchsorted(self._edges, block.start))
        in_sessions = int(self._edges[max(number - self._embargo.sessions, 0)])
        limit = min(block.start - self._embargo.rows, in_sessions)
        if self._stamps_ns is None:
            return limit
        # After the last row stands one that is yet to come, a nanosecond later at the earliest that tells it apart.
        there = block.start < self._stamps_ns.size
        stamp = int(self._stamps_ns[block.start]) if there else int(self._stamps_ns[-1]) + 1
        return min(limit, int(np.searchsorted(self._stamps_ns, stamp - self._embargo.duration_ns, side="left")))
