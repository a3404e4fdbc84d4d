"""Sample weights: how much each fitted row counts, because labels that overlap tell the same story several times.

López de Prado, "Advances in Financial Machine Learning", 2018: concurrency 4.3, average uniqueness 4.4, return
attribution 4.6, time decay 4.7. Every function takes the rows that are fitted, after purging, and the label intervals
of these rows alone are counted: so the weights of a past window do not change when rows are appended.

`rows` is int64 [m], ascending row numbers of the fitted rows, and `interval_end` int64 [n] of all rows: what
`Window.train_rows` gives and takes. Label intervals [row, interval_end[row]] include both ends, as they do for purging.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tickgate_training.errors import WeightsUndefined
from tickgate_training.strict import Strict


class WeightConfig(Strict):
    """How fitted rows are weighted: `basis`, times the decays that are asked for.

    `oldest_weight` is c of `linear_decay`, 1 for none; `half_life_rows` of the exponential one, 0 for none.
    """

    basis: Literal["equal", "uniqueness", "return_attribution"] = "uniqueness"
    oldest_weight: float = Field(default=1.0, gt=-1.0, le=1.0)
    half_life_rows: float = Field(default=0.0, ge=0.0)


def sample_weights(
    rows: NDArray[np.int64],
    interval_end: NDArray[np.int64],
    prices: NDArray[np.float64],
    config: WeightConfig,
    *,
    lag_trades: int = 1,
    symbols: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Weights of the fitted rows as configured, normalised to a mean of 1.

    Args:
        rows: int64 [m], ascending.
        interval_end: int64 [n].
        prices: float64 [n], those that the labels are made of; looked at for return attribution alone.
        config: What counts.
        lag_trades: Of the labels; for return attribution.
        symbols: int64 [n] in a panel; see `average_uniqueness`.

    Returns:
        float64 [m].

    Raises:
        WeightsUndefined: The weights sum to zero or are not finite.
        ValueError: Rows are not ascending, an interval ends before its row, or return attribution is asked of a panel.
    """
    uniqueness = average_uniqueness(rows, interval_end, symbols)
    weights = np.ones(rows.size)
    if config.basis == "uniqueness":
        weights = uniqueness
    elif config.basis == "return_attribution":
        if symbols is not None:
            raise ValueError("return attribution takes one symbol's rows, for it sums returns from row to row")
        weights = return_attribution(rows, interval_end, prices, lag_trades)
    weights = weights * linear_decay(uniqueness, config.oldest_weight)
    if config.half_life_rows > 0.0:
        weights = weights * exponential_decay(rows, config.half_life_rows)
    return normalised(weights)


def normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights scaled to a mean of 1, float64 [m]; raises `WeightsUndefined` where their sum does not allow it."""
    if weights.size == 0:
        return weights
    total = float(weights.sum())
    if not 0.0 < total < np.inf:
        raise WeightsUndefined(weights.size, total)
    return np.asarray(weights * (weights.size / total))


def average_uniqueness(
    rows: NDArray[np.int64], interval_end: NDArray[np.int64], symbols: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Mean over a label's interval of 1 over the number of labels alive at each row, float64 [m] in (0, 1].

    With c_t the number of fitted labels alive at row t, u_i = mean of 1 / c_t over t in [i, interval_end[i]].

    Args:
        rows: int64 [m], ascending.
        interval_end: int64 [n].
        symbols: int64 [n], the symbol of each row of a panel: labels of other symbols are then not concurrent, for they
            speak of another return. None: all rows are one symbol's.

    Raises:
        ValueError: Rows are not ascending, or an interval ends before its row.
    """
    ends = _ends(rows, interval_end)
    if symbols is None:
        return _uniqueness(rows, ends)
    uniqueness = np.empty(rows.size)
    of_row = symbols[rows]
    for symbol in np.unique(of_row):
        same = of_row == symbol
        uniqueness[same] = _uniqueness(rows[same], ends[same])
    return uniqueness


