"""Have the champion's features drifted from what it was trained on? The population stability index on its own bins.

    PSI = sum over bins of (a - e) ln(a / e)

Siddiqi, "Credit Risk Scorecards", 2006. A manifest has each feature's inner deciles over the train rows, so e is known
without the rows: the share between two neighbouring deciles; where several coincide, the bins between them are one. a
is the share of newer rows, each count smoothed by a half, so that an empty bin gives a number. What the index stays
below where nothing changed comes from a block bootstrap of the train rows (`stability.null_quantile`), which a manifest
does not have: retraining keeps it with the round that published a version, and of another champion drift cannot be
told. Time of day is exempt: it drifts all day long.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import Manifest
from tickgate_training.errors import ArgumentInvalid

ALPHA = 0.01
"""Chance that some feature is found to have drifted where none did, by one look."""
NULL_DRAWS = 2000
CLOCK_FEATURES = frozenset({"day_sin", "day_cos"})
_SMOOTHING = 0.5


def stability_index(quantiles: tuple[float, ...], values: NDArray[np.float32]) -> float:
    """The index of newer values against the shares that quantiles stand for; NaN where there is no value.

    Args:
        quantiles: Inner edges of equally filled bins, ascending; some may coincide.
        values: float32 [m], finite.

    Raises:
        ArgumentInvalid: There is no quantile, or they descend.
    """
    edges = np.array(quantiles, np.float64)
    if not edges.size or (np.diff(edges) < 0.0).any():
        raise ArgumentInvalid("quantiles", float(edges.size), "there is at least one, and they ascend")
    if not values.size:
        return float("nan")
    distinct = np.unique(edges)
    # Rows up to an edge: as many as the last of the quantiles that coincide there says.
    up_to = np.searchsorted(edges, distinct, side="right") / (edges.size + 1)
    expected = np.diff(np.concatenate(([0.0], up_to, [1.0])))
    counts = np.bincount(np.searchsorted(distinct, values.astype(np.float64)), minlength=distinct.size + 1)
    actual = (counts + _SMOOTHING) / (values.size + counts.size * _SMOOTHING)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def drifted(
    manifest: Manifest, features: NDArray[np.float32], null: dict[str, float], least: float
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
        index = stability_index(manifest.feature_statistics[name].quantiles, column)
        limit = max(least, null[name])
        if index > limit:
            found[name] = (index, limit)
    return found
