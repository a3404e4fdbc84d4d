"""Exported models in the server: which it compiles, that both its ways agree, that it loads every package."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import CALIBRATIONS, LEARNERS, TREES, real_rows, split_points
from tests.support.packages import make_manifest

from tickgate_server.features.schema import micro10
from tickgate_server.models.forest import CompiledForest, NotCompiled, compile_forest
from tickgate_server.models.forest_check import ulps_apart
from tickgate_server.models.loading import load
from tickgate_server.models.package import publish
from tickgate_server.models.session import Session
from tickgate_training import calibration
from tickgate_training.calibration import Calibration
from tickgate_training.export import export
from tickgate_training.learners import Model
from tickgate_training.publishing import feature_statistics

every = pytest.mark.parametrize(("kind", "how"), [(kind, how) for kind in LEARNERS for how in CALIBRATIONS])
DAILY_GAP_NS = 0


@cache
def fitted(kind: str, how: calibration.Kind) -> tuple[Model, Calibration, bytes]:
    """On the NASDAQ: the model on the first half, its calibration on the second."""
    x, y = real_rows("nasdaq")
    early, late = np.flatnonzero(y[:2500] >= 0), 2500 + np.flatnonzero(y[2500:] >= 0)
    model = _model(kind, tuple(early.tolist()))
    chosen = calibration.fit(how, model.raw_scores(x[late]), y[late])
    return model, chosen, export(model, chosen)


@cache
def _model(kind: str, rows: tuple[int, ...]) -> Model:
    x, y = real_rows("nasdaq")
    return LEARNERS[kind].fit(x[list(rows)], y[list(rows)], 1)


@every
def test_the_server_compiles_trees_with_platts_calibration_or_none(kind: str, how: calibration.Kind) -> None:
    _, _, graph = fitted(kind, how)
    found = compile_forest(graph, 10)
    if kind in TREES and how != "isotonic":
        assert isinstance(found, CompiledForest)
    else:
        assert isinstance(found, NotCompiled)
        assert found.reason == (
            "operator Max of DOUBLE is not known here"
            if kind in TREES
            else "has 0 tree ensembles that its output depends on, expected one"
        )


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("how", ["platt", "none"])
def test_compiled_and_in_onnx_runtime_a_row_scores_the_same_also_at_a_split(kind: str, how: calibration.Kind) -> None:
    x, _ = real_rows("nasdaq")
    model, chosen, graph = fitted(kind, how)
    forest, session = compile_forest(graph, 10), Session(Path("model.onnx"), graph, 10)
    assert isinstance(forest, CompiledForest)
    rows = x[np.random.default_rng(1).integers(len(x), size=900)].copy()
    splits = split_points(model)
    for number, row in enumerate(rows):
        feature, threshold = splits[number % len(splits)]
        row[feature] = np.nextafter(threshold, np.float32([-np.inf, threshold, np.inf][number % 3]))
    expected = chosen.apply(model.raw_scores(rows))
    for row, source in zip(rows, expected, strict=True):
        assert ulps_apart(forest.score(row), session.score(row)) <= 1
        assert forest.score(row) == pytest.approx(source, abs=1e-7)


@every
def test_the_server_loads_a_package_of_every_kind(tmp_path: Path, kind: str, how: calibration.Kind) -> None:
    x, _ = real_rows("nasdaq")
    model, chosen, graph = fitted(kind, how)
    features = micro10(DAILY_GAP_NS)
    golden = x[np.linspace(0, len(x) - 1, 64).astype(np.int64)]
    manifest = make_manifest(
        graph,
        features,
        golden,
        chosen.apply(model.raw_scores(golden)),
        feature_statistics=feature_statistics(features.features, x),
        latency_budget_ms=60_000.0,
    )
    loaded = load(publish(tmp_path, manifest, graph))
    assert isinstance(loaded.scorer, CompiledForest) == (kind in TREES and how != "isotonic")
    for row in x[-20:]:
        assert loaded.scorer.score(row) == pytest.approx(float(chosen.apply(model.raw_scores(row[None]))[0]), abs=1e-7)
