"""What the portfolio is exposed to, kept up to date with each change: w, Sw, w'Sw and the P&L of each scenario.

w are signed exposures in base currency, one for each *member* of the covariance S of one-day simple returns. A change
takes O(n + T); what `value_at_risk` asks of it then takes O(1), or O(T) where the method reads T scenarios.

Differences of large numbers lose digits: beside a position that is the whole portfolio, the variance of the others is
lost in that of all. So the rounding errors of w'Sw and Sw are bounded as they arise (running error analysis: Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, section 3.3), for `value_at_risk` to see where a result
must be calculated in full. The bound takes S for what it is, positive semidefinite: abs(S_ij) <= sqrt(S_ii S_jj),
abs((Sw)_j) <= sqrt(S_jj w'Sw).
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

UPDATES_LIMIT = 4096
"""Changes of a weight after which all is calculated anew."""
SHRUNK = 1e-6
"""So is it when the variance is below this fraction of its largest since: the old one's rounding is in the new."""
TOLERANCE = 2e-10
"""Relative error of a variance, or error of a correlation, above which it is calculated in full."""

# Columns of `Exposures.totals`.
VARIANCE, UPDATES, HELD, LARGEST, SIGMA_ERROR, VARIANCE_ERROR = range(6)
TOTALS = 6

UNIT_ROUNDOFF = 2.0**-53
_DUST = 8.0 * UNIT_ROUNDOFF


class Exposures:
    """What the portfolio is exposed to, in the arrays that the kernels take. A new one is empty.

    `covariance`, `scenarios` and `weights` may be written to, then `recompute` has to be called.

    Attributes:
        covariance: float64 [n, n], C order: of one-day simple returns; symmetric, positive semidefinite.
        scenarios: float64 [n, T], C order: one-day simple returns; `RiskData.scenarios` transposed, so that one
            member's are contiguous.
        weights: float64 [n]: signed worst-case exposure of each member in base currency.
        sigma_w: float64 [n]: covariance @ weights.
        scenario_pnl: float64 [T]: weights @ scenarios, in base currency.
        totals: float64 [TOTALS]: the portfolio's variance; number of changes since all was calculated; number of
            weights that are not 0; largest variance since; bound of the error of sigma_w[j] / sqrt(covariance[j, j]);
            bound of the error of the variance.
        scratch: float64 [T], for `value_at_risk`.
    """

    __slots__ = ("covariance", "scenario_pnl", "scenarios", "scratch", "sigma_w", "totals", "weights")

    def __init__(self, members: int, scenarios: int) -> None:
        self.covariance = np.zeros((members, members))
        self.scenarios = np.zeros((members, scenarios))
        self.weights = np.zeros(members)
        self.sigma_w = np.zeros(members)
        self.scenario_pnl = np.zeros(scenarios)
        self.totals = np.zeros(TOTALS)
        self.scratch = np.zeros(scenarios)


@kernel(
    "void(int64, float64, float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1])"
)
def _add(
    member: int,
    delta: float,
    covariance: NDArray[np.float64],
    scenarios: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    scenario_pnl: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Add `delta` of a member to all that follows from the weights; arrays as in `Exposures`.

    The bounds take `delta` as off by one rounding: it is a difference of weights.
    """
    own = covariance[member, member]
    covered = sigma_w[member]
    size = abs(delta)
    risk = size * math.sqrt(max(own, 0.0))
    variance = totals[VARIANCE] + delta * (2.0 * covered + delta * own)
    totals[VARIANCE] = variance
    totals[LARGEST] = max(totals[LARGEST], variance)
    totals[VARIANCE_ERROR] += 2.0 * risk * totals[SIGMA_ERROR] + UNIT_ROUNDOFF * (
        abs(variance) + 4.0 * size * (2.0 * abs(covered) + size * own)
    )
    for j in range(weights.size):
        sigma_w[j] += delta * covariance[member, j]
    totals[SIGMA_ERROR] += UNIT_ROUNDOFF * (math.sqrt(max(variance, 0.0)) + 2.0 * risk)
    for t in range(scenario_pnl.size):
        scenario_pnl[t] += delta * scenarios[member, t]


@kernel("void(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1])")
def recompute(
    covariance: NDArray[np.float64],
    scenarios: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    scenario_pnl: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Calculate `sigma_w`, `scenario_pnl` and `totals` anew from the weights: O(n + T) for each that is not 0.

    Arrays as in `Exposures`. A weight that is no finite number makes all of them NaN; a member whose weight is 0 adds
    nothing, whatever its covariance.
    """
    sigma_w[:] = 0.0
    scenario_pnl[:] = 0.0
    totals[:] = 0.0
    for i in range(weights.size):
        if weights[i] != 0.0:
            totals[HELD] += 1.0
            _add(i, weights[i], covariance, scenarios, weights, sigma_w, scenario_pnl, totals)
    totals[LARGEST] = totals[VARIANCE]


@kernel(
    "void(int64, float64, float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1])"
)
def change_weight(
    member: int,
    delta: float,
    covariance: NDArray[np.float64],
    scenarios: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    scenario_pnl: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Add `delta` to a member's weight, and to all that follows from it: O(n + T).

    All is calculated anew (see `recompute`) after `UPDATES_LIMIT` changes, when the variance fell below `SHRUNK` of
    what it was since, and, from n changes on, when the bound of its error nears `TOLERANCE`. A remainder within eight
    roundings of what it is the difference of is 0: 0.1 + 0.2 - 0.3 leaves no position behind. A `delta` that is no
    finite number, or a member that there is not, makes every later result NaN until the weights are set right and
    `recompute` is called.

    Args:
        member: Row of the covariance.
        delta: Signed, in base currency.
        covariance: As in `Exposures`, like the arrays after it.
        scenarios: float64 [n, T].
        weights: float64 [n].
        sigma_w: float64 [n].
        scenario_pnl: float64 [T].
        totals: float64 [TOTALS].
    """
    totals[UPDATES] += 1.0
    if member < 0 or member >= weights.size:
        totals[VARIANCE] = np.nan
        return
    before = weights[member]
    after = before + delta
    if abs(after) < _DUST * max(abs(before), abs(delta)):  # false for an infinite one
        after = 0.0
    weights[member] = after
    totals[HELD] += int(after != 0.0) - int(before != 0.0)
    # By what the stored weight changed by, which rounding made another number than `delta`.
    _add(member, after - before, covariance, scenarios, weights, sigma_w, scenario_pnl, totals)
    variance = totals[VARIANCE]
    if np.isnan(variance):  # only the caller can know what the weights should be
        return
    # Once here, or else at every question; where a hedge makes the bound fail at once, no more often than once in as
    # many changes as there are members.
    worn = totals[UPDATES] >= weights.size and totals[VARIANCE_ERROR] > TOLERANCE / 4.0 * variance
    if worn or totals[HELD] == 0.0 or totals[UPDATES] >= UPDATES_LIMIT or variance < SHRUNK * totals[LARGEST]:
        recompute(covariance, scenarios, weights, sigma_w, scenario_pnl, totals)
