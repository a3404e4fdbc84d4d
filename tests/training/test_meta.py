"""Meta-labels as a part of a run: a rule's side, a model that says whether to act on it, one graph of both."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.models import CALIBRATIONS, LEARNERS, real_rows
from tests.training.runs import HERE, LIGHTGBM, LOGISTIC, UNPUBLISHED, config, panel, same_series, short_run

from tickgate_server.models.forest import NotCompiled, compile_forest
from tickgate_server.models.loading import load
from tickgate_server.models.package import MODEL_FILE
from tickgate_training import calibration, report
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import ConfigInvalid
from tickgate_training.export import check_parity, export, probabilities
from tickgate_training.folds import Folder
from tickgate_training.labels import meta_labels
from tickgate_training.meta import Primary
from tickgate_training.pipeline import run
from tickgate_training.results import RunResult
from tickgate_training.samples import Samples, prepare, sides_of
from tickgate_training.tuning import Configuration

META = {"feature": "ret_5", "direction": "against", "dead_band": 1e-5}
RET_5 = 1


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return short_run(tmp_path_factory.mktemp("planted"), learners=[LIGHTGBM, LOGISTIC], meta=META)


def test_the_side_is_the_features_sign_outside_the_dead_band_with_it_or_against_it() -> None:
    column = np.array([[0.2], [-0.2], [0.1], [-0.1], [0.0], [-0.0], [np.nan]], np.float32)
    features = np.hstack((np.full((7, 1), 9.0, np.float32), column))
    band = float(np.float32(0.1))
    assert Primary(1, against=False, dead_band=band).sides(features).tolist() == [1, -1, 0, 0, 0, 0, 0]
    assert Primary(1, against=True, dead_band=band).sides(features).tolist() == [-1, 1, 0, 0, 0, 0, 0]
    assert Primary(1, against=True, dead_band=0.0).sides(features).tolist() == [-1, 1, -1, 1, 0, 0, 0]


def test_what_is_told_is_the_side_times_the_chance_that_it_is_right_and_never_the_other_side() -> None:
    features = np.array([[1.0], [-1.0], [1.0], [-1.0], [0.0]], np.float32)
    right = np.array([0.7, 0.7, 0.4, 0.4, 0.9])
    found = Primary(0, against=False, dead_band=0.0).probabilities(features, right)
    np.testing.assert_allclose(found, [0.7, 0.3, 0.5, 0.5, 0.5], rtol=0, atol=1e-15)


@given(
    values=st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=30),
    right=st.floats(1e-6, 1 - 1e-6),
    against=st.booleans(),
    band=st.sampled_from([0.0, 1e-3, 0.25]),
)
def test_no_row_leans_to_the_side_that_the_primary_did_not_take(
    values: list[float], right: float, *, against: bool, band: float
) -> None:
    features = np.array(values, np.float32)[:, None]
    primary = Primary(0, against=against, dead_band=band)
    up = primary.probabilities(features, np.full(len(values), right))
    assert ((up >= 0.0) & (up <= 1.0)).all()
    lean = np.sign(up - 0.5)
    assert set((lean * primary.sides(features)).tolist()) <= {0.0, 1.0}
    np.testing.assert_allclose(np.maximum(up, 1.0 - up)[lean != 0.0], right, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("how", CALIBRATIONS)
def test_the_graph_says_what_the_source_says_on_every_real_row(kind: str, how: calibration.Kind) -> None:
    x, y = real_rows("nasdaq")
    primary = Primary(RET_5, against=True, dead_band=0.002)
    sides = primary.sides(x)
    known = (y >= 0) & (sides != 0)
    right = ((y == 1) == (sides == 1)).astype(np.int8)
    early, late = np.flatnonzero(known[:2500]), 2500 + np.flatnonzero(known[2500:])
    model = LEARNERS[kind].fit(x[early], right[early], 1)
    chosen = calibration.fit(how, model.raw_scores(x[late]), right[late])
    graph = export(model, chosen, primary)

    def source(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return primary.probabilities(rows, chosen.apply(model.raw_scores(rows)))

    assert check_parity(graph, source, x, 0.52) <= 1e-5
    found = probabilities(graph, x)
    assert (found[sides == 0] == 0.5).all()
    edges = np.repeat(x[:3], 3, axis=0)
    band = np.float32(0.002)
    edges[:, RET_5] = [0.0, -0.0, band, -band, np.nextafter(band, np.float32(1)), 1e-45, -1e-45, 0.1, -0.1]
    assert check_parity(graph, source, edges, 0.52) <= 1e-5
    assert export(model, chosen, primary) == graph
    assert isinstance(compile_forest(graph, 10), NotCompiled)  # its side would be lost


def samples_of(folder: Path, **more: object) -> Samples:
    return prepare(simulate(4000, 1, 0.3), config(folder, meta=META, **more))


def test_the_target_is_whether_the_side_gained_and_the_labels_stay_those_of_the_move(tmp_path: Path) -> None:
    settings = config(tmp_path, meta=META)
    samples = samples_of(tmp_path)
    plain = prepare(simulate(4000, 1, 0.3), config(tmp_path))
    sides = sides_of(samples.features, settings, samples.feature_set)
    assert sides is not None
    assert samples.labels.direction.tolist() == plain.labels.direction.tolist()
    assert plain.target is plain.labels
    by_hand = []
    for side, change in zip(sides.tolist(), samples.labels.returns.tolist(), strict=True):
        by_hand.append(-1 if side == 0 or math.isnan(change) else int(side * change > 0.0))
    silent = (samples.labels.direction == -1) & (samples.labels.returns != 0.0) & ~np.isnan(samples.labels.returns)
    assert not silent.any()  # no silences in simulated ticks
    assert samples.target.direction.tolist() == by_hand
    assert {-1, 0, 1} == set(by_hand)


def test_barriers_are_the_profit_and_the_loss_of_the_primarys_side(tmp_path: Path) -> None:
    label = {"kind": "triple_barrier", "horizon_trades": 20, "upper_multiple": 2.0, "lower_multiple": 0.5}
    samples = samples_of(tmp_path, label=label)
    settings = config(tmp_path, meta=META, label=label)
    sides = sides_of(samples.features, settings, samples.feature_set)
    assert sides is not None
    frame = simulate(4000, 1, 0.3)
    stamps_ns, prices = frame["exchange_ts_ns"].to_numpy(), frame["price"].to_numpy()
    volatilities = samples.books[0].market.trade_volatilities
    expected = settings.label.apply(prices, volatilities, stamps_ns, samples.feature_set.session_gap_ns, sides)
    assert samples.labels.returns.tobytes() == expected.returns.tobytes()
    assert samples.target.direction.tolist() == meta_labels(expected, sides).direction.tolist()
    long_side = settings.label.apply(prices, volatilities, stamps_ns, samples.feature_set.session_gap_ns)
    assert samples.labels.returns[sides == -1].tobytes() != long_side.returns[sides == -1].tobytes()


def test_the_secondary_is_fitted_on_rows_with_a_side_and_described_by_all(tmp_path: Path) -> None:
    settings = config(tmp_path, meta=META | {"dead_band": 5e-4})
    samples = prepare(simulate(7000, 1, 0.3), settings)
    (window, *_) = settings.walk_forward.windows(samples.sessions, samples.stamps_ns)
    fitted = Folder(samples, settings, ()).fit(Configuration(0, settings.learners[0]), window)
    sides = sides_of(samples.features, settings, samples.feature_set)
    assert sides is not None
    assert (sides[fitted.train_rows] != 0).all()
    assert 0.0 < (sides[fitted.described_rows] == 0).mean() < 1.0
    assert set(fitted.train_rows.tolist()) < set(fitted.described_rows.tolist())
    np.testing.assert_array_equal(
        fitted.described_rows,
        np.intersect1d(window.train_rows(samples.labels.interval_end), np.flatnonzero(samples.ready)),
    )


def test_a_run_with_meta_labels_earns_on_the_primarys_side_alone(planted: RunResult) -> None:
    assert planted.selected.net.total_return_summed > 0.0
    probabilities_up = planted.diagnostics.probabilities
    samples = prepare(simulate(7000, 1, 0.3), config(planted.folder, meta=META))
    sides = sides_of(samples.features, config(planted.folder, meta=META), samples.feature_set)
    assert sides is not None
    lean = np.sign(probabilities_up - 0.5)
    tested = sides[2800:]
    assert (lean[tested == 0] == 0.0).all()
    assert (lean * tested >= 0.0).all()
    acted = lean != 0.0
    assert 0.0 < acted.mean() < (tested != 0).mean()  # it passes some sides over
    right = (samples.labels.returns[2800:] * tested > 0.0)[np.isfinite(samples.labels.returns[2800:])]
    chosen = acted[np.isfinite(samples.labels.returns[2800:])]
    assert right[chosen].mean() > right[tested[: right.size] != 0].mean() + 0.02


def test_the_primary_alone_is_a_baseline(planted: RunResult, tmp_path: Path) -> None:
    (alone,) = [baseline for baseline in planted.baselines if baseline.name == "primary alone"]
    settings = config(planted.folder, meta=META)
    samples = prepare(simulate(7000, 1, 0.3), settings)
    sides = sides_of(samples.features, settings, samples.feature_set)
    assert sides is not None
    marks = samples.books[0].market.marks
    size = settings.policy.capital / marks[2801]
    held = [size * float(sides[2800 + k - k % 5]) for k in range(4198)]  # decided every 5 rows, the last two never end
    net = before = 0.0
    for row, position in enumerate([*held, 0.0], 2801):  # entered a row after its decision, closed at the end
        paid = abs(position - before) * marks[row] * samples.books[0].market.half_spreads[row]
        earned = position * (marks[row + 1] - marks[row]) if row < 2801 + len(held) else 0.0
        net += (earned - paid) / settings.policy.capital
        before = position
    assert alone.net.total_return_summed == pytest.approx(net, rel=1e-9)
    page = report.write(planted, tmp_path).page.read_text(encoding="utf-8")
    assert "primary alone, net" in page
    assert "side against the sign of ret_5, no side where it is at most 1e-05; learned is whether to act on it" in page


def test_the_server_loads_the_package_and_answers_what_the_source_says(planted: RunResult) -> None:
    published = planted.published
    assert published is not None
    loaded = load(published.folder)
    golden = np.array(published.manifest.golden.inputs, np.float32)
    for row, expected in zip(golden, published.manifest.golden.outputs, strict=True):
        assert loaded.scorer.score(row) == pytest.approx(expected, abs=1e-6)
    assert 0.5 in published.manifest.golden.outputs
    assert max(window.parity_difference for window in planted.windows) <= 1e-5
    graph = (published.folder / MODEL_FILE).read_bytes()
    assert b"primary_column" in graph


def test_the_same_run_gives_the_same_bytes(planted: RunResult, tmp_path: Path) -> None:
    again = short_run(tmp_path, HERE, learners=[LIGHTGBM, LOGISTIC], meta=META)
    assert same_series(planted, again)
    assert planted.published is not None
    assert again.published is not None
    assert planted.published.manifest.model_sha256 == again.published.manifest.model_sha256


def test_a_panel_with_barriers_and_paths_takes_meta_labels(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        walk_forward={"train_rows": 1500, "validation_rows": 600, "test_rows": 500},
        label={"kind": "triple_barrier", "horizon_trades": 5},
        calibration="isotonic",
        combinatorial={"groups": 4, "embargo_rows": 20},
        meta={"feature": "tick_sign", "direction": "against"},
    )
    found = run(settings, UNPUBLISHED, frame=panel())
    assert found.paths is not None
    assert "primary alone" in {baseline.name for baseline in found.baselines}
    assert np.isfinite(found.selected.net.total_return_summed)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"primary": "lightgbm", "feature": "ret_1"}, "primary 'lightgbm': only a rule on features"),
        ({"feature": "ret_1", "dead_band": -1.0}, "meta.dead_band"),
        ({"feature": "ret_1", "dead_band": math.inf}, "meta.dead_band"),
        ({"feature": "ret_1", "direction": "up"}, "meta.direction"),
        ({}, "meta.feature: Field required"),
    ],
)
def test_a_primary_that_is_no_rule_is_refused_with_the_reason(
    tmp_path: Path, section: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        config(tmp_path, meta=section)


def test_a_feature_that_the_set_lacks_is_named_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigInvalid, match=r"meta.feature: 'roll' is not in the feature set: ret_1, ret_5, .*volume_z"
    ):
        short_run(tmp_path, HERE, meta={"feature": "roll"})
    assert not (tmp_path / "models").exists()
