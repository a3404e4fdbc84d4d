"""The confidence from which a signal is acted on: chosen on validation rows, on returns net of costs.

A threshold lies midway between two distinct confidences max(p, 1 - p) of the validation rows, at least
`SCORE_GAP_MINIMUM` apart where there are such, so that the rounding of the exported model moves no row over it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest
from tickgate_training.portfolio import Portfolio

Result = Backtest | Portfolio

SCORE_GAP_MINIMUM = 4e-5
CANDIDATES_MAXIMUM = 32
FALLBACK_QUANTILE = 0.9
FALLBACK_THRESHOLD = 0.55


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A threshold and how it came about.

    Attributes:
        threshold: In [0.5, 1].
        validation_net_return: Sum of net returns on validation at it.
        validation_round_trips: Round trips there.
        fallback_because: Why it was not chosen by its profit; empty where it was.
        candidates: Thresholds that were compared, ascending.
        candidate_net_returns: Sum of net returns on validation at each.
    """

    threshold: float
    validation_net_return: float
    validation_round_trips: int
    fallback_because: str
    candidates: tuple[float, ...] = ()
    candidate_net_returns: tuple[float, ...] = ()


UNCHOSEN = ThresholdChoice(math.nan, math.nan, 0, "not chosen yet")


def candidates(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `CANDIDATES_MAXIMUM` thresholds midway between distinct confidences, ascending, evenly by rank."""
    probabilities = probabilities[np.isfinite(probabilities)]
    scores = np.unique(np.maximum(probabilities, 1.0 - probabilities))
    gaps = np.diff(scores)
    middles = scores[:-1] + gaps / 2.0
    between = (middles > scores[:-1]) & (middles < scores[1:])  # neighbouring floats have none
    middles, gaps = middles[between], gaps[between]
    if (gaps >= SCORE_GAP_MINIMUM).any():
        middles = middles[gaps >= SCORE_GAP_MINIMUM]
    if middles.size <= CANDIDATES_MAXIMUM:
        return middles
    return middles[np.linspace(0, middles.size - 1, CANDIDATES_MAXIMUM).astype(np.int64)]


def choose(
    probabilities: NDArray[np.float64], trade: Callable[[float], Result], round_trips_minimum: int
) -> ThresholdChoice:
    """Take the candidate with the largest net return among those with enough round trips, if that is above 0.

    Where none qualifies the fallback is the candidate nearest to the `FALLBACK_QUANTILE` of the confidences, so that
    the strongest tenth is acted on; where the scores are all the same, `FALLBACK_THRESHOLD`. The reason is kept.

    Args:
        probabilities: Calibrated P(up) of the validation rows, float64 [n]; NaN where not ready.
        trade: Backtest of the validation rows at a threshold.
        round_trips_minimum: Fewer speak for nothing.
    """
    middles = candidates(probabilities)
    if middles.size == 0:
        result = trade(FALLBACK_THRESHOLD)
        return _choice(FALLBACK_THRESHOLD, result, "all validation scores are the same")
    results = [trade(float(threshold)) for threshold in middles]
    profits = np.array([_profit(result, round_trips_minimum) for result in results])
    chosen = _among(probabilities, middles, results, profits, round_trips_minimum)
    earned = tuple(float(result.net.sum()) for result in results)
    return replace(chosen, candidates=tuple(middles.tolist()), candidate_net_returns=earned)


def _profit(result: Result, round_trips_minimum: int) -> float:
    """What a candidate is compared by: too few round trips, or a return that is not known, are worse than any loss."""
    earned = float(result.net.sum())
    return earned if result.trip_net.size >= round_trips_minimum and math.isfinite(earned) else -math.inf


def _among(
    probabilities: NDArray[np.float64],
    middles: NDArray[np.float64],
    results: list[Result],
    profits: NDArray[np.float64],
    round_trips_minimum: int,
) -> ThresholdChoice:
    best = int(np.argmax(profits))
    if profits[best] > 0.0:
        return _choice(float(middles[best]), results[best], "")
    confidences = np.maximum(probabilities, 1.0 - probabilities)
    quantile = float(np.nanquantile(confidences, FALLBACK_QUANTILE))
    nearest = int(np.argmin(np.abs(middles - quantile)))
    if np.isneginf(profits[best]):
        why = f"no threshold gives {round_trips_minimum} round trips of known return on validation"
    else:
        why = "no threshold is profitable on validation net of costs"
    return _choice(float(middles[nearest]), results[nearest], why)


def _choice(threshold: float, result: Result, why: str) -> ThresholdChoice:
    return ThresholdChoice(threshold, float(result.net.sum()), int(result.trip_net.size), why)
