"""Calibration: a model's scores made into probabilities, on rows it was not fitted on.

| kind | what |
|---|---|
| `platt` | a logistic function of the score: two numbers, right for some dozens of rows |
| `isotonic` | any rising function, bounded in its slope: right for some thousand rows |
| `none` | the score's own probability |

Each keeps the order of scores, is computed in float64, and says the same in numpy and in the exported graph.
"""

from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from tickgate_training import fit_weights
from tickgate_training.calibration.base import (
    CLIP,
    LOGIT_LIMIT,
    ROWS_MINIMUM,
    SLOPE_LIMIT,
    Calibration,
    sigmoid,
)
from tickgate_training.calibration.isotonic import Isotonic, fit_isotonic
from tickgate_training.calibration.none import Uncalibrated
from tickgate_training.calibration.platt import Platt, fit_platt

Kind = Literal["platt", "isotonic", "none"]


def fit(
    kind: Kind,
    raw_scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    weights: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit a calibration; where there is nothing to fit it is the identity, and says why.

    Args:
        kind: As above.
        raw_scores: Log odds logit(p) of the uncalibrated model, float64 [n].
        labels: 1 up, 0 down, int8 [n].
        weights: Of the rows, float64 [n], from 0 up; only their proportions count, and a row of weight 0 is left out.
            None weighs all the same.

    Raises:
        WeightsInvalid: See `fit_weights.checked`.
    """
    if kind == "none":
        return Uncalibrated("none was asked for")
    if weights is not None:
        counted = fit_weights.checked(weights, int(labels.size)) > 0.0
        raw_scores, labels = raw_scores[counted], labels[counted]
        weights = fit_weights.checked(weights[counted], int(labels.size))
    if kind == "platt":
        return fit_platt(raw_scores, labels, weights)
    if kind == "isotonic":
        return fit_isotonic(raw_scores, labels, weights)
    assert_never(kind)


__all__ = [
    "CLIP",
    "LOGIT_LIMIT",
    "ROWS_MINIMUM",
    "SLOPE_LIMIT",
    "Calibration",
    "Isotonic",
    "Kind",
    "Platt",
    "Uncalibrated",
    "fit",
    "sigmoid",
]
