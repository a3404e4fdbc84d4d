"""What calibrations share: the interface, the clip, and when there is nothing to fit."""

import math
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

CLIP = 1e-6
LOGIT_LIMIT = math.log((1.0 - CLIP) / CLIP)
ROWS_MINIMUM = 10
SLOPE_LIMIT = 20.0

# Nodes of a graph in their order, and their constants.
Nodes = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


class Calibration(Protocol):
    """A fitted calibration: from log odds to probabilities, never turning their order over."""

    @property
    def identity_because(self) -> str:
        """Why nothing was fitted, so that it gives the scores' own probability; empty where it was."""

    def apply(self, raw_scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated P(up) of raw scores (log odds), float64 [n] to float64 [n]."""

    def onnx_nodes(self, raw: str, output: str) -> Nodes:
        """The same as nodes that take `raw` float64 [n, 1] and give `output` float64 [n, 1]."""


def nothing_to_fit(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> str:
    """Why no calibration can be fitted on clipped scores, float64 [n], and labels, int8 [n]; empty where one can."""
    if labels.size < ROWS_MINIMUM:
        return f"fewer than {ROWS_MINIMUM} rows"
    if (labels == labels[0]).all():
        return "one class only"
    if scores.max() == scores.min():
        return "all scores are the same"
    return ""


def clipped(raw_scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of probabilities kept in [1e-6, 1 - 1e-6], float64 [n]."""
    return np.clip(raw_scores, -LOGIT_LIMIT, LOGIT_LIMIT)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), float64 [n]; no overflow at either end."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0.0, 1.0, small) / (1.0 + small))


def clip_nodes(raw: str, output: str) -> Nodes:
    """`clipped` as nodes."""
    limits = [double("logit_low", -LOGIT_LIMIT), double("logit_high", LOGIT_LIMIT)]
    return [helper.make_node("Clip", [raw, "logit_low", "logit_high"], [output], name="clip_logit")], limits


def double(name: str, value: float) -> onnx.TensorProto:
    """A float64 constant."""
    return helper.make_tensor(name, TensorProto.DOUBLE, [], [value])
