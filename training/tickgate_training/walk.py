"""Walk-forward validation of one learner: fit, calibrate, choose a threshold and score, window after window.

A model is fitted on the purged train rows; calibration and threshold come from the purged validation rows; the test
block is then scored once. The test blocks tile, so the positions they ask for are one series: it is traded in one
piece, with the costs of the change from window to window, and measured once. Per-window figures are slices of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training import backtest, calibration, threshold
from tickgate_training.backtest import Backtest, Sizing
from tickgate_training.calibration import Platt
from tickgate_training.config import TrainingConfig
from tickgate_training.costs import Costs
from tickgate_training.errors import TooFewRows
from tickgate_training.learners import LightGBMConfig, LightGBMModel, LogisticConfig, LogisticModel
from tickgate_training.metrics import Metrics, measure
from tickgate_training.samples import Samples
from tickgate_training.splits import Window, walk_forward
from tickgate_training.threshold import ThresholdChoice

_BPS = 1e-4


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with its calibration and threshold.

    Attributes:
        model: Fitted on the purged train rows.
        calibration: Fitted on the purged validation rows that have a label.
        choice: The threshold, and how it came about.
        train_rows: Rows the model was fitted on, int64 [n].
    """

    model: LightGBMModel | LogisticModel
    calibration: Platt
    choice: ThresholdChoice
    train_rows: NDArray[np.int64]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated P(up): float32 [n, width], finite, to float64 [n]."""
        return self.calibration.apply(self.model.raw_scores(features))


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What one window gave.

    Attributes:
        number: From 0.
        train_rows: Rows fitted on.
        test_start_ns: Venue time of the first test row; `test_stop_ns` of the last.
        test_stop_ns: See `test_start_ns`.
        threshold: Confidence acted on from.
        threshold_fallback: Why the threshold was not chosen by its profit; empty where it was.
        calibration_identity: Why the scores were not calibrated; empty where they were.
        validation_net_return: Sum of net returns on validation at the threshold.
        gross_return: Sum of gross returns over the test rows.
        net_return: Likewise net of costs.
        accuracy: Share of labelled test rows with the right direction at any confidence; NaN where there is none.
    """

    number: int
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


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the windows' net returns lie apart: mean, standard deviation (ddof 1, NaN for one), extremes, gainers."""

    mean: float
    std: float
    worst: float
    best: float
    positive_share: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One learner's stitched out-of-sample series.

    Attributes:
        learner: Its configuration.
        windows: Each window's own result.
        result: The series itself.
        gross: Measured before costs.
        net: Measured after them.
        spread: Of the windows' net returns.
        accuracy: Share of labelled test rows with the right direction.
        majority_accuracy: What always saying the commoner direction would have had.
    """

    learner: LightGBMConfig | LogisticConfig
    windows: tuple[WindowResult, ...]
    result: Backtest
    gross: Metrics
    net: Metrics
    spread: Spread
    accuracy: float
    majority_accuracy: float

    @property
    def validation_net_return(self) -> float:
        """Sum over the windows of what the chosen thresholds earned on validation: what learners are compared by."""
        return float(sum(window.validation_net_return for window in self.windows))

    @property
    def fallback_windows(self) -> int:
        """Windows whose threshold was not chosen by its profit on validation."""
        return sum(bool(window.threshold_fallback) for window in self.windows)


def windows_of(samples: Samples, config: TrainingConfig) -> list[Window]:
    """The windows that the rows have room for; raises `TooFewRows` where there is none."""
    lengths = config.walk_forward
    return list(
        walk_forward(samples.rows, lengths.train_rows, lengths.validation_rows, lengths.test_rows, lengths.embargo_rows)
    )


def sizing_of(config: TrainingConfig) -> Sizing:
    """The arguments of the sizing function."""
    policy = config.policy
    return Sizing(policy.capital, policy.risk_budget, config.label.horizon_trades, policy.volatility_floor, policy.lot)


def costs_of(config: TrainingConfig) -> Costs:
    """The costs, as fractions."""
    return Costs(config.costs.fee_bps * _BPS, config.costs.impact)


def fit_window(
    samples: Samples, config: TrainingConfig, learner: LightGBMConfig | LogisticConfig, window: Window
) -> Fitted:
    """Fit on train, calibrate and choose the threshold on validation; the test block is not looked at.

    Raises:
        TooFewRows: Purging left too few train rows, or no validation rows.
        OneClassOnly: The train rows have one direction only.
    """
    ends = samples.labels.interval_end
    train = window.train_rows(ends)
    train = train[samples.fit_rows[train]]
    model = learner.fit(samples.features[train], samples.labels.direction[train], config.seed)
    validation = window.validation_rows(ends)
    if validation.size < 2:
        raise TooFewRows(f"validation of window {window.number} after purging", int(validation.size), 2)
    labelled = validation[samples.fit_rows[validation]]
    platt = calibration.fit(_raw(model, samples, labelled), samples.labels.direction[labelled])
    scored = _score(model, platt, samples, validation)
    start, sizing, costs = int(validation[0]), sizing_of(config), costs_of(config)
    # Marks end with the last validation row's interval, so no profit of the test block enters.
    market = samples.market.until(int(ends[validation[-1]]) + 1)

    def trade(at: float) -> Backtest:
        positions = backtest.decide(scored, at, market, start, sizing, config.policy.decide_every_rows)
        return backtest.run(positions, market, start, sizing.capital, costs)

    return Fitted(model, platt, threshold.choose(scored, trade, config.policy.round_trips_minimum), train)


def evaluate(
    samples: Samples,
    config: TrainingConfig,
    learner: LightGBMConfig | LogisticConfig,
    advance: Callable[[], None] = lambda: None,
) -> Trial:
    """Walk one learner forward over all windows.

    Args:
        samples: Features, labels and market.
        config: Of the run.
        learner: What to fit.
        advance: Called after each window.
    """
    windows = windows_of(samples, config)
    start, stop = windows[0].test.start, windows[-1].test.stop
    probabilities = np.full(stop - start, np.nan)
    positions = np.zeros(stop - start)
    fits = []
    for window in windows:
        fitted = fit_window(samples, config, learner, window)
        rows = np.arange(window.test.start, window.test.stop)
        at = slice(window.test.start - start, window.test.stop - start)
        probabilities[at] = _score(fitted.model, fitted.calibration, samples, rows)
        positions[at] = backtest.decide(
            probabilities[at],
            fitted.choice.threshold,
            samples.market,
            window.test.start,
            sizing_of(config),
            config.policy.decide_every_rows,
        )
        fits.append(fitted)
        advance()
    result = backtest.run(positions, samples.market, start, config.policy.capital, costs_of(config))
    directions = samples.labels.direction[start:stop]
    measured = tuple(
        _window_result(samples, window, fitted, result, _accuracy(probabilities, directions, window, start))
        for window, fitted in zip(windows, fits, strict=True)
    )
    known = np.isfinite(probabilities) & (directions >= 0)
    up = float((directions[known] == 1).mean()) if known.any() else math.nan
    return Trial(
        learner=learner,
        windows=measured,
        result=result,
        gross=measure(result, config.periods_per_year, net=False),
        net=measure(result, config.periods_per_year),
        spread=_spread(np.array([window.net_return for window in measured])),
        accuracy=_share_right(probabilities, directions),
        majority_accuracy=max(up, 1.0 - up),
    )


def _raw(model: LightGBMModel | LogisticModel, samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return model.raw_scores(samples.features[rows]) if rows.size else np.empty(0)


def _score(
    model: LightGBMModel | LogisticModel, platt: Platt, samples: Samples, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Calibrated P(up) of rows, float64 [n]; NaN where the features are not ready."""
    scores = np.full(rows.size, np.nan)
    ready = samples.ready[rows]
    scores[ready] = platt.apply(_raw(model, samples, rows[ready]))
    return scores


