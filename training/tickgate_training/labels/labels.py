"""What every kind of label gives, and the silences that none of them spans."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UP, DOWN, UNLABELLED = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Labels:
    """The label of each row.

    Attributes:
        direction: int8 [n]: 1 up, 0 down, -1 none: no future yet, a price that came back to where it was (it speaks for
            neither class, so it is fitted on neither; the backtest trades such rows all the same), or a silence longer
            than the session gap inside the interval. Of meta-labels: 1 the trade gained, 0 it did not, -1 no trade.
        returns: float64 [n], simple return over the label's span; NaN where the future is not there.
        interval_end: int64 [n]: the last row that the label looks at, n or more where it is not there.
    """

    direction: NDArray[np.int8]
    returns: NDArray[np.float64]
    interval_end: NDArray[np.int64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a direction, bool [n]."""
        return np.asarray(self.direction != UNLABELLED)


def signs(returns: NDArray[np.float64]) -> NDArray[np.int8]:
    """UP or DOWN by the sign of each return, int8 [n]; UNLABELLED where it is zero or NaN."""
    direction = np.full(returns.size, UNLABELLED, np.int8)
    direction[returns > 0] = UP
    direction[returns < 0] = DOWN
    return direction


def stretches(rows: int, stamps_ns: NDArray[np.int64] | None, session_gap_ns: int) -> NDArray[np.int64]:
    """Number of the stretch without a long silence that each row is in, int64 [rows], from 0.

    Args:
        rows: How many.
        stamps_ns: int64 [rows]; needed only with a session gap.
        session_gap_ns: A longer silence begins a new stretch; 0: none does.

    Raises:
        ValueError: A session gap comes without stamps, or it is below 0.
    """
    if session_gap_ns < 0:
        raise ValueError(f"session_gap_ns must be at least 0, got {session_gap_ns}")
    if session_gap_ns == 0 or rows == 0:
        return np.zeros(rows, np.int64)
    if stamps_ns is None:
        raise ValueError("a session gap needs stamps_ns")
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(np.diff(stamps_ns) > session_gap_ns)))


def check_spans(horizon: int, lag_trades: int) -> None:
    """Raise ValueError unless horizon and lag are at least 1."""
    if horizon < 1 or lag_trades < 1:
        raise ValueError(f"horizon and lag must be at least 1, got {horizon} and {lag_trades}")
