"""What the converters share. Graphs are made of plain nodes and constants; a raw score is float64 [n, 1]."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME

TARGET_OPSET = 15  # the newest that LightGBM's converter writes
ML_OPSET = 3
IR_VERSION = 8  # the one of that opset


def widened(name: str, output: str) -> onnx.NodeProto:
    """A Cast from float32 to float64."""
    return helper.make_node("Cast", [name], [output], name=f"{output}_float64", to=TensorProto.DOUBLE)


def constant(name: str, values: NDArray[np.float64] | float) -> onnx.TensorProto:
    """A float64 constant of any shape."""
    return numpy_helper.from_array(np.asarray(values, np.float64), name)


def model_of(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], width: int) -> bytes:
    """A checked model from `features` float32 [n, width] to `probability_up` float32 [n, 1]."""
    graph = helper.make_graph(
        _needed(nodes),
        "tickgate",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [None, 1])],
        initializer=list(constants),
    )
    opsets = [helper.make_opsetid("", TARGET_OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    document = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tickgate_training")
    onnx.checker.check_model(document, full_check=True)
    return bytes(document.SerializeToString(deterministic=True))


def _needed(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, in order, that the output depends on: what made labels goes."""
    wanted, kept = {OUTPUT_NAME}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
