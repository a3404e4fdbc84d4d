"""scikit-learn's tree ensembles, brought to what float32 can hold: random forest and gradient boosting.

Three things stand between them and a graph that gives the same number:

- Their split thresholds are float64. Each is rounded down to float32, so that x <= t holds for the same float32 x.
- Their sums are float64, those of ONNX float32. Each leaf is rounded as `float32.exact_unit` says, so that sums are
  exact in both. It changes a leaf of a forest of 100 by up to 4e-6, and their mean by far less.
- They take values that lie within 1e-7 of each other for one (`FEATURE_THRESHOLD` in sklearn/tree/_partitioner.pxd),
  which is about a tick of bitcoin as a return. So features are fitted in units of about their standard deviation, a
  power of two, which multiplies float32 exactly, and the thresholds are put back into the features' own units.

All of it is done once, in the fitted estimator: it is the model, and predicts as scikit-learn does.
"""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from tickgate_training.float32 import exact_unit, round_down_to_float32
from tickgate_training.learners.base import Learner, check_rows, checked_weights
from tickgate_training.learners.search import Range, SearchSpace


class RandomForestModel:
    """A fitted random forest; see the module for what was done to it.

    Attributes:
        estimator: It.
        clip: Probabilities are kept this far from 0 and 1; see `RandomForestConfig`.
    """

    def __init__(self, estimator: RandomForestClassifier, clip: float) -> None:
        self.estimator = estimator
        self.clip = clip

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.estimator.n_features_in_)

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log odds of the trees' mean probability, clipped: float32 [n, width] to float64 [n]."""
        p = np.clip(self.estimator.predict_proba(features)[:, 1], self.clip, 1.0 - self.clip)
        return np.asarray(np.log(p) - np.log(1.0 - p), np.float64)

    def importance(self) -> NDArray[np.float64]:
        """Each feature's share of the decrease of impurity, float64 [width]."""
        return np.asarray(self.estimator.feature_importances_, np.float64)


class GradientBoostingModel:
    """Fitted gradient-boosted trees; see the module for what was done to them.

    Attributes:
        estimator: They.
    """

    def __init__(self, estimator: GradientBoostingClassifier) -> None:
        self.estimator = estimator

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.estimator.n_features_in_)

    @property
    def base(self) -> float:
        """Log odds that the trees are added to: those of the labels fitted on."""
        _, up = self.estimator.init_.class_prior_
        return math.log(up / (1.0 - up))

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The base and the trees' leaves times the learning rate: float32 [n, width] to float64 [n]."""
        return np.asarray(self.estimator.decision_function(features), np.float64)

    def importance(self) -> NDArray[np.float64]:
        """Each feature's share of the decrease of impurity, float64 [width]."""
        return np.asarray(self.estimator.feature_importances_, np.float64)


class RandomForestConfig(Learner):
    """Trees on bootstrapped rows and random features, their probabilities averaged (Breiman, "Random forests", 2001).

    A forest may be certain, and certainty has no log odds. P(up) is clipped to what Jeffreys' rule, (k + 1/2) /
    (n + 1), gives for none and for all of n = trees x leaf_rows_minimum rows: the fewest that a prediction stands on.
    """

    kind: Literal["random_forest"] = "random_forest"
    trees: int = Field(default=100, ge=1, le=10_000)
    depth: int = Field(default=6, ge=1, le=32)
    leaf_rows_minimum: int = Field(default=50, ge=1)
    feature_share: float = Field(default=0.5, gt=0.0, le=1.0)

    default_search: ClassVar[SearchSpace] = SearchSpace(
        {
            "depth": Range(low=2, high=10),
            "leaf_rows_minimum": Range(low=5, high=100, log=True),
            "feature_share": Range(low=0.2, high=1.0),
        }
    )

    @property
    def clip(self) -> float:
        """How far from 0 and 1 P(up) is kept."""
        return 0.5 / (self.trees * self.leaf_rows_minimum + 1)

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> RandomForestModel:
        """As `Learner.fit`."""
        check_rows(features, labels)
        weighed = checked_weights(weights, labels)
        estimator = RandomForestClassifier(
            n_estimators=self.trees,
            max_depth=self.depth,
            min_samples_leaf=self.leaf_rows_minimum,
            max_features=self.feature_share,
            random_state=seed,
        )
        exponents = _exponents(features)
        estimator.fit(_scaled(features, exponents), labels, sample_weight=weighed)
        trees = [tree.tree_ for tree in estimator.estimators_]
        _bring_thresholds_to_float32(trees, exponents)
        unit = exact_unit(float(len(trees)))
        for tree in trees:
            up = np.round(tree.value[:, 0, 1] / unit) * unit
            tree.value[:, 0, 1], tree.value[:, 0, 0] = up, 1.0 - up
        return RandomForestModel(estimator, self.clip)


