"""Have the champion's features drifted from what it was trained on? The population stability index on its own bins.

    PSI = sum over bins of (a - e) ln(a / e)

Siddiqi, "Credit Risk Scorecards", 2006. A manifest has each feature's inner deciles over the train rows, so e is known
without the rows: the share between two neighbouring deciles; where several coincide, the bins between them are one, and
one that reaches the maximum ends no bin. a is the share of newer rows, each count smoothed by a half, so that an empty
bin gives a number. Of values that many rows share a decile says only roughly how many lie up to it: then the index is
too large, with a drift as without.

What the index stays below where nothing changed is found by drawing from the train rows, and has that in it too: a
circular block bootstrap (Politis and Romano, 1992), which keeps what neighbours have in common. A manifest does not
have it: retraining keeps it with the round that published a version, and of another champion drift cannot be told.
Time of day is exempt: it drifts all day long.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import FeatureStatistics, Manifest
from tickgate_training.errors import ArgumentInvalid
from tickgate_training.stability import counts_of, drawn_counts, draws_of, index_of

ALPHA = 0.01
"""Chance that some feature is found to have drifted where none did, by one look."""
CLOCK_FEATURES = frozenset({"day_sin", "day_cos"})
_DRAWS = 1000


def stability_index(trained: FeatureStatistics, values: NDArray[np.float32]) -> float:
    """The index of newer values against the shares that a manifest's quantiles stand for; NaN where there is no value.

    Args:
        trained: The manifest's; quantiles ascend, and some may coincide.
        values: float32 [m], finite.

    Raises:
        ArgumentInvalid: There is no quantile, or they descend.
    """
    if not values.size:
        return float("nan")
    edges, expected = _bins(trained)
    return float(index_of(expected, counts_of(edges, values)))


def null_quantiles(
    trained: Mapping[str, FeatureStatistics], train: NDArray[np.float32], rows: int, *, seed: int
) -> dict[str, float]:
    """What each feature's index stays below where nothing changed, at `ALPHA` over their number.

    Args:
        trained: Statistics of the train rows, in the order of the columns.
        train: float32 [n, width], finite.
        rows: That the index will be measured on.
        seed: Of the draws.
    """
    picked = draws_of(len(train), rows, _DRAWS, seed)
    level = 1.0 - ALPHA / len(trained)
    found = {}
    for (name, statistics), column in zip(trained.items(), train.T, strict=True):
        edges, expected = _bins(statistics)
        found[name] = float(np.quantile(index_of(expected, drawn_counts(edges, column, picked)), level))
    return found


def drifted(
    manifest: Manifest, features: NDArray[np.float32], null: Mapping[str, float], least: float
) -> dict[str, tuple[float, float]]:
    """Features whose index is above its limit, each with both.

    Args:
        manifest: The champion's.
        features: The newest rows, float32 [m, width] in the manifest's order, finite.
        null: Null quantile of each feature.
        least: A limit is at least this.
    """
    found = {}
    for column, name in zip(features.T, manifest.features.names, strict=True):
        if name in CLOCK_FEATURES:
            continue
        index = stability_index(manifest.feature_statistics[name], column)
        limit = max(least, null[name])
        if index > limit:
            found[name] = (index, limit)
    return found


def _bins(trained: FeatureStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inner edges, each once, and the share of the train rows in each bin."""
    quantiles = np.array(trained.quantiles, np.float64)
    if not quantiles.size or (np.diff(quantiles) < 0.0).any():
        raise ArgumentInvalid("quantiles", float(quantiles.size), "there is at least one, and they ascend")
    edges = np.unique(quantiles[quantiles < trained.max])
    # Rows up to an edge: as many as the last of the quantiles that coincide there says.
    up_to = np.searchsorted(quantiles, edges, side="right") / (quantiles.size + 1)
    return edges, np.diff(np.concatenate(([0.0], up_to, [1.0])))