def _window_result(samples: Samples, window: Window, fitted: Fitted, result: Backtest, accuracy: float) -> WindowResult:
    at = slice(window.test.start - result.start, window.test.stop - result.start)
    return WindowResult(
        number=window.number,
        train_rows=int(fitted.train_rows.size),
        test_start_ns=int(samples.stamps_ns[window.test.start]),
        test_stop_ns=int(samples.stamps_ns[window.test.stop - 1]),
        threshold=fitted.choice.threshold,
        threshold_fallback=fitted.choice.fallback_because,
        calibration_identity=fitted.calibration.identity_because,
        validation_net_return=fitted.choice.validation_net_return,
        gross_return=float(result.gross[at].sum()),
        net_return=float(result.net[at].sum()),
        accuracy=accuracy,
    )


def _accuracy(probabilities: NDArray[np.float64], directions: NDArray[np.int8], window: Window, start: int) -> float:
    at = slice(window.test.start - start, window.test.stop - start)
    return _share_right(probabilities[at], directions[at])


def _share_right(probabilities: NDArray[np.float64], directions: NDArray[np.int8]) -> float:
    known = np.isfinite(probabilities) & (directions >= 0)
    if not known.any():
        return math.nan
    return float(((probabilities[known] >= 0.5) == (directions[known] == 1)).mean())


def _spread(returns: NDArray[np.float64]) -> Spread:
    std = float(returns.std(ddof=1)) if returns.size > 1 else math.nan
    worst, best = float(returns.min()), float(returns.max())
    return Spread(float(returns.mean()), std, worst, best, float((returns > 0.0).mean()))
