import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.packages import edit_manifest, logistic, logistic_onnx, make_manifest, publish_logistic

from tickgate_server.features.schema import micro10
from tickgate_server.models.errors import ManifestInvalid, PackageFileMissing, VersionExists
from tickgate_server.models.package import (
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    publish,
    read_manifest,
    sha256,
    versions,
)

WEIGHTS = np.zeros(10, np.float32)
ROWS = np.zeros((64, 10), np.float32)
MODEL = logistic_onnx(WEIGHTS, 0.0)


def manifest(**changes: Any) -> Manifest:
    return make_manifest(MODEL, micro10(), ROWS, logistic(WEIGHTS, 0.0, ROWS), **changes)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_published_package_is_the_model_and_its_manifest_and_nothing_else(tmp_path: Path) -> None:
    folder = publish(tmp_path, manifest(), MODEL)
    assert tree(tmp_path) == ["tiny", "tiny/1", f"tiny/1/{MANIFEST_FILE}", f"tiny/1/{MODEL_FILE}"]
    assert (folder / MODEL_FILE).read_bytes() == MODEL
    assert read_manifest(folder) == manifest()
    assert sha256(folder / MODEL_FILE) == manifest().model_sha256


def test_a_version_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    folder = publish(tmp_path, manifest(), MODEL)
    before = (folder / MANIFEST_FILE).read_bytes()
    with pytest.raises(VersionExists, match="publish a higher one") as caught:
        publish(tmp_path, manifest(data_fingerprint="another"), MODEL)
    assert caught.value.path == folder
    assert (folder / MANIFEST_FILE).read_bytes() == before
    assert tree(tmp_path / "tiny") == ["1", f"1/{MANIFEST_FILE}", f"1/{MODEL_FILE}"]


def test_a_model_that_is_not_the_manifests_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_sha256"):
        publish(tmp_path, manifest(), MODEL + b"\0")
    assert tree(tmp_path) == []


def test_a_write_that_fails_leaves_no_part_of_a_version_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def full_disk(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path, manifest(), MODEL)
    assert len(synced) == 2
    assert [name for name in tree(tmp_path) if name != "tiny"] == []


def test_of_several_publishers_of_one_version_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def attempt(number: int) -> str | None:
        together.wait()
        try:
            publish(tmp_path, manifest(data_fingerprint=f"publisher {number}"), MODEL)
        except VersionExists:
            return None
        return f"publisher {number}"

    with ThreadPoolExecutor(4) as pool:
        winners = [name for name in pool.map(attempt, range(4)) if name]
    assert [read_manifest(tmp_path / "tiny" / "1").data_fingerprint] == winners
    assert tree(tmp_path / "tiny") == ["1", f"1/{MANIFEST_FILE}", f"1/{MODEL_FILE}"]


def test_a_reader_never_sees_a_version_that_is_not_whole(tmp_path: Path) -> None:
    last = 30
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(
            lambda: [publish(tmp_path, manifest(version=version), MODEL) for version in range(1, last + 1)]
        )
        seen: list[int] = []
        while len(seen) < last:
            seen = versions(tmp_path, "tiny")
            for version in seen:
                folder = tmp_path / "tiny" / str(version)
                assert sha256(folder / MODEL_FILE) == read_manifest(folder).model_sha256
            if publishing.done():
                publishing.result()
    assert seen == list(range(1, last + 1))


