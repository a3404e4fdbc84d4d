"""Have the champion's features drifted from what it was trained on? `tickgate_server.models.stability` on its own bins.

What the index stays below where nothing changed is found by drawing from the train rows: a circular block bootstrap
(Politis and Romano, 1992), which keeps what neighbours have in common. Retraining keeps it with the round that
published a version, for as many rows as it looks at; of another champion drift cannot be told. Time of day is exempt:
it drifts all day long.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import FeatureStatistics, Manifest
from tickgate_server.models.stability import CLOCK_FEATURES, bins_of, index_of, stability_index
from tickgate_training.stability import drawn_counts, draws_of

ALPHA = 0.01
"""Chance that some feature is found to have drifted where none did, by one look."""
_DRAWS = 1000


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
        edges, expected = bins_of(statistics)
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
