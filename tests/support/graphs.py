"""ONNX models of any inputs and outputs, and repositories of them in a plain layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# By the protocol's name: ONNX's, and numpy's.
TYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}
Shape = Sequence[int | str | None]
# Name, datatype and shape.
Tensor = tuple[str, str, Shape]


def model_of(nodes: Sequence[Any], inputs: Sequence[Tensor], outputs: Sequence[Tensor], **constants: Any) -> bytes:
    """A graph of one's own; constants are arrays by name."""

    def info(tensor: Tensor) -> Any:
        name, datatype, shape = tensor
        return helper.make_tensor_value_info(name, TYPES[datatype][0], shape)

    graph = helper.make_graph(
        list(nodes),
        "g",
        [info(one) for one in inputs],
        [info(one) for one in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def add_sub(datatype: str = "INT32", width: int = 16) -> bytes:
    """OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, [N, width]: what Triton's first example serves."""
    shape = ("N", width)
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return model_of(
        nodes,
        [("INPUT0", datatype, shape), ("INPUT1", datatype, shape)],
        [("OUTPUT0", datatype, shape), ("OUTPUT1", datatype, shape)],
    )


def identity(datatype: str, shape: Shape = (None,)) -> bytes:
    """y = x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return model_of([node], [("x", datatype, shape)], [("y", datatype, shape)])


def long(nodes: int, numbers: int = 50_000) -> bytes:
    """y = x after a chain of nodes that each take the sine of so many numbers, none of them 0.5 ms: it can stop."""
    chain = [
        helper.make_node("Expand", ["x", "shape"], ["s0"]),
        *(helper.make_node("Sin", [f"s{node}"], [f"s{node + 1}"]) for node in range(nodes)),
        helper.make_node("ReduceSum", [f"s{nodes}", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    return model_of(
        chain,
        [("x", "FP32", (1, 1))],
        [("y", "FP32", (1, 1))],
        shape=np.array([1, numbers], np.int64),
        axes=np.array([1], np.int64),
        nothing=np.float32(0.0),
    )


def place(repository: Path, name: str, model: bytes, *, version: int = 1, config: str | None = None) -> Path:
    """Put a model where a plain layout has it; its version's folder."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    if config is not None:
        (folder.parent / "config.pbtxt").write_text(config)
    return folder
