"""Is a Sharpe ratio more than chance, and more than the best of many tries would show by chance?

Everything here is a period's: nothing is annualised, and an annualised Sharpe ratio must not be put in. Kurtosis is
raw, 3 for a normal. Two forms are published, and a name says by its year which one it is:

    _2012, _2014   Bailey and López de Prado. The standard error is Mertens' at the *observed* Sharpe ratio, with T - 1;
                   returns count as independent.
    _2025          López de Prado, Lipton and Zoonekynd. The standard error is that under the *null hypothesis'* Sharpe
                   ratio, with T, for returns that follow an AR(1); and the deflated form takes into account that the
                   best of N varies less than one.

On pure noise the later deflated form passes 0.95 in about 4 of 100 searches (N = 16 and 50). The earlier one is
stricter there (1 or 2 in 1,000), because it holds the best of N against the error of a single one; but it does not see
autocorrelation. Sources:

    Bailey and López de Prado, "The Sharpe ratio efficient frontier", J. of Risk 15(2), 2012
    Bailey and López de Prado, "The deflated Sharpe ratio", J. of Portfolio Management 40(5), 2014
    López de Prado, Lipton and Zoonekynd, "How to use the Sharpe ratio", ADIA Lab research paper 19, 2025 (SSRN
        5520741); verified against the authors' own code and its numbers, github.com/zoonek/2025-sharpe-ratio
    Mertens, "Comments on variance of the IID estimator in Lo (2002)", 2002
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad  # type: ignore[import-untyped]
from scipy.special import ndtri  # type: ignore[import-untyped]

from tickgate_training.errors import ArgumentInvalid, SeriesInvalid
from tickgate_training.metrics import autocorrelation, kurtosis, sharpe_ratio, skewness

CONFIDENCE = 0.95
_NORMAL = NormalDist()
_MOMENTS_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class SharpeSample:
    """What has to be known of a series of returns to judge its Sharpe ratio; NaN throughout where it has none.

    Attributes:
        sharpe: A period's: mean over standard deviation (ddof 1).
        periods: Number of returns T.
        skewness: The population's (ddof 0).
        kurtosis: Likewise, raw: 3 for a normal.
        autocorrelation: Of each return with the next, in (-1, 1); the 2025 forms read it.

    Raises:
        ArgumentInvalid: The kurtosis lies below 1 + skewness**2, which no series' does (an excess kurtosis does), or
            the autocorrelation is not inside (-1, 1).
    """

    sharpe: float
    periods: int
    skewness: float = 0.0
    kurtosis: float = 3.0
    autocorrelation: float = 0.0

    def __post_init__(self) -> None:
        least = 1.0 + self.skewness**2
        if self.kurtosis < least - _MOMENTS_SLACK * least:
            rule = f"with skewness {self.skewness} a raw kurtosis, 3 for a normal, is at least {least}"
            raise ArgumentInvalid("kurtosis", self.kurtosis, rule)
        if abs(self.autocorrelation) >= 1.0:
            raise ArgumentInvalid("autocorrelation", self.autocorrelation, "it lies inside (-1, 1)")


def sample_of(returns: NDArray[np.float64]) -> SharpeSample:
    """Sharpe ratio and moments of returns, float64 [T]; all NaN where `metrics.sharpe_ratio` is undefined."""
    return SharpeSample(
        sharpe_ratio(returns, 1.0)[0],
        int(returns.size),
        skewness(returns)[0],
        kurtosis(returns)[0],
        autocorrelation(returns)[0],
    )


def trial_sharpes(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A period's Sharpe ratio of each trial, float64 [N] of float64 [T, N].

    A trial whose returns are all zero never traded: 0, for it earned nothing at no risk. One whose returns are all the
    same and not zero has none: NaN, and so has what is made of it.

    Raises:
        SeriesInvalid: A return is not finite.
    """
    check_trials(returns)
    flat = (returns == 0.0).all(axis=0)
    return np.array([0.0 if flat[k] else sharpe_ratio(returns[:, k], 1.0)[0] for k in range(returns.shape[1])])


