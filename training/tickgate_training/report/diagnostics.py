"""What the diagnostics of a run sum up to: reliability of the probabilities, and the plateau of thresholds."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.results import ThresholdCurve

BINS = 10
GRID = 101
CURVES_SHARE_MINIMUM = 0.25
_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities hold what they promise, over the rows that have both a probability and a label.

    Attributes:
        rows: How many those are.
        base_rate: Share of them that went up; NaN without rows, as all that follows.
        brier: Mean of (p - y)^2 (Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
            Review 78, 1950).
        brier_of_base_rate: What always saying the base rate would have had.
        log_loss: Mean of -ln of the probability given to what happened; infinite where that was 0.
        log_loss_of_base_rate: As above.
        calibration_error: Mean over bins, weighted by rows, of |share up - mean p| (the expected calibration error of
            Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015),
            over bins of equal counts.
        predicted: Mean p of each bin, float64 [b], ascending.
        observed: Share up of each, float64 [b].
        lower: Lower end of its Wilson score interval at 95 % (Wilson, "Probable inference, the law of succession, and
            statistical inference", JASA 22, 1927), float64 [b]; labels that overlap make it too narrow.
        upper: Upper end.
        counts: Rows of each, int64 [b].
    """

    rows: int
    base_rate: float
    brier: float
    brier_of_base_rate: float
    log_loss: float
    log_loss_of_base_rate: float
    calibration_error: float
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    counts: NDArray[np.int64]


def reliability(probabilities: NDArray[np.float64], directions: NDArray[np.int8]) -> Reliability:
    """Judge probabilities by what happened.

    Args:
        probabilities: P(up), float64 [n]; NaN where there is none.
        directions: 1 up, 0 down, -1 no label, int8 [n].

    Returns:
        With at most `BINS` bins of nearly equal counts; equal probabilities are never parted.
    """
    known = np.isfinite(probabilities) & (directions >= 0)
    p, up = probabilities[known], (directions[known] == 1).astype(np.float64)
    if p.size == 0:
        nan, none = math.nan, np.empty(0)
        return Reliability(0, nan, nan, nan, nan, nan, nan, none, none, none, none, np.empty(0, np.int64))
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, BINS + 1)))
    place = np.searchsorted(edges[1:-1], p, side="right")
    every = np.bincount(place)
    filled = every > 0
    counts = every[filled]
    predicted = np.bincount(place, p)[filled] / counts
    observed = np.bincount(place, up)[filled] / counts
    centre = (observed + _Z_95**2 / (2.0 * counts)) / (1.0 + _Z_95**2 / counts)
    spread = np.sqrt(observed * (1.0 - observed) / counts + _Z_95**2 / (4.0 * counts**2))
    half = _Z_95 / (1.0 + _Z_95**2 / counts) * spread
    rate = float(up.mean())
    return Reliability(
        rows=int(p.size),
        base_rate=rate,
        brier=float(((p - up) ** 2).mean()),
        brier_of_base_rate=rate * (1.0 - rate),
        log_loss=_log_loss(p, up),
        log_loss_of_base_rate=_log_loss(np.full(p.size, rate), up),
        calibration_error=float(counts @ np.abs(observed - predicted) / p.size),
        predicted=predicted,
        observed=observed,
        lower=centre - half,
        upper=centre + half,
        counts=counts.astype(np.int64),
    )


def _log_loss(p: NDArray[np.float64], up: NDArray[np.float64]) -> float:
    given = np.where(up == 1.0, p, 1.0 - p)
    return float(-np.log(given).mean()) if (given > 0.0).all() else math.inf


@dataclass(frozen=True, slots=True)
class Plateau:
    """Net return on validation against the threshold, over the windows.

    Attributes:
        thresholds: float64 [k], evenly spaced, ascending; empty where no window has a curve.
        median: Over the windows that have a candidate on both sides, float64 [k]; NaN where fewer than a quarter have.
        lower: Lower quartile, float64 [k]; `upper` the upper one.
        upper: See `lower`.
        windows: How many those are, int64 [k].
    """

    thresholds: NDArray[np.float64]
    median: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    windows: NDArray[np.int64]


def plateau(curves: tuple[ThresholdCurve, ...]) -> Plateau:
    """Lay the windows' curves over one another; between candidates they are straight, beyond them they end."""
    known = [curve for curve in curves if curve.thresholds.size]
    if not known:
        none = np.empty(0)
        return Plateau(none, none, none, none, np.empty(0, np.int64))
    low = min(float(curve.thresholds[0]) for curve in known)
    high = max(float(curve.thresholds[-1]) for curve in known)
    grid = np.linspace(low, high, GRID) if high > low else np.array([low])
    laid = np.array(
        [np.interp(grid, curve.thresholds, curve.net_returns, left=np.nan, right=np.nan) for curve in known]
    )
    laid[~np.isfinite(laid)] = np.nan
    windows = np.isfinite(laid).sum(axis=0)
    enough = windows >= max(1.0, CURVES_SHARE_MINIMUM * len(known))
    quartiles = np.full((3, grid.size), np.nan)
    quartiles[:, enough] = np.nanquantile(laid[:, enough], (0.25, 0.5, 0.75), axis=0)
    return Plateau(grid, quartiles[1], quartiles[0], quartiles[2], windows)
