"""Learners behind one small interface: fit on float32 features, give the log odds of an up move.

Log odds rather than probabilities, because calibration and export start from them and lose nothing on the way; the
uncalibrated probability is their sigmoid. Every learner gives the same model for the same rows, weights and seed.

| kind | what |
|---|---|
| `lightgbm` | gradient-boosted trees of LightGBM |
| `gradient_boosting`, `random_forest` | scikit-learn's tree ensembles |
| `logistic`, `sgd_logistic` | linear functions; the second can be updated a few rows at a time |
| `mlp` | a small perceptron |
"""

from typing import Annotated

from pydantic import Field

from tickgate_training.learners.base import (
    TRAIN_ROWS_MINIMUM,
    Learner,
    Model,
    check_finite,
    check_rows,
    probabilities,
)
from tickgate_training.learners.boosted import LightGBMConfig, LightGBMModel
from tickgate_training.learners.forests import (
    GradientBoostingConfig,
    GradientBoostingModel,
    RandomForestConfig,
    RandomForestModel,
)
from tickgate_training.learners.linear import (
    LinearModel,
    LogisticConfig,
    LogisticModel,
    SgdLogisticConfig,
    SgdLogisticModel,
)
from tickgate_training.learners.perceptron import PerceptronConfig, PerceptronModel
from tickgate_training.learners.sampling import Suggests, sample, space_of
from tickgate_training.learners.search import Range, SearchSpace

LearnerConfig = Annotated[
    LightGBMConfig
    | LogisticConfig
    | RandomForestConfig
    | GradientBoostingConfig
    | PerceptronConfig
    | SgdLogisticConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "TRAIN_ROWS_MINIMUM",
    "GradientBoostingConfig",
    "GradientBoostingModel",
    "Learner",
    "LearnerConfig",
    "LightGBMConfig",
    "LightGBMModel",
    "LinearModel",
    "LogisticConfig",
    "LogisticModel",
    "Model",
    "PerceptronConfig",
    "PerceptronModel",
    "RandomForestConfig",
    "RandomForestModel",
    "Range",
    "SearchSpace",
    "SgdLogisticConfig",
    "SgdLogisticModel",
    "Suggests",
    "check_finite",
    "check_rows",
    "probabilities",
    "sample",
    "space_of",
]
