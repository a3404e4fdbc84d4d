"""The exported graph against the model it was made from."""

import lightgbm
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.real_data import CAPTURES, SPOT_BTC, ticks

from tickgate_server.features import micro10
from tickgate_training import calibration
from tickgate_training.calibration import Platt
from tickgate_training.data.daily import NAMES, read_bars
from tickgate_training.data.table import values
from tickgate_training.errors import ParityBroken
from tickgate_training.export import (
    PARITY_TOLERANCE,
    as_raw_float32,
    check_parity,
    export,
    probabilities,
    round_down_to_float32,
)
from tickgate_training.labels import fixed_horizon
from tickgate_training.learners import LightGBMConfig, LightGBMModel, LogisticConfig

LEARNERS = [LightGBMConfig(), LogisticConfig()]
Rows = tuple[NDArray[np.float32], NDArray[np.int8]]


def real_rows(name: str) -> Rows:
    """Every ready row, and its label or -1."""
    daily = name in NAMES
    frame = read_bars(name) if daily else ticks(name)
    stamps, prices, sizes = (values(frame, column) for column in ("exchange_ts_ns", "price", "size"))
    features = micro10.batch(stamps, prices, sizes, 0 if daily else 300_000_000_000)
    ready = np.isfinite(features).all(axis=1)
    return features[ready], fixed_horizon(prices, 1 if daily else 10).direction[ready]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
@pytest.mark.parametrize("name", [*CAPTURES, *NAMES])
def test_graph_and_source_agree_on_every_row_of_real_data(name: str, learner: LightGBMConfig | LogisticConfig) -> None:
    x, y = real_rows(name)
    half = len(x) // 2
    early, late = np.flatnonzero(y[:half] >= 0), half + np.flatnonzero(y[half:] >= 0)
    model = learner.fit(x[early], y[early], 1)
    platt = calibration.fit(model.raw_scores(x[late]), y[late])
    graph = export(model, platt)
    worst = check_parity(graph, lambda rows: platt.apply(model.raw_scores(rows)), x, 0.6)
    assert 0.0 < worst <= PARITY_TOLERANCE


def split_points(booster: lightgbm.Booster) -> list[tuple[int, float]]:
    found = []
    for tree in booster.dump_model()["tree_info"]:
        nodes = [tree["tree_structure"]]
        while nodes:
            node = nodes.pop()
            if "split_feature" in node:
                found.append((node["split_feature"], node["threshold"]))
                nodes += [node["left_child"], node["right_child"]]
    return found


def test_rows_exactly_at_each_threshold_and_next_to_it_take_the_same_side() -> None:
    x, y = real_rows(SPOT_BTC)
    labelled = y >= 0
    model = LightGBMConfig().fit(x[labelled], y[labelled], 1)
    rows = []
    rng = np.random.default_rng(1)
    for feature, split in split_points(model.booster):
        at = round_down_to_float32(np.array([split]))[0]
        for value in (at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, np.float32(-np.inf))):
            row = x[rng.integers(len(x))].copy()
            row[feature] = value
            rows.append(row)
    found = check_parity(
        export(model, Platt(1.0, 0.0)), lambda r: Platt(1.0, 0.0).apply(model.raw_scores(r)), np.array(rows), 0.6
    )
    assert len(rows) > 1000
    assert found < 2e-6


def test_thresholds_rounded_to_nearest_would_move_rows_to_the_other_side() -> None:
    """The test above can fail: features that fill float32 and the graph that a plain rounding makes."""
    x, y = real_rows(SPOT_BTC)
    labelled = y >= 0
    model = LightGBMConfig().fit(x[labelled], y[labelled], 1)
    document = onnx.load_from_string(export(model, Platt(1.0, 0.0)))
    (trees,) = (node for node in document.graph.node if node.op_type.startswith("TreeEnsemble"))
    (splits,) = (attribute for attribute in trees.attribute if attribute.name == "nodes_values")
    downward = np.array(splits.floats, np.float32)
    splits.floats[:] = np.nextafter(downward, np.float32(np.inf)).tolist()  # as where nearest is above
    with pytest.raises(ParityBroken):
        check_parity(document.SerializeToString(), lambda r: Platt(1.0, 0.0).apply(model.raw_scores(r)), x, 0.6)


