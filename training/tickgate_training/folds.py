"""One window of a walk: every configuration fitted, calibrated, given a threshold and scored; one of them chosen.

A model is fitted on the purged train rows; calibration and threshold come from the purged validation rows; the test
block is then scored once. The configuration that earned most on validation is the window's choice: its graph is
exported and held to it on every test row.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_training import calibration, kept, threshold
from tickgate_training.calibration import Calibration
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import OneClassOnly, TooFewRows
from tickgate_training.export import check_parity, export
from tickgate_training.learners import Model
from tickgate_training.meta import Primary
from tickgate_training.samples import Samples
from tickgate_training.splits import Window
from tickgate_training.stability import deciles_of, psi_of
from tickgate_training.threshold import ThresholdChoice
from tickgate_training.trading import Traded, Trader
from tickgate_training.tuning import Configuration
from tickgate_training.weights import WeightConfig, sample_weights

_ALL_THE_SAME = WeightConfig(basis="equal")


class FitRows(Protocol):
    """What is fitted and chosen on: a window, or a combinatorial split."""

    @property
    def number(self) -> int:
        """From 0."""

    def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows to fit on, purged, ascending."""

    def validation_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of one block to calibrate and choose on, purged, ascending."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with its calibration and threshold.

    Attributes:
        configuration: What was fitted.
        model: Fitted on the purged train rows.
        calibration: Fitted on the purged validation rows that have a label.
        choice: The threshold, and how it came about.
        train_rows: Rows the model was fitted on, int64 [n].
        described_rows: Rows that say what its inputs look like: those, or with a primary also the ones without a side.
        primary: The rule that says the side, where the model says whether to act on it; else None.
    """

    configuration: Configuration
    model: Model
    calibration: Calibration
    choice: ThresholdChoice
    train_rows: NDArray[np.int64]
    described_rows: NDArray[np.int64]
    primary: Primary | None = None

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated P(up): float32 [n, width], finite, to float64 [n]."""
        found = self.calibration.apply(self.model.raw_scores(features))
        return found if self.primary is None else self.primary.probabilities(features, found)

    def score(self, samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Calibrated P(up) of rows, float64 [n]; NaN where the features are not ready."""
        scores = np.full(rows.size, np.nan)
        ready = samples.ready[rows]
        if ready.any():
            scores[ready] = self.probabilities(samples.features[rows[ready]])
        return scores


@dataclass(frozen=True, slots=True)
class Tried:
    """What one configuration did in a window; attributes as in `results.WindowResult`."""

    threshold: float
    threshold_fallback: str
    calibration_identity: str
    validation_net_return: float
    train_rows: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One window's outcome, as it is kept.

    Attributes:
        number: Of the window.
        start: First test row; `stop` the row after the last.
        stop: See `start`.
        tried: One a configuration.
        chosen: Place of the chosen one.
        parity_difference: Of its exported graph from it, over the ready test rows.
        parity_rows: How many those were.
        probabilities: Calibrated P(up), float64 [configurations, stop - start]; NaN where not ready.
        positions: float64 [configurations, stop - start].
        curve: The chosen one's candidate thresholds and what they earned on validation, float64 [2, k].
        importance: Of the chosen one, float64 [width], sum 1; all NaN where its learner has none.
        psi: Test against train rows, float64 [width]; NaN where no test row is ready.
    """

    number: int
    start: int
    stop: int
    tried: tuple[Tried, ...]
    chosen: int
    parity_difference: float
    parity_rows: int
    probabilities: NDArray[np.float64]
    positions: NDArray[np.float64]
    curve: NDArray[np.float64]
    importance: NDArray[np.float64]
    psi: NDArray[np.float64]


class Folder:
    """Makes folds of one run: the same samples, configurations and settings for every window.

    Args:
        samples: Of the run.
        config: Likewise.
        configurations: Tried in every window.
    """

    def __init__(self, samples: Samples, config: TrainingConfig, configurations: tuple[Configuration, ...]) -> None:
        self._samples = samples
        self._config = config
        self._configurations = configurations
        self._trader = Trader(samples.books, samples.stamps_ns, config)
        self._primary = None if config.meta is None else config.meta.rule(samples.feature_set.features)

    def fit(self, configuration: Configuration, window: FitRows) -> Fitted:
        """Fit on train, calibrate and choose the threshold on validation; the test block is not looked at.

        Raises:
            TooFewRows: Purging left too few train rows, or no validation rows.
            OneClassOnly: The train rows have one direction only.
        """
        samples, config = self._samples, self._config
        ends = samples.labels.interval_end
        train = window.train_rows(ends)
        seen = train[samples.ready[train]]
        train = train[samples.fit_rows[train]]
        weight = self._weights(train)
        directions = samples.target.direction
        model = configuration.learner.fit(samples.features[train], directions[train], config.seed, weight)
        validation = window.validation_rows(ends)
        if validation.size < 2:
            raise TooFewRows(f"validation of window {window.number} after purging", int(validation.size), 2)
        labelled = validation[samples.fit_rows[validation]]
        raw = model.raw_scores(samples.features[labelled]) if labelled.size else np.empty(0)
        calibrated = calibration.fit(config.calibration, raw, directions[labelled])
        described = train if self._primary is None else seen
        unchosen = Fitted(configuration, model, calibrated, threshold.UNCHOSEN, train, described, self._primary)
        start, stop = int(validation[0]), int(validation[-1]) + 1
        scored = np.full(stop - start, np.nan)  # a row purged between two that are kept is not traded
        scored[validation - start] = unchosen.score(samples, validation)
        # Marks end with the last validation row's interval, so no profit of the test block enters.
        until = int(ends[validation].max()) + 1

        def trade(at: float) -> Traded:
            return self._trader.run(self._trader.decide(scored, at, start), start, until)

        chosen = threshold.choose(scored, lambda at: trade(at).result, config.policy.round_trips_minimum)
        return replace(unchosen, choice=chosen)

    def _weights(self, train: NDArray[np.int64]) -> NDArray[np.float64] | None:
        samples, config = self._samples, self._config
        if config.weights == _ALL_THE_SAME:
            return None
        several = samples.symbol if len(samples.books) > 1 else None
        prices = samples.books[0].market.marks  # looked at for one symbol alone
        lag = config.label.lag_trades
        ends = samples.labels.interval_end
        return sample_weights(train, ends, prices, config.weights, lag_trades=lag, symbols=several)

    def best(self, window: FitRows) -> tuple[Fitted, list[Fitted]]:
        """Fit every configuration; the one that earned most on validation, the first of equals, and all of them."""
        fits = [self.fit(configuration, window) for configuration in self._configurations]
        return max(fits, key=_earned), fits

    def scores(self, configurations: list[Configuration], window: Window) -> list[float]:
        """What configurations earn on a window's validation rows; NaN where they cannot be fitted there."""
        return [self._validation_score(configuration, window) for configuration in configurations]

    def _validation_score(self, configuration: Configuration, window: Window) -> float:
        try:
            return self.fit(configuration, window).choice.validation_net_return
        except (OneClassOnly, TooFewRows):
            return math.nan

    def __call__(self, window: Window) -> Fold:
        """Fit, choose and score one window, on one thread.

        Raises:
            TooFewRows, OneClassOnly, NotConverged: As `fit`.
            ParityBroken: The chosen model's graph is not the model.
        """
        # Windows are small: BLAS's threads would wait for each other, the more the busier the machine.
        with threadpool_limits(limits=1):
            return self._fold(window)

    def _fold(self, window: Window) -> Fold:
        samples = self._samples
        best, fits = self.best(window)
        rows = np.arange(window.test.start, window.test.stop)
        probabilities = np.array([fitted.score(samples, rows) for fitted in fits])
        positions = [
            self._trader.decide(scores, fitted.choice.threshold, window.test.start)
            for fitted, scores in zip(fits, probabilities, strict=True)
        ]
        ready = samples.features[rows[samples.ready[rows]]]
        difference = math.nan
        if len(ready):
            graph = export(best.model, best.calibration, best.primary)
            difference = check_parity(graph, best.probabilities, ready, best.choice.threshold)
        return Fold(
            number=window.number,
            start=window.test.start,
            stop=window.test.stop,
            tried=tuple(map(_tried, fits)),
            chosen=fits.index(best),
            parity_difference=difference,
            parity_rows=len(ready),
            probabilities=probabilities,
            positions=np.array(positions),
            curve=np.array([best.choice.candidates, best.choice.candidate_net_returns]),
            importance=_shares(best.model.importance(), samples.feature_set.width),
            psi=psi_of(deciles_of(samples.features[best.described_rows]), samples.features[best.described_rows], ready),
        )


def _earned(fitted: Fitted) -> float:
    """What it earned on validation; what is not known is worse than any loss."""
    found = fitted.choice.validation_net_return
    return found if math.isfinite(found) else -math.inf


def _tried(fitted: Fitted) -> Tried:
    choice = fitted.choice
    return Tried(
        threshold=choice.threshold,
        threshold_fallback=choice.fallback_because,
        calibration_identity=fitted.calibration.identity_because,
        validation_net_return=choice.validation_net_return,
        train_rows=int(fitted.train_rows.size),
    )


def _shares(importance: NDArray[np.float64] | None, width: int) -> NDArray[np.float64]:
    if importance is None:
        return np.full(width, np.nan)
    total = float(importance.sum())
    return importance / total if total > 0.0 else np.zeros(width)


_ARRAYS = ("probabilities", "positions", "curve", "importance", "psi")


def write_fold(fold: Fold, path: Path) -> None:
    """Keep a fold; see `kept.write`."""
    kept.write(asdict(fold), _ARRAYS, path)


def read_fold(path: Path) -> Fold:
    """A fold as it was kept; errors as `kept.read`, and `TypeError` where the values are not a fold's."""
    found = kept.read(path)
    return Fold(**{**found, "tried": tuple(Tried(**one) for one in found["tried"])})
