"""LightGBM's trees, by its converter, from a model text whose thresholds are float32 already.

LightGBM splits on float64 thresholds and ONNX on float32: rounded to nearest, half of them move up and rows change
sides. Here each is rounded down to float32 before conversion, so that x <= t holds for the same float32 x as before.
"""

import re

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from tickgate_server.models.package import INPUT_NAME
from tickgate_training.calibration.base import Nodes
from tickgate_training.export.nodes import TARGET_OPSET, widened
from tickgate_training.float32 import round_down_to_float32
from tickgate_training.learners import LightGBMModel

_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold: features no larger count as 0


def lightgbm_nodes(model: LightGBMModel, output: str) -> Nodes:
    """`features` to the raw score, float64 [n, 1], its sum in float32."""
    booster = lightgbm.Booster(model_str=as_raw_float32(model.booster.model_to_string()))
    inputs = [(INPUT_NAME, FloatTensorType([None, model.width]))]
    graph = convert_lightgbm(booster, initial_types=inputs, target_opset=TARGET_OPSET, zipmap=False).graph
    return [*graph.node, widened(graph.output[-1].name, output)], list(graph.initializer)


def as_raw_float32(model_text: str) -> str:
    """LightGBM's text of a binary model, rewritten: thresholds that are float32 and the raw score as its output.

    On float32 features the rewritten model's prediction is the raw score of the one before, bit for bit: the
    converter's own rounding has nothing left to do.
    """

    def rounded(line: re.Match[str]) -> str:
        thresholds = round_down_to_float32(np.array([float(word) for word in line[1].split()]))
        # LightGBM reads a feature of exactly -1e-35f as 0, which lies right of the split it makes there; ONNX does not.
        thresholds[thresholds == -_ZERO] = np.nextafter(-_ZERO, np.float32(-np.inf))
        return "threshold=" + " ".join(repr(float(value)) for value in thresholds)

    text = re.sub(r"^threshold=(.*)$", rounded, model_text, flags=re.MULTILINE)
    # The trees' lengths in bytes are no longer those; LightGBM reads on without them.
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^objective=binary.*$", "objective=regression", text, flags=re.MULTILINE)
    return text.replace("[objective: binary]", "[objective: regression]")
