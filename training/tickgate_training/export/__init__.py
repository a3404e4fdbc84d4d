"""From a fitted model with its calibration to one ONNX graph, and the proof that both say the same.

The graph takes `features` float32 [n, width] and gives `probability_up` float32 [n, 1]:

    features ─ the model's own nodes ─ raw score, float64 ─ the calibration's nodes, float64 ─ Cast ─ probability_up

Trees compare and sum in float32, as ONNX has them: their thresholds are rounded down to float32 first, so that x <= t
holds for the same float32 x as before. All else is float64, as in the models themselves. What is trees with nothing
after them but operators on single numbers is compiled by the server: LightGBM, random forests and gradient boosting
with Platt's calibration or none. Isotonic calibration is a row of ramps: those graphs stay with ONNX Runtime.
"""

from collections.abc import Callable
from typing import Any

from onnx import TensorProto, helper

from tickgate_server.models.package import OUTPUT_NAME
from tickgate_training.calibration import Calibration
from tickgate_training.calibration.base import Nodes
from tickgate_training.errors import TrainingError
from tickgate_training.export.dense import linear_nodes, perceptron_nodes
from tickgate_training.export.lightgbm_trees import as_raw_float32, lightgbm_nodes
from tickgate_training.export.nodes import model_of
from tickgate_training.export.parity import PARITY_TOLERANCE, check_parity, probabilities
from tickgate_training.export.sklearn_trees import gradient_boosting_nodes, random_forest_nodes
from tickgate_training.float32 import round_down_to_float32
from tickgate_training.learners import (
    GradientBoostingModel,
    LightGBMModel,
    LinearModel,
    Model,
    PerceptronModel,
    RandomForestModel,
)
from tickgate_training.meta import Primary

_CONVERTERS: tuple[tuple[type[Any], Callable[[Any, str], Nodes]], ...] = (
    (LightGBMModel, lightgbm_nodes),
    (RandomForestModel, random_forest_nodes),
    (GradientBoostingModel, gradient_boosting_nodes),
    (LinearModel, linear_nodes),
    (PerceptronModel, perceptron_nodes),
)


class NotExportable(TrainingError):
    """There is no converter for a kind of model.

    Attributes:
        model: Its class.
    """

    def __init__(self, model: str) -> None:
        known = ", ".join(kind.__name__ for kind, _ in _CONVERTERS)
        super().__init__(f"no ONNX graph can be made of a {model}; known: {known}")
        self.model = model


def export(model: Model, calibration: Calibration, primary: Primary | None = None) -> bytes:
    """The model and its calibration as a serialized ONNX graph; the same bytes for the same model.

    With a primary the calibrated score is P(the primary's side is right), and the graph computes the side as well; see
    `tickgate_training.meta`.

    Raises:
        NotExportable: The model is of no known kind.
    """
    for kind, convert in _CONVERTERS:
        if isinstance(model, kind):
            nodes, constants = convert(model, "raw_score")
            break
    else:
        raise NotExportable(type(model).__name__)
    calibrated, more = calibration.onnx_nodes("raw_score", "calibrated")
    up = "calibrated"
    if primary is not None:
        turned, constants_of_it = primary.onnx_nodes("calibrated", "up")
        calibrated, more, up = [*calibrated, *turned], [*more, *constants_of_it], "up"
    narrow = helper.make_node("Cast", [up], [OUTPUT_NAME], name="float32", to=TensorProto.FLOAT)
    return model_of([*nodes, *calibrated, narrow], [*constants, *more], model.width)


__all__ = [
    "PARITY_TOLERANCE",
    "NotExportable",
    "as_raw_float32",
    "check_parity",
    "export",
    "probabilities",
    "round_down_to_float32",
]
