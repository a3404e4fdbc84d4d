import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.support.packages import (
    constant_onnx,
    edit_manifest,
    logistic,
    logistic_onnx,
    publish_logistic,
    publish_model,
)

from tickgate_server.features.schema import micro10
from tickgate_server.models import errors
from tickgate_server.models.loading import load
from tickgate_server.models.package import INPUT_NAME, MANIFEST_FILE, MODEL_FILE, OUTPUT_NAME


def refused(folder: Path, kind: type[errors.PackageError], file: str = MODEL_FILE) -> str:
    with pytest.raises(errors.PackageError) as caught:
        load(folder)
    assert type(caught.value) is kind
    assert caught.value.path == folder / file
    return caught.value.why


def replace_model(folder: Path, model: bytes) -> None:
    """Put other bytes in a package's place, with their hash in its manifest."""
    (folder / MODEL_FILE).write_bytes(model)
    edit_manifest(folder, lambda document: document.update(model_sha256=hashlib.sha256(model).hexdigest()))


def test_a_fit_package_loads_with_what_the_hot_path_needs(tmp_path: Path) -> None:
    model = load(publish_logistic(tmp_path, version=3, decision_threshold=0.6, latency_budget_ms=2000.0))
    assert (model.name, model.version, model.threshold, model.horizon_trades) == ("tiny", 3, 0.6, 5)
    assert (model.schema_id, model.latency_budget_ns) == (micro10().schema_id, 2_000_000_000)
    assert model.warm_up_us_p99 > 0.0


def test_a_loaded_model_scores_as_its_formula(tmp_path: Path) -> None:
    session = load(publish_logistic(tmp_path, bias=0.1)).scorer
    weights = np.zeros(10, np.float32)
    weights[0] = 400.0
    rows = np.random.default_rng(1).normal(0.0, 1e-3, (50, 10)).astype(np.float32)
    assert [session.score(row) for row in rows] == pytest.approx(logistic(weights, 0.1, rows), abs=1e-6)


def test_a_vector_of_nans_scores_nan_and_leaves_no_trace(tmp_path: Path) -> None:
    session = load(publish_logistic(tmp_path)).scorer
    row = np.full(10, 1e-3, np.float32)
    before = session.score(row)
    assert np.isnan(session.score(np.full(10, np.nan, np.float32)))
    assert session.score(row) == before


def test_a_package_without_a_manifest_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)
    (folder / MANIFEST_FILE).unlink()
    refused(folder, errors.PackageFileMissing, MANIFEST_FILE)


def test_a_package_without_a_model_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)
    (folder / MODEL_FILE).unlink()
    assert "cannot be read" in refused(folder, errors.PackageFileMissing)


@pytest.mark.parametrize("damage", [lambda model: model[:-1], lambda model: model + b"\0", lambda _: b""])
def test_a_model_that_is_not_the_hashed_one_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = publish_logistic(tmp_path) / MODEL_FILE
    path.write_bytes(damage(path.read_bytes()))
    assert "sha256 is" in refused(path.parent, errors.HashMismatch)


def test_the_hash_is_looked_at_before_the_schema(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)
    edit_manifest(folder, lambda document: document["features"].update(schema_id="micro10-0"))
    (folder / MODEL_FILE).write_bytes(b"another")
    refused(folder, errors.HashMismatch)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_id": "micro10-0000000000000000"}, f"this server computes {micro10().schema_id}"),
        ({"session_gap_ns": 0}, f"this server computes {micro10(0).schema_id}"),
        ({"feature_set": "micro99"}, "no feature set 'micro99'"),
    ],
)
def test_a_model_of_other_features_is_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    folder = publish_logistic(tmp_path)
    edit_manifest(folder, lambda document: document["features"].update(change))
    assert why in refused(folder, errors.SchemaMismatch, MANIFEST_FILE)


