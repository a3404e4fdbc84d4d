from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from tests.support import forests
from tests.support.forests import RAW, SIGMOID, Forest

from tickgate_server.models.forest import LANES, CompiledForest, compile_forest, step, walk
from tickgate_server.models.forest_check import check_against, random_vectors, ulps_apart
from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME
from tickgate_server.models.session import Session
from tickgate_training.calibration import Platt
from tickgate_training.export import export
from tickgate_training.learners import LightGBMModel

UP = (
    helper.make_node("Gather", [RAW, "one"], ["up"], axis=1),
    helper.make_node("Identity", ["up"], [OUTPUT_NAME]),
)
ONE = forests.integers("one", 1)


def compiled(model: bytes, width: int) -> CompiledForest:
    forest = compile_forest(model, width)
    assert isinstance(forest, CompiledForest), forest
    return forest


def session(model: bytes, width: int) -> Session:
    return Session(Path("model.onnx"), model, width)


def vectors(forest: CompiledForest, count: int) -> NDArray[np.float32]:
    rows = random_vectors(forest, np.tile([-2.0, 2.0], (forest.width, 1)), count)
    odd = np.array([0.0, -0.0, 1e-42, -1e-42, 3.4e38, -3.4e38], np.float32)
    return np.concatenate([rows, np.tile(odd[:, None], (1, forest.width))]).astype(np.float32)


def agree_to_the_bit(model: bytes, width: int, count: int = 200) -> None:
    forest, reference = compiled(model, width), session(model, width)
    rows = vectors(forest, count)
    found, expected = [forest.score(row) for row in rows], [reference.score(row) for row in rows]
    assert found == expected
    assert np.isfinite(found).all()


shapes = {
    "seed": st.integers(0, 2**32 - 1),
    "trees": st.integers(1, 20),
    "depth": st.integers(0, 8),
    "width": st.integers(1, 6),
    "points": st.integers(0, 3),
}


@settings(max_examples=60, deadline=None)
@given(**shapes)
def test_random_regressors_equal_onnx_runtime_to_the_bit(
    seed: int, trees: int, depth: int, width: int, points: int
) -> None:
    forest = forests.grown(np.random.default_rng(seed), trees, depth, width, points=points)
    agree_to_the_bit(forests.graph(width, [forests.regressor(forest), *SIGMOID]), width, 60)


@settings(max_examples=60, deadline=None)
@given(**shapes, base=st.none() | st.floats(-2, 2, width=32))
def test_random_classifiers_equal_onnx_runtime_to_the_bit(
    seed: int, trees: int, depth: int, width: int, points: int, base: float | None
) -> None:
    forest = forests.grown(np.random.default_rng(seed), trees, depth, width, points=points)
    node = forests.classifier(forest, base_values=None if base is None else [base])
    agree_to_the_bit(forests.graph(width, [node, *UP], [ONE]), width, 60)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_the_walk_equals_plain_python_to_the_bit(seed: int, trees: int, depth: int, width: int, points: int) -> None:
    plain = forests.grown(np.random.default_rng(seed), trees, depth, width, points=points)
    forest = compiled(forests.graph(width, [forests.regressor(plain), *SIGMOID]), width)
    for vector in vectors(forest, 30):
        forest.score(vector)  # leaves the vector's keys
        assert walk(forest.nodes, forest.roots, forest.keys) == plain.sum(vector)


def one_split(threshold: float) -> Forest:
    return Forest(
        tree=np.zeros(3, np.int64),
        node=np.arange(3),
        leaf=np.array([False, True, True]),
        feature=np.zeros(3, np.int64),
        threshold=np.array([threshold, 0, 0], np.float32),
        yes=np.array([1, 0, 0]),
        no=np.array([2, 0, 0]),
        weight=np.array([0, -1, 1], np.float32),
    )


@pytest.mark.parametrize("threshold", [1.5, -1.5, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38])
def test_a_value_at_a_threshold_goes_left_and_the_next_one_right(threshold: float) -> None:
    model = forests.graph(1, [forests.regressor(one_split(threshold)), *SIGMOID])
    forest, reference = compiled(model, 1), session(model, 1)
    at = np.array([threshold], np.float32)
    above = np.nextafter(at, np.float32(np.inf))
    assert forest.score(at) == reference.score(at) < 0.5
    assert forest.score(above) == reference.score(above) > 0.5


def test_both_zeros_are_one_value() -> None:
    forest = compiled(forests.graph(1, [forests.regressor(one_split(-0.0)), *SIGMOID]), 1)
    assert forest.score(np.array([0.0], np.float32)) == forest.score(np.array([-0.0], np.float32))


@pytest.mark.parametrize("trees", [1, LANES - 1, LANES, LANES + 1])
def test_trees_of_one_leaf_add_their_value(trees: int) -> None:
    forest = forests.full(np.random.default_rng(trees), trees, 0, 3)
    agree_to_the_bit(forests.graph(3, [forests.regressor(forest), *SIGMOID]), 3)


