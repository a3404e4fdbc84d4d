"""A small multilayer perceptron."""

import warnings
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from tickgate_training.errors import NotConverged
from tickgate_training.fit_weights import WeightsRefused
from tickgate_training.learners.base import Learner, check_rows, checked_weights, one_thread
from tickgate_training.learners.search import Range, SearchSpace


class PerceptronModel:
    """A fitted pipeline of StandardScaler and MLPClassifier, computing in float64."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.pipeline.n_features_in_)

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the output unit is given before its sigmoid: float32 [n, width] to float64 [n]."""
        # predict_proba ends in the sigmoid, whose inverse is lost where it rounds to 1.
        network = self.pipeline["classify"]
        values = np.asarray(self.pipeline["scale"].transform(features.astype(np.float64)), np.float64)
        with one_thread():
            for weights, biases in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
                values = values @ weights + biases
                values = np.tanh(values) if network.activation == "tanh" else np.maximum(values, 0.0)
            values = values @ network.coefs_[-1] + network.intercepts_[-1]
        return np.asarray(values[:, 0], np.float64)

    def importance(self) -> None:
        """A perceptron does not say."""
        return


class PerceptronConfig(Learner):
    """Hidden layers of equal size on standardised features, fitted to log loss with an L2 penalty by L-BFGS.

    The loss has many minima, and to stop on the way to one is a way to regularise: so a fit ends after `iterations`
    steps, or where none lowers the loss any more, and is the model either way, the same for the same rows and seed.
    Where not even the first step lowers the loss the coefficients are still the random ones: that is `NotConverged`.
    """

    kind: Literal["mlp"] = "mlp"
    units: int = Field(default=8, ge=1, le=256)
    layers: int = Field(default=1, ge=1, le=4)
    activation: Literal["tanh", "relu"] = "tanh"
    l2: float = Field(default=1.0, ge=0.0)
    iterations: int = Field(default=100, ge=1, le=10_000)

    default_search: ClassVar[SearchSpace] = SearchSpace(
        {
            "units": Range(low=4, high=32, log=True),
            "activation": ("tanh", "relu"),
            "l2": Range(low=1e-3, high=100.0, log=True),
            "iterations": Range(low=10, high=200, log=True),
        }
    )

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> PerceptronModel:
        """As `Learner.fit`; scikit-learn weighs a perceptron's rows from 1.7 on."""
        check_rows(features, labels)
        weighed = checked_weights(weights, labels)
        given = {}
        if weighed is not None:
            if not has_fit_parameter(MLPClassifier, "sample_weight"):
                raise WeightsRefused(self.kind, "scikit-learn's MLPClassifier does from 1.7 on; this one is older")
            given = {"scale__sample_weight": weighed, "classify__sample_weight": weighed}
        network = MLPClassifier(
            hidden_layer_sizes=(self.units,) * self.layers,
            activation=self.activation,
            solver="lbfgs",
            alpha=self.l2,
            max_iter=self.iterations,
            random_state=seed,
        )
        pipeline = Pipeline([("scale", StandardScaler()), ("classify", network)])
        with warnings.catch_warnings(), one_thread():
            warnings.simplefilter("ignore", ConvergenceWarning)  # see the rule above
            pipeline.fit(features.astype(np.float64), labels, **given)
        if network.n_iter_ == 0:
            raise NotConverged(self.kind, "no step lowers the loss")
        return PerceptronModel(pipeline)
