"""Labels: what a model is asked to foresee. Fixed-horizon sign of the return, entered with a lag.

A decision that reads trade i can be executed at trade i + lag at the earliest, lag >= 1. With horizon h the label of
row i is the sign of the return from i + lag to i + lag + h (fixed-time horizon: López de Prado, "Advances in Financial
Machine Learning", 2018, 3.2, without its threshold), and its label interval [i, i + lag + h], both ends included, is
what purging looks at.

Rows whose price came back to where it was have no label, so a fitted probability is P(up), given that the price moves.
"""

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
            than the session gap inside the interval.
        returns: float64 [n], simple return over the label's span; NaN where the future is not there.
        interval_end: int64 [n], i + lag + h: the last row that the label looks at, past the end where it is not there.
    """

    direction: NDArray[np.int8]
    returns: NDArray[np.float64]
    interval_end: NDArray[np.int64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a direction, bool [n]."""
        return np.asarray(self.direction != UNLABELLED)


def fixed_horizon(
    prices: NDArray[np.float64],
    horizon_trades: int,
    lag_trades: int = 1,
    *,
    stamps_ns: NDArray[np.int64] | None = None,
    session_gap_ns: int = 0,
) -> Labels:
    """Label each row by the sign of its return; rows appended later change no label that was defined.

    Args:
        prices: float64 [n], > 0.
        horizon_trades: Trades from entry to exit, at least 1.
        lag_trades: Trades from the decision to the entry, at least 1.
        stamps_ns: int64 [n]; needed only with a session gap.
        session_gap_ns: No label spans a longer silence, for positions are not held over it; 0: any may.

    Raises:
        ValueError: Horizon or lag is below 1, or a session gap comes without stamps.
    """
    if horizon_trades < 1 or lag_trades < 1:
        raise ValueError(f"horizon and lag must be at least 1, got {horizon_trades} and {lag_trades}")
    rows = prices.size
    span = lag_trades + horizon_trades
    returns = np.full(rows, np.nan)
    defined = max(rows - span, 0)
    entry = prices[lag_trades : lag_trades + defined]
    returns[:defined] = prices[span : span + defined] / entry - 1.0
    direction = np.full(rows, UNLABELLED, np.int8)
    direction[returns > 0] = UP
    direction[returns < 0] = DOWN
    if session_gap_ns > 0:
        if stamps_ns is None:
            raise ValueError("a session gap needs stamps_ns")
        session = np.concatenate(([0], np.cumsum(np.diff(stamps_ns) > session_gap_ns)))
        direction[:defined][session[span:] != session[:defined]] = UNLABELLED
    return Labels(direction, returns, np.arange(rows, dtype=np.int64) + span)