def test_versions_are_positive_integers_in_their_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("10", "9", "2", "0", "01", "-1", "1.5", "v3", "latest", ".incoming-5", "²"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
    (tmp_path / "tiny" / "7").write_text("a file")
    assert versions(tmp_path, "tiny") == [2, 9, 10]


def test_a_model_that_is_not_there_has_no_versions(tmp_path: Path) -> None:
    assert versions(tmp_path, "tiny") == []


def put(*keys: str | int, value: object) -> Any:
    """A change to a manifest's document."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda document: document.pop("model_sha256"), "model_sha256: Field required"),
        (lambda document: document.pop("golden"), "golden: Field required"),
        (put("surprise", value=1), "surprise: Extra inputs"),
        (put("output", "surprise", value=1), "output.surprise: Extra inputs"),
        (put("format_version", value=2), "format_version: "),
        (put("name", value="../tiny"), "name: "),
        (put("version", value=0), "version: "),
        (put("model_sha256", value="0" * 63), "model_sha256: "),
        (put("created", value="yesterday"), "created: "),
        (put("output", "kind", value="price"), "output.kind: "),
        (put("output", "horizon_trades", value=0), "output.horizon_trades: "),
        (put("features", "dtype", value="float64"), "features.dtype: "),
        (put("features", "session_gap_ns", value=-1), "features.session_gap_ns: "),
        (put("decision_threshold", value=0.4), "decision_threshold: "),
        (put("decision_threshold", value=float("nan")), "decision_threshold: "),
        (put("latency_budget_ms", value=0), "latency_budget_ms: "),
        (put("latency_budget_ms", value=float("nan")), "latency_budget_ms: "),
        (put("latency_budget_ms", value=float("inf")), "latency_budget_ms: "),
        (put("validation", "trials", value=0), "validation.trials: "),
        (put("validation", "metrics", "sharpe_net", value=float("nan")), "validation.metrics.sharpe_net"),
        (put("feature_statistics", "ret_1", "std", value=float("nan")), "feature_statistics.ret_1.std: "),
        (put("feature_statistics", value={}), "feature_statistics must have one entry"),
        (put("allowed_regimes", value=["sideways"]), "allowed_regimes.0: "),
        (put("golden", "inputs", 3, 2, value=float("nan")), "golden.inputs.3.2: "),
        (put("golden", "inputs", 3, 2, value=float("inf")), "golden.inputs.3.2: "),
        (put("golden", "inputs", 3, value=[0.0] * 9), "each row of golden.inputs must have 10 values"),
        (put("golden", "outputs", 5, value=float("nan")), "golden.outputs.5: "),
        (put("golden", "outputs", 5, value=1.01), "golden.outputs.5: "),
        (put("golden", "outputs", value=[0.5] * 63), "golden has 64 inputs and 63 outputs"),
        (put("golden", value={"inputs": [[0.0] * 10] * 63, "outputs": [0.5] * 63}), "at least 64 needed"),
    ],
)
def test_a_manifest_that_is_not_as_described_names_the_key(tmp_path: Path, change: Any, why: str) -> None:
    folder = publish_logistic(tmp_path)
    edit_manifest(folder, change)
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(folder)
    assert caught.value.path == folder / MANIFEST_FILE
    assert why in caught.value.why


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "tiny"'])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = publish_logistic(tmp_path)
    (folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(ManifestInvalid):
        read_manifest(folder)


def test_a_manifest_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = publish_logistic(tmp_path) / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ManifestInvalid):
        read_manifest(path.parent)


@pytest.mark.parametrize("place", ["tiny/2", "other/1"])
def test_a_manifest_of_another_folder_is_refused(tmp_path: Path, place: str) -> None:
    moved = tmp_path / place
    moved.parent.mkdir(exist_ok=True, parents=True)
    publish_logistic(tmp_path).rename(moved)
    with pytest.raises(ManifestInvalid, match=rf"is of tiny/1, its folder is {place}"):
        read_manifest(moved)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageFileMissing) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST_FILE


def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path)
    (folder / MANIFEST_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(PackageFileMissing, match="cannot be read"):
        read_manifest(folder)


def test_an_undefined_metric_is_written_as_null(tmp_path: Path) -> None:
    document = json.loads((publish_logistic(tmp_path) / MANIFEST_FILE).read_text())
    assert document["validation"]["metrics"] == {"sharpe_net": None}
