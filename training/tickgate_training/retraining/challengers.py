"""The challengers of a round: fitted on the rolled window, calibrated and given their threshold on its validation rows.

Each goes through `folds.Folder.fit`, as a window of a run does: purging, weights, calibration and threshold are the
run's own. What goes on from an earlier fit is a learner of its kind whose fit begins there.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_training.config import TrainingConfig
from tickgate_training.errors import FeatureConstant, NotConverged, OneClassOnly, TooFewRows
from tickgate_training.folds import Fitted, Folder
from tickgate_training.learners import (
    LearnerConfig,
    LightGBMConfig,
    LightGBMModel,
    SgdLogisticConfig,
    SgdLogisticModel,
)
from tickgate_training.retraining.config import (
    ContinuedChallenger,
    PartialFitChallenger,
    RefitChallenger,
    RetrainConfig,
)
from tickgate_training.retraining.errors import NoChallenger
from tickgate_training.retraining.newest import shortened
from tickgate_training.retraining.rounds import Rounds
from tickgate_training.retraining.sources import Sources
from tickgate_training.samples import Samples
from tickgate_training.splits import Block, Window
from tickgate_training.trials import configurations
from tickgate_training.tuning import Configuration

# What a challenger may fail with without harm to the others.
_UNFITTABLE = (FeatureConstant, NotConverged, OneClassOnly, TooFewRows)


@dataclass(frozen=True, slots=True)
class Challenger:
    """A fitted challenger.

    Attributes:
        kind: As configured.
        fitted: With calibration and threshold.
        fitted_until_ns: Venue's time of the last row that it was fitted on.
    """

    kind: str
    fitted: Fitted
    fitted_until_ns: int

    @property
    def validation_net_return(self) -> float:
        """What it earned on validation, net of costs; NaN where that is not known."""
        return self.fitted.choice.validation_net_return


class _Continued(LightGBMConfig):
    """A LightGBM whose fit goes on from another's trees."""

    _before: LightGBMModel = PrivateAttr()

    @classmethod
    def of(cls, learner: LightGBMConfig, before: LightGBMModel) -> "_Continued":
        found = cls.model_validate(learner.model_dump())
        found._before = before  # noqa: SLF001 - its own class's
        return found

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> LightGBMModel:
        return self.continued(self._before, features, labels, seed, weights)


class _Updated(SgdLogisticConfig):
    """A logistic regression whose fit is one pass more of another's."""

    _before: SgdLogisticModel = PrivateAttr()

    @classmethod
    def of(cls, learner: SgdLogisticConfig, before: SgdLogisticModel) -> "_Updated":
        found = cls.model_validate(learner.model_dump())
        found._before = before  # noqa: SLF001 - its own class's
        return found

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,  # noqa: ARG002 - its rows are taken in the order that the first fit's seed gives
        weights: NDArray[np.float64] | None = None,
    ) -> SgdLogisticModel:
        return self._before.updated(features, labels, weights)


class Challengers:
    """Fits what is configured.

    Args:
        samples: The newest data.
        config: Of retraining.
        window: The rolled window.
        rounds: Earlier ones, which say what there is to go on from.
        sources: Where that is kept.
        champion: Version that is compared with.
    """

    def __init__(
        self, samples: Samples, config: RetrainConfig, window: Window, rounds: Rounds, sources: Sources, champion: int
    ) -> None:
        self._samples = samples
        self._config = config
        self._window = window
        self._rounds = rounds
        self._sources = sources
        self._champion = champion
        self._folder = Folder(samples, config.training, ())

    def fit(self) -> tuple[list[Challenger], list[str]]:
        """Fit all of them on one thread; the challengers, and why others are none.

        Raises:
            NoChallenger: There is not one.
            StateInvalid: A source is not what was kept.
        """
        found: list[Challenger] = []
        skipped: list[str] = []
        with threadpool_limits(limits=1):
            for wanted in self._config.retrain.challengers:
                try:
                    found += self._of(wanted)
                except _UNFITTABLE as error:
                    skipped.append(f"{wanted.kind}: {error}")
                except _LeftOut as left:
                    skipped.append(f"{wanted.kind}: {left}")
        if not found:
            raise NoChallenger(tuple(skipped))
        return found, skipped

    def _of(self, wanted: RefitChallenger | ContinuedChallenger | PartialFitChallenger) -> list[Challenger]:
        if isinstance(wanted, RefitChallenger):
            return self._refits(wanted)
        if isinstance(wanted, ContinuedChallenger):
            return [self._continued(wanted)]
        return [self._updated(wanted)]

    def _refits(self, wanted: RefitChallenger) -> list[Challenger]:
        training: TrainingConfig = self._config.training
        window = shortened(self._window, self._samples, training, wanted.train_length)

        def score(learners: Sequence[LearnerConfig]) -> list[float]:
            return self._folder.scores([Configuration(0, learner) for learner in learners], window)

        tried = configurations(training.learners, training.tuning, training.seed, score)
        return [self._fitted(wanted.kind, configuration, window) for configuration in tried]

    def _continued(self, wanted: ContinuedChallenger) -> Challenger:
        line = self._rounds.published(self._champion)
        stored = line.challengers[line.chosen] if line is not None and line.chosen is not None else None
        if stored is None or not stored.stored.endswith(".txt"):
            raise _LeftOut(f"the source of champion {self._champion} is not kept, or is no LightGBM")
        before = self._sources.booster(stored.stored)
        if before.booster.num_trees() + wanted.learner.trees > wanted.trees_maximum:
            raise _LeftOut(f"the champion has {before.booster.num_trees()} trees of {wanted.trees_maximum}")
        if before.width != self._samples.feature_set.width:
            raise _LeftOut(f"the champion has {before.width} features")
        window = self._newer_than(stored.fitted_until_ns)
        return self._fitted(wanted.kind, Configuration(0, _Continued.of(wanted.learner, before)), window)

    def _updated(self, wanted: PartialFitChallenger) -> Challenger:
        stored = self._rounds.newest(wanted.kind)
        if stored is None:
            return self._fitted(wanted.kind, Configuration(0, wanted.learner), self._window)
        before = self._sources.linear(stored.stored)
        if before.width != self._samples.feature_set.width:
            return self._fitted(wanted.kind, Configuration(0, wanted.learner), self._window)
        window = self._newer_than(stored.fitted_until_ns)
        return self._fitted(wanted.kind, Configuration(0, _Updated.of(wanted.learner, before)), window)

    def _newer_than(self, stamp_ns: int) -> Window:
        """The window with those train rows alone that lie behind a time."""
        train = self._window.train
        first = max(train.start, int(np.searchsorted(self._samples.stamps_ns, stamp_ns, side="right")))
        if first >= train.stop:
            raise _LeftOut("no train row is newer than those it was fitted on")
        return dataclasses.replace(self._window, train=Block(first, train.stop))

    def _fitted(self, kind: str, configuration: Configuration, window: Window) -> Challenger:
        fitted = self._folder.fit(configuration, window)
        return Challenger(kind, fitted, int(self._samples.stamps_ns[fitted.train_rows[-1]]))


class _LeftOut(Exception):
    """Why a challenger is not tried; says why."""


def best(challengers: Sequence[Challenger]) -> int:
    """Place of the one that earned most on validation, the first of equals; what is unknown is worse than any loss."""

    def earned(place: int) -> float:
        found = challengers[place].validation_net_return
        return found if math.isfinite(found) else -math.inf

    return max(range(len(challengers)), key=earned)
