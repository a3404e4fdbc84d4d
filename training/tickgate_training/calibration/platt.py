"""Platt scaling: a model's scores made into probabilities, on rows it was not fitted on.

    p_calibrated = sigmoid(a logit(clip(p, 1e-6, 1 - 1e-6)) + b)

Platt, "Probabilistic outputs for support vector machines", 1999, with his smoothed targets (N+ + 1) / (N+ + 2) and
1 / (N- + 2); fitted by Newton's method with step halving as in Lin, Lin and Weng, "A note on Platt's probabilistic
outputs for support vector machines", Machine Learning 68, 2007.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from tickgate_training.calibration.base import (
    SLOPE_LIMIT,
    Nodes,
    clip_nodes,
    clipped,
    double,
    nothing_to_fit,
    sigmoid,
)

_STEPS = 100
_GRADIENT_TOLERANCE = 1e-9
_RIDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Platt:
    """A fitted calibration.

    Attributes:
        slope: a; 1 in the identity.
        intercept: b; 0 in the identity.
        identity_because: Why nothing was fitted; empty where it was.
    """

    slope: float
    intercept: float
    identity_because: str = ""

    def apply(self, raw_scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated P(up) of raw scores (log odds), float64 [n] to float64 [n]."""
        return sigmoid(self.slope * clipped(raw_scores) + self.intercept)

    def onnx_nodes(self, raw: str, output: str) -> Nodes:
        """Clip, Mul a, Add b, Sigmoid; see `Calibration.onnx_nodes`."""
        nodes, constants = clip_nodes(raw, "logit")
        nodes += [
            helper.make_node("Mul", ["logit", "platt_slope"], ["scaled"], name="platt_scale"),
            helper.make_node("Add", ["scaled", "platt_intercept"], ["shifted"], name="platt_shift"),
            helper.make_node("Sigmoid", ["shifted"], [output], name="platt_sigmoid"),
        ]
        return nodes, [*constants, double("platt_slope", self.slope), double("platt_intercept", self.intercept)]


def fit_platt(
    raw_scores: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64] | None = None
) -> Platt:
    """Fit slope and intercept, or give the identity and say why.

    The identity is the answer where there is nothing to fit: fewer than `ROWS_MINIMUM` rows, one class only, scores
    that are all the same; and where what was fitted is none: no convergence, a slope that is not positive (the
    validation rows contradict the ranking, and a calibration must not turn it over) or above `SLOPE_LIMIT` (it would
    blow rounding up).

    Args:
        raw_scores: Log odds logit(p) of the uncalibrated model, float64 [n].
        labels: 1 up, 0 down, int8 [n].
        weights: With a mean of 1 and none of them 0, float64 [n]: N+ and N- are then sums of weights. None weighs all
            the same.
    """
    scores = clipped(raw_scores)
    if why := nothing_to_fit(scores, labels):
        return Platt(1.0, 0.0, why)
    weighed = np.ones(labels.size) if weights is None else weights
    positive = float(weighed[labels == 1].sum())
    negative = float(weighed[labels != 1].sum())
    targets = np.where(labels == 1, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    fitted = _newton(scores, targets, weighed, math.log((positive + 1.0) / (negative + 1.0)))
    if fitted is None:
        return Platt(1.0, 0.0, "the fit did not converge")
    slope, intercept = fitted
    if not slope > 0.0:
        return Platt(1.0, 0.0, "validation contradicts the ranking: the fitted slope is not positive")
    if slope > SLOPE_LIMIT:
        return Platt(1.0, 0.0, f"the fitted slope is above {SLOPE_LIMIT:g}")
    return Platt(slope, intercept)


def _newton(
    scores: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64], intercept: float
) -> tuple[float, float] | None:
    # In units of the scores' own size, else the tolerance means something else for each model.
    scale = float(np.abs(scores).max())
    x = scores / scale
    slope = 0.0
    loss = _cross_entropy(slope * x + intercept, targets, weights)
    for _ in range(_STEPS):
        p = sigmoid(slope * x + intercept)
        error = weights * (p - targets)
        gradient = np.array([error @ x, error.sum()])
        if np.abs(gradient).max() < _GRADIENT_TOLERANCE * x.size:
            return slope / scale, intercept
        curvature = weights * p * (1.0 - p)
        cross = float(curvature @ x)
        hessian = np.array([[curvature @ (x * x) + _RIDGE, cross], [cross, curvature.sum() + _RIDGE]])
        if not np.linalg.det(hessian) > 0.0:
            return None
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while True:
            trial = (slope - size * step[0], intercept - size * step[1])
            trial_loss = _cross_entropy(trial[0] * x + trial[1], targets, weights)
            if trial_loss <= loss - 1e-4 * size * float(gradient @ step):
                break
            size /= 2.0
            if size < 1e-10:  # no step helps any more: rounding is all that is left of the gradient
                return slope / scale, intercept
        slope, intercept, loss = float(trial[0]), float(trial[1]), trial_loss
    return None


def _cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())
