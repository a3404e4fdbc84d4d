import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.support import forests
from tests.support.forests import RAW
from tests.support.packages import logistic_onnx

from tickgate_server.models.forest import CompiledForest, NotCompiled, compile_forest
from tickgate_server.models.forest_check import random_vectors
from tickgate_server.models.forest_tail import Op, Tail, logistic32, run_tail, sigmoid32, sigmoid64
from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME
from tickgate_server.models.session import Session

N = helper.make_node
F32 = [forests.constant("a", 1.25), forests.constant("b", -0.375), forests.constant("one", 1.0)]
F64 = [forests.constant(name, value, np.float64) for name, value in (("a", 1.25), ("b", -0.3), ("one", 1.0))]
LIMITS = (1e-6, 1 - 1e-6)
FLOATS = np.random.default_rng(0).normal(0.0, 6.0, 4000).astype(np.float32)
EDGES = np.array([0.0, -0.0, 1e-45, 17.99, 18.0, 18.01, -17.99, -18.0, -18.01, 88.0, -88.0, 1e30, -1e30], np.float32)


def ends(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return list(nodes)


def platt_in_double() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    low, high = (forests.constant(name, limit, np.float64) for name, limit in zip("lh", LIMITS, strict=True))
    nodes = ends(
        N("Cast", [RAW], ["wide"], to=TensorProto.DOUBLE),
        N("Sigmoid", ["wide"], ["p"]),
        N("Clip", ["p", "l", "h"], ["c"]),
        N("Sub", ["one", "c"], ["q"]),
        N("Div", ["c", "q"], ["odds"]),
        N("Log", ["odds"], ["logit"]),
        N("Mul", ["logit", "a"], ["scaled"]),
        N("Add", ["scaled", "b"], ["shifted"]),
        N("Neg", ["shifted"], ["minus"]),
        N("Exp", ["minus"], ["e"]),
        N("Add", ["one", "e"], ["denominator"]),
        N("Div", ["one", "denominator"], ["answer"]),
        N("Cast", ["answer"], [OUTPUT_NAME], to=TensorProto.FLOAT),
    )
    return nodes, [low, high, *F64]


def platt_in_float() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    low, high = (forests.constant(name, limit) for name, limit in zip("lh", LIMITS, strict=True))
    nodes = ends(
        N("Sigmoid", [RAW], ["p"]),
        N("Clip", ["p", "l", "h"], ["c"]),
        N("Sub", ["one", "c"], ["q"]),
        N("Log", ["c"], ["log_c"]),
        N("Log", ["q"], ["log_q"]),
        N("Sub", ["log_c", "log_q"], ["logit"]),
        N("Mul", ["logit", "a"], ["scaled"]),
        N("Add", ["scaled", "b"], ["shifted"]),
        N("Sigmoid", ["shifted"], [OUTPUT_NAME]),
    )
    return nodes, [low, high, *F32]


def shapes_and_constants() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = ends(
        N("Constant", [], ["half"], value=forests.constant("half", 0.5)),
        N("Reshape", [RAW, "rows"], ["r"]),
        N("Unsqueeze", ["r", "axis"], ["u"]),
        N("Flatten", ["u"], ["f"]),
        N("Clip", ["f", "", "a"], ["c"]),
        N("Div", ["half", "a"], ["constant"]),
        N("Mul", ["c", "constant"], ["m"]),
        N("Sigmoid", ["m"], ["s"]),
        N("Identity", ["s"], [OUTPUT_NAME]),
    )
    return nodes, [*F32, forests.integers("rows", -1), forests.integers("axis", 1)]


@pytest.mark.parametrize("tail", [platt_in_double, platt_in_float, shapes_and_constants])
def test_what_follows_a_regressor_equals_onnx_runtime_to_the_bit(
    tail: Callable[[], tuple[list[onnx.NodeProto], list[onnx.TensorProto]]],
) -> None:
    nodes, constants = tail()
    trees = forests.full(np.random.default_rng(1), 40, 5, 6)
    agree(forests.graph(6, [forests.regressor(trees), *nodes], constants), 6)


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize(
    "pick",
    [
        lambda column: N("Gather", [RAW, f"c{column}"], [OUTPUT_NAME], axis=1),
        lambda column: N("Gather", [RAW, f"m{column}"], [OUTPUT_NAME], axis=-1),
        lambda column: N("ArrayFeatureExtractor", [RAW, f"c{column}"], [OUTPUT_NAME], domain="ai.onnx.ml"),
        lambda column: N("Slice", [RAW, f"c{column}", f"c{column + 1}", "c1"], [OUTPUT_NAME]),
        lambda column: N("Slice", [RAW, f"c{column}", f"c{column + 1}", "c1", "c1"], [OUTPUT_NAME]),
    ],
    ids=["gather", "gather from the end", "extractor", "slice", "slice with steps"],
)
def test_each_way_to_take_a_column_of_a_classifier_is_understood(
    pick: Callable[[int], onnx.NodeProto], column: int
) -> None:
    constants = [forests.integers(f"c{value}", value) for value in (0, 1, 2)]
    constants += [forests.integers("m0", -2), forests.integers("m1", -1)]
    trees = forests.full(np.random.default_rng(2), 40, 5, 6)
    agree(forests.graph(6, [forests.classifier(trees), pick(column)], constants), 6)


def test_operators_on_both_columns_are_done_on_both() -> None:
    nodes = ends(
        N("Mul", [RAW, "a"], ["scaled"]),
        N("Sub", ["scaled", RAW], ["less"]),
        N("Gather", ["less", "c1"], ["up"], axis=1),
        N("Sigmoid", ["up"], [OUTPUT_NAME]),
    )
    trees = forests.full(np.random.default_rng(3), 40, 5, 6)
    agree(forests.graph(6, [forests.classifier(trees), *nodes], [*F32, forests.integers("c1", 1)]), 6)


def agree(model: bytes, width: int) -> None:
    forest = compile_forest(model, width)
    assert isinstance(forest, CompiledForest), forest
    session = Session(Path("model.onnx"), model, width)
    rows = random_vectors(forest, np.tile([-2.0, 2.0], (width, 1)), 1000)
    assert [forest.score(row) for row in rows] == [session.score(row) for row in rows]


def by_onnx_runtime(operator: str, values: NDArray[np.float32]) -> list[float]:
    """The operator on single values: trees of one leaf give them."""
    results = []
    for value in values:
        leaf = forests.full(np.random.default_rng(0), 1, 0, 1)
        leaf.weight[:] = value
        session = Session(Path("m"), forests.graph(1, [forests.regressor(leaf), N(operator, [RAW], [OUTPUT_NAME])]), 1)
        results.append(session.score(np.zeros(1, np.float32)))
    return results


def test_sigmoid_in_float32_is_onnx_runtimes_and_near_the_truth() -> None:
    some = np.concatenate([FLOATS[:200], EDGES])
    assert [float(sigmoid32(value)) for value in some] == by_onnx_runtime("Sigmoid", some)
    for value in FLOATS:
        assert float(sigmoid32(value)) == pytest.approx(1.0 / (1.0 + math.exp(-float(value))), abs=1.5e-7)


def test_sigmoid_in_float32_equals_plain_python() -> None:
    def horner(z: float, *coefficients: float) -> float:
        total, *rest = map(float, np.array(coefficients, np.float32))
        for coefficient in rest:
            total = float(np.float32(total * z + coefficient))  # float64 holds the product, as a fused operation does
        return total

    p = (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01)
    q = (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03)
    q += (1.16817656904453e-01, 9.93151921023180e-01)
    for value in np.concatenate([FLOATS, EDGES]):
        x = np.float32(min(max(value, -18.0), 18.0))
        z = float(x * x)
        up = np.float32(horner(z, *p)) * x
        expected = max(up / np.float32(horner(z, *q)) + np.float32(0.5), np.float32(0.0))
        assert sigmoid32(value) == expected


def test_logistic_in_float32_and_sigmoid_in_float64_are_near_the_truth_and_mirrored() -> None:
    for value in np.concatenate([FLOATS, EDGES]):
        small = math.exp(-abs(float(value)))
        truth = 1.0 / (1.0 + small) if value >= 0.0 else small / (1.0 + small)
        assert float(logistic32(value)) == pytest.approx(truth, abs=1.2e-7)
        assert sigmoid64(float(value)) == pytest.approx(truth, abs=2.3e-16)
        assert sigmoid64(-float(value)) == 1.0 - sigmoid64(float(value))


REFERENCES: dict[Op, Callable[[float, float], float]] = {
    Op.COPY: lambda a, _: a,
    Op.ADD: lambda a, b: a + b,
    Op.SUB: lambda a, b: a - b,
    Op.MUL: lambda a, b: a * b,
    Op.DIV: lambda a, b: a / b,
    Op.MIN: min,
    Op.MAX: max,
    Op.NEG: lambda a, _: -a,
    Op.LOG32: lambda a, _: float(np.float32(math.log(np.float32(a)))),
    Op.LOG64: lambda a, _: math.log(a),
    Op.EXP64: lambda a, _: math.exp(a),
    Op.SIGMOID32: lambda a, _: float(sigmoid32(np.float32(a))),
    Op.SIGMOID64: lambda a, _: sigmoid64(a),
    Op.LOGISTIC32: lambda a, _: float(logistic32(np.float32(a))),
}


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("narrow", [False, True])
def test_each_instruction_equals_plain_python(op: Op, narrow: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    rng = np.random.default_rng(4)
    for a, b in rng.uniform(0.1, 5.0, (200, 2)).astype(np.float32):
        tail = Tail()
        tail.emit(op, 0, tail.constant(float(b)), narrow=narrow)
        expected = REFERENCES[op](float(a), float(b))
        found = run_tail(tail.program, tail.registers, a)
        assert found == pytest.approx(float(np.float32(expected)) if narrow else expected, rel=1.2e-7, abs=0)
        if op not in {Op.LOG32, Op.LOG64, Op.EXP64}:  # of these the C library's last bit may differ from Python's
            assert found == (float(np.float32(expected)) if narrow else expected)


def test_float32_arithmetic_is_float64_arithmetic_rounded() -> None:
    rng = np.random.default_rng(5)
    for op, numpy_op in ((Op.ADD, np.add), (Op.SUB, np.subtract), (Op.MUL, np.multiply), (Op.DIV, np.divide)):
        for a, b in rng.normal(size=(500, 2)).astype(np.float32):
            tail = Tail()
            tail.emit(op, 0, tail.constant(float(b)), narrow=True)
            assert run_tail(tail.program, tail.registers, a) == float(numpy_op(a, b))


def refused(model: bytes, width: int = 4) -> str:
    found = compile_forest(model, width)
    assert isinstance(found, NotCompiled)
    return found.reason


def trees(**attributes: object) -> onnx.NodeProto:
    return forests.regressor(forests.full(np.random.default_rng(6), 3, 2, 4), **attributes)


def classes(**attributes: object) -> onnx.NodeProto:
    return forests.classifier(forests.full(np.random.default_rng(6), 3, 2, 4), **attributes)


NODES = 3 * 7
DOUBLES = helper.make_tensor("", TensorProto.DOUBLE, [NODES], np.zeros(NODES))
REGRESSORS = {
    "float64": ({"nodes_values": None, "nodes_values_as_tensor": DOUBLES}, "in float64 (nodes_values_as_tensor)"),
    "mode": ({"nodes_modes": (["BRANCH_LT"] * 3 + ["LEAF"] * 4) * 3}, "BRANCH_LT"),
    "targets": ({"n_targets": 2}, "2 targets"),
    "average": ({"aggregate_function": "AVERAGE"}, "AVERAGE"),
    "transform": ({"post_transform": "LOGISTIC"}, "LOGISTIC"),
    "bases": ({"base_values": [0.0, 1.0]}, "2 base_values"),
    "length": ({"nodes_values": [0.0]}, "differ in length"),
    "infinite": ({"nodes_values": [float("inf")] * NODES}, "not finite"),
    "nan leaf": ({"target_weights": [float("nan")] * 12}, "not finite"),
    "feature": ({"nodes_featureids": [4] * NODES}, "feature outside the 4"),
    "leaf twice": ({"target_nodeids": [3, 3, 4, 5] * 3}, "a weight of its own"),
    "weight of no tree": ({"target_treeids": [9] * 12}, "not there"),
    "child absent": ({"nodes_truenodeids": [9, 3, 5, 0, 0, 0, 0] * 3}, "not there"),
    "two parents": ({"nodes_truenodeids": [2, 3, 5, 0, 0, 0, 0] * 3}, "no trees"),
    "cycle": ({"nodes_truenodeids": [0, 3, 5, 0, 0, 0, 0] * 3}, "no trees"),
    "apart": ({"nodes_treeids": [0, 1, 2] * 7}, "stand together"),
    "ids": ({"nodes_nodeids": [900, 1, 2, 3, 4, 5, 6] * 3}, "below their number"),
}


@pytest.mark.parametrize(("attributes", "reason"), REGRESSORS.values(), ids=REGRESSORS)
def test_other_regressors_are_refused_with_the_reason(attributes: dict[str, object], reason: str) -> None:
    assert reason in refused(forests.graph(4, [trees(**attributes), *forests.SIGMOID]))


CLASSIFIERS = {
    "three classes": ({"classlabels_int64s": [0, 1, 2]}, "3 classes"),
    "weights for both": ({"class_ids": [0, 1] * 6}, "two with weights for the first"),
    "transform": ({"post_transform": "SOFTMAX"}, "SOFTMAX"),
    "no transform": ({"post_transform": "NONE"}, "by NONE, expected LOGISTIC"),
}


@pytest.mark.parametrize(("attributes", "reason"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_other_classifiers_are_refused_with_the_reason(attributes: dict[str, object], reason: str) -> None:
    up = N("Gather", [RAW, "c1"], [OUTPUT_NAME], axis=1)
    assert reason in refused(forests.graph(4, [classes(**attributes), up], [forests.integers("c1", 1)]))


TAILS = {
    "operator": ([N("Tanh", [RAW], [OUTPUT_NAME])], "operator Tanh of FLOAT"),
    "exp in float32": ([N("Exp", [RAW], [OUTPUT_NAME])], "operator Exp of FLOAT"),
    "domain": ([N("Gelu", [RAW], [OUTPUT_NAME], domain="com.microsoft")], "com.microsoft"),
    "vector": ([N("Add", [RAW, "two"], [OUTPUT_NAME])], "expected one float32 or float64"),
    "types": ([N("Add", [RAW, "wide"], [OUTPUT_NAME])], "two element types"),
    "cast": ([N("Cast", [RAW], ["i"], to=TensorProto.INT64), N("Neg", ["i"], [OUTPUT_NAME])], "INT64"),
    "double out": ([N("Cast", [RAW], [OUTPUT_NAME], to=TensorProto.DOUBLE)], "not one float32 column"),
    "features": ([N("Add", [RAW, INPUT_NAME], [OUTPUT_NAME])], f"takes '{INPUT_NAME}'"),
    "axis": ([N("Gather", [RAW, "zero"], [OUTPUT_NAME], axis=0)], "along axis 0"),
    "no such column": ([N("Gather", [RAW, "column"], [OUTPUT_NAME], axis=1)], "columns [3] of 1"),
    "chosen at run time": ([N("Gather", [RAW, RAW], [OUTPUT_NAME], axis=1)], "not a constant"),
    "slice": ([N("Slice", [RAW, "zero", "zero"], [OUTPUT_NAME])], "other axes"),
    "clip": ([N("Clip", [RAW], [OUTPUT_NAME], min=0.0)], "before opset 11"),
}
TAIL_CONSTANTS = [
    onnx.numpy_helper.from_array(np.ones((1, 2), np.float32), "two"),
    forests.constant("wide", 1.0, np.float64),
    forests.integers("zero", 0),
    forests.integers("column", 3),
]


@pytest.mark.parametrize(("nodes", "reason"), TAILS.values(), ids=TAILS)
def test_other_operators_after_the_trees_are_refused_with_the_reason(nodes: list[onnx.NodeProto], reason: str) -> None:
    assert reason in refused(forests.graph(4, [trees(), *nodes], TAIL_CONSTANTS))


def test_two_columns_are_no_output() -> None:
    nodes = [classes(), N("Identity", [RAW], [OUTPUT_NAME])]
    assert "not one float32 column" in refused(forests.graph(4, nodes))
    assert "more than one column" in refused(forests.graph(4, [classes(), N("Flatten", [RAW], [OUTPUT_NAME])]))


def test_a_graph_without_trees_or_with_two_is_refused() -> None:
    assert "has 0 tree ensembles" in refused(logistic_onnx(np.ones(4, np.float32), 0.0))
    second = trees()
    second.output[0] = "second"
    both = [trees(), second, N("Add", [RAW, "second"], [OUTPUT_NAME])]
    assert "has 2 tree ensembles" in refused(forests.graph(4, both))


def test_trees_that_do_not_take_the_features_as_they_come_are_refused() -> None:
    node = trees()
    node.input[0] = "scaled"
    nodes = [N("Mul", [INPUT_NAME, "wide"], ["scaled"]), node, *forests.SIGMOID]
    assert "operator Mul takes 'features'" in refused(forests.graph(4, nodes, TAIL_CONSTANTS))
    assert "its trees take 'scaled'" in refused(forests.graph(4, nodes[1:], TAIL_CONSTANTS))


def test_more_features_than_a_node_has_room_for_are_refused() -> None:
    assert "4095 features" in refused(forests.graph(4095, [trees(), *forests.SIGMOID]), 4095)


def test_what_only_labels_need_is_left_out() -> None:
    trees_of_two = forests.full(np.random.default_rng(7), 5, 2, 4)
    nodes = [
        forests.classifier(trees_of_two),
        N("Cast", ["label"], ["text"], to=TensorProto.STRING),
        N("Gather", [RAW, "c1"], [OUTPUT_NAME], axis=1),
    ]
    agree(forests.graph(4, nodes, [forests.integers("c1", 1)]), 4)
