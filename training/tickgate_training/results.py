"""What a run found out: plain records, from which tables, the report and the manifest are made.

A *configuration* is one learner with its hyper-parameters; each is walked over all windows and gives one stitched
out-of-sample series, a *trial*. The *selected* series takes in each window the configuration that earned most on that
window's validation rows: it is what a desk that follows the procedure would have had, and what is judged. A *period*
is one row of a single symbol, or one stamp of several.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training.backtest import Backtest
from tickgate_training.config import TrainingConfig
from tickgate_training.leaks import Suspicion
from tickgate_training.metrics import Metrics
from tickgate_training.portfolio import Portfolio
from tickgate_training.publishing import Published
from tickgate_training.risk_data import Written
from tickgate_training.tuning import Configuration


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What the chosen configuration did in one window.

    Attributes:
        number: Of the window, from 0.
        configuration: Number of the configuration that earned most on validation.
        train_rows: Rows fitted on, after purging.
        test_start_ns: Venue time of the first test row; `test_stop_ns` of the last.
        test_stop_ns: See `test_start_ns`.
        threshold: Confidence acted on from.
        threshold_fallback: Why the threshold was not chosen by its profit; empty where it was.
        calibration_identity: Why the scores were not calibrated; empty where they were.
        validation_net_return: Sum of net returns on validation at the threshold.
        gross_return: Sum of gross returns over the test rows.
        net_return: Likewise net of costs.
        accuracy: Share of labelled test rows with the right direction at any confidence; NaN where there is none.
        parity_difference: Largest difference of the exported graph from its source over the ready test rows.
        parity_rows: How many those were.
    """

    number: int
    configuration: int
    train_rows: int
    test_start_ns: int
    test_stop_ns: int
    threshold: float
    threshold_fallback: str
    calibration_identity: str
    validation_net_return: float
    gross_return: float
    net_return: float
    accuracy: float
    parity_difference: float
    parity_rows: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the windows' net returns lie apart: mean, standard deviation (ddof 1, NaN for one), extremes, gainers."""

    mean: float
    std: float
    worst: float
    best: float
    positive_share: float


