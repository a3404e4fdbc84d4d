"""The proof that a graph says what its source says, row by row."""

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME
from tickgate_training.errors import ParityBroken

PARITY_TOLERANCE = 1e-5


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