def return_attribution(
    rows: NDArray[np.int64], interval_end: NDArray[np.int64], prices: NDArray[np.float64], lag_trades: int = 1
) -> NDArray[np.float64]:
    """Absolute log return that a label can claim for itself, float64 [m], not normalised.

    |sum over t in (i + lag, interval_end[i]] of ln(p_t / p_{t-1}) / c_t|, c_t as in `average_uniqueness`. The sum
    begins after the entry: the book's snippet 4.10 counts the return into the decision row too, the label does not.

    Args:
        rows: int64 [m], ascending.
        interval_end: int64 [n]; of the fitted rows below n.
        prices: float64 [n], > 0.
        lag_trades: Trades from the decision to the entry.

    Raises:
        ValueError: Rows are not ascending, or an interval ends before its entry or after the last price.
    """
    ends = _ends(rows, interval_end)
    if rows.size == 0:
        return np.empty(0)
    if (ends >= prices.size).any() or (ends < rows + lag_trades).any():
        raise ValueError("return attribution needs intervals that end between their entry and the last price")
    first, last = int(rows[0]), int(ends.max())
    changes = np.concatenate(([0.0], np.diff(np.log(prices[first : last + 1]))))
    total = np.concatenate(([0.0], np.cumsum(changes * _shares(rows, ends))))
    return np.asarray(np.abs(total[ends - first + 1] - total[rows + lag_trades - first + 1]))


def linear_decay(uniqueness: NDArray[np.float64], oldest_weight: float) -> NDArray[np.float64]:
    """Piecewise linear decay over cumulative uniqueness rather than over time, float64 [m]; the newest row has 1.

    With x_i = u_1 + ... + u_i and X their sum, d = max(0, 1 - b (X - x_i)): for 0 <= c <= 1 b = (1 - c) / X, so that
    the weight tends to c at the oldest end; for -1 < c < 0 b = 1 / ((1 + c) X), so that the oldest share -c of the
    uniqueness has no weight.

    Args:
        uniqueness: float64 [m], oldest first.
        oldest_weight: c.

    Raises:
        ValueError: c is not in (-1, 1].
    """
    if not -1.0 < oldest_weight <= 1.0:
        raise ValueError(f"oldest_weight must lie in (-1, 1], got {oldest_weight}")
    if uniqueness.size == 0:
        return np.empty(0)
    seen = np.cumsum(uniqueness)
    slope = (1.0 - oldest_weight if oldest_weight >= 0.0 else 1.0 / (1.0 + oldest_weight)) / seen[-1]
    return np.asarray(np.maximum(0.0, 1.0 - slope * (seen[-1] - seen)))


def exponential_decay(rows: NDArray[np.int64], half_life_rows: float) -> NDArray[np.float64]:
    """0.5 ** (age / half-life), float64 [m], age in rows before the newest fitted one, which has 1.

    Raises:
        ValueError: The half-life is not above 0.
    """
    if not half_life_rows > 0.0:
        raise ValueError(f"half_life_rows must be above 0, got {half_life_rows}")
    if rows.size == 0:
        return np.empty(0)
    return np.asarray(0.5 ** ((rows[-1] - rows) / half_life_rows))


def _ends(rows: NDArray[np.int64], interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
    if (np.diff(rows) <= 0).any():
        raise ValueError("fitted rows must be ascending, each once")
    ends = interval_end[rows]
    if (early := np.flatnonzero(ends < rows)).size:
        row = int(rows[early[0]])
        raise ValueError(f"the label interval of row {row} ends before it, at row {interval_end[row]}")
    return ends


def _shares(rows: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / c_t from the first interval's start to the last one's end, 0 where no label is alive."""
    first, length = int(rows[0]), int(ends.max() - rows[0]) + 1
    begun = np.bincount(rows - first, minlength=length + 1)
    over = np.bincount(ends - first + 1, minlength=length + 1)
    alive = np.cumsum(begun - over)[:length]
    return np.divide(1.0, alive, out=np.zeros(length), where=alive > 0)


def _uniqueness(rows: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    if rows.size == 0:
        return np.empty(0)
    total = np.concatenate(([0.0], np.cumsum(_shares(rows, ends))))
    first = rows[0]
    # A difference of sums is right to their own rounding; no mean of values up to 1 is above 1.
    return np.asarray(np.minimum(1.0, (total[ends - first + 1] - total[rows - first]) / (ends - rows + 1)))
