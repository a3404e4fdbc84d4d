"""Learners behind one small interface: fit on float32 features, give the log odds of an up move.

Log odds rather than probabilities, because calibration and export start from them and lose nothing on the way; the
uncalibrated probability is their sigmoid. Both learners give the same model for the same rows and seed.
"""

import warnings
from typing import Annotated, Any, Literal, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tickgate_training.calibration import sigmoid
from tickgate_training.errors import FeatureUndefined, NotConverged, OneClassOnly, TooFewRows
from tickgate_training.strict import Strict

TRAIN_ROWS_MINIMUM = 20


class Model(Protocol):
    """A fitted model."""

    @property
    def width(self) -> int:
        """Number of features."""

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log odds of an up move, uncalibrated: float32 [n, width] to float64 [n]."""


def probabilities(model: Model, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Uncalibrated P(up): float32 [n, width] to float64 [n]."""
    return sigmoid(model.raw_scores(features))


class LightGBMModel:
    """A fitted LightGBM booster; its features were float32 when its split thresholds were chosen."""

    def __init__(self, booster: lightgbm.Booster, threads: int = 1) -> None:
        self.booster = booster
        self._threads = threads

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.booster.num_feature())

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of the trees' leaves: float32 [n, width] to float64 [n]."""
        return np.asarray(self.booster.predict(features, raw_score=True, num_threads=self._threads), np.float64)


class LogisticModel:
    """A fitted pipeline of StandardScaler and LogisticRegression, computing in float64."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.pipeline.n_features_in_)

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The linear function of the scaled features: float32 [n, width] to float64 [n]."""
        return np.asarray(self.pipeline.decision_function(features.astype(np.float64)), np.float64)


class LightGBMConfig(Strict):
    """Gradient-boosted trees (Ke et al., "LightGBM", NeurIPS 2017) with binary log loss.

    The defaults suit some thousand ticks; windows of 252 daily bars want about 60 trees of 7 leaves.
    """

    kind: Literal["lightgbm"] = "lightgbm"
    trees: int = Field(default=200, ge=1, le=10_000)
    leaves: int = Field(default=15, ge=2, le=1024)
    learning_rate: float = Field(default=0.05, gt=0.0, le=1.0)
    leaf_rows_minimum: int = Field(default=50, ge=1)
    l2: float = Field(default=1.0, ge=0.0)
    # More threads than one only pay on many thousand rows, and cost much on a busy machine.
    threads: int = Field(default=1, ge=1, le=256)

    def fit(self, features: NDArray[np.float32], labels: NDArray[np.int8], seed: int) -> LightGBMModel:
        """Fit on float32 [n, width] and int8 [n]; errors as in `check_rows`."""
        check_rows(features, labels)
        parameters: dict[str, Any] = {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.leaf_rows_minimum,
            "lambda_l2": self.l2,
            "num_threads": self.threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        quiet = {"verbosity": -1, "num_threads": self.threads}
        data = lightgbm.Dataset(features, labels, params=quiet, free_raw_data=True)
        return LightGBMModel(lightgbm.train(parameters, data, num_boost_round=self.trees), self.threads)


class LogisticConfig(Strict):
    """Logistic regression on standardised features, with an L2 penalty of strength 1 / `c`."""

    kind: Literal["logistic"] = "logistic"
    c: float = Field(default=1.0, gt=0.0)

    def fit(self, features: NDArray[np.float32], labels: NDArray[np.int8], seed: int) -> LogisticModel:
        """Fit on float32 [n, width] and int8 [n]; errors as in `check_rows`, and `NotConverged`."""
        check_rows(features, labels)
        pipeline = Pipeline(
            [
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=self.c, max_iter=2000, random_state=seed)),
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                pipeline.fit(features.astype(np.float64), labels)
            except ConvergenceWarning as warning:
                raise NotConverged(self.kind, " ".join(str(warning).split())) from warning
        return LogisticModel(pipeline)


LearnerConfig = Annotated[LightGBMConfig | LogisticConfig, Field(discriminator="kind")]


def check_rows(features: NDArray[np.float32], labels: NDArray[np.int8]) -> None:
    """Refuse rows that nothing can be learned from.

    Raises:
        TooFewRows: Fewer than `TRAIN_ROWS_MINIMUM`.
        FeatureUndefined: A feature is not finite in some row.
        OneClassOnly: All labels are the same.
    """
    if labels.size < TRAIN_ROWS_MINIMUM:
        raise TooFewRows("fit", int(labels.size), TRAIN_ROWS_MINIMUM)
    finite = np.isfinite(features)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise FeatureUndefined(f"column {int(column)}", int(row))
    if (labels == labels[0]).all():
        raise OneClassOnly(int(labels[0]), int(labels.size))