def test_the_rewritten_booster_gives_the_raw_scores_bit_for_bit() -> None:
    x, y = real_rows("sp500")
    model = LightGBMConfig().fit(x[y >= 0], y[y >= 0], 1)
    rewritten = lightgbm.Booster(model_str=as_raw_float32(model.booster.model_to_string()))
    assert np.asarray(rewritten.predict(x)).tobytes() == model.raw_scores(x).tobytes()


@given(st.lists(st.floats(-1e30, 1e30), min_size=1))
def test_rounding_down_gives_the_largest_float32_not_above(numbers: list[float]) -> None:
    exact = np.array(numbers)
    found = round_down_to_float32(exact)
    assert found.dtype == np.float32
    assert (found.astype(np.float64) <= exact).all()
    assert (np.nextafter(found, np.float32(np.inf)).astype(np.float64) > exact).all()


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
def test_the_graph_takes_and_gives_what_the_server_names(learner: LightGBMConfig | LogisticConfig) -> None:
    x, y = real_rows("sp500")
    graph = onnx.load_from_string(export(learner.fit(x[y >= 0], y[y >= 0], 1), Platt(1.3, -0.1))).graph
    (given_input,), (output,) = graph.input, graph.output
    assert (given_input.name, output.name) == ("features", "probability_up")
    for tensor, width in ((given_input, 10), (output, 1)):
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        rows, columns = tensor.type.tensor_type.shape.dim
        assert not rows.HasField("dim_value")
        assert columns.dim_value == width
    assert not {"ZipMap", "ArrayFeatureExtractor"} & {node.op_type for node in graph.node}


def test_trees_that_found_nothing_to_split_are_exported() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (np.arange(60) % 2).astype(np.int8)
    model = LightGBMConfig(trees=5, leaf_rows_minimum=59).fit(x, y, 1)
    platt = Platt(1.0, 0.2)
    assert (
        check_parity(export(model, platt), lambda rows: platt.apply(model.raw_scores(rows)), x, 0.6) <= PARITY_TOLERANCE
    )


def exported() -> tuple[LightGBMModel, bytes, NDArray[np.float32]]:
    x, y = real_rows("nasdaq")
    model = LightGBMConfig(trees=20).fit(x[y >= 0], y[y >= 0], 1)
    return model, export(model, Platt(1.0, 0.0)), x


def test_a_row_that_differs_is_named() -> None:
    _, graph, x = exported()
    truth = probabilities(graph, x).astype(np.float64)

    def off(_: NDArray[np.float32]) -> NDArray[np.float64]:
        wrong = truth.copy()
        wrong[17] += 2e-5
        return wrong

    with pytest.raises(ParityBroken, match="row 17") as caught:
        check_parity(graph, off, x, 0.6)
    assert caught.value.row == 17


def test_a_reference_that_is_not_a_number_is_named() -> None:
    _, graph, x = exported()
    with pytest.raises(ParityBroken, match="row 0"):
        check_parity(graph, lambda rows: np.full(len(rows), np.nan), x, 0.6)


def test_a_row_near_the_threshold_may_fall_on_either_side() -> None:
    _, graph, x = exported()
    truth = probabilities(graph, x[:1]).astype(np.float64)
    confidence = max(float(truth[0]), 1.0 - float(truth[0]))
    # The threshold lies between the two, and both within the tolerance of it.
    away = 4e-6 if truth[0] >= 0.5 else -4e-6
    assert check_parity(graph, lambda _: truth - away, x[:1], confidence - 2e-6) == pytest.approx(4e-6)


def test_exporting_again_gives_the_same_outputs() -> None:
    model, graph, x = exported()
    assert probabilities(export(model, Platt(1.0, 0.0)), x).tobytes() == probabilities(graph, x).tobytes()
