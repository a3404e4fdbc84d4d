"""The exported graph against the model it was made from."""

from functools import cache

import lightgbm
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from tests.support.models import CALIBRATIONS, LEARNERS, TREES, Rows, real_rows, split_points
from tests.support.real_data import CAPTURES

from tickgate_training import calibration
from tickgate_training.calibration import SLOPE_LIMIT, Isotonic, Platt, Uncalibrated
from tickgate_training.calibration.isotonic import bounded
from tickgate_training.data.daily import NAMES
from tickgate_training.errors import ParityBroken
from tickgate_training.export import (
    PARITY_TOLERANCE,
    NotExportable,
    as_raw_float32,
    check_parity,
    export,
    probabilities,
)
from tickgate_training.export.nodes import model_of
from tickgate_training.learners import (
    GradientBoostingConfig,
    Learner,
    LightGBMConfig,
    LightGBMModel,
    Model,
    RandomForestConfig,
)

each_kind = pytest.mark.parametrize("kind", LEARNERS)
each_calibration = pytest.mark.parametrize("how", CALIBRATIONS)
# What is left when nothing but the output is rounded to float32: half a unit in the last place of a number below 1.
OUTPUT_ROUNDING = 2.0**-25


@cache
def fitted(name: str, kind: str) -> Model:
    """On the labelled rows of the first half."""
    x, y = real_rows(name)
    early = np.flatnonzero(y[: len(x) // 2] >= 0)
    return LEARNERS[kind].fit(x[early], y[early], 1)


def calibrated(name: str, model: Model, how: calibration.Kind) -> calibration.Calibration:
    """On the labelled rows of the third quarter."""
    x, y = real_rows(name)
    rows = np.arange(len(x) // 2, 3 * len(x) // 4)
    rows = rows[y[rows] >= 0]
    return calibration.fit(how, model.raw_scores(x[rows]), y[rows])


@each_calibration
@each_kind
@pytest.mark.parametrize("name", [*CAPTURES, *NAMES])
def test_graph_and_source_agree_on_every_row_of_real_data(name: str, kind: str, how: calibration.Kind) -> None:
    x, _ = real_rows(name)
    model = fitted(name, kind)
    chosen = calibrated(name, model, how)
    worst = check_parity(export(model, chosen), lambda rows: chosen.apply(model.raw_scores(rows)), x, 0.6)
    assert 0.0 < worst <= 2 * OUTPUT_ROUNDING < PARITY_TOLERANCE


def at_splits(rows: Rows, model: Model, seed: int, count: int) -> NDArray[np.float32]:
    """Rows of which some features lie exactly at a split, or one float32 beside it."""
    x, _ = rows
    splits = split_points(model)
    rng = np.random.default_rng(seed)
    found: NDArray[np.float32] = x[rng.integers(len(x), size=count)].copy()
    for row in found:
        for place in rng.integers(len(splits), size=rng.integers(1, 6)):
            feature, threshold = splits[place]
            at = np.float32(threshold)
            row[feature] = at if rng.random() < 0.4 else np.nextafter(at, np.float32(rng.choice([-np.inf, np.inf])))
    return found


@pytest.mark.parametrize("kind", TREES)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_at_thresholds_and_next_to_them_take_the_same_side(kind: str, seed: int) -> None:
    model = fitted("sp500", kind)
    graph, plain = _graphs(kind)
    assert len(split_points(model)) > 40
    rows = at_splits(real_rows("sp500"), model, seed, 500)
    assert check_parity(graph, lambda r: plain.apply(model.raw_scores(r)), rows, 0.6) <= 2 * OUTPUT_ROUNDING


@cache
def _graphs(kind: str) -> tuple[bytes, Uncalibrated]:
    plain = Uncalibrated("it is the trees that count")
    return export(fitted("sp500", kind), plain), plain


@pytest.mark.parametrize("kind", TREES)
def test_thresholds_rounded_to_nearest_would_move_rows_to_the_other_side(kind: str) -> None:
    """The tests above can fail: the graph that a plain rounding makes, where nearest is above."""
    model = fitted("sp500", kind)
    graph, plain = _graphs(kind)
    document = onnx.load_from_string(graph)
    (trees,) = (node for node in document.graph.node if node.op_type.startswith("TreeEnsemble"))
    (splits,) = (attribute for attribute in trees.attribute if attribute.name == "nodes_values")
    splits.floats[:] = np.nextafter(np.array(splits.floats, np.float32), np.float32(np.inf)).tolist()
    rows = at_splits(real_rows("sp500"), model, 1, 500)
    with pytest.raises(ParityBroken):
        check_parity(document.SerializeToString(), lambda r: plain.apply(model.raw_scores(r)), rows, 0.6)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("slope", [20.0, 1e-3])
@pytest.mark.parametrize("intercept", [-12.0, 0.0, 12.0])
def test_no_calibration_is_so_steep_that_they_part(kind: str, slope: float, intercept: float) -> None:
    x, _ = real_rows("sp500")
    model, platt = fitted("sp500", kind), Platt(slope, intercept)
    check_parity(export(model, platt), lambda rows: platt.apply(model.raw_scores(rows)), x, 0.6)


def test_the_rewritten_booster_gives_the_raw_scores_bit_for_bit() -> None:
    x, _ = real_rows("sp500")
    model = fitted("sp500", "lightgbm")
    assert isinstance(model, LightGBMModel)
    rewritten = lightgbm.Booster(model_str=as_raw_float32(model.booster.model_to_string()))
    assert np.asarray(rewritten.predict(x)).tobytes() == model.raw_scores(x).tobytes()


@each_calibration
@each_kind
def test_the_graph_takes_and_gives_what_the_server_names(kind: str, how: calibration.Kind) -> None:
    model = fitted("sp500", kind)
    graph = onnx.load_from_string(export(model, calibrated("sp500", model, how))).graph
    (given_input,), (output,) = graph.input, graph.output
    assert (given_input.name, output.name) == ("features", "probability_up")
    for tensor, width in ((given_input, 10), (output, 1)):
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        rows, columns = tensor.type.tensor_type.shape.dim
        assert not rows.HasField("dim_value")
        assert columns.dim_value == width
    assert not {"ZipMap", "ArrayFeatureExtractor"} & {node.op_type for node in graph.node}


@pytest.mark.parametrize(
    "learner",
    [
        LightGBMConfig(trees=5, leaf_rows_minimum=59),
        RandomForestConfig(trees=5, leaf_rows_minimum=59),
        GradientBoostingConfig(trees=5, leaf_rows_minimum=59),
    ],
    ids=lambda learner: learner.kind,
)
def test_trees_that_found_nothing_to_split_are_exported(learner: Learner) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (np.arange(60) % 2).astype(np.int8)
    model = learner.fit(x, y, 1)
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


@st.composite
def calibrations(draw: st.DrawFn) -> calibration.Calibration:
    """Of each kind, as steep as they are let be, and isotonic ones of up to as many knots as they may have."""
    if draw(st.booleans()):
        return Platt(draw(st.floats(1e-6, 20.0)), draw(st.floats(-30.0, 30.0)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    count = draw(st.integers(2, 1500))
    line = np.sort(rng.random((2, count)), axis=1) * [[1.0], [1.0 - 2e-6]] + 1e-6
    return Isotonic(*bounded(*line, SLOPE_LIMIT))


@given(calibrations(), st.lists(st.floats(-60.0, 60.0, width=32), min_size=1, max_size=50))
def test_a_calibrations_nodes_say_what_it_says_for_any_score(
    chosen: calibration.Calibration, scores: list[float]
) -> None:
    nodes, constants = chosen.onnx_nodes("raw", "calibrated")
    into = helper.make_node("Cast", ["features"], ["raw"], to=onnx.TensorProto.DOUBLE)
    out = helper.make_node("Cast", ["calibrated"], ["probability_up"], to=onnx.TensorProto.FLOAT)
    raw = np.array(scores, np.float32)
    found = probabilities(model_of([into, *nodes, out], constants, 1), raw[:, None])
    np.testing.assert_allclose(found, chosen.apply(raw.astype(np.float64)), rtol=0, atol=2 * OUTPUT_ROUNDING)


def test_a_model_of_no_known_kind_is_refused() -> None:
    class Coin:
        width = 3

        def raw_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.zeros(len(features))

        def importance(self) -> None:
            return None

    with pytest.raises(NotExportable, match="no ONNX graph can be made of a Coin; known: LightGBMModel") as caught:
        export(Coin(), Platt(1.0, 0.0))
    assert caught.value.model == "Coin"


@each_calibration
@each_kind
def test_features_of_any_size_leave_a_probability(kind: str, how: calibration.Kind) -> None:
    """Scaled they leave float32's range: computed in it, infinity less infinity would be NaN."""
    model = fitted("sp500", kind)
    chosen = calibrated("sp500", model, how)
    rows = np.array([[1e36] * 10, [-1e36] * 10, [1e36, -1e36] * 5], np.float32)
    check_parity(export(model, chosen), lambda r: chosen.apply(model.raw_scores(r)), rows, 0.6)
