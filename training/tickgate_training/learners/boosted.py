"""LightGBM."""

import re
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tickgate_training.float32 import exact_unit
from tickgate_training.learners.base import Learner, check_rows, checked_weights
from tickgate_training.learners.search import Range, SearchSpace


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

    def importance(self) -> NDArray[np.float64]:
        """Sum of the gains of a feature's splits, float64 [width]."""
        return np.asarray(self.booster.feature_importance(importance_type="gain"), np.float64)


class LightGBMConfig(Learner):
    """Gradient-boosted trees (Ke et al., "LightGBM", NeurIPS 2017) with binary log loss.

    Each leaf is rounded as `float32.exact_unit` says, by at most 2^-24 of the largest score that the trees can give.

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

    not_searched: ClassVar[AbstractSet[str]] = frozenset({"kind", "search", "threads"})
    default_search: ClassVar[SearchSpace] = SearchSpace(
        {
            "trees": Range(low=20, high=200, log=True),
            "leaves": Range(low=3, high=31, log=True),
            "learning_rate": Range(low=0.01, high=0.3, log=True),
            "leaf_rows_minimum": Range(low=5, high=100, log=True),
            "l2": Range(low=1e-3, high=100.0, log=True),
        }
    )

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> LightGBMModel:
        """As `Learner.fit`; the same model comes of any number of threads."""
        return self._train(features, labels, seed, weights, None)

    def continued(
        self,
        model: LightGBMModel,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> LightGBMModel:
        """The trees of a model and `trees` more, fitted on what those leave over (LightGBM's `init_model`).

        Args, returns and raises as `fit`; `model` stays as it is, and has the same features.
        """
        return self._train(features, labels, seed, weights, model)

    def _train(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None,
        before: LightGBMModel | None,
    ) -> LightGBMModel:
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
        weighed = checked_weights(weights, labels)
        data = lightgbm.Dataset(features, labels, weight=weighed, params=quiet, free_raw_data=True)
        first = None if before is None else before.booster
        booster = lightgbm.train(parameters, data, num_boost_round=self.trees, init_model=first)
        _make_sums_exact(booster)
        return LightGBMModel(booster, self.threads)


def _make_sums_exact(booster: lightgbm.Booster) -> None:
    """Round every leaf so that float32 adds them as float64 does."""
    lines = re.findall(r"^leaf_value=(.*)$", booster.model_to_string(), flags=re.MULTILINE)
    trees = [np.array(line.split(), np.float64) for line in lines]
    unit = exact_unit(sum(float(np.abs(leaves).max()) for leaves in trees))
    for tree, leaves in enumerate(trees):
        for leaf, value in enumerate((np.round(leaves / unit) * unit).tolist()):
            booster.set_leaf_output(tree, leaf, value)