@dataclass(frozen=True, slots=True)
class Series:
    """A stitched out-of-sample series and what it was worth.

    Attributes:
        stamps_ns: Venue time of each period, int64 [T]: of its decision; of several symbols, of its return's end.
        result: What was held and earned, a value a period.
        gross: Measured before costs.
        net: Measured after them.
        spread: Of the windows' net returns.
        accuracy: Share of labelled test rows with the right direction.
        majority_accuracy: What always saying the commoner direction would have had.
    """

    stamps_ns: NDArray[np.int64]
    result: Backtest | Portfolio
    gross: Metrics
    net: Metrics
    spread: Spread
    accuracy: float
    majority_accuracy: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration's series.

    Attributes:
        configuration: What was tried.
        series: Its stitched out-of-sample series.
        validation_net_return: Sum over the windows of what the chosen thresholds earned on validation.
        chosen_windows: Windows in which it was the selected one.
    """

    configuration: Configuration
    series: Series
    validation_net_return: float
    chosen_windows: int


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """What each candidate threshold earned on one window's validation rows, for the configuration chosen there.

    Attributes:
        window: Its number.
        thresholds: float64 [k], ascending.
        net_returns: float64 [k], sums of net returns.
    """

    window: int
    thresholds: NDArray[np.float64]
    net_returns: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a reader looks at before believing a result.

    Attributes:
        curves: One a window.
        probabilities: Calibrated P(up) of the selected series' test rows, float64 [n]; NaN where not ready.
        directions: Their labels, int8 [n]; -1 where none.
        importance: Share of each feature in the chosen configuration's importance, float64 [windows, width], rows sum
            to 1; NaN in rows whose learner has none.
        psi: Population stability index of each feature, test rows against the window's train rows,
            float64 [windows, width].
        psi_null: The index's block-bootstrap null quantile for each feature, float64 [width]; NaN where unknown.
    """

    curves: tuple[ThresholdCurve, ...]
    probabilities: NDArray[np.float64]
    directions: NDArray[np.int8]
    importance: NDArray[np.float64]
    psi: NDArray[np.float64]
    psi_null: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What something simple would have earned over the same rows with the same costs.

    Attributes:
        name: `always long`, `last sign`, `random timing`; with meta-labels `primary alone`.
        net: Measured; of `random timing` the median draw by what it earned.
        p_value: Chance of earning at least what the model did by timing at random; NaN for the others.
    """

    name: str
    net: Metrics
    p_value: float


@dataclass(frozen=True, slots=True)
class Overfitting:
    """How much of the selected series' Sharpe ratio may be luck; see `tickgate_training.overfitting`.

    Attributes:
        trials: N, the number of configurations tried.
        trials_variance: Variance across the trials of the Sharpe ratio a period.
        sharpe: Of the selected series, a period, net.
        statistics: Probabilistic and deflated Sharpe ratios by the name of their published form, minimum track record
            lengths in periods; NaN where undefined.
        pbo: Probability of backtest overfitting by CSCV over the trials; NaN where there are fewer than two.
        logits: Of each split, float64 [splits].
        undefined: Why a figure is NaN, by its name.
    """

    trials: int
    trials_variance: float
    sharpe: float
    statistics: Mapping[str, float]
    pbo: float
    logits: NDArray[np.float64]
    undefined: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PathTrial:
    """One configuration down every path of combinatorial purged cross-validation.

    Attributes:
        configuration: Its number.
        net: Measured net of costs, one a path.
        chosen_splits: Splits in which it earned most on the validated group.
    """

    configuration: int
    net: tuple[Metrics, ...]
    chosen_splits: int


@dataclass(frozen=True, slots=True)
class Paths:
    """What combinatorial purged cross-validation gave; see `tickgate_training.paths`.

    Attributes:
        splits: How many there are.
        fewest_train_rows: Rows fitted on in the split that has the fewest, after purging and embargo.
        stamps_ns: Venue time of each period, int64 [T], as of a `Series`.
        net_returns: Of the selected configurations, float64 [paths, T]; each path has every row once.
        selected: These measured, one a path.
        trials: One a configuration.
        parity_difference: Largest difference of an exported graph from its source over the ready test rows of all
            splits; NaN where there is none.
        parity_rows: How many those were.
    """

    splits: int
    fewest_train_rows: int
    stamps_ns: NDArray[np.int64]
    net_returns: NDArray[np.float64]
    selected: tuple[Metrics, ...]
    trials: tuple[PathTrial, ...]
    parity_difference: float
    parity_rows: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        config: Of the run.
        symbols: Of the data.
        rows: Rows of data.
        fingerprint: Of the data.
        feature_names: In the order of the vector.
        windows: What the chosen configurations did, one a window.
        selected: The series that is judged.
        trials: One a configuration.
        baselines: Over the same rows.
        overfitting: Of the selected series among the trials.
        diagnostics: See there.
        verdict: Whether it may be promoted, check by check.
        suspicions: Why the result may be too good to be true; empty where nothing says so.
        published: The package; None where the run was asked not to publish.
        risk: What became of the repository's risk data; None likewise.
        folder: The run's own: finished folds, report, figures.
        seconds: Wall-clock time of the whole run.
        paths: Of combinatorial purged cross-validation; None where it is not configured.
    """

    config: TrainingConfig
    symbols: tuple[str, ...]
    rows: int
    fingerprint: str
    feature_names: tuple[str, ...]
    windows: tuple[WindowResult, ...]
    selected: Series
    trials: tuple[Trial, ...]
    baselines: tuple[Baseline, ...]
    overfitting: Overfitting
    diagnostics: Diagnostics
    verdict: PromotionVerdict
    suspicions: tuple[Suspicion, ...]
    published: Published | None
    risk: Written | None
    folder: Path
    seconds: float
    paths: Paths | None = None
