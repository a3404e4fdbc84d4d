"""What all learners share: the interface, the checks of what they are given, and one thread for linear algebra."""

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from tickgate_training import fit_weights
from tickgate_training.calibration import sigmoid
from tickgate_training.errors import FeatureUndefined, OneClassOnly, TooFewRows
from tickgate_training.learners.search import SearchSpace, problems
from tickgate_training.strict import Strict

TRAIN_ROWS_MINIMUM = 20


class Model(Protocol):
    """A fitted model."""

    @property
    def width(self) -> int:
        """Number of features."""

    def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log odds of an up move, uncalibrated: float32 [n, width] to float64 [n]."""

    def importance(self) -> NDArray[np.float64] | None:
        """How much each feature counts, float64 [width] from 0 up; None where the model itself cannot say.

        The unit is the kind's own, so proportions within one model, or between models of one kind, are what to read.
        """


class Learner(Strict, ABC):
    """What a model is fitted with, and the space to search for better values.

    Attributes:
        search: Fields and the values they may take; None is the kind's `default_search`.
    """

    search: SearchSpace | None = None

    default_search: ClassVar[SearchSpace]
    # Fields that are no hyper-parameters.
    not_searched: ClassVar[AbstractSet[str]] = frozenset({"kind", "search"})

    @model_validator(mode="after")
    def _search_is_of_its_fields(self) -> "Learner":
        found = () if self.search is None else problems(self, self.search, self.not_searched)
        if found:
            raise ValueError("search: " + "; ".join(found))
        return self

    @abstractmethod
    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int8],
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> Model:
        """Fit on one thread; the same rows, weights and seed give the same model.

        Args:
            features: float32 [n, width], all finite.
            labels: 1 up, 0 down, int8 [n].
            seed: From 0 to 2^31 - 1.
            weights: Of the rows, float64 [n], from 0 up; only their proportions count. None weighs all the same.

        Raises:
            TrainingError: As in `check_rows`; `WeightsInvalid`; `WeightsRefused` by a learner that cannot weigh rows;
                `NotConverged` where the learner says so.
        """


def probabilities(model: Model, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Uncalibrated P(up): float32 [n, width] to float64 [n]."""
    return sigmoid(model.raw_scores(features))


def check_rows(features: NDArray[np.float32], labels: NDArray[np.int8]) -> None:
    """Refuse rows that nothing can be learned from.

    Raises:
        TooFewRows: Fewer than `TRAIN_ROWS_MINIMUM`.
        FeatureUndefined: A feature is not finite in some row, or in none.
        OneClassOnly: All labels are the same.
    """
    if labels.size < TRAIN_ROWS_MINIMUM:
        raise TooFewRows("fit", int(labels.size), TRAIN_ROWS_MINIMUM)
    check_finite(features)
    if (labels == labels[0]).all():
        raise OneClassOnly(int(labels[0]), int(labels.size))


def check_finite(features: NDArray[np.float32]) -> None:
    """Raise `FeatureUndefined` for a column without any finite value, or else for the first value that is not."""
    finite = np.isfinite(features)
    if finite.all():
        return
    empty = np.flatnonzero(~finite.any(axis=0))
    if empty.size:
        raise FeatureUndefined(f"column {int(empty[0])}", None)
    row, column = np.argwhere(~finite)[0]
    raise FeatureUndefined(f"column {int(column)}", int(row))


def checked_weights(weights: NDArray[np.float64] | None, labels: NDArray[np.int8]) -> NDArray[np.float64] | None:
    """Weights scaled to a mean of 1, float64 [n]; None for none.

    Raises:
        WeightsInvalid: See `fit_weights.checked`.
        OneClassOnly: All rows that weigh anything have one label.
    """
    if weights is None:
        return None
    scaled = fit_weights.checked(weights, int(labels.size))
    counted = labels[scaled > 0.0]
    if (counted == counted[0]).all():
        raise OneClassOnly(int(counted[0]), int(counted.size))
    return scaled


@cache
def _pools() -> Any:
    # Looking for the loaded libraries takes milliseconds, as long as a small fit: once a process.
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Keeps BLAS and OpenMP to one thread: how they share a sum out decides its last bits. Takes some 20 us."""
    limit: AbstractContextManager[Any] = _pools().limit(limits=1)
    return limit
