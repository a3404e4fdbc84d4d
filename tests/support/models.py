"""Small learners of every kind, the real rows they are tried on, and where trees split."""

from functools import cache

import lightgbm
import numpy as np
from numpy.typing import NDArray
from tests.support.real_data import ticks

from tickgate_server.features import micro10
from tickgate_training import calibration
from tickgate_training.data.daily import NAMES, read_bars
from tickgate_training.data.table import values
from tickgate_training.float32 import round_down_to_float32
from tickgate_training.labels import fixed_horizon
from tickgate_training.learners import (
    GradientBoostingConfig,
    GradientBoostingModel,
    Learner,
    LightGBMConfig,
    LightGBMModel,
    LogisticConfig,
    Model,
    PerceptronConfig,
    RandomForestConfig,
    RandomForestModel,
    SgdLogisticConfig,
)

LEARNERS: dict[str, Learner] = {
    "lightgbm": LightGBMConfig(trees=30, leaves=7),
    "gradient_boosting": GradientBoostingConfig(trees=20),
    "random_forest": RandomForestConfig(trees=12, depth=5, leaf_rows_minimum=20),
    "logistic": LogisticConfig(),
    "sgd_logistic": SgdLogisticConfig(),
    "mlp": PerceptronConfig(iterations=30),
}
TREES = ("lightgbm", "gradient_boosting", "random_forest")
CALIBRATIONS: tuple[calibration.Kind, ...] = ("platt", "isotonic", "none")
Rows = tuple[NDArray[np.float32], NDArray[np.int8]]


@cache
def real_rows(name: str) -> Rows:
    """Every ready row of a capture or a set of daily bars, and its label or -1; not to be written to."""
    daily = name in NAMES
    frame = read_bars(name) if daily else ticks(name)
    stamps, prices, sizes = (values(frame, column) for column in ("exchange_ts_ns", "price", "size"))
    features = micro10.batch(stamps, prices, sizes, 0 if daily else 300_000_000_000)
    ready = np.isfinite(features).all(axis=1)
    rows = features[ready], fixed_horizon(prices, 1 if daily else 10).direction[ready]
    for array in rows:
        array.setflags(write=False)
    return rows


def split_points(model: Model) -> list[tuple[int, np.float32]]:
    """Feature and threshold of every split, the threshold rounded down to float32."""
    if isinstance(model, LightGBMModel):
        found = _of_booster(model.booster)
    elif isinstance(model, RandomForestModel | GradientBoostingModel):
        trees = [tree.tree_ for tree in np.ravel(model.estimator.estimators_)]
        found = [
            split
            for tree in trees
            for split in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True)
            if split[0] >= 0
        ]
    else:
        raise TypeError(type(model))
    return [(feature, round_down_to_float32(np.array([threshold]))[0]) for feature, threshold in found]


def _of_booster(booster: lightgbm.Booster) -> list[tuple[int, float]]:
    found = []
    for tree in booster.dump_model()["tree_info"]:
        nodes = [tree["tree_structure"]]
        while nodes:
            node = nodes.pop()
            if "split_feature" in node:
                found.append((node["split_feature"], node["threshold"]))
                nodes += [node["left_child"], node["right_child"]]
    return found
