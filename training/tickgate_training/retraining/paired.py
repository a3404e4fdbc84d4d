"""Is one model better than another on the same rows, or is it chance? A paired test on returns that do not overlap.

What is compared is the Sharpe ratio, so that a model does not win by betting more. Net returns are summed over blocks
that follow each other without overlap, as long as a position stands, so that what is left from block to block is close
to independent. With s1 and s2 the Sharpe ratios of the sums (challenger and champion, ddof 1), r the correlation of the
sums and n their number,

    z = (s1 - c s2) / sqrt(V / n)        V = 1 + s1**2 / 2 + c**2 (1 + s2**2 / 2) - 2 c (r + r**2 s1 s2 / 2)

is held against the normal distribution, one-sided. At c = 1 it is the test of Jobson and Korkie, "Performance
hypothesis testing with the Sharpe and Treynor measures", J. of Finance 36(4), 1981, as Memmel corrected it,
"Performance hypothesis testing with the Sharpe ratio", Finance Letters 1, 2003; another c follows from the same
variances and covariance of the two ratios. c holds a margin m: 1 + m where s2 > 0, else 1 - m. So the null hypothesis
is that the challenger's ratio is no more than m of the champion's above it: models that were fitted on other rows of a
market that stays the same differ a little, and with rows enough every difference is beyond chance.

Returns are taken as independent and normal; fat tails make the test too sure of itself (Ledoit and Wolf, "Robust
performance hypothesis testing with the Sharpe ratio", J. of Empirical Finance 15, 2008), which summing over blocks
softens.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr  # type: ignore[import-untyped]

from tickgate_training.errors import ArgumentInvalid, SeriesInvalid

BLOCKS_LEAST = 3
_VARIANCE_LEAST = 1e-12  # less is rounding's


@dataclass(frozen=True, slots=True)
class PairedTest:
    """What was found.

    Attributes:
        blocks: n, number of sums.
        block_periods: Returns in each.
        mean_difference: Of the sums, challenger less champion; NaN where there is none.
        sharpe_challenger: s1; NaN where it is undefined.
        sharpe_champion: s2; 0 where the champion never traded, NaN where it is undefined.
        statistic: z; NaN likewise.
        p_value: Chance of a z as large or larger where the challenger is no better; NaN likewise.
        why: Why it is undefined; empty where it is not.
    """

    blocks: int
    block_periods: int
    mean_difference: float
    sharpe_challenger: float
    sharpe_champion: float
    statistic: float
    p_value: float
    why: str = ""


def paired_test(
    challenger: NDArray[np.float64],
    champion: NDArray[np.float64],
    block_periods: int,
    *,
    margin: float = 0.0,
    blocks_minimum: int = BLOCKS_LEAST,
) -> PairedTest:
    """Test whether the challenger's Sharpe ratio is higher by more than a margin.

    Args:
        challenger: Net returns a period, float64 [T].
        champion: Likewise, of the same periods.
        block_periods: Returns that are summed, at least 1; the oldest that fill no block are left out.
        margin: m, a fraction of the champion's ratio, in [0, 1).
        blocks_minimum: With fewer the test is undefined; at least `BLOCKS_LEAST`.

    Raises:
        SeriesInvalid: The series differ in length.
        ArgumentInvalid: A number is out of range.
    """
    if challenger.shape != champion.shape or challenger.ndim != 1:
        raise SeriesInvalid("paired returns", None, f"{challenger.shape} and {champion.shape}", "both are [T]")
    if block_periods < 1:
        raise ArgumentInvalid("block_periods", block_periods, "it is at least 1")
    if blocks_minimum < BLOCKS_LEAST:
        raise ArgumentInvalid("blocks_minimum", blocks_minimum, f"it is at least {BLOCKS_LEAST}")
    if not 0.0 <= margin < 1.0:
        raise ArgumentInvalid("margin", margin, "it lies in [0, 1)")
    count = challenger.size // block_periods
    ours, theirs = (_sums(returns, count, block_periods) for returns in (challenger, champion))
    difference = float((ours - theirs).mean()) if count else math.nan
    s1 = s2 = statistic = math.nan
    why = _undefined(ours, theirs, block_periods, blocks_minimum)
    if not why:
        s1, s2, variance = _ratios(ours, theirs, margin)
        if variance > _VARIANCE_LEAST:
            statistic = (s1 - (1.0 + math.copysign(margin, s2)) * s2) / math.sqrt(variance / count)
        else:
            why = "both earn in proportion"
    return PairedTest(count, block_periods, difference, s1, s2, statistic, float(ndtr(-statistic)), why)


def _undefined(ours: NDArray[np.float64], theirs: NDArray[np.float64], block_periods: int, blocks_minimum: int) -> str:
    """Why there is nothing to test; empty where there is."""
    if ours.size < blocks_minimum:
        return f"{ours.size} blocks of {block_periods} returns, at least {blocks_minimum} needed"
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return "a return is not finite"
    # Of equal sums a rounded deviation need not be zero.
    if ours.max() == ours.min():
        return "the challenger's returns do not vary"
    if theirs.max() == theirs.min() != 0.0:
        return "the champion's returns do not vary"
    return "both earned the same" if np.array_equal(ours, theirs) else ""


def _ratios(ours: NDArray[np.float64], theirs: NDArray[np.float64], margin: float) -> tuple[float, float, float]:
    """Both Sharpe ratios and V; a champion that never traded has a ratio of 0, known for certain."""
    s1 = float(ours.mean() / ours.std(ddof=1))
    if (theirs == 0.0).all():
        return s1, 0.0, 1.0 + s1 * s1 / 2.0
    s2 = float(theirs.mean() / theirs.std(ddof=1))
    r, c = float(np.corrcoef(ours, theirs)[0, 1]), 1.0 + math.copysign(margin, s2)
    shared = 2.0 * c * (r + r * r * s1 * s2 / 2.0)
    return s1, s2, 1.0 + s1 * s1 / 2.0 + c * c * (1.0 + s2 * s2 / 2.0) - shared


def _sums(returns: NDArray[np.float64], count: int, block_periods: int) -> NDArray[np.float64]:
    """Of the newest `count` blocks, float64 [count]."""
    return np.asarray(returns[returns.size - count * block_periods :].reshape(count, block_periods).sum(axis=1))
