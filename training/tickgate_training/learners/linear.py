"""Linear functions of standardised features: logistic regression, fitted at once or by stochastic gradient descent."""

import copy
import warnings
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tickgate_training import fit_weights
from tickgate_training.errors import NotConverged, TooFewRows
from tickgate_training.learners.base import Learner, check_finite, check_rows, checked_weights, one_thread
from tickgate_training.learners.search import Range, SearchSpace


class LinearModel:
    """A fitted pipeline of StandardScaler and a linear classifier, computing in float64."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.pipeline.n_features_in_)

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The linear function of the scaled features: float32 [n, width] to float64 [n]."""
        with one_thread():
            return np.asarray(self.pipeline.decision_function(features.astype(np.float64)), np.float64)

    def importance(self) -> NDArray[np.float64]:
        """Size of each coefficient times its feature's standard deviation, float64 [width]: log odds a deviation."""
        return np.abs(np.asarray(self.pipeline["classify"].coef_[0], np.float64))


class LogisticModel(LinearModel):
    """Logistic regression at its optimum."""


class SgdLogisticModel(LinearModel):
    """Logistic regression that can go on learning, a few rows at a time."""

    def updated(
        self, features: NDArray[np.float32], labels: NDArray[np.int8], weights: NDArray[np.float64] | None = None
    ) -> "SgdLogisticModel":
        """A model one pass further on; this one stays as it is, and so do the mean and deviation that scale features.

        Args:
            features: float32 [n, width], n at least 1; all finite.
            labels: 1 up, 0 down, int8 [n]; of one class only is fine.
            weights: float64 [n]; each is relative to the mean of these rows. None weighs all the same.

        Raises:
            TooFewRows: There is no row.
            FeatureUndefined: A feature is not finite.
            WeightsInvalid: See `fit_weights.checked`.
        """
        if not labels.size:
            raise TooFewRows("update", 0, 1)
        check_finite(features)
        weighed = None if weights is None else fit_weights.checked(weights, int(labels.size))
        pipeline = copy.deepcopy(self.pipeline)
        with one_thread():
            scaled = pipeline["scale"].transform(features.astype(np.float64))
            pipeline["classify"].partial_fit(scaled, labels, sample_weight=weighed)
        return SgdLogisticModel(pipeline)


class LogisticConfig(Learner):
    """Logistic regression on standardised features, with an L2 penalty of strength 1 / `c`."""

    kind: Literal["logistic"] = "logistic"
    c: float = Field(default=1.0, gt=0.0)

    default_search: ClassVar[SearchSpace] = SearchSpace({"c": Range(low=1e-4, high=100.0, log=True)})

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> LogisticModel:
        """As `Learner.fit`; raises `NotConverged` where the optimum is not reached in 2000 steps."""
        check_rows(features, labels)
        classifier = LogisticRegression(C=self.c, max_iter=2000, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                return LogisticModel(_fit(classifier, features, labels, weights))
            except ConvergenceWarning as warning:
                raise NotConverged(self.kind, " ".join(str(warning).split())) from warning


class SgdLogisticConfig(Learner):
    """Logistic regression by stochastic gradient descent on standardised features: what can be updated row by row.

    A constant step over a fixed number of passes, so that there is no convergence to miss: the iterate keeps moving
    around the optimum, and keeps following it where it moves. `averaged` takes the mean over all iterates (Polyak and
    Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30, 1992): closer to the
    optimum of rows that stay the same, slower to leave it.
    """

    kind: Literal["sgd_logistic"] = "sgd_logistic"
    l2: float = Field(default=1e-3, ge=0.0)
    learning_rate: float = Field(default=0.01, gt=0.0, le=1.0)
    epochs: int = Field(default=20, ge=1, le=10_000)
    averaged: bool = True

    default_search: ClassVar[SearchSpace] = SearchSpace(
        {"l2": Range(low=1e-5, high=1.0, log=True), "learning_rate": Range(low=1e-4, high=0.1, log=True)}
    )

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> SgdLogisticModel:
        """As `Learner.fit`."""
        check_rows(features, labels)
        classifier = SGDClassifier(
            loss="log_loss",
            alpha=self.l2,
            learning_rate="constant",
            eta0=self.learning_rate,
            max_iter=self.epochs,
            tol=None,
            average=self.averaged,
            random_state=seed,
        )
        return SgdLogisticModel(_fit(classifier, features, labels, weights))


def _fit(
    classifier: LogisticRegression | SGDClassifier,
    features: NDArray[np.float32],
    labels: NDArray[np.int8],
    weights: NDArray[np.float64] | None,
) -> Pipeline:
    """Fit the classifier on standardised features; weights count for mean and deviation too."""
    weighed = checked_weights(weights, labels)
    given = {} if weighed is None else {"scale__sample_weight": weighed, "classify__sample_weight": weighed}
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", classifier)])
    with one_thread():
        pipeline.fit(features.astype(np.float64), labels, **given)
    return pipeline
