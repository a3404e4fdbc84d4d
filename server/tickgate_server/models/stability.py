"""Whether features are distributed as they were when a model was fitted: the population stability index.

    PSI = sum over bins of (a - e) ln(a / e)

e and a are the shares of train and of later rows in each bin (Siddiqi, "Credit Risk Scorecards", 2006; its distribution
without a change: Yurdakul and Naranjo, "Statistical properties of the population stability index", J. of Risk Model
Validation 14(3), 2020). Each bin's count is smoothed by a half, so that an empty one gives a number.

A manifest has each feature's inner deciles over the train rows, so e is known without the rows: the share between two
neighbouring deciles; where several coincide, the bins between them are one, and one that reaches the maximum ends no
bin. Of values that many rows share a decile says only roughly how many lie up to it: then the index is too large, with
a drift as without, and so is what it stays below without one.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import FeatureStatistics

# They drift all day long, and begin again the next.
CLOCK_FEATURES = frozenset({"day_sin", "day_cos"})
_SMOOTHING = 0.5


def stability_index(trained: FeatureStatistics, values: NDArray[np.float32]) -> float:
    """The index of newer values against the shares that a manifest's quantiles stand for; NaN where there is no value.

    Args:
        trained: The manifest's; quantiles ascend, and some may coincide.
        values: float32 [m], finite.

    Raises:
        ValueError: There is no quantile, or they descend.
    """
    if not values.size:
        return float("nan")
    edges, expected = bins_of(trained)
    return float(index_of(expected, counts_of(edges, values)))


def bins_of(trained: FeatureStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inner edges, each once, float64 [b - 1], and the share of the train rows in each bin, float64 [b].

    Raises:
        ValueError: There is no quantile, or they descend.
    """
    quantiles = np.array(trained.quantiles, np.float64)
    if not quantiles.size or (np.diff(quantiles) < 0.0).any():
        raise ValueError(f"quantiles: expected at least one, ascending, found {trained.quantiles}")
    edges = np.unique(quantiles[quantiles < trained.max])
    # Rows up to an edge: as many as the last of the quantiles that coincide there says.
    up_to = np.searchsorted(quantiles, edges, side="right") / (quantiles.size + 1)
    return edges, np.diff(np.concatenate(([0.0], up_to, [1.0])))


def counts_of(edges: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in each bin, int64 [edges + 1]; one that lies on an edge belongs to the bin below it."""
    return np.bincount(np.searchsorted(edges, values.astype(np.float64)), minlength=edges.size + 1)


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of counts along the last axis, each count a half larger."""
    larger = counts + _SMOOTHING
    return np.asarray(larger / larger.sum(axis=-1, keepdims=True))


def index_of(expected: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The index of counts against shares that are expected, along the last axis."""
    actual = smoothed(counts)
    return np.asarray(((actual - expected) * np.log(actual / expected)).sum(axis=-1))
