"""Does the trial that is best on one half of the time do well on the other? Probability of backtest overfitting.

Combinatorially symmetric cross-validation (Bailey, Borwein, López de Prado and Zhu, "The probability of backtest
overfitting", J. of Computational Finance 20(4), 2017): the trials' returns [T, N] are cut into S blocks of rows of
equal length; each way to take half of them is a split, its rows the training set and the others, in their order, the
test set. In each, the trial with the highest Sharpe ratio on the training set is looked up on the test set: with rank r
among the N there (1 the worst), omega = r / (N + 1) and the logit is ln(omega / (1 - omega)). The probability of
backtest overfitting is the share of splits whose logit is at most 0: the chosen one was no better than the median.

Rules where the paper is silent
    rows       the first T mod S belong to no block
    ties       of trials that are equally the best on the training set the one that is worst on the test set is chosen;
               on the test set equal trials share the mean of their ranks
    flat       a trial whose returns on a half are all zero has the Sharpe ratio 0 there; one whose returns are all the
               same and not zero has an infinite one of their sign, as the limit of a deviation that goes to zero
    no number  a return that is not finite is an error: to leave rows out would give each trial another history

Of trials without any skill the logits spread evenly about 0, and the slope is negative because the halves share one
mean: what a trial has more of in one half it has less of in the other.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import ArgumentInvalid, TooFewRows
from tickgate_training.overfitting.sharpe import check_trials

BLOCKS = 16
BLOCKS_MAXIMUM = 20  # 184,756 splits
BLOCK_ROWS_MINIMUM = 2
_CHUNK_VALUES = 2**22


@dataclass(frozen=True, slots=True)
class BacktestOverfitting:
    """What cross-validation says of the choice among trials.

    Attributes:
        pbo: Share of splits with a logit of at most 0.
        logits: float64 [splits], in the order of `itertools.combinations` of the blocks.
        chosen: int64 [splits], the trial that was best on the training set.
        in_sample: float64 [splits], its Sharpe ratio there, a period's; `out_of_sample` on the test set.
        out_of_sample: float64 [splits].
        degradation_slope: Of the least-squares line of `out_of_sample` on `in_sample`: below 0, the better it looked,
            the worse it did. `degradation_intercept` likewise.
        degradation_intercept: See `degradation_slope`.
        probability_of_loss: Share of splits where the chosen trial's Sharpe ratio on the test set is below 0.
        blocks: S.
        trials: N.
        undefined: Why a figure is NaN, by its name.
    """

    pbo: float
    logits: NDArray[np.float64]
    chosen: NDArray[np.int64]
    in_sample: NDArray[np.float64]
    out_of_sample: NDArray[np.float64]
    degradation_slope: float
    degradation_intercept: float
    probability_of_loss: float
    blocks: int
    trials: int
    undefined: dict[str, str]


def backtest_overfitting(returns: NDArray[np.float64], blocks: int = BLOCKS) -> BacktestOverfitting:
    """Cross-validate the choice of the trial with the highest Sharpe ratio.

    Means and deviations of a half come from those of its blocks (Chan, Golub and LeVeque, "Algorithms for computing the
    sample variance", American Statistician 37, 1983), so the cost is splits x blocks x trials, whatever T is.

    Args:
        returns: float64 [T, N], each trial's net returns over the same T periods, in their order.
        blocks: S, even, from 2 to `BLOCKS_MAXIMUM`; 16 gives 12,870 splits.

    Returns:
        With a single trial there is no choice to judge: `pbo` is NaN, with its reason, and the logits are 0.

    Raises:
        ArgumentInvalid: S is odd or out of range.
        TooFewRows: A block would have fewer than `BLOCK_ROWS_MINIMUM` rows.
        SeriesInvalid: The returns are no matrix, or one of them is not finite.
    """
    if blocks % 2 or not 2 <= blocks <= BLOCKS_MAXIMUM:
        raise ArgumentInvalid("blocks", blocks, f"it must be even, from 2 to {BLOCKS_MAXIMUM}")
    check_trials(returns)
    periods, trials = returns.shape
    if periods < blocks * BLOCK_ROWS_MINIMUM:
        raise TooFewRows(f"cross-validation in {blocks} blocks", periods, blocks * BLOCK_ROWS_MINIMUM)
    parts = _Blocks(returns, blocks)
    splits = math.comb(blocks, blocks // 2)
    chosen, logits = np.empty(splits, np.int64), np.empty(splits)
    inside, outside = np.empty(splits), np.empty(splits)
    for at, train, test in _splits(blocks, max(1, _CHUNK_VALUES // (blocks * trials))):
        chosen[at], inside[at], outside[at], logits[at] = _judge(parts.sharpes(train), parts.sharpes(test))
    undefined: dict[str, str] = {}
    if trials == 1:
        undefined["pbo"] = "a single trial leaves nothing to choose"
    slope, intercept, why = _line(inside, outside)
    if why:
        undefined |= dict.fromkeys(("degradation_slope", "degradation_intercept"), why)
    return BacktestOverfitting(
        pbo=math.nan if trials == 1 else float((logits <= 0.0).mean()),
        logits=logits,
        chosen=chosen,
        in_sample=inside,
        out_of_sample=outside,
        degradation_slope=slope,
        degradation_intercept=intercept,
        probability_of_loss=float((outside < 0.0).mean()),
        blocks=blocks,
        trials=trials,
        undefined=undefined,
    )


class _Blocks:
    """Sizes, means and squared deviations of each block of each trial, from which those of any union follow."""

    def __init__(self, returns: NDArray[np.float64], blocks: int) -> None:
        self._rows = returns.shape[0] // blocks
        cut = returns[returns.shape[0] - self._rows * blocks :].reshape(blocks, self._rows, -1)
        self._means = cut.mean(axis=1)
        self._squares = ((cut - self._means[:, None]) ** 2).sum(axis=1)
        self._lowest, self._highest = cut.min(axis=1), cut.max(axis=1)

    def sharpes(self, members: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sharpe ratio of each trial on each union of blocks, [splits, blocks of a half] to float64 [splits, N].

        Sums run over the same axis in the same order for every trial, so equal trials get equal bits.
        """
        means = self._means[members]
        mean = means.mean(axis=1)
        squares = self._squares[members].sum(axis=1) + self._rows * ((means - mean[:, None]) ** 2).sum(axis=1)
        deviation = np.sqrt(squares / (self._rows * members.shape[1] - 1))
        lowest, highest = self._lowest[members].min(axis=1), self._highest[members].max(axis=1)
        # Of equal numbers a rounded deviation need not be zero; of others it can be.
        still = (lowest == highest) | (deviation == 0.0)
        level = np.where(lowest == highest, lowest, mean)
        ratio = np.where(level == 0.0, 0.0, np.copysign(np.inf, level))
        np.divide(mean, deviation, out=ratio, where=~still)
        return ratio


def _splits(blocks: int, size: int) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
    """Chunks of at most `size` splits: where they stand, and the blocks of each training and test set."""
    half = blocks // 2
    train = np.array(list(combinations(range(blocks), half)), np.int64)
    # In lexicographic order the complement of the k-th half is the k-th from the end.
    test = train[::-1]
    for first in range(0, len(train), size):
        at = slice(first, min(first + size, len(train)))
        yield at, train[at], test[at]


def _judge(
    inside: NDArray[np.float64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The trial chosen in each split, its Sharpe ratios on both sets, and its logit: [splits, N] to four [splits]."""
    best = inside.max(axis=1)
    among = np.where(inside == best[:, None], outside, np.inf)
    # Where the worst of the best is infinite, so is all that is masked: take one that is among the best.
    lowest = among.min(axis=1)
    chosen = np.argmax((inside == best[:, None]) & (outside == lowest[:, None]), axis=1)
    below = (outside < lowest[:, None]).sum(axis=1)
    equal = (outside == lowest[:, None]).sum(axis=1)
    rank = below + (equal + 1.0) / 2.0
    trials = inside.shape[1]
    return chosen, best, lowest, np.log(rank / (trials + 1.0 - rank))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, str]:
    """Slope and intercept of the least-squares line of y on x, and why they are NaN."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, math.nan, "a Sharpe ratio is infinite"
    away = x - x.mean()
    spread = float((away * away).sum())
    if x.max() == x.min() or spread == 0.0:
        return math.nan, math.nan, "the Sharpe ratios on the training sets do not vary"
    slope = float((away * (y - y.mean())).sum()) / spread
    return slope, float(y.mean()) - slope * float(x.mean()), ""
