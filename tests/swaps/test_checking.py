"""Packages checked by a process of their own: what comes back, and what becomes of a process that is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.operated import Operated, copied
from tests.support.packages import publish_forest, publish_logistic

from tickgate_server.models.checking import Checker, load_in_parallel
from tickgate_server.models.errors import CheckerFailed, HashMismatch, PackageError
from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import MODEL_FILE
from tickgate_server.models.session import Session
from tickgate_server.models.states import VersionStatus


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    publish_forest(folder, name="tree", latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    publish_logistic(folder, name="broken")
    (folder / "broken" / "1" / MODEL_FILE).write_bytes(b"other")
    return folder


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    made = Checker(120.0)
    yield made
    made.close()


@pytest.mark.parametrize(("name", "kind"), [("tree", CompiledForest), ("line", Session)])
def test_what_a_checker_hands_over_is_what_loading_here_gives(
    packages: Path, checker: Checker, name: str, kind: type
) -> None:
    found = checker.check(packages / name / "1", float("inf"))
    here = load(packages / name / "1")
    assert type(found.scorer) is kind
    assert found.features == here.features
    assert found.manifest == here.manifest.model_copy(update={"golden": found.manifest.golden})
    assert not found.manifest.golden.inputs
    for field in ("name", "version", "schema_id", "threshold", "horizon_trades", "latency_budget_ns", "not_compiled"):
        assert getattr(found, field) == getattr(here, field)
    rows = np.random.default_rng(5).normal(0.0, 1.0, (200, found.features.width)).astype(np.float32)
    assert [found.scorer.score(row) for row in rows] == [here.scorer.score(row) for row in rows]


def test_a_package_that_does_not_pass_is_refused_as_loading_here_refuses_it(packages: Path, checker: Checker) -> None:
    with pytest.raises(HashMismatch) as here:
        load(packages / "broken" / "1")
    with pytest.raises(HashMismatch) as there:
        checker.check(packages / "broken" / "1", float("inf"))
    assert (there.value.path, there.value.why) == (here.value.path, here.value.why)


def test_a_start_loads_in_parallel_what_it_loads_in_turn(packages: Path, tmp_path: Path) -> None:
    for version in range(1, 6):
        publish_forest(tmp_path, name="tree", version=version, seed=version, trees=8, latency_budget_ms=60_000.0)
    folders = [tmp_path / "tree" / str(version) for version in range(1, 6)]
    folders.insert(2, packages / "broken" / "1")
    results = load_in_parallel(folders, float("inf"))
    assert [type(result) for result in results] == [LoadedModel, LoadedModel, HashMismatch, *[LoadedModel] * 3]
    assert [r.version for r in results if isinstance(r, LoadedModel)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("limit_s", "why"), [(600.0, "ended"), (0.5, "took longer than 0.5 s")])
def test_a_lost_checker_fails_one_load_with_the_reason_and_a_new_one_does_the_next(
    tmp_path: Path, limit_s: float, why: str
) -> None:
    models = tmp_path / "models"
    publish_forest(models, name="tree", trees=8, latency_budget_ms=60_000.0)
    copied(models / "tree" / "1", 2)
    (models / "tree" / "2").rename(tmp_path / "2")
    served = Operated(tmp_path / "journal", models, own_process=True, load_limit_s=limit_s)
    try:
        (tmp_path / "2").rename(models / "tree" / "2")
        lost = served.models.checker
        assert lost is not None
        os.kill(lost, signal.SIGSTOP)
        results: list[object] = []
        served.models.load("tree", 2, results.append)
        served.until(lambda: "LOADING" in served.states("tree", 2))
        if why == "ended":
            os.kill(lost, signal.SIGKILL)
        assert served.version("tree") == 1  # requests go on
        (refused,) = served.until(lambda: results)
        assert isinstance(refused, CheckerFailed)
        assert isinstance(refused, PackageError)
        assert why in refused.why
        assert served.version("tree") == 1
        assert served.states("tree", 2) == ["START", "LOADING", "FAILED"]
        served.models._loader._checker._limit_s = 120.0  # a machine may take long to start a new one
        assert isinstance(served.load("tree", 2), VersionStatus)
        assert served.models.checker != lost
        assert served.version("tree:2") == 2
    finally:
        served.close()
    assert served.models.checker is None