def test_names_in_another_order_than_the_schemas_are_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)
    edit_manifest(folder, lambda document: document["features"]["names"].reverse())
    assert "features.names" in refused(folder, errors.ManifestInvalid, MANIFEST_FILE)


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"no graph at all", lambda _: b"", lambda model: model[: len(model) // 2], lambda model: model[:-9]],
    ids=["corrupt", "empty", "half", "cut short"],
)
def test_a_graph_that_does_not_open_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = publish_logistic(tmp_path)
    replace_model(folder, damage((folder / MODEL_FILE).read_bytes()))
    assert "ONNX Runtime refuses it" in refused(folder, errors.GraphInvalid)


def identity(
    *,
    given: str = INPUT_NAME,
    found: str = OUTPUT_NAME,
    kind: int = TensorProto.FLOAT,
    inputs: tuple[int | str, ...] = ("N", 10),
    outputs: tuple[int | str, ...] = ("N", 1),
) -> bytes:
    """The mean of a row, under any names, types and shapes."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [given], [found], axes=[-1], keepdims=1 if len(outputs) == 2 else 0)],
        "mean",
        [helper.make_tensor_value_info(given, kind, inputs)],
        [helper.make_tensor_value_info(found, kind, outputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (identity(given="x"), "input is 'x'"),
        (identity(found="y"), "output is 'y'"),
        (identity(kind=TensorProto.DOUBLE), "tensor(double)"),
        (identity(inputs=("N", 11)), "expected 'features' tensor(float) [N, 10]"),
        (identity(inputs=(1, 10), outputs=(1, 1)), "with N free"),
        (identity(outputs=("N",)), "output is 'probability_up' tensor(float) ['N']"),
        (constant_onnx(width=2), "expected 'probability_up' tensor(float) [N, 1]"),
    ],
)
def test_a_graph_of_another_shape_than_declared_is_refused(tmp_path: Path, model: bytes, why: str) -> None:
    folder = publish_logistic(tmp_path)
    replace_model(folder, model)
    assert why in refused(folder, errors.GraphInvalid)


def test_a_graph_with_a_second_output_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [INPUT_NAME], [OUTPUT_NAME], axes=[-1]),
            helper.make_node("Neg", [OUTPUT_NAME], ["other"]),
        ],
        "two",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in (OUTPUT_NAME, "other")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = publish_logistic(tmp_path)
    replace_model(folder, model.SerializeToString())
    assert "has 2 outputs" in refused(folder, errors.GraphInvalid)


def test_a_graph_that_fails_as_it_runs_is_refused(tmp_path: Path) -> None:
    folder = publish_model(tmp_path, constant_onnx(fails=True))
    assert "it fails as it runs" in refused(folder, errors.GraphInvalid)


def test_a_graph_that_answers_nan_is_refused(tmp_path: Path) -> None:
    folder = publish_model(tmp_path, logistic_onnx(np.full(10, np.nan, np.float32), 0.0))
    assert "golden vector 0" in refused(folder, errors.GoldenMismatch)


@pytest.mark.parametrize("off", [1e-3, -1e-3, 1.1e-5])
def test_one_golden_output_that_is_not_reproduced_refuses_the_model(tmp_path: Path, off: float) -> None:
    folder = publish_logistic(tmp_path)

    def shift(document: dict[str, Any]) -> None:
        document["golden"]["outputs"][41] += off

    edit_manifest(folder, shift)
    assert "golden vector 41" in refused(folder, errors.GoldenMismatch)


def test_golden_outputs_within_the_tolerance_are_reproduced(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)

    def shift(document: dict[str, Any]) -> None:
        document["golden"]["outputs"] = [output + 9e-6 for output in document["golden"]["outputs"]]

    edit_manifest(folder, shift)
    assert load(folder).version == 1


def test_a_model_slower_than_its_budget_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path, latency_budget_ms=1e-6)
    assert "its latency_budget_ms is 1e-06" in refused(folder, errors.LatencyOverBudget)
