"""Isotonic calibration: the best rising function of the probability, made continuous and no steeper than a limit.

Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002: pool
adjacent violators (scikit-learn's `IsotonicRegression`) on (p, label), p the sigmoid of the clipped score. Between the
pools it is interpolated linearly, and constant beyond the first and the last.

The pools of a step function lie as close as two scores do, and a line between them may be so steep that the last bits
of a float32 sum decide on a hundredth of probability. So the line f is replaced by the mean of its two envelopes

    low(x) = min over u of f(u) + L |x - u|,    high(x) = max over u of f(u) - L |x - u|

(McShane, "Extension of range of functions", Bull. AMS 40, 1934): the largest function below and the smallest above f
that nowhere rises faster than L = `SLOPE_LIMIT`. Their mean rises as f does, no faster than L, and is f where f is flat
for long enough; no function with that limit comes closer to f at its worst point.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.isotonic import IsotonicRegression

from tickgate_training.calibration.base import (
    CLIP,
    SLOPE_LIMIT,
    Nodes,
    clip_nodes,
    clipped,
    double,
    nothing_to_fit,
    sigmoid,
)
from tickgate_training.calibration.none import Uncalibrated

KNOTS_LIMIT = 512  # what a row costs in the graph grows with them: 2 us for so many
_KNOTS_APART = 1e-12  # closer ones are one: what their slope would be is rounding
_SLOPES_APART = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """A fitted calibration: linear between its knots, constant beyond them.

    Attributes:
        knots: Probabilities before calibration, ascending, float64 [k], k from 2 to `KNOTS_LIMIT`.
        values: Probabilities after it, ascending, in [1e-6, 1 - 1e-6], float64 [k].
    """

    knots: Floats
    values: Floats

    @property
    def identity_because(self) -> str:
        """Empty: where nothing can be fitted there is an `Uncalibrated` in its place."""
        return ""

    def apply(self, raw_scores: Floats) -> Floats:
        """Calibrated P(up) of raw scores (log odds), float64 [n] to float64 [n]."""
        return np.interp(sigmoid(clipped(raw_scores)), self.knots, self.values)

    def onnx_nodes(self, raw: str, output: str) -> Nodes:
        """The first value and a ramp for each piece: v_0 + sum of slope_k (clip(p, x_k, x_k+1) - x_k)."""
        nodes, constants = clip_nodes(raw, "logit")
        slopes = np.diff(self.values) / np.diff(self.knots)
        nodes += [
            helper.make_node("Sigmoid", ["logit"], ["p"], name="sigmoid"),
            helper.make_node("Max", ["p", "piece_low"], ["above_low"], name="isotonic_low"),
            helper.make_node("Min", ["above_low", "piece_high"], ["within"], name="isotonic_high"),
            helper.make_node("Sub", ["within", "piece_low"], ["along"], name="isotonic_along"),
            helper.make_node("MatMul", ["along", "piece_slope"], ["risen"], name="isotonic_ramps"),
            helper.make_node("Add", ["risen", "first_value"], [output], name="isotonic_value"),
        ]
        constants += [
            numpy_helper.from_array(self.knots[None, :-1], "piece_low"),
            numpy_helper.from_array(self.knots[None, 1:], "piece_high"),
            numpy_helper.from_array(slopes[:, None], "piece_slope"),
            double("first_value", float(self.values[0])),
        ]
        return nodes, constants


def fit_isotonic(
    raw_scores: Floats, labels: NDArray[np.int8], weights: Floats | None = None
) -> Isotonic | Uncalibrated:
    """Fit on rows that the model was not fitted on, or give no calibration and say why.

    There is none where there is nothing to fit, as for `fit_platt`, and where all rows make one pool: the rows
    contradict the ranking.

    Args:
        raw_scores: Log odds of the uncalibrated model, float64 [n].
        labels: 1 up, 0 down, int8 [n].
        weights: None of them 0, float64 [n]; None weighs all the same.
    """
    scores = clipped(raw_scores)
    if why := nothing_to_fit(scores, labels):
        return Uncalibrated(why)
    pools = IsotonicRegression(y_min=CLIP, y_max=1.0 - CLIP, increasing=True)
    pools.fit(sigmoid(scores), labels.astype(np.float64), sample_weight=weights)
    x, y = np.asarray(pools.X_thresholds_, np.float64), np.asarray(pools.y_thresholds_, np.float64)
    if y.size < 2 or y[0] == y[-1]:
        return Uncalibrated("validation contradicts the ranking: all rows make one pool")
    return Isotonic(*bounded(x, y, SLOPE_LIMIT))


def bounded(x: Floats, y: Floats, limit: float) -> tuple[Floats, Floats]:
    """The mean of the envelopes of a rising line, as knots and values of its own.

    Args:
        x: Strictly ascending, float64 [k].
        y: Ascending, float64 [k]; the line is constant beyond its ends.
        limit: L.

    Returns:
        At most `KNOTS_LIMIT` knots and their values, float64 [m]: of more, as many spread evenly by rank are kept.
    """
    # Beyond the ends an envelope goes on rising: here so far that the last piece at either end is flat.
    reach = 1.0 + (y[-1] - y[0]) / limit
    x = np.concatenate([[x[0] - reach], x, [x[-1] + reach]])
    y = np.concatenate([y[:1], y, y[-1:]])
    low = _below(x, y, limit)
    # high of f at x is -low of -f at -x: the line seen upside down, from the other end.
    other = _below(-x[::-1], -y[::-1], limit)
    high = (-other[0][::-1], -other[1][::-1])
    knots = np.unique(np.concatenate([low[0], high[0]]))
    values = (np.interp(knots, *low) + np.interp(knots, *high)) / 2.0
    needed = _bends(knots, values)
    if needed.size > KNOTS_LIMIT:
        needed = needed[np.linspace(0, needed.size - 1, KNOTS_LIMIT).astype(np.int64)]
    return knots[needed], np.clip(np.maximum.accumulate(values[needed]), y[0], y[-1])


def _below(x: Floats, y: Floats, limit: float) -> tuple[Floats, Floats]:
    """The envelope below a rising line: its knots and values. It climbs at most by the limit, and catches up."""
    knots, values = [float(x[0])], [float(y[0])]
    for left, right, start, end in zip(x[:-1].tolist(), x[1:].tolist(), y[:-1].tolist(), y[1:].tolist(), strict=True):
        slope = (end - start) / (right - left)
        behind = start - values[-1]
        if slope < limit and behind > 0.0 and (met := left + behind / (limit - slope)) < right:
            knots.append(met)
            values.append(start + slope * (met - left))
        knots.append(right)
        values.append(min(end, values[-1] + limit * (right - knots[-2])))
    return np.array(knots), np.array(values)


def _bends(x: Floats, y: Floats) -> NDArray[np.int64]:
    """The knots, as positions, where the slope changes; both ends where it nowhere does. The end pieces are flat."""
    steps = np.diff(x)
    keep = np.concatenate([[True], steps > _KNOTS_APART])
    at = np.flatnonzero(keep)
    slopes = np.diff(y[at]) / np.diff(x[at])
    bend = np.flatnonzero(np.abs(np.diff(slopes)) > _SLOPES_APART) + 1
    return np.asarray(at[bend if bend.size > 1 else [0, -1]], np.int64)
