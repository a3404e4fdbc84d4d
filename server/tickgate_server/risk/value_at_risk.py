"""Value at risk of the portfolio with an order in it, and the order's correlation with the others: one day.

What an order of one member changes follows from what `exposures` keeps up to date (marginal VaR: RiskMetrics Technical
Document, 4th ed., 1996; Garman, "Improving on VaR", Risk 9, 1996). Where the bound of rounding errors kept there is
more than `TOLERANCE` of a result, that result is calculated in full: O(n^2) for a variance, O(n) for a covariance.

Not a number, for the gate to deny, is what every kernel gives where a number that its result depends on is NaN or
infinite. None raises.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.risk.exposures import (
    HELD,
    SIGMA_ERROR,
    TOLERANCE,
    UNIT_ROUNDOFF,
    VARIANCE,
    VARIANCE_ERROR,
)

# Methods of `value_at_risk`.
PARAMETRIC, HISTORICAL, CORNISH_FISHER = range(3)
SCENARIOS_REQUIRED = 100
"""Fewer scenarios than these tell nothing of one loss in a hundred: historical and Cornish-Fisher VaR are NaN."""
NEGATIVE_VARIANCE = 1e-9
"""Of the square of gross risk: a variance that far below 0 is rounding and counts as 0, one further is NaN."""
EXCESS_CORRELATION = 1e-9
"""A correlation that far beyond 1 is rounding and counts as 1, one further is NaN."""


@kernel("float64(float64[::1], float64[::1], int64, int64)")
def _dot(left: NDArray[np.float64], right: NDArray[np.float64], start: int, stop: int) -> float:
    """Sum of products over [start, stop); in four sums, for one alone would wait for each addition to end."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    k = start
    while k + 4 <= stop:
        first += left[k] * right[k]
        second += left[k + 1] * right[k + 1]
        third += left[k + 2] * right[k + 2]
        fourth += left[k + 3] * right[k + 3]
        k += 4
    while k < stop:
        first += left[k] * right[k]
        k += 1
    return (first + second) + (third + fourth)


