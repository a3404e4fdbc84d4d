"""Whether features are distributed as they were when a model was fitted: the population stability index.

    PSI = sum over bins of (a - e) ln(a / e)

e and a are the shares of train and of later rows in bins that end at the train rows' deciles (Siddiqi, "Credit Risk
Scorecards", 2006; its distribution without a change: Yurdakul and Naranjo, "Statistical properties of the population
stability index", J. of Risk Model Validation 14(3), 2020). Each bin's count is smoothed by a half, so that an empty
one gives a number. Where several deciles coincide, their bins are one.
"""

import numpy as np
from numpy.typing import NDArray

BINS = 10
_SMOOTHING = 0.5
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


def counts_of(edges: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in each bin, int64 [edges + 1]; one that lies on an edge belongs to the bin below it."""
    return np.bincount(np.searchsorted(edges, values.astype(np.float64)), minlength=edges.size + 1)


def drawn_counts(
    edges: NDArray[np.float64], values: NDArray[np.float32], picked: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The same for each draw of `draws_of`, int64 [draws, edges + 1]."""
    places = np.searchsorted(edges, values.astype(np.float64))
    return np.array([np.bincount(places[draw], minlength=edges.size + 1) for draw in picked])


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of counts along the last axis, each count a half larger."""
    larger = counts + _SMOOTHING
    return np.asarray(larger / larger.sum(axis=-1, keepdims=True))


def index_of(expected: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The index of counts against shares that are expected, along the last axis."""
    actual = smoothed(counts)
    return np.asarray(((actual - expected) * np.log(actual / expected)).sum(axis=-1))