def check_trials(returns: NDArray[np.float64]) -> None:
    """Raise `SeriesInvalid` unless the returns are a matrix [T, N], N >= 1, of finite numbers."""
    if returns.ndim != 2 or returns.shape[1] == 0:
        raise SeriesInvalid("trials' returns", None, f"shape {returns.shape}", "a row a period, a column a trial")
    finite = np.isfinite(returns)
    if not finite.all():
        row, trial = np.argwhere(~finite)[0]
        raise SeriesInvalid(f"returns of trial {trial}", int(row), str(returns[row, trial]), "each must be finite")


def probabilistic_sharpe_2012(sample: SharpeSample, benchmark: float) -> float:
    """Probability that the true Sharpe ratio lies above the benchmark, judged by the error at the observed one.

        PSR(SR*) = Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR**2))

    Bailey and López de Prado (2012), eq. 11. With fewer than two returns, or where the root is zero, NaN.

    Args:
        sample: Of the returns.
        benchmark: SR*, a period's.
    """
    if sample.periods < 2:
        return math.nan
    return _phi(sample.sharpe - benchmark, _variance_2012(sample) / (sample.periods - 1))


def probabilistic_sharpe_2025(sample: SharpeSample, null: float) -> float:
    """1 less the p-value of the hypothesis that the true Sharpe ratio is `null`, judged by the error under it.

        PSR = Phi((SR - SR0) / sqrt(V(SR0)))      V as in `sharpe_variance_2025`

    López de Prado, Lipton and Zoonekynd (2025). NaN where V is not above 0.
    """
    return _phi(sample.sharpe - null, sharpe_variance_2025(sample, null))


def sharpe_variance_2025(sample: SharpeSample, sharpe: float) -> float:
    """Variance of the estimated Sharpe ratio where the true one is `sharpe` and returns follow an AR(1).

        V = (a - b g3 SR + c (g4 - 1) / 4 SR**2) / T
        a = 1 + 2 r / (1 - r)    b = 1 + r / (1 - r) + r**2 / (1 - r**2)    c = 1 + 2 r**2 / (1 - r**2)

    r is the autocorrelation: López de Prado, Lipton and Zoonekynd (2025). At r = 0 it is Mertens' (2002), and
    for normal returns Lo's ("The statistics of Sharpe ratios", Financial Analysts Journal 58, 2002). NaN where there
    are no returns.
    """
    if sample.periods < 1:
        return math.nan
    r = sample.autocorrelation
    once, twice = r / (1.0 - r), r * r / (1.0 - r * r)
    a, b, c = 1.0 + 2.0 * once, 1.0 + once + twice, 1.0 + 2.0 * twice
    spread = a - b * sample.skewness * sharpe + c * (sample.kurtosis - 1.0) / 4.0 * sharpe * sharpe
    return spread / sample.periods


