"""From a fitted model with its calibration to one ONNX graph, and the proof that both say the same.

The graph takes `features` float32 [n, width] and gives `probability_up` float32 [n, 1]. The converters are asked for
the raw score alone (no label, no ZipMap); the calibration is appended as nodes of our own:

    features ─ trees or scaled linear function ─ Clip ─ Mul a ─ Add b ─ Sigmoid ─ probability_up

LightGBM splits on float64 thresholds and ONNX on float32: rounded to nearest, half of them move up and rows change
sides. Here each is rounded down to float32 before conversion, so that x <= t holds for the same float32 x as before.
"""

import re
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGBMFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME
from tickgate_training.calibration import LOGIT_LIMIT, Platt
from tickgate_training.errors import ParityBroken
from tickgate_training.learners import LightGBMModel, LogisticModel

TARGET_OPSET = 15  # the newest that both converters write
ML_OPSET = 3
PARITY_TOLERANCE = 1e-5
_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold: features no larger count as 0


def export(model: LightGBMModel | LogisticModel, calibration: Platt) -> bytes:
    """The model and its calibration as a serialized ONNX graph."""
    converted = _convert_lightgbm(model) if isinstance(model, LightGBMModel) else _convert_logistic(model)
    nodes = list(converted.graph.node)
    initializers = list(converted.graph.initializer)
    raw = converted.graph.output[-1].name
    if isinstance(model, LogisticModel):  # gives [n, 2], the scores of down and up
        initializers.append(helper.make_tensor("up_column", TensorProto.INT64, [1], [1]))
        nodes.append(helper.make_node("Gather", [raw, "up_column"], ["raw_score"], name="up_only", axis=1))
        raw = "raw_score"
    calibrated, constants = _calibration_nodes(raw, calibration)
    graph = helper.make_graph(
        _needed([*nodes, *calibrated]),
        "tickgate",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, model.width])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [None, 1])],
        initializer=[*initializers, *constants],
    )
    opsets = [helper.make_opsetid("", TARGET_OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    document = helper.make_model(
        graph, opset_imports=opsets, ir_version=converted.ir_version, producer_name="tickgate_training"
    )
    onnx.checker.check_model(document, full_check=True)
    return bytes(document.SerializeToString())


def _calibration_nodes(raw: str, calibration: Platt) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    values = {
        "logit_low": -LOGIT_LIMIT,
        "logit_high": LOGIT_LIMIT,
        "platt_slope": calibration.slope,
        "platt_intercept": calibration.intercept,
    }
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in values.items()]
    nodes = [
        helper.make_node("Clip", [raw, "logit_low", "logit_high"], ["logit"], name="clip_logit"),
        helper.make_node("Mul", ["logit", "platt_slope"], ["scaled"], name="platt_scale"),
        helper.make_node("Add", ["scaled", "platt_intercept"], ["shifted"], name="platt_shift"),
        helper.make_node("Sigmoid", ["shifted"], [OUTPUT_NAME], name="platt_sigmoid"),
    ]
    return nodes, constants


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, in order, that the output depends on: what made labels goes."""
    wanted, kept = {OUTPUT_NAME}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _convert_logistic(model: LogisticModel) -> onnx.ModelProto:
    options: dict[Any, dict[str, bool]] = {LogisticRegression: {"zipmap": False, "raw_scores": True}}
    inputs = [(INPUT_NAME, FloatTensorType([None, model.width]))]
    converted: onnx.ModelProto = to_onnx(
        model.pipeline, initial_types=inputs, target_opset=TARGET_OPSET, options=options
    )
    return converted


def _convert_lightgbm(model: LightGBMModel) -> onnx.ModelProto:
    booster = lightgbm.Booster(model_str=as_raw_float32(model.booster.model_to_string()))
    inputs = [(INPUT_NAME, LightGBMFloat([None, model.width]))]
    converted: onnx.ModelProto = convert_lightgbm(
        booster, initial_types=inputs, target_opset=TARGET_OPSET, zipmap=False
    )
    return converted


def round_down_to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: float64 [n], finite, to float32 [n]."""
    rounded = values.astype(np.float32)
    up = rounded.astype(np.float64) > values
    rounded[up] = np.nextafter(rounded[up], np.float32(-np.inf))
    return rounded


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


def probabilities(graph: bytes, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of the rows on one thread: float32 [n, width] to float32 [n]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    outputs = session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(features, np.float32)})
    return np.asarray(outputs[0], np.float32)[:, 0]


def check_parity(
    graph: bytes,
    reference: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    features: NDArray[np.float32],
    threshold: float,
) -> float:
    """Compare the graph with its source on every row; returns the largest absolute difference.

    Args:
        graph: Serialized ONNX.
        reference: The source model with its calibration: float32 [n, width] to float64 [n].
        features: Rows to compare on, float32 [n, width], all finite.
        threshold: Decision threshold on the confidence max(p, 1 - p).

    Raises:
        ParityBroken: A row differs by more than `PARITY_TOLERANCE` or not by a number at all, or its decision (long,
            short, none) is another although its confidence is further than the tolerance from the threshold.
    """
    expected = reference(features)
    found = probabilities(graph, features).astype(np.float64)
    difference = np.abs(found - expected)
    if not (difference <= PARITY_TOLERANCE).all():
        row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        raise ParityBroken(
            row, float(found[row]), float(expected[row]), f"at most {PARITY_TOLERANCE:g} may lie between"
        )
    confidence = np.maximum(expected, 1.0 - expected)
    clear = np.abs(confidence - threshold) > PARITY_TOLERANCE
    other = clear & (_side(found, threshold) != _side(expected, threshold))
    if other.any():
        row = int(np.argmax(other))
        rule = f"they lie on different sides of the threshold {threshold:g}"
        raise ParityBroken(row, float(found[row]), float(expected[row]), rule)
    return float(difference.max(initial=0.0))


def _side(p: NDArray[np.float64], threshold: float) -> NDArray[np.int8]:
    """1 long, -1 short, 0 none."""
    acts = np.maximum(p, 1.0 - p) >= threshold
    return np.where(acts, np.where(p >= 0.5, 1, -1), 0).astype(np.int8)
