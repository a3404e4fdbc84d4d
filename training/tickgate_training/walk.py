"""From finished folds to series: what each configuration, and what the choice among them, would have earned.

The test blocks tile, so the positions they ask for are one series: it is traded in one piece, with the costs of the
change from window to window, and measured once. Per-window figures are slices of it.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tickgate_training.baselines import Baselines
from tickgate_training.config import TrainingConfig
from tickgate_training.folds import Fold
from tickgate_training.labels import Labels
from tickgate_training.leaks import LeakConfig, Suspicion, suspicions
from tickgate_training.metrics import Metrics, measure
from tickgate_training.results import Diagnostics, Series, Spread, ThresholdCurve, Trial, WindowResult
from tickgate_training.samples import Samples, sides_of
from tickgate_training.splits import Window
from tickgate_training.trading import Traded, Trader
from tickgate_training.tuning import Configuration


def windows_of(samples: Samples, config: TrainingConfig) -> list[Window]:
    """The windows that the rows have room for; raises `TooFewRows` where there is none."""
    return list(config.walk_forward.windows(samples.sessions, samples.stamps_ns))


class Walk:
    """All folds of a run, stitched.

    Args:
        samples: Of the run.
        config: Likewise.
        configurations: That were tried in every window.
        folds: One a window, in order.
    """

    def __init__(
        self,
        samples: Samples,
        config: TrainingConfig,
        configurations: Sequence[Configuration],
        folds: Sequence[Fold],
    ) -> None:
        self._samples = samples
        self._config = config
        self._configurations = configurations
        self._folds = folds
        self._trader = Trader(samples.books, samples.stamps_ns, config)
        self.start, self.stop = folds[0].start, folds[-1].stop

    def selected(self) -> tuple[Series, tuple[WindowResult, ...]]:
        """The series of each window's choice, and what it did window by window."""
        places = [fold.chosen for fold in self._folds]
        traded = self._traded(places)
        series = self._series(traded, self._probabilities(places))
        return series, tuple(self._window(fold, traded) for fold in self._folds)

    def trials(self) -> tuple[Trial, ...]:
        """Every configuration's series."""
        return tuple(self._trial(place, found) for place, found in enumerate(self._configurations))

    def baselines(self) -> Baselines:
        """What simple strategies would have earned over the same rows."""
        places = [fold.chosen for fold in self._folds]
        return self._trader.baselines(self._positions(places), self.start, self._traded(places))

    def primary_alone(self) -> Metrics | None:
        """What it would have earned to act on every side of the primary; None where the run has none."""
        samples = self._samples
        sides = sides_of(samples.features, self._config, samples.feature_set)
        return None if sides is None else self._trader.every_side(sides[self.start : self.stop], self.start)

    def ready_rows(self) -> int:
        """Test rows with features."""
        return int(self._samples.ready[self.start : self.stop].sum())

    def suspicions(self, config: LeakConfig) -> tuple[Suspicion, ...]:
        """Why the selected series may be too good to be true."""
        labels, rows = self._samples.labels, slice(self.start, self.stop)
        of_rows = Labels(labels.direction[rows], labels.returns[rows], labels.interval_end[rows])
        return suspicions(self._probabilities([fold.chosen for fold in self._folds]), of_rows, config)

    def diagnostics(self, psi_null: NDArray[np.float64]) -> Diagnostics:
        """What a reader looks at before believing a result; `psi_null` as in `results.Diagnostics`."""
        return Diagnostics(
            curves=tuple(ThresholdCurve(fold.number, fold.curve[0], fold.curve[1]) for fold in self._folds),
            probabilities=self._probabilities([fold.chosen for fold in self._folds]),
            directions=self._samples.labels.direction[self.start : self.stop],
            importance=np.array([fold.importance for fold in self._folds]),
            psi=np.array([fold.psi for fold in self._folds]),
            psi_null=psi_null,
        )

    def _trial(self, place: int, configuration: Configuration) -> Trial:
        places = [place] * len(self._folds)
        return Trial(
            configuration=configuration,
            series=self._series(self._traded(places), self._probabilities(places)),
            validation_net_return=float(sum(fold.tried[place].validation_net_return for fold in self._folds)),
            chosen_windows=sum(fold.chosen == place for fold in self._folds),
        )

    def _positions(self, places: Sequence[int]) -> NDArray[np.float64]:
        return np.concatenate([fold.positions[place] for fold, place in zip(self._folds, places, strict=True)])

    def _probabilities(self, places: Sequence[int]) -> NDArray[np.float64]:
        return np.concatenate([fold.probabilities[place] for fold, place in zip(self._folds, places, strict=True)])

    def _traded(self, places: Sequence[int]) -> Traded:
        return self._trader.run(self._positions(places), self.start)

    def _series(self, traded: Traded, probabilities: NDArray[np.float64]) -> Series:
        directions = self._samples.labels.direction[self.start : self.stop]
        known = np.isfinite(probabilities) & (directions >= 0)
        up = float((directions[known] == 1).mean()) if known.any() else math.nan
        periods = self._config.periods_per_year
        nets = np.array([traded.result.net[self._periods(traded, fold)].sum() for fold in self._folds])
        return Series(
            stamps_ns=traded.stamps_ns,
            result=traded.result,
            gross=measure(traded.result, periods, net=False),
            net=measure(traded.result, periods),
            spread=_spread(nets),
            accuracy=_share_right(probabilities, directions),
            majority_accuracy=max(up, 1.0 - up),
        )

    def _periods(self, traded: Traded, fold: Fold) -> slice:
        """The periods of a fold's test rows."""
        if len(self._samples.books) == 1:  # a period is a row
            return slice(fold.start - self.start, fold.stop - self.start)
        # A period of several symbols is stamped when its return was complete, and counts to the window of that time.
        stamps_ns = self._samples.stamps_ns
        first = 0 if fold is self._folds[0] else _after(traded, int(stamps_ns[fold.start - 1]))
        last = traded.stamps_ns.size if fold is self._folds[-1] else _after(traded, int(stamps_ns[fold.stop - 1]))
        return slice(first, last)

    def _window(self, fold: Fold, traded: Traded) -> WindowResult:
        at, stamps_ns, tried = self._periods(traded, fold), self._samples.stamps_ns, fold.tried[fold.chosen]
        return WindowResult(
            number=fold.number,
            configuration=self._configurations[fold.chosen].number,
            train_rows=tried.train_rows,
            test_start_ns=int(stamps_ns[fold.start]),
            test_stop_ns=int(stamps_ns[fold.stop - 1]),
            threshold=tried.threshold,
            threshold_fallback=tried.threshold_fallback,
            calibration_identity=tried.calibration_identity,
            validation_net_return=tried.validation_net_return,
            gross_return=float(traded.result.gross[at].sum()),
            net_return=float(traded.result.net[at].sum()),
            accuracy=_share_right(
                fold.probabilities[fold.chosen], self._samples.labels.direction[fold.start : fold.stop]
            ),
            parity_difference=fold.parity_difference,
            parity_rows=fold.parity_rows,
        )


def _after(traded: Traded, stamp_ns: int) -> int:
    return int(np.searchsorted(traded.stamps_ns, stamp_ns, side="right"))


def _share_right(probabilities: NDArray[np.float64], directions: NDArray[np.int8]) -> float:
    known = np.isfinite(probabilities) & (directions >= 0)
    if not known.any():
        return math.nan
    return float(((probabilities[known] >= 0.5) == (directions[known] == 1)).mean())


def _spread(returns: NDArray[np.float64]) -> Spread:
    std = float(returns.std(ddof=1)) if returns.size > 1 else math.nan
    worst, best = float(returns.min()), float(returns.max())
    return Spread(float(returns.mean()), std, worst, best, float((returns > 0.0).mean()))
