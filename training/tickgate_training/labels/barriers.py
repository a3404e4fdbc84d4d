"""Triple-barrier labels: which of three barriers the price touches first.

López de Prado, "Advances in Financial Machine Learning", 2018, 3.4, with the dynamic threshold of 3.3: an upper and a
lower barrier at multiples of the volatility over the horizon as it is known at the decision row, and a vertical one at
the end of the horizon. The volatility is the server's EWMA a trade (`tickgate_server.ticks.volatility`) times the
square root of the horizon in trades. Unlike in the book's snippets the entry lags the decision, and a barrier that is
reached exactly is touched. There rows of low volatility are left out; here the width has a floor, as in sizing.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_training.labels.labels import Labels, check_spans, stretches

AtVertical = Literal["sign", "none"]


def triple_barrier(
    prices: NDArray[np.float64],
    trade_volatilities: NDArray[np.float64],
    horizon_trades: int,
    lag_trades: int = 1,
    *,
    upper_multiple: float = 1.0,
    lower_multiple: float = 1.0,
    volatility_floor: float = 1e-4,
    at_vertical: AtVertical = "sign",
    side: NDArray[np.int8] | None = None,
    stamps_ns: NDArray[np.int64] | None = None,
    session_gap_ns: int = 0,
) -> Labels:
    """Label each row by the sign of its return where it first touches a barrier.

    With entry e = i + lag, r_j = p_j / p_e - 1 and w = max(sigma_i sqrt(h), floor), the label of row i is the sign of
    r_j at the first j in e + 1 ... e + h with r_j >= upper_multiple w or r_j <= -lower_multiple w. That j is its
    interval's end. Without such a j it is e + h, the vertical barrier. Rows appended later change no label that was
    defined.

    A silence longer than the session gap that comes before a touch leaves the row without label and return: its
    interval ends with the first row after it, which is where the silence is seen.

    Args:
        prices: float64 [n], > 0.
        trade_volatilities: float64 [n], volatility a trade known at each row, as a fraction; where it is not finite or
            below 0 the row has no label, and its interval is the longest that it could be.
        horizon_trades: Trades from entry to the vertical barrier, at least 1.
        lag_trades: Trades from the decision to the entry, at least 1.
        upper_multiple: Upper barrier in volatilities over the horizon; 0: there is none.
        lower_multiple: Lower barrier, likewise.
        volatility_floor: Least volatility over the horizon, > 0.
        at_vertical: Direction at the vertical barrier: the sign of the return, or none. The return is given either way.
        side: int8 [n] of a primary model, +1, -1 or 0: the upper barrier then is the profit and the lower one the loss
            of that side (3.6), and rows with 0 have no label. None: every row is looked at from the long side.
        stamps_ns: int64 [n]; needed only with a session gap.
        session_gap_ns: No label spans a longer silence; 0: any may.

    Raises:
        ValueError: An argument is out of range, or a session gap comes without stamps.
    """
    check_spans(horizon_trades, lag_trades)
    for name, multiple in (("upper_multiple", upper_multiple), ("lower_multiple", lower_multiple)):
        if not 0.0 <= multiple < np.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {multiple}")
    if not 0.0 < volatility_floor < np.inf:
        raise ValueError(f"volatility_floor must be finite and above 0, got {volatility_floor}")
    rows = prices.size
    sides = np.ones(rows, np.int8) if side is None else check_side(side)
    known = (trade_volatilities >= 0.0) & (trade_volatilities < np.inf)
    scaled = np.maximum(trade_volatilities * np.sqrt(horizon_trades), volatility_floor)
    direction, returns, interval_end = np.empty(rows, np.int8), np.empty(rows), np.empty(rows, np.int64)
    _first_touch(
        np.require(prices, np.float64, ("C", "W")),
        np.where(known, scaled, np.nan),
        np.require(sides, np.int8, ("C", "W")),
        stretches(rows, stamps_ns, session_gap_ns),
        lag_trades,
        horizon_trades,
        upper_multiple or np.inf,
        lower_multiple or np.inf,
        at_vertical == "sign",
        direction,
        returns,
        interval_end,
    )
    return Labels(direction, returns, interval_end)


def check_side(side: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the sides, or raise ValueError naming the first row that is none of +1, -1 and 0."""
    wrong = np.flatnonzero(~np.isin(side, (-1, 0, 1)))
    if wrong.size:
        raise ValueError(f"side must be +1, -1 or 0, got {side[wrong[0]]} in row {wrong[0]}")
    return side


@kernel(
    "void(float64[::1], float64[::1], int8[::1], int64[::1], int64, int64, float64, float64, boolean, "
    "int8[::1], float64[::1], int64[::1])"
)
def _first_touch(
    prices: NDArray[np.float64],
    widths: NDArray[np.float64],
    sides: NDArray[np.int8],
    stretch: NDArray[np.int64],
    lag: int,
    horizon: int,
    upper: float,
    lower: float,
    sign_at_vertical: bool,  # noqa: FBT001 - numba takes arguments by position
    direction: NDArray[np.int8],
    returns: NDArray[np.float64],
    interval_end: NDArray[np.int64],
) -> None:
    for i in range(prices.size):
        entry = i + lag
        last = entry + horizon
        direction[i] = -1
        returns[i] = np.nan
        interval_end[i] = last
        if sides[i] == 0 or not widths[i] > 0.0:
            continue
        for j in range(i + 1, min(last + 1, prices.size)):
            if stretch[j] != stretch[i]:
                interval_end[i] = j
                break
            if j <= entry:
                continue
            change = prices[j] / prices[entry] - 1.0
            gain = sides[i] * change
            touched = gain >= upper * widths[i] or gain <= -lower * widths[i]
            if touched or j == last:
                interval_end[i] = j
                returns[i] = change
                if (touched or sign_at_vertical) and change != 0.0:
                    direction[i] = 1 if change > 0.0 else 0
                break
