"""The population stability index over a run's rows, and what it stays below where nothing changed.

The index itself is the server's (`tickgate_server.models.stability`); here its bins end at the train rows' deciles.
Where several deciles coincide, their bins are one.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import FeatureStatistics
from tickgate_server.models.stability import bins_of, counts_of, index_of, smoothed

BINS = 10
_DECILES = np.arange(1, BINS) / BINS


def deciles_of(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner deciles of each feature, linearly interpolated: float32 [n, width], finite, to float64 [width, 9]."""
    return np.asarray(np.quantile(features.astype(np.float64), _DECILES, axis=0).T)


def psi_of(deciles: NDArray[np.float64], train: NDArray[np.float32], later: NDArray[np.float32]) -> NDArray[np.float64]:
    """The index of each feature, float64 [width]; NaN where there are no later rows.

    Args:
        deciles: Of the train rows, float64 [width, 9].
        train: float32 [n, width], finite.
        later: float32 [m, width], finite.
    """
    if not len(later):
        return np.full(len(deciles), np.nan)
    return np.array(
        [
            index_of(smoothed(counts_of(edges, before)), counts_of(edges, after))
            for edges, before, after in zip(map(np.unique, deciles), train.T, later.T, strict=True)
        ]
    )


def null_quantile(
    train: NDArray[np.float32], rows: int, level: float, *, draws: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """What the index stays below with a probability where nothing changed, float64 [width].

    A circular block bootstrap (Politis and Romano, 1992) of the train rows, which keeps what neighbours have in common;
    blocks of the square root of the rows drawn.

    Args:
        train: float32 [n, width], finite.
        rows: Rows that the index will be measured on.
        level: The probability.
        draws: Samples drawn.
        seed: Of the draws.
    """
    picked = draws_of(len(train), rows, draws, seed)
    found = np.empty(train.shape[1])
    for k, (edges, column) in enumerate(zip(map(np.unique, deciles_of(train)), train.T, strict=True)):
        found[k] = np.quantile(index_of(smoothed(counts_of(edges, column)), drawn_counts(edges, column, picked)), level)
    return found


def draws_of(trained_rows: int, rows: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of a circular block bootstrap, int64 [draws, rows]; blocks of the square root of the rows drawn."""
    random = np.random.default_rng(seed)
    length = max(round(rows**0.5), 1)
    blocks = -(-rows // length)
    starts = random.integers(0, trained_rows, (draws, blocks))
    picked = (starts[:, :, None] + np.arange(length)) % trained_rows
    return np.asarray(picked.reshape(draws, -1)[:, :rows])


def drawn_counts(
    edges: NDArray[np.float64], values: NDArray[np.float32], picked: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The same for each draw of `draws_of`, int64 [draws, edges + 1]."""
    places = np.searchsorted(edges, values.astype(np.float64))
    return np.array([np.bincount(places[draw], minlength=edges.size + 1) for draw in picked])


def widest_of_stretches(trained: FeatureStatistics, column: NDArray[np.float32], rows: int) -> float:
    """The largest index that any stretch of so many train rows in a row has against all of them.

    So it has in it what an index over an hour shows of a usual day, its pattern by time of day among it; blocks that
    are shorter than what is measured would not. NaN where there are not so many rows.

    Args:
        trained: Statistics of the train rows.
        column: The feature in these rows, float32 [n], finite, in the order of time.
        rows: Of a stretch; those begin a quarter of it apart.
    """
    if len(column) < rows:
        return float("nan")
    edges, expected = bins_of(trained)
    places = np.searchsorted(edges, column.astype(np.float64))
    begins = range(0, len(column) - rows + 1, max(rows // 4, 1))
    counts = np.array([np.bincount(places[at : at + rows], minlength=edges.size + 1) for at in begins])
    return float(index_of(expected, counts).max())
