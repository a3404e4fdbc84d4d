"""From a walk to a verdict: the selected series beside luck, simple strategies and its exported graphs."""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import TooFewRows
from tickgate_training.metrics import Metrics
from tickgate_training.overfitting.pbo import backtest_overfitting
from tickgate_training.overfitting.sharpe import (
    minimum_track_record_2025,
    probabilistic_sharpe_2012,
    probabilistic_sharpe_2025,
    sample_of,
    trial_sharpes,
)
from tickgate_training.results import Baseline, Overfitting, Series, Trial, WindowResult
from tickgate_training.verdict import Evidence, Parity, gather, promotion_verdict
from tickgate_training.walk import Walk


def evidence(
    walk: Walk, selected: Series, trials: tuple[Trial, ...], windows: tuple[WindowResult, ...], config: TrainingConfig
) -> Evidence:
    """What the promotion's checks look at.

    The selected series counts as one more trial among those it was chosen from, unless there was no choice.
    """
    returns = _returns(selected, trials)
    rows = sum(window.parity_rows for window in windows)
    compared = [window.parity_difference for window in windows if window.parity_rows]
    parity = Parity(max(compared, default=math.nan), rows, walk.ready_rows())
    found = walk.baselines()
    return gather(returns, returns.shape[1] - 1, selected.net, parity, found, config.promotion)


def verdict(found: Evidence, config: TrainingConfig) -> PromotionVerdict:
    """The checks, each beside its limit."""
    return promotion_verdict(found, config.promotion)


def baselines(found: Evidence, primary_alone: Metrics | None = None) -> tuple[Baseline, ...]:
    """The simple strategies, as the report shows them; with meta-labels the primary without its secondary as well."""
    alone = () if primary_alone is None else (Baseline("primary alone", primary_alone, math.nan),)
    if found.baselines is None:
        return alone
    together = found.baselines
    draws = sorted(together.random.draws, key=lambda metrics: metrics.total_return_summed)
    return (
        Baseline("always long", together.always_long, math.nan),
        Baseline("last sign", together.last_sign, math.nan),
        Baseline("random timing", draws[len(draws) // 2], together.random.p_value),
        *alone,
    )


def overfitting(selected: Series, trials: tuple[Trial, ...], found: Evidence, config: TrainingConfig) -> Overfitting:
    """How much of the selected series' Sharpe ratio may be luck."""
    returns = _returns(selected, trials)
    confidence = config.promotion.track_record_confidence
    statistics = {
        "deflated_sharpe_2014": found.deflated_sharpe_2014,
        "deflated_sharpe_2025": found.deflated_sharpe_2025,
    }
    sharpe = variance = math.nan
    if np.isfinite(returns).all():
        sample = sample_of(returns[:, -1])
        sharpe = sample.sharpe
        sharpes = trial_sharpes(returns)
        variance = float(sharpes.var(ddof=1)) if sharpes.size > 1 else 0.0
        statistics |= {
            "probabilistic_sharpe_2012": probabilistic_sharpe_2012(sample, 0.0),
            "probabilistic_sharpe_2025": probabilistic_sharpe_2025(sample, 0.0),
            "minimum_track_record_2025": minimum_track_record_2025(sample, 0.0, confidence),
        }
    undefined = dict(found.why)
    logits = np.empty(0)
    try:
        logits = backtest_overfitting(returns, config.promotion.cross_validation_blocks).logits
    except TooFewRows as error:
        undefined["pbo"] = str(error)
    return Overfitting(
        trials=found.trials,
        trials_variance=variance,
        sharpe=sharpe,
        statistics=statistics,
        pbo=found.backtest_overfitting,
        logits=logits,
        undefined=undefined,
    )


def _returns(selected: Series, trials: tuple[Trial, ...]) -> NDArray[np.float64]:
    """Net returns of every trial, the selected series last, float64 [periods, trials]."""
    columns = [trial.series.result.net for trial in trials] if len(trials) > 1 else []
    return np.column_stack([*columns, selected.result.net])