def test_nodes_in_any_order_and_trees_of_any_id_are_understood() -> None:
    rng = np.random.default_rng(3)
    forest = forests.full(rng, 20, 4, 5)
    size = 31
    # Node ids are shuffled in each tree but for the root, which must stand first; ids of trees fall.
    for tree in range(20):
        here = slice(tree * size, (tree + 1) * size)
        new = np.r_[0, 1 + rng.permutation(size - 1)]
        forest.yes[here] = np.where(forest.leaf[here], 0, new[forest.yes[here]])
        forest.no[here] = np.where(forest.leaf[here], 0, new[forest.no[here]])
        forest.node[here] = new
    forest.tree = 1000 - 7 * forest.tree
    agree_to_the_bit(forests.graph(5, [forests.regressor(forest), *SIGMOID]), 5)


def test_a_tree_as_deep_as_a_chain_is_understood() -> None:
    depth = 400
    node = np.arange(2 * depth + 1)
    leaf = (node % 2 == 1) | (node == 2 * depth)
    forest = Forest(
        tree=np.zeros(node.size, np.int64),
        node=node,
        leaf=leaf,
        feature=node % 3 * ~leaf,
        threshold=np.linspace(-2, 2, node.size).astype(np.float32),
        yes=np.where(leaf, 0, node + 1),
        no=np.where(leaf, 0, node + 2),
        weight=np.linspace(-1, 1, node.size).astype(np.float32),
    )
    agree_to_the_bit(forests.graph(3, [forests.regressor(forest), *SIGMOID]), 3)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("column", [0, 1])
def test_a_classifier_without_negative_leaves_equals_onnx_runtime_to_the_bit(transform: str, column: int) -> None:
    forest = forests.full(np.random.default_rng(5), 9, 3, 2)
    forest.weight = np.abs(forest.weight)
    node = forests.classifier(forest, post_transform=transform)
    agree_to_the_bit(forests.graph(2, [node, *UP], [forests.integers("one", column)]), 2)


def test_where_missing_values_go_changes_nothing_for_finite_ones() -> None:
    forest = forests.full(np.random.default_rng(6), 9, 3, 2)
    node = forests.regressor(forest, nodes_missing_value_tracks_true=[1] * forest.node.size)
    agree_to_the_bit(forests.graph(2, [node, *SIGMOID]), 2)


def booster(leaves: int) -> lightgbm.Booster:
    rng = np.random.default_rng(leaves)
    x = rng.normal(size=(2000, 10)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + rng.normal(size=2000) > 0).astype(int)
    parameters = {"objective": "binary", "num_leaves": leaves, "num_threads": 1, "verbose": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(x, y), 50)


@pytest.mark.parametrize("leaves", [7, 31])
def test_what_training_exports_equals_onnx_runtime_to_the_bit(leaves: int) -> None:
    agree_to_the_bit(export(LightGBMModel(booster(leaves)), Platt(1.1, 0.03)), 10, 2000)


@pytest.mark.parametrize("leaves", [7, 31])
def test_a_converted_lightgbm_classifier_equals_onnx_runtime_to_the_bit(leaves: int) -> None:
    converted = convert_lightgbm(
        booster(leaves), initial_types=[(INPUT_NAME, FloatTensorType([None, 10]))], target_opset=15, zipmap=False
    ).graph
    up = (
        helper.make_node("Gather", [converted.output[1].name, "up_column"], ["up"], axis=1),
        helper.make_node("Sub", ["one_float", "up"], ["down"]),
        helper.make_node("Div", ["up", "down"], ["odds"]),
        helper.make_node("Log", ["odds"], ["logit"]),
        helper.make_node("Mul", ["logit", "slope"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], [OUTPUT_NAME]),
    )
    constants = [
        forests.integers("up_column", 1),
        forests.constant("one_float", 1.0),
        forests.constant("slope", 1.3),
    ]
    agree_to_the_bit(forests.graph(10, [*converted.node, *up], [*converted.initializer, *constants]), 10, 2000)


@pytest.mark.parametrize("shape", [forests.GBT_A, forests.GBT_B], ids=["GBT_A", "GBT_B"])
def test_large_forests_take_eight_bytes_a_node(shape: tuple[int, int]) -> None:
    width, nodes = shape
    model = forests.graph(width, [forests.regressor(forests.of_shape(np.random.default_rng(1), shape)), *SIGMOID])
    forest = compiled(model, width)
    assert forest.nodes.size == pytest.approx(nodes, rel=0.01)
    assert forest.size_bytes < 8.3 * nodes
    reference = session(model, width)
    for vector in vectors(forest, 100):
        assert forest.score(vector) == reference.score(vector)


