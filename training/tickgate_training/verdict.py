"""The checks that a model must pass before it may be promoted: deflated Sharpe ratio, overfitting, parity, sample size.

The verdict's own model, and which checks it needs, are the server's (`tickgate_server.models.verdict`), for it reads
them; here is how the figures come about. A figure that cannot be had is NaN with its reason, and denies.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tickgate_server.models.verdict import Check, CheckName, Override, PromotionVerdict, check, judge
from tickgate_training.baselines import Baselines
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid, TooFewRows
from tickgate_training.metrics import Metrics
from tickgate_training.overfitting.pbo import BLOCKS, BLOCKS_MAXIMUM, backtest_overfitting
from tickgate_training.overfitting.sharpe import (
    deflated_sharpe_2014,
    deflated_sharpe_2025,
    minimum_track_record_2012,
    sample_of,
    trial_sharpes,
)
from tickgate_training.strict import Strict


class PromotionLimits(Strict):
    """What promotion asks for.

    `deflated_sharpe` is a probability that both published forms are held against; `backtest_overfitting` one not to be
    exceeded; `parity_difference` is of probabilities; `track_record_confidence` is what the minimum track record length
    is for, against a Sharpe ratio of 0; `cross_validation_blocks` is even.
    """

    deflated_sharpe: float = Field(default=0.95, ge=0.5, lt=1.0)
    backtest_overfitting: float = Field(default=0.5, ge=0.0, lt=1.0)
    parity_difference: float = Field(default=1e-5, ge=0.0)
    round_trips: int = Field(default=30, ge=1)
    random_p_value: float = Field(default=0.05, ge=0.0, le=1.0)
    track_record_confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    cross_validation_blocks: int = Field(default=BLOCKS, ge=2, le=BLOCKS_MAXIMUM)

    @field_validator("cross_validation_blocks")
    @classmethod
    def _even(cls, blocks: int) -> int:
        if blocks % 2:
            raise ValueError(f"must be even, is {blocks}")
        return blocks


@dataclass(frozen=True, slots=True)
class Parity:
    """How near the exported graph is to the model it was converted from.

    Attributes:
        difference: Largest absolute difference of P(up).
        rows: Rows that were compared.
        expected_rows: Out-of-sample rows there are to compare.
    """

    difference: float
    rows: int
    expected_rows: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks look at. NaN where a figure cannot be had; `why` says so by the figure's name.

    Attributes:
        trials: Configurations tried.
        deflated_sharpe_2014: Of the chosen trial among all.
        deflated_sharpe_2025: Likewise, in the later form.
        backtest_overfitting: Of the choice among all.
        minimum_track_record_2012: Returns needed for a Sharpe ratio above 0.
        net: The chosen trial, measured net.
        parity: Of the exported graph; None where it was not compared.
        baselines: What the simple strategies earned; None where they were not run.
        why: Reasons.
    """

    trials: int
    deflated_sharpe_2014: float
    deflated_sharpe_2025: float
    backtest_overfitting: float
    minimum_track_record_2012: float
    net: Metrics
    parity: Parity | None = None
    baselines: Baselines | None = None
    why: dict[str, str] = field(default_factory=dict)


def gather(
    trials: NDArray[np.float64],
    chosen: int,
    net: Metrics,
    parity: Parity | None = None,
    baselines: Baselines | None = None,
    limits: PromotionLimits | None = None,
) -> Evidence:
    """Work out what the checks look at.

    Args:
        trials: float64 [T, N], the net returns of every configuration that was tried, over the same out-of-sample rows.
        chosen: Column of the one to be promoted.
        net: Its metrics, net of costs.
        parity: Of the exported graph.
        baselines: Over the same rows.
        limits: The confidence and the number of blocks; the defaults where None.

    Raises:
        SeriesInvalid: The returns are no matrix.
        ArgumentInvalid: `chosen` is no column, or `net` is not of its returns.
    """
    limits = limits or PromotionLimits()
    _check_belong(trials, chosen, net)
    why: dict[str, str] = {}
    early = late = overfitting = track = math.nan
    if not np.isfinite(trials).all():
        row, trial = np.argwhere(~np.isfinite(trials))[0]
        reason = f"return {row} of trial {trial} is {trials[row, trial]}"
        names = ("deflated_sharpe_2014", "deflated_sharpe_2025", "backtest_overfitting", "minimum_track_record_2012")
        why |= dict.fromkeys(names, reason)
    else:
        sharpes = trial_sharpes(trials)
        sample = sample_of(trials[:, chosen])
        early, late = deflated_sharpe_2014(sample, sharpes), deflated_sharpe_2025(sample, sharpes)
        track = minimum_track_record_2012(sample, 0.0, limits.track_record_confidence)
        overfitting, reason = _overfitting(trials, limits.cross_validation_blocks)
        why |= {"backtest_overfitting": reason} if reason else {}
        why |= _sharpe_reasons(net, sharpes, early=early, late=late, track=track)
    return Evidence(trials.shape[1], early, late, overfitting, track, net, parity, baselines, why)