@kernel("UniTuple(float64, 2)(int64, float64, float64[:, ::1], float64[::1])")
def _full_variance(
    member: int, weight: float, covariance: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Variance with `weight` in the place of one member's (-1: none), and its scale (sum abs(w_i) sqrt(S_ii))^2."""
    variance = 0.0
    gross = 0.0
    for i in range(weights.size):
        own = weight if i == member else weights[i]
        if own == 0.0:
            continue
        row = covariance[i]
        if 0 <= member < i:
            before = _dot(row, weights, 0, member) + weight * row[member] + _dot(row, weights, member + 1, i)
        else:
            before = _dot(row, weights, 0, i)
        variance += own * (2.0 * before + own * row[i])
        gross += abs(own) * math.sqrt(max(row[i], 0.0))
    return variance, gross * gross


@kernel("float64(int64, float64, float64[:, ::1], float64[::1], float64[::1], float64[::1])")
def _standard_deviation(
    member: int,
    delta: float,
    covariance: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> float:
    """Standard deviation of the portfolio's P&L with `delta` of a member in it, or NaN."""
    variance = totals[VARIANCE]
    error = totals[VARIANCE_ERROR]
    weight = 0.0
    if member >= 0:
        own = covariance[member, member]
        if not own >= 0.0:
            return np.nan
        covered = sigma_w[member]
        size = abs(delta)
        weight = weights[member] + delta
        error += 2.0 * size * math.sqrt(own) * totals[SIGMA_ERROR] + UNIT_ROUNDOFF * (
            abs(variance) + 4.0 * size * (2.0 * abs(covered) + size * own)
        )
        variance += delta * (2.0 * covered + delta * own)
    if not (np.isfinite(variance) and np.isfinite(weight)):
        return np.nan
    if error > TOLERANCE * variance:
        variance, scale = _full_variance(member, weight, covariance, weights)
        if variance < 0.0:  # of a perfect hedge, by rounding; of a matrix that is no covariance, by far
            variance = 0.0 if variance > -NEGATIVE_VARIANCE * scale else np.nan
    return math.sqrt(variance)


@kernel("boolean(int64, float64, float64[:, ::1], float64[::1], float64[::1])")
def _losses(
    member: int,
    delta: float,
    scenarios: NDArray[np.float64],
    scenario_pnl: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> bool:
    """Write each scenario's loss with `delta` of a member (-1: as it is) in it; whether all are finite."""
    if member >= 0:
        for t in range(losses.size):
            losses[t] = -(scenario_pnl[t] + delta * scenarios[member, t])
    else:
        for t in range(losses.size):
            losses[t] = -scenario_pnl[t]
    finite = 0
    for t in range(losses.size):
        finite += int(np.isfinite(losses[t]))
    return finite == losses.size


@kernel("float64(float64[::1], int64)")
def _select(values: NDArray[np.float64], rank: int) -> float:
    """The value with `rank` smaller ones before it; reorders `values`, which has no NaN in it.

    Hoare's FIND ("Algorithm 65", Communications of the ACM 4, 1961) with the median of three as pivot (Singleton,
    "Algorithm 347", CACM 12, 1969): O(T) expected, O(T^2) at worst.
    """
    low = 0
    high = values.size - 1
    while low < high:
        first, middle, last = values[low], values[(low + high) // 2], values[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return float(values[rank])


@kernel("float64(float64, float64[::1])")
def _loss_quantile(z: float, losses: NDArray[np.float64]) -> float:
    """Empirical quantile of the losses at confidence Phi(z); reorders them. As `value_at_risk` defines it."""
    beyond = losses.size * 0.5 * math.erfc(z / math.sqrt(2.0))
    # 1 of 100 at 99 % is exactly one: z and Phi round, and a rounding must not choose another loss.
    larger = min(math.floor(beyond + 1e-9), losses.size - 1)
    return _select(losses, losses.size - 1 - larger)


@kernel("float64(float64, float64, float64)")
def cornish_fisher(z: float, skewness: float, excess_kurtosis: float) -> float:
    """Quantile of a standardised distribution at Phi(z) by the Cornish-Fisher expansion, or NaN where it is none.

    z + (z^2 - 1) s/6 + (z^3 - 3z) k/24 - (2z^3 - 5z) s^2/36 (Cornish and Fisher, "Moments and cumulants in the
    specification of distributions", Revue de l'Institut International de Statistique 5, 1938; for VaR Zangari, "A VaR
    methodology for portfolios that include options", RiskMetrics Monitor, 1996; Favre and Galeano, "Mean-modified
    value-at-risk optimization with hedge funds", J. of Alternative Investments 5, 2002).

    It orders quantiles only where it does not fall as z rises (Maillard, "A user's guide to the Cornish Fisher
    expansion", SSRN 1997178, 2012, who asks that for every z): its slope is a parabola in z, and must not be negative
    from -z to z. Beyond, quantiles that nobody asks for may be out of order: a sample of a normal distribution has an
    excess kurtosis below 0 as often as not, and its expansion folds many deviations out. Else: NaN.

    Args:
        z: Quantile of the standard normal distribution.
        skewness: Of the distribution whose quantile is asked for; a loss's is the negative of its P&L's.
        excess_kurtosis: 0 for the normal distribution.
    """
    squared = skewness * skewness
    curvature = excess_kurtosis / 8.0 - squared / 6.0
    constant = 1.0 - excess_kurtosis / 8.0 + 5.0 * squared / 36.0
    least = constant + z * z * curvature - abs(z * skewness) / 3.0  # at the worse end
    if curvature > 0.0 and abs(skewness) <= 6.0 * curvature * abs(z):  # the vertex is between the ends
        least = constant - squared / (36.0 * curvature)
    if not least >= 0.0:
        return np.nan
    return (
        z
        + (z * z - 1.0) * skewness / 6.0
        + (z * z * z - 3.0 * z) * excess_kurtosis / 24.0
        - (2.0 * z * z * z - 5.0 * z) * squared / 36.0
    )


@kernel("float64(float64, float64, float64[::1])")
def _cornish_fisher_loss(z: float, deviation: float, losses: NDArray[np.float64]) -> float:
    """`deviation` times the expansion's quantile for the shape of the losses."""
    count = losses.size
    mean = 0.0
    for t in range(count):
        mean += losses[t]
    mean /= count
    second, third, fourth = 0.0, 0.0, 0.0
    for t in range(count):
        centred = losses[t] - mean
        square = centred * centred
        second += square
        third += square * centred
        fourth += square * square
    second /= count
    if second <= (2.0 * UNIT_ROUNDOFF * mean) ** 2:  # losses all the same have no shape
        return 0.0 if deviation == 0.0 and mean == 0.0 else np.nan
    skewness = third / count / (second * math.sqrt(second))
    excess_kurtosis = fourth / count / (second * second) - 3.0
    return deviation * cornish_fisher(z, skewness, excess_kurtosis)


@kernel(
    "float64(int64, float64, int64, float64, float64[:, ::1], float64[:, ::1], float64[::1], float64[::1],"
    " float64[::1], float64[::1], float64[::1])"
)
def value_at_risk(  # noqa: PLR0911 - every input that gives no number is named where it is found
    method: int,
    z: float,
    member: int,
    delta: float,
    covariance: NDArray[np.float64],
    scenarios: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    scenario_pnl: NDArray[np.float64],
    totals: NDArray[np.float64],
    scratch: NDArray[np.float64],
) -> float:
    """One-day VaR of the portfolio with `delta` added to a member: a loss in base currency, at least 0, or NaN.

    - PARAMETRIC: z sqrt(w'Sw + 2 delta (Sw)_i + delta^2 S_ii), the mean of a day taken as 0 (RiskMetrics Technical
      Document, 1996). O(1); O(n^2) where that sum has lost its digits to a position that it closes or hedges.
    - HISTORICAL: the smallest of the scenarios' losses that at least the share Phi(z) of them do not exceed. That is
      VaR's own definition (McNeil, Frey and Embrechts, "Quantitative Risk Management", 2nd ed., 2015, def. 2.8) for the
      empirical distribution, definition 1 of Hyndman and Fan ("Sample quantiles in statistical packages", American
      Statistician 50, 1996) and numpy's `inverted_cdf`: a loss that was seen, never an interpolation below it. With 250
      scenarios and 99 % the third largest loss. O(T) expected.
    - CORNISH_FISHER: the parametric one with `cornish_fisher` in z's place, for the skewness and excess kurtosis
      (population moments) of the scenarios' losses with the order in it. O(T).

    NaN: the last two with fewer than `SCENARIOS_REQUIRED` scenarios; Cornish-Fisher outside of its domain or where all
    scenarios lose the same; z <= 0; another method; a member that there is not, or an order without one; a variance
    that is negative beyond rounding; a number that is not finite.

    Args:
        method: PARAMETRIC, HISTORICAL or CORNISH_FISHER.
        z: Quantile of the standard normal distribution at the confidence, 2.3263478740408408 for 99 %.
        member: Row of the covariance; -1 with `delta` 0 for the portfolio as it is.
        delta: Signed change of the member's weight, in base currency.
        covariance: As in `Exposures`, like the arrays after it; read only.
        scenarios: float64 [n, T].
        weights: float64 [n].
        sigma_w: float64 [n].
        scenario_pnl: float64 [T].
        totals: float64 [TOTALS].
        scratch: float64 [T]; overwritten.
    """
    if not (z > 0.0 and np.isfinite(z) and np.isfinite(delta)):
        return np.nan
    if member >= weights.size or member < -1 or (member == -1 and delta != 0.0):
        return np.nan
    if method == PARAMETRIC:
        value = z * _standard_deviation(member, delta, covariance, weights, sigma_w, totals)
        return value if np.isfinite(value) else np.nan
    # The variance is NaN where the weights are not known, even if the scenarios' P&L is a number.
    if not np.isfinite(totals[VARIANCE]) or (member >= 0 and not np.isfinite(weights[member])):
        return np.nan
    if scenario_pnl.size < SCENARIOS_REQUIRED or scratch.size != scenario_pnl.size:
        return np.nan
    if not _losses(member, delta, scenarios, scenario_pnl, scratch):
        return np.nan
    if method == HISTORICAL:
        return max(_loss_quantile(z, scratch), 0.0)
    if method == CORNISH_FISHER:
        deviation = _standard_deviation(member, delta, covariance, weights, sigma_w, totals)
        value = _cornish_fisher_loss(z, deviation, scratch)
        return max(value, 0.0) if np.isfinite(value) else np.nan
    return np.nan


@kernel("float64(int64, float64, float64[:, ::1], float64[::1], float64[::1], float64[::1])")
def correlation_with_others(  # noqa: PLR0911 - as in `value_at_risk`
    member: int,
    delta: float,
    covariance: NDArray[np.float64],
    weights: NDArray[np.float64],
    sigma_w: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> float:
    """Correlation of an order's P&L with that of the portfolio's other members, in [-1, 1], or NaN.

    Signed: that of a hedge is negative. 0 if no other member has a weight, or if the order is 0. With x for w without
    its entry i: sign(delta) (Sx)_i / sqrt(S_ii x'Sx), where (Sx)_i = (Sw)_i - w_i S_ii and
    x'Sx = w'Sw - 2 w_i (Sw)_i + w_i^2 S_ii. O(1); O(n^2) where these differences have lost their digits, as where the
    member itself is most of the portfolio.

    NaN: the member's variance is 0, or the others hedge each other to within rounding, for then there is nothing to
    correlate with; beyond 1 by more than rounding; a member that there is not; a number that is not finite.

    Args:
        member: Row of the covariance.
        delta: Signed size of the order in base currency; only its sign counts.
        covariance: As in `Exposures`, like the arrays after it; read only.
        weights: float64 [n].
        sigma_w: float64 [n].
        totals: float64 [TOTALS].
    """
    if member < 0 or member >= weights.size:
        return np.nan
    own = covariance[member, member]
    weight = weights[member]
    covered = sigma_w[member]
    finite = np.isfinite(own) and np.isfinite(weight) and np.isfinite(covered) and np.isfinite(totals[VARIANCE])
    if not (finite and np.isfinite(delta)):
        return np.nan
    others = totals[HELD] - int(weight != 0.0)
    if others == 0.0:
        return 0.0
    if not own > 0.0:
        return np.nan
    size = abs(weight)
    variance = totals[VARIANCE] - weight * (2.0 * covered - weight * own)
    variance_error = (
        totals[VARIANCE_ERROR]
        + 2.0 * size * math.sqrt(own) * totals[SIGMA_ERROR]
        + UNIT_ROUNDOFF * (abs(totals[VARIANCE]) + 4.0 * size * (2.0 * abs(covered) + size * own))
    )
    if not variance_error <= TOLERANCE * variance:
        variance, scale = _full_variance(member, 0.0, covariance, weights)
        if not variance > others * UNIT_ROUNDOFF * scale:
            return np.nan
    product = math.sqrt(own) * math.sqrt(variance)
    shared = covered - weight * own
    shared_error = math.sqrt(own) * totals[SIGMA_ERROR] + 2.0 * UNIT_ROUNDOFF * (abs(covered) + size * own)
    if not shared_error <= TOLERANCE * product:
        row = covariance[member]
        shared = _dot(row, weights, 0, member) + _dot(row, weights, member + 1, weights.size)
    correlation = float(np.sign(delta) * shared / product)
    if abs(correlation) > 1.0:
        return float(np.sign(correlation)) if abs(correlation) <= 1.0 + EXCESS_CORRELATION else np.nan
    return correlation