def small_forest() -> tuple[CompiledForest, Session, NDArray[np.float64]]:
    model = forests.graph(4, [forests.regressor(forests.full(np.random.default_rng(8), 20, 4, 4)), *SIGMOID])
    return compiled(model, 4), session(model, 4), np.tile([-2.0, 2.0], (4, 1))


def test_a_vector_of_another_width_or_type_is_an_error() -> None:
    forest, _, _ = small_forest()
    with pytest.raises(ValueError, match="another number of features"):
        forest.score(np.zeros(5, np.float32))
    with pytest.raises(TypeError):
        forest.score(np.zeros(4))  # type: ignore[arg-type] # the mistake under test


def test_a_read_only_vector_scores_as_a_writable_one() -> None:
    forest, _, _ = small_forest()
    vector = np.full(4, 0.3, np.float32)
    assert forest.score(np.frombuffer(vector.tobytes(), np.float32)) == forest.score(vector)


def test_not_even_nan_leads_out_of_the_trees() -> None:
    forest, _, _ = small_forest()
    assert 0.0 <= forest.score(np.full(4, np.nan, np.float32)) <= 1.0


def test_a_step_from_a_leaf_stays_there() -> None:
    forest, _, _ = small_forest()
    forest.score(np.full(4, 3.0e38, np.float32))
    last = np.uint64(forest.nodes.size - 1)
    assert step(forest.nodes, forest.keys, last) == last


def test_thresholds_are_the_distinct_split_points_in_order() -> None:
    plain = forests.grown(np.random.default_rng(9), 30, 5, 3, points=4)
    forest = compiled(forests.graph(3, [forests.regressor(plain), *SIGMOID]), 3)
    for feature, found in enumerate(forest.thresholds()):
        expected = np.unique(plain.threshold[~plain.leaf & (plain.feature == feature)])
        assert found.tolist() == expected.tolist()


def test_the_check_passes_what_is_equal() -> None:
    forest, reference, ranges = small_forest()
    golden = np.zeros((64, 4), np.float32)
    assert check_against(reference, forest, golden, ranges, 0.55, random_rows=500) is None


def test_the_check_finds_a_leaf_that_is_another() -> None:
    forest, reference, ranges = small_forest()
    leaf = int(np.flatnonzero(forest.nodes & 0xFFF == forest.width)[0])
    forest.nodes[leaf] += 1 << 54
    reason = check_against(reference, forest, np.zeros((0, 4), np.float32), ranges, 0.55)
    assert reason is not None
    assert "ONNX Runtime" in reason


def test_the_check_finds_a_threshold_moved_by_one_unit_in_the_last_place() -> None:
    model = forests.graph(1, [forests.regressor(one_split(0.3)), *SIGMOID])
    forest, ranges = compiled(model, 1), np.array([[-2.0, 2.0]])
    forest.nodes[0] += 1 << 32
    assert check_against(session(model, 1), forest, np.zeros((0, 1), np.float32), ranges, 0.55) is not None


def test_the_check_finds_another_decision_where_outputs_are_neighbours() -> None:
    forest, _, ranges = small_forest()
    vector = np.zeros(4, np.float32)
    p = forest.score(vector)

    class Neighbour(Session):
        def score(self, vector: NDArray[np.float32]) -> float:
            del vector
            return float(np.nextafter(np.float32(p), np.float32(0.5)))

        def score_all(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.array([self.score(row) for row in rows], np.float32)

    neighbour = Neighbour.__new__(Neighbour)
    reason = check_against(neighbour, forest, vector[None], ranges, max(p, 1.0 - p), random_rows=0)
    assert reason is not None
    assert "another decision" in reason


def test_many_vectors_at_once_give_what_they_give_one_by_one() -> None:
    forest, reference, ranges = small_forest()
    rows = random_vectors(forest, ranges, 300)
    assert forest.score_all(rows).tolist() == [forest.score(row) for row in rows]
    assert reference.score_all(rows).tolist() == [reference.score(row) for row in rows]


def test_the_check_asks_one_by_one_where_many_at_once_give_something_else() -> None:
    forest, reference, ranges = small_forest()

    class Coarse(Session):
        def score(self, vector: NDArray[np.float32]) -> float:
            return reference.score(vector)

        def score_all(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.zeros(len(rows), np.float32)

    assert check_against(Coarse.__new__(Coarse), forest, np.zeros((0, 4), np.float32), ranges, 0.55, 500) is None


def test_random_vectors_are_finite_even_for_the_widest_ranges() -> None:
    forest, _, _ = small_forest()
    rows = random_vectors(forest, np.tile([-3.4e38, 3.4e38], (4, 1)), 100)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_ulps_count_floats_across_zero() -> None:
    tiny = float(np.float32(1e-45))
    assert ulps_apart(tiny, -tiny) == 2
    assert ulps_apart(0.0, -0.0) == 0
    assert ulps_apart(1.0, float(np.nextafter(np.float32(1), np.float32(2)))) == 1
    assert ulps_apart(float("nan"), float("nan")) == float("inf")
