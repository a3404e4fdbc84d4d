"""Combinatorial purged cross-validation of a run: the same procedure down many paths through the same history.

Every configuration is fitted, calibrated, given a threshold and chosen in each split exactly as in a window of the
walk-forward (`folds`): on the groups that are neither tested nor validated, and on the one that is validated. The test
groups' positions are recombined into paths, each of which holds every row once, and each path is traded in one piece
and measured once. A walk-forward gives one Sharpe ratio; here is how far it may lie off by the luck of the path.

It fits on rows that come after those tested, as the method does: the paths judge the spread, the walk-forward judges
the model. What is shared with it are the features, which look back: an embargo as long as they do keeps them apart.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_training import kept
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import TooFewRows
from tickgate_training.export import check_parity, export
from tickgate_training.folds import Fitted, Folder
from tickgate_training.metrics import Metrics, measure
from tickgate_training.results import Paths, PathTrial
from tickgate_training.samples import Samples
from tickgate_training.splits.combinatorial import (
    CombinatorialConfig,
    ValidatedSplit,
    combinatorial,
    recombine,
    with_validation,
)
from tickgate_training.trading import Traded, Trader
from tickgate_training.tuning import Configuration

FIT_ROWS_MINIMUM = 2


@dataclass(frozen=True, slots=True)
class PathFold:
    """One split's outcome, as it is kept.

    Attributes:
        number: Of the split.
        chosen: Place of the configuration that earned most on the validated group.
        train_rows: Rows that one was fitted on.
        parity_difference: Of its exported graph from it, over the ready test rows; NaN where there is none.
        parity_rows: How many those were.
        positions: float64 [configurations, test rows].
    """

    number: int
    chosen: int
    train_rows: int
    parity_difference: float
    parity_rows: int
    positions: NDArray[np.float64]


def splits_of(samples: Samples, combination: CombinatorialConfig) -> list[ValidatedSplit]:
    """All splits of the rows, each with enough to fit and to validate on.

    Raises:
        TooFewRows: There are fewer rows, or sessions, than groups, or purging and embargo leave a split too few rows
            with features and a label.
    """
    splits = with_validation(
        combinatorial(
            samples.rows,
            combination.groups,
            combination.test_groups,
            combination.embargo_rows,
            sessions=samples.sessions if combination.unit == "sessions" else None,
        )
    )
    ends, known = samples.labels.interval_end, samples.fit_rows
    for split in splits:
        for what, rows in (("train", split.train_rows(ends)), ("validation", split.validation_rows(ends))):
            found = int(known[rows].sum())
            if found < FIT_ROWS_MINIMUM:
                stage = f"combinatorial cross-validation, split {split.number}, {what} after purging and embargo"
                raise TooFewRows(stage, found, FIT_ROWS_MINIMUM)
    return splits


class PathFolder:
    """Makes path folds of one run; arguments as of `folds.Folder`."""

    def __init__(self, samples: Samples, config: TrainingConfig, configurations: tuple[Configuration, ...]) -> None:
        self._samples = samples
        self._folder = Folder(samples, config, configurations)
        self._trader = Trader(samples.books, samples.stamps_ns, config)

    def __call__(self, split: ValidatedSplit) -> PathFold:
        """Fit, choose and score one split, on one thread; errors as `folds.Folder`."""
        with threadpool_limits(limits=1):
            best, fits = self._folder.best(split)
            difference, rows = self._parity(best, split)
            return PathFold(
                number=split.number,
                chosen=fits.index(best),
                train_rows=int(best.train_rows.size),
                parity_difference=difference,
                parity_rows=rows,
                positions=np.array([self._positions(fitted, split) for fitted in fits]),
            )

    def _positions(self, fitted: Fitted, split: ValidatedSplit) -> NDArray[np.float64]:
        """What it asks for on the test groups, one after the other; each group's decisions begin with its first row."""
        return np.concatenate(
            [
                self._trader.decide(
                    fitted.score(self._samples, np.arange(test.start, test.stop)), fitted.choice.threshold, test.start
                )
                for test in split.split.tests
            ]
        )

    def _parity(self, best: Fitted, split: ValidatedSplit) -> tuple[float, int]:
        tests = split.split.test_rows()
        ready = self._samples.features[tests[self._samples.ready[tests]]]
        if not len(ready):
            return math.nan, 0
        graph = export(best.model, best.calibration, best.primary)
        return check_parity(graph, best.probabilities, ready, best.choice.threshold), len(ready)


def measured(
    samples: Samples,
    config: TrainingConfig,
    configurations: Sequence[Configuration],
    splits: Sequence[ValidatedSplit],
    folds: Sequence[PathFold],
) -> Paths:
    """Recombine the splits' positions into paths, and trade and measure each.

    Args:
        samples: Of the run; likewise the next two.
        config: See `samples`.
        configurations: See `samples`.
        splits: All of them.
        folds: One a split, in order.
    """
    trader = Trader(samples.books, samples.stamps_ns, config)

    def traded(places: Sequence[int]) -> list[Traded]:
        scores = [fold.positions[place] for fold, place in zip(folds, places, strict=True)]
        return [trader.run(positions, 0) for positions in recombine([split.split for split in splits], scores)]

    def metrics(paths: Sequence[Traded]) -> tuple[Metrics, ...]:
        return tuple(measure(path.result, config.periods_per_year) for path in paths)

    selected = traded([fold.chosen for fold in folds])
    chosen = [fold.chosen for fold in folds]
    compared = [fold.parity_difference for fold in folds if fold.parity_rows]
    return Paths(
        splits=len(splits),
        fewest_train_rows=min(fold.train_rows for fold in folds),
        stamps_ns=selected[0].stamps_ns,
        net_returns=np.array([path.result.net for path in selected]),
        selected=metrics(selected),
        trials=tuple(
            PathTrial(configuration.number, metrics(traded([place] * len(folds))), chosen.count(place))
            for place, configuration in enumerate(configurations)
        ),
        parity_difference=max(compared, default=math.nan),
        parity_rows=sum(fold.parity_rows for fold in folds),
    )


def write_path_fold(fold: PathFold, path: Path) -> None:
    """Keep a path fold; see `kept.write`."""
    kept.write(asdict(fold), ("positions",), path)


def read_path_fold(path: Path) -> PathFold:
    """A path fold as it was kept; errors as `kept.read`, and `TypeError` where the values are not a path fold's."""
    return PathFold(**kept.read(path))