class GradientBoostingConfig(Learner):
    """Gradient-boosted trees with log loss (Friedman, "Greedy function approximation", Ann. Stat. 29, 2001).

    `row_share` below 1 fits each tree on as many rows drawn at random (Friedman, "Stochastic gradient boosting", 2002).
    """

    kind: Literal["gradient_boosting"] = "gradient_boosting"
    trees: int = Field(default=100, ge=1, le=10_000)
    depth: int = Field(default=3, ge=1, le=16)
    learning_rate: float = Field(default=0.05, gt=0.0, le=1.0)
    leaf_rows_minimum: int = Field(default=50, ge=1)
    row_share: float = Field(default=1.0, gt=0.0, le=1.0)

    default_search: ClassVar[SearchSpace] = SearchSpace(
        {
            "trees": Range(low=20, high=200, log=True),
            "depth": Range(low=1, high=5),
            "learning_rate": Range(low=0.01, high=0.3, log=True),
            "leaf_rows_minimum": Range(low=5, high=100, log=True),
            "row_share": Range(low=0.5, high=1.0),
        }
    )

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> GradientBoostingModel:
        """As `Learner.fit`."""
        check_rows(features, labels)
        weighed = checked_weights(weights, labels)
        estimator = GradientBoostingClassifier(
            n_estimators=self.trees,
            max_depth=self.depth,
            learning_rate=self.learning_rate,
            min_samples_leaf=self.leaf_rows_minimum,
            subsample=self.row_share,
            random_state=seed,
        )
        exponents = _exponents(features)
        estimator.fit(_scaled(features, exponents), labels, sample_weight=weighed)
        trees = [tree.tree_ for tree in estimator.estimators_[:, 0]]
        _bring_thresholds_to_float32(trees, exponents)
        largest = sum(float(np.abs(tree.value[:, 0, 0]).max()) for tree in trees)
        unit = exact_unit(self.learning_rate * largest)
        for tree in trees:
            leaves = np.round(self.learning_rate * tree.value[:, 0, 0] / unit) * unit
            tree.value[:, 0, 0] = leaves / self.learning_rate
        return GradientBoostingModel(estimator)


def _exponents(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each column the power of two that brings its standard deviation to [1/2, 1), int64 [width]."""
    _, exponents = np.frexp(features.std(axis=0, dtype=np.float64))
    return np.asarray(-exponents, np.int64)


def _scaled(features: NDArray[np.float32], exponents: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(np.ldexp(features, exponents.astype(np.int32)), np.float32)


def _bring_thresholds_to_float32(trees: Iterable[Any], exponents: NDArray[np.int64]) -> None:
    """Put thresholds back into the features' units and round them down; a leaf's mean nothing and stay."""
    for tree in trees:
        branch = tree.children_left >= 0
        own = np.ldexp(tree.threshold[branch], -exponents[tree.feature[branch]])
        tree.threshold[branch] = round_down_to_float32(own)