def promotion_verdict(
    evidence: Evidence, limits: PromotionLimits | None = None, override: Override | None = None
) -> PromotionVerdict:
    """Hold the evidence against the limits; the defaults where None. What is missing or NaN denies."""
    limits = limits or PromotionLimits()
    why = evidence.why
    checks = [
        check(
            CheckName.DEFLATED_SHARPE_2014,
            evidence.deflated_sharpe_2014,
            limits.deflated_sharpe,
            why.get("deflated_sharpe_2014", ""),
        ),
        check(
            CheckName.DEFLATED_SHARPE_2025,
            evidence.deflated_sharpe_2025,
            limits.deflated_sharpe,
            why.get("deflated_sharpe_2025", ""),
        ),
        check(
            CheckName.BACKTEST_OVERFITTING,
            evidence.backtest_overfitting,
            limits.backtest_overfitting,
            why.get("backtest_overfitting", ""),
        ),
        *_parity_checks(evidence.parity, limits.parity_difference),
        check(CheckName.ROUND_TRIPS, evidence.net.round_trips, limits.round_trips),
        check(
            CheckName.TRACK_RECORD_2012,
            evidence.net.periods,
            evidence.minimum_track_record_2012,
            why.get("minimum_track_record_2012", ""),
        ),
        *_baseline_checks(evidence.net, evidence.baselines, limits.random_p_value),
    ]
    return judge(tuple(checks), evidence.trials, override)


def _check_belong(trials: NDArray[np.float64], chosen: int, net: Metrics) -> None:
    if trials.ndim != 2:
        raise SeriesInvalid("trials' returns", None, f"shape {trials.shape}", "a row a period, a column a trial")
    if not 0 <= chosen < trials.shape[1]:
        raise ArgumentInvalid("chosen", chosen, f"it must be one of {trials.shape[1]} trials, from 0")
    if net.periods != trials.shape[0]:
        raise ArgumentInvalid("net.periods", net.periods, f"the trials have {trials.shape[0]} returns")
    total = float(trials[:, chosen].sum())
    # Summed in another order it may differ in the last bits. NaN passes: a return that is not finite denies later.
    if abs(net.total_return_summed - total) > 1e-9 * float(np.abs(trials[:, chosen]).sum()):
        raise ArgumentInvalid("net.total_return_summed", net.total_return_summed, f"trial {chosen} earned {total!r}")


def _overfitting(trials: NDArray[np.float64], blocks: int) -> tuple[float, str]:
    try:
        result = backtest_overfitting(trials, blocks)
    except TooFewRows as error:  # denies, and says why
        return math.nan, str(error)
    return result.pbo, result.undefined.get("pbo", "")


def _sharpe_reasons(
    net: Metrics, sharpes: NDArray[np.float64], *, early: float, late: float, track: float
) -> dict[str, str]:
    """Why figures made of Sharpe ratios are NaN or infinite."""
    reason = net.undefined.get("sharpe", "")
    if not reason and np.isnan(sharpes).any():
        reason = f"the Sharpe ratio of trial {int(np.argmax(np.isnan(sharpes)))} is undefined"
    reason = reason or "the returns' moments leave no error"
    found = {"deflated_sharpe_2014": early, "deflated_sharpe_2025": late, "minimum_track_record_2012": track}
    why = {name: reason for name, value in found.items() if math.isnan(value)}
    if math.isinf(track):
        why["minimum_track_record_2012"] = "the Sharpe ratio is not above 0: no number of returns is enough"
    return why


def _parity_checks(parity: Parity | None, limit: float) -> tuple[Check, Check]:
    if parity is None:
        missing = "the exported graph was not compared with its source"
        return (
            check(CheckName.PARITY_DIFFERENCE, math.nan, limit, missing),
            check(CheckName.PARITY_ROWS, math.nan, math.nan, missing),
        )
    return (
        check(CheckName.PARITY_DIFFERENCE, parity.difference, limit),
        # Of no rows all would do.
        check(CheckName.PARITY_ROWS, parity.rows, max(parity.expected_rows, 1)),
    )


def _baseline_checks(net: Metrics, baselines: Baselines | None, level: float) -> tuple[Check, ...]:
    if baselines is None:
        return ()
    long = baselines.always_long
    undefined = net.undefined.get("sharpe", "") or long.undefined.get("sharpe", "")
    return (
        check(CheckName.SHARPE_AGAINST_ALWAYS_LONG, net.sharpe, long.sharpe, undefined),
        check(CheckName.RANDOM_P_VALUE, baselines.random.p_value, level),
    )
