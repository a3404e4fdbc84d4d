"""Reads an ONNX graph that is trees and a few operators after them, or says why it is not one.

One tree ensemble (`forest_trees`) must read the features as they come in, and what follows must be elementwise
operators on single columns: these become the program of `forest_tail`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tickgate_server.models.forest_tail import Op, Tail
from tickgate_server.models.forest_trees import TREES, Trees, read_trees, refuse
from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME

_BINARY = {"Add": Op.ADD, "Sub": Op.SUB, "Mul": Op.MUL, "Div": Op.DIV}
_UNARY: dict[tuple[str, int], Op] = {
    ("Neg", TensorProto.FLOAT): Op.NEG,
    ("Neg", TensorProto.DOUBLE): Op.NEG,
    ("Log", TensorProto.FLOAT): Op.LOG32,
    ("Log", TensorProto.DOUBLE): Op.LOG64,
    ("Exp", TensorProto.DOUBLE): Op.EXP64,
    ("Sigmoid", TensorProto.FLOAT): Op.SIGMOID32,
    ("Sigmoid", TensorProto.DOUBLE): Op.SIGMOID64,
}
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, slots=True)
class _Columns:
    """A tensor [N, columns] or [N]: its element type and the register of each column."""

    element: int
    registers: tuple[int, ...]


def read_graph(model: bytes) -> tuple[Trees, Tail]:
    """The trees of a graph that ONNX Runtime opens, and the program for what comes after them.

    Raises:
        Unsupported: It is not trees with elementwise operators after them, or has something not known here.
    """
    return _Reader(onnx.load_model_from_string(model).graph).read()


class _Reader:
    """One pass over the nodes that the output depends on, in the graph's order."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._values: dict[str, _Columns] = {}
        self._tail = Tail()
        self._trees: Trees | None = None

    def read(self) -> tuple[Trees, Tail]:
        nodes = self._needed()
        # Said first: a graph without trees would else be refused for the first operator that happens to be in it.
        found = sum(node.op_type in TREES for node in nodes)
        if found != 1:
            refuse(f"has {found} tree ensembles that its output depends on, expected one")
        for node in nodes:
            self._read(node)
        output = self._columns(OUTPUT_NAME, f"output {OUTPUT_NAME!r}")
        if self._trees is None or output.element != TensorProto.FLOAT or len(output.registers) != 1:
            refuse(f"output {OUTPUT_NAME!r} is not one float32 column")
        self._tail.emit(Op.COPY, output.registers[0], narrow=True)
        return self._trees, self._tail

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes that the output depends on: what makes labels is left out."""
        wanted, kept = {OUTPUT_NAME}, []
        for node in reversed(self._graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]

    def _read(self, node: onnx.NodeProto) -> None:
        if node.op_type in TREES and node.domain == "ai.onnx.ml":
            if node.input[0] != INPUT_NAME:
                refuse(f"its trees take {node.input[0]!r}, expected {INPUT_NAME!r} as it comes in")
            self._trees, columns = read_trees(node, self._tail)
            self._values[node.output[-1]] = _Columns(TensorProto.FLOAT, columns)
        elif node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            self._constants[node.output[0]] = (
                numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
            )
        else:
            self._values[node.output[0]] = self._apply(node)

    def _apply(self, node: onnx.NodeProto) -> _Columns:  # noqa: PLR0911 - one return a kind of operator
        what = f"operator {node.op_type}"
        if node.domain not in {"", "ai.onnx"} and node.op_type != "ArrayFeatureExtractor":
            refuse(f"{what} of {node.domain} is not known here")
        operand = self._columns(node.input[0], what) if node.input else refuse(f"{what} has no input")
        if node.op_type == "Identity":
            return operand
        if node.op_type in _RESHAPING:
            return operand if len(operand.registers) == 1 else refuse(f"{what} of more than one column")
        if node.op_type in {"Gather", "ArrayFeatureExtractor"}:
            return self._gather(node, operand)
        if node.op_type == "Slice":
            return self._slice(node, operand)
        if node.op_type == "Cast":
            return self._cast(node, operand)
        if node.op_type == "Clip":
            return self._clip(node, operand)
        if node.op_type in _BINARY:
            return self._binary(_BINARY[node.op_type], operand, self._columns(node.input[1], what), what)
        if (node.op_type, operand.element) in _UNARY:
            op = _UNARY[node.op_type, operand.element]
            return self._each(op, operand, operand.element)
        return refuse(f"{what} of {TensorProto.DataType.Name(operand.element)} is not known here")

    def _columns(self, name: str, what: str) -> _Columns:
        if name in self._values:
            return self._values[name]
        if name not in self._constants:
            refuse(f"{what} takes {name!r}, which the trees do not give")
        value = self._constants[name]
        if value.size != 1 or value.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
            refuse(f"{what} takes the constant {name!r} {value.dtype} {value.shape}, expected one float32 or float64")
        element = TensorProto.FLOAT if value.dtype == np.float32 else TensorProto.DOUBLE
        self._values[name] = _Columns(element, (self._tail.constant(float(value.reshape(-1)[0])),))
        return self._values[name]

    def _integers(self, node: onnx.NodeProto, position: int) -> list[int]:
        name = node.input[position]
        if name not in self._constants:
            refuse(f"operator {node.op_type} takes {name!r}, which is not a constant")
        return [int(value) for value in self._constants[name].reshape(-1)]

    def _each(self, op: Op, operand: _Columns, element: int) -> _Columns:
        narrow = element == TensorProto.FLOAT
        return _Columns(element, tuple(self._tail.emit(op, column, narrow=narrow) for column in operand.registers))

    def _binary(self, op: Op, left: _Columns, right: _Columns, what: str) -> _Columns:
        if left.element != right.element:
            refuse(f"{what} of two element types")
        count = max(len(left.registers), len(right.registers))
        if not {len(left.registers), len(right.registers)} <= {1, count}:
            refuse(f"{what} of {len(left.registers)} and {len(right.registers)} columns")
        narrow = left.element == TensorProto.FLOAT
        first, second = (side.registers * (count // len(side.registers)) for side in (left, right))
        columns = (self._tail.emit(op, a, b, narrow=narrow) for a, b in zip(first, second, strict=True))
        return _Columns(left.element, tuple(columns))

    def _clip(self, node: onnx.NodeProto, operand: _Columns) -> _Columns:
        if node.attribute:
            refuse("operator Clip with its limits as attributes, as before opset 11")
        for position, op in ((1, Op.MAX), (2, Op.MIN)):
            if len(node.input) > position and node.input[position]:
                limit = self._columns(node.input[position], "operator Clip")
                operand = self._binary(op, operand, limit, "operator Clip")
        return operand

    def _cast(self, node: onnx.NodeProto, operand: _Columns) -> _Columns:
        to = helper.get_attribute_value(node.attribute[0])
        if to not in {TensorProto.FLOAT, TensorProto.DOUBLE}:
            refuse(f"operator Cast to {TensorProto.DataType.Name(to)}")
        return self._each(Op.COPY, operand, to)

    def _gather(self, node: onnx.NodeProto, operand: _Columns) -> _Columns:
        axis = 1 if node.op_type == "ArrayFeatureExtractor" else _axis(node)
        if axis not in {1, -1}:
            refuse(f"operator {node.op_type} along axis {axis}, expected 1")
        return self._pick(node, operand, self._integers(node, 1))

    def _slice(self, node: onnx.NodeProto, operand: _Columns) -> _Columns:
        if len(node.input) < 4 or self._integers(node, 3) not in ([1], [-1]):
            refuse("operator Slice along other axes than 1")
        steps = self._integers(node, 4) if len(node.input) > 4 else [1]
        (start,), (end,), (step,) = self._integers(node, 1), self._integers(node, 2), steps
        return self._pick(node, operand, range(len(operand.registers))[start:end:step])

    @staticmethod
    def _pick(node: onnx.NodeProto, operand: _Columns, columns: Sequence[int]) -> _Columns:
        count = len(operand.registers)
        if len(columns) != 1 or not -count <= columns[0] < count:
            refuse(f"operator {node.op_type} of columns {list(columns)} of {count}, expected one")
        return _Columns(operand.element, (operand.registers[columns[0]],))


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