def expected_maximum_sharpe(trials: float, variance: float) -> float:
    """Sharpe ratio that the best of N independent trials without any skill is expected to show.

        E[max] = sqrt(V) ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e)))        g = 0.5772...

    Bailey and López de Prado (2014), after the limit law of maxima: at N = 2 too low by 0.045 sqrt(V), beyond that too
    high, by less than 0.04 sqrt(V). One trial was not searched for: 0.

    Args:
        trials: N, at least 1; an effective number need not be whole. Trials that resemble each other count for fewer,
            and taking all of them is the stricter choice.
        variance: V of the trials' Sharpe ratios, a period's (ddof 1), at least 0; NaN gives NaN.

    Raises:
        ArgumentInvalid: N is below 1, or V below 0.
    """
    if not trials >= 1.0:
        raise ArgumentInvalid("trials", trials, "there is at least one")
    if variance < 0.0:
        raise ArgumentInvalid("variance", variance, "it is at least 0")
    if trials == 1.0:
        return 0.0
    upper, lower = ndtri(1.0 - 1.0 / trials), ndtri(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * float((1.0 - np.euler_gamma) * upper + np.euler_gamma * lower)


def deflated_sharpe_2014(sample: SharpeSample, sharpes: NDArray[np.float64]) -> float:
    """Probability that the true Sharpe ratio lies above what the best of the trials would show by chance.

    `probabilistic_sharpe_2012` against `expected_maximum_sharpe` (Bailey and López de Prado, 2014). The variance across
    trials comes from the data, so tries that all earn the same are taken as one.

    Args:
        sample: Of the chosen trial's returns.
        sharpes: float64 [N], of every trial that was made, the chosen one among them: `trial_sharpes`. A NaN among
            them gives NaN.
    """
    return probabilistic_sharpe_2012(sample, expected_maximum_sharpe(sharpes.size, _variance_across(sharpes)))


def deflated_sharpe_2025(sample: SharpeSample, sharpes: NDArray[np.float64]) -> float:
    """As `deflated_sharpe_2014`, judged by the error of the best of N under the null hypothesis.

        DSR = Phi((SR - SR0) / sqrt(V(SR0) M(N)))        SR0 = E[max], M(N) = `variance_of_maximum`

    López de Prado, Lipton and Zoonekynd (2025), with the factor M(N) as the authors' code has it.
    """
    null = expected_maximum_sharpe(sharpes.size, _variance_across(sharpes))
    return _phi(sample.sharpe - null, sharpe_variance_2025(sample, null) * variance_of_maximum(sharpes.size))


@lru_cache(maxsize=256)
def variance_of_maximum(count: int) -> float:
    """Variance of the largest of `count` independent standard normals, by quadrature; 1 for one, 1 - 1/pi for two.

    The largest is Phi^-1(U**(1/N)), U uniform: its distribution function is Phi**N.

    Raises:
        ArgumentInvalid: `count` is below 1.
    """
    if count < 1:
        raise ArgumentInvalid("count", count, "there is at least one")

    def largest(u: float) -> float:
        # Through the upper tail: u**(1/N) itself is 1 to the last bit where N is large.
        return float(-ndtri(-math.expm1(math.log(u) / count)))

    first = quad(largest, 0.0, 1.0, limit=200)[0]
    second = quad(lambda u: (largest(u) - first) ** 2, 0.0, 1.0, limit=200)[0]
    return float(second)


def minimum_track_record_2012(sample: SharpeSample, benchmark: float, confidence: float = CONFIDENCE) -> float:
    """Periods from which `probabilistic_sharpe_2012` reaches the confidence, were moments to stay as they are.

        MinTRL = 1 + (1 - g3 SR + (g4 - 1) / 4 SR**2) (z / (SR - SR*))**2

    Bailey and López de Prado (2012). Infinite where the Sharpe ratio is not above the benchmark.

    Raises:
        ArgumentInvalid: The confidence is not inside (0.5, 1).
    """
    return 1.0 + _periods_needed(_variance_2012(sample), sample.sharpe - benchmark, confidence)


def minimum_track_record_2025(sample: SharpeSample, null: float, confidence: float = CONFIDENCE) -> float:
    """Periods from which `probabilistic_sharpe_2025` reaches the confidence: T V(SR0) (z / (SR - SR0))**2.

    López de Prado, Lipton and Zoonekynd (2025); infinite and raising as `minimum_track_record_2012`.
    """
    return _periods_needed(sharpe_variance_2025(sample, null) * sample.periods, sample.sharpe - null, confidence)


def _variance_2012(sample: SharpeSample) -> float:
    """T - 1 times the variance of the estimated Sharpe ratio: Mertens (2002), at the observed one."""
    return 1.0 - sample.skewness * sample.sharpe + (sample.kurtosis - 1.0) / 4.0 * sample.sharpe**2


def _variance_across(sharpes: NDArray[np.float64]) -> float:
    return float(sharpes.var(ddof=1)) if sharpes.size > 1 else 0.0


def _phi(distance: float, variance: float) -> float:
    # Written so that NaN gives NaN.
    if not variance > 0.0:
        return math.nan
    return _NORMAL.cdf(distance / math.sqrt(variance))


def _periods_needed(spread: float, distance: float, confidence: float) -> float:
    if not 0.5 < confidence < 1.0:
        raise ArgumentInvalid("confidence", confidence, "it lies inside (0.5, 1)")
    if distance <= 0.0:
        return math.inf
    return spread * (_NORMAL.inv_cdf(confidence) / distance) ** 2
