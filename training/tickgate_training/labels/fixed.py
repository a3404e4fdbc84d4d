"""Labels by the sign of the return over a fixed horizon, in trades or in time.

López de Prado, "Advances in Financial Machine Learning", 2018, 3.2, without its threshold, and entered with a lag.
Rows whose price came back to where it was have no label, so a fitted probability is P(up), given that the price moves.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_training.labels.labels import UNLABELLED, Labels, check_spans, signs, stretches


def fixed_horizon(
    prices: NDArray[np.float64],
    horizon_trades: int,
    lag_trades: int = 1,
    *,
    stamps_ns: NDArray[np.int64] | None = None,
    session_gap_ns: int = 0,
) -> Labels:
    """Label each row by the sign of its return; rows appended later change no label that was defined.

    With horizon h the label of row i is the sign of the return from i + lag to i + lag + h: its interval ends there.

    Args:
        prices: float64 [n], > 0.
        horizon_trades: Trades from entry to exit, at least 1.
        lag_trades: Trades from the decision to the entry, at least 1.
        stamps_ns: int64 [n]; needed only with a session gap.
        session_gap_ns: No label spans a longer silence, for positions are not held over it; 0: any may.

    Raises:
        ValueError: Horizon or lag is below 1, or a session gap comes without stamps.
    """
    check_spans(horizon_trades, lag_trades)
    span = lag_trades + horizon_trades
    rows = np.arange(prices.size, dtype=np.int64)
    return _between(prices, rows + lag_trades, rows + span, stretches(prices.size, stamps_ns, session_gap_ns))


def fixed_time(
    prices: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    horizon_ns: int,
    lag_trades: int = 1,
    *,
    session_gap_ns: int = 0,
) -> Labels:
    """Label each row by the sign of its return from row i + lag to the first row at least `horizon_ns` after that one.

    The exit is a trade that really came, not the last one before the time is up: that it was the last is known only
    once the next is there.

    Args:
        prices: float64 [n], > 0.
        stamps_ns: int64 [n], not decreasing.
        horizon_ns: Time from entry to exit, at least 1.
        lag_trades: Trades from the decision to the entry, at least 1.
        session_gap_ns: No label spans a longer silence; 0: any may.

    Raises:
        ValueError: Horizon or lag is below 1.
    """
    check_spans(horizon_ns, lag_trades)
    rows = prices.size
    entry = np.arange(rows, dtype=np.int64) + lag_trades
    leave = np.full(rows, rows, np.int64)
    there = entry < rows
    leave[there] = np.searchsorted(stamps_ns, stamps_ns[entry[there]] + horizon_ns, side="left")
    return _between(prices, entry, leave, stretches(rows, stamps_ns, session_gap_ns))


def _between(
    prices: NDArray[np.float64], entry: NDArray[np.int64], leave: NDArray[np.int64], stretch: NDArray[np.int64]
) -> Labels:
    """Labels by the return from row `entry` to row `leave`, none where the stretch ends on the way."""
    returns = np.full(prices.size, np.nan)
    defined = np.flatnonzero(leave < prices.size)
    returns[defined] = prices[leave[defined]] / prices[entry[defined]] - 1.0
    direction = signs(returns)
    direction[defined[stretch[leave[defined]] != stretch[defined]]] = UNLABELLED
    return Labels(direction, returns, leave)
