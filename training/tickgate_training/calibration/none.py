"""No calibration: the scores' own probability, clipped as all are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from tickgate_training.calibration.base import Nodes, clip_nodes, clipped, sigmoid


@dataclass(frozen=True, slots=True)
class Uncalibrated:
    """sigmoid(clip(score)).

    Attributes:
        identity_because: Why.
    """

    identity_because: str

    def apply(self, raw_scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(up) of raw scores (log odds), float64 [n] to float64 [n]."""
        return sigmoid(clipped(raw_scores))

    def onnx_nodes(self, raw: str, output: str) -> Nodes:
        """Clip and Sigmoid; see `Calibration.onnx_nodes`."""
        nodes, constants = clip_nodes(raw, "logit")
        return [*nodes, helper.make_node("Sigmoid", ["logit"], [output], name="sigmoid")], constants
