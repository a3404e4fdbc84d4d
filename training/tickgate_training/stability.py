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
            _index(_counts(edges, before), _counts(edges, after))
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
    random = np.random.default_rng(seed)
    length = max(round(rows**0.5), 1)
    blocks = -(-rows // length)
    starts = random.integers(0, len(train), (draws, blocks))
    picked = ((starts[:, :, None] + np.arange(length)) % len(train)).reshape(draws, -1)[:, :rows]
    found = np.empty(train.shape[1])
    for k, (edges, column) in enumerate(zip(map(np.unique, deciles_of(train)), train.T, strict=True)):
        expected = _counts(edges, column)
        bins = np.searchsorted(edges, column.astype(np.float64))
        counts = np.array([np.bincount(bins[draw], minlength=edges.size + 1) for draw in picked])
        found[k] = np.quantile(_index(expected, counts), level)
    return found


def _counts(edges: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in each bin; one that lies on an edge belongs to the bin below it."""
    return np.bincount(np.searchsorted(edges, values.astype(np.float64)), minlength=edges.size + 1)


def _index(expected: NDArray[np.int64], actual: NDArray[np.int64]) -> NDArray[np.float64]:
    bins = expected.shape[-1]
    e = (expected + _SMOOTHING) / (expected.sum(axis=-1, keepdims=True) + bins * _SMOOTHING)
    a = (actual + _SMOOTHING) / (actual.sum(axis=-1, keepdims=True) + bins * _SMOOTHING)
    return np.asarray(((a - e) * np.log(a / e)).sum(axis=-1))
