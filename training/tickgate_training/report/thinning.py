"""Fewer points for a picture: what a column of pixels cannot show apart is left out, what stands out stays."""

import numpy as np
from numpy.typing import NDArray


def thinned(stamps_ns: NDArray[np.int64], values: NDArray[np.float64], columns: int) -> NDArray[np.int64]:
    """Rows that draw the same line: of each column of pixels the first, the least, the greatest and the last.

    Args:
        stamps_ns: Where the points lie from left to right, int64 [n], ascending.
        values: float64 [n]; NaN are passed over unless they are first or last.
        columns: Width of the picture in pixels, at least 1.

    Returns:
        Ascending rows, int64 [at most 4 x columns]; all of them where that is fewer.
    """
    size = values.size
    if size <= 4 * columns:
        return np.arange(size)
    span = max(int(stamps_ns[-1] - stamps_ns[0]), 1)
    column = np.minimum((stamps_ns - stamps_ns[0]) / span * columns, columns - 1).astype(np.int64)
    firsts = np.flatnonzero(np.diff(column, prepend=-1))
    lasts = np.append(firsts[1:], size) - 1
    lengths = lasts - firsts + 1
    least = np.repeat(np.fmin.reduceat(values, firsts), lengths)
    greatest = np.repeat(np.fmax.reduceat(values, firsts), lengths)
    extremes = [_first_of_each(values == bound, column) for bound in (least, greatest)]
    return np.unique(np.concatenate((firsts, lasts, *extremes)))


def _first_of_each(marked: NDArray[np.bool_], column: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = np.flatnonzero(marked)
    return rows[np.unique(column[rows], return_index=True)[1]]
