"""Versions loaded, switched and unloaded on an engine that answers."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import pytest
from tests.support.operated import BY, Operated, copied
from tests.support.packages import (
    constant_onnx,
    edit_manifest,
    long_onnx,
    publish_forest,
    publish_logistic,
    publish_model,
)

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.errors import FieldInvalid
from tickgate_server.models.aliases import ALIASES_FILE, Aliases, change_alias, read_aliases
from tickgate_server.models.errors import (
    AliasConflict,
    GoldenMismatch,
    GraphInvalid,
    HashMismatch,
    LatencyOverBudget,
    ManifestInvalid,
    ModelNotLoaded,
    NothingBefore,
    PackageFileMissing,
    SchemaMismatch,
    VersionInUse,
    VersionMissing,
)
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE
from tickgate_server.models.registry import InForce
from tickgate_server.models.states import VersionState, VersionStatus
from tickgate_server.rpc.status import Status


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tree` 1 and 2, whose forests differ, and `line` 1, for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("packages")
    for version in (1, 2):
        publish_forest(folder, name="tree", version=version, seed=version, latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    return folder


@pytest.fixture
def models(packages: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packages, tmp_path / "models"))


@pytest.fixture
def serve(models: Path, tmp_path: Path) -> Iterator[Callable[..., Operated]]:
    """Starts engines on the repository, and ends them."""
    begun: list[Operated] = []

    def start(*without: str, **options: object) -> Operated:
        for version in without:
            shutil.move(models / version, tmp_path / version.replace("/", "-"))
        begun.append(Operated(tmp_path / f"journal-{len(begun)}", models, default="tree", **options))
        for version in without:
            shutil.move(tmp_path / version.replace("/", "-"), models / version)
        return begun[-1]

    yield start
    for operated in begun:
        operated.close()


def warm(operated: Operated, symbols: str = "A") -> None:
    for symbol in symbols:
        for _ in range(12):
            operated.ask(symbol=symbol)


def test_a_version_goes_through_its_states_in_order(serve: Callable[..., Operated]) -> None:
    served = serve("tree/2")
    loaded = served.load("tree", 2)
    assert isinstance(loaded, VersionStatus)
    assert (loaded.state, loaded.reason) == (VersionState.READY, "")
    assert loaded.loaded is served.engine.registry.resolve("tree:2")
    gone = served.unload("tree", 1, force=True)
    assert isinstance(gone, VersionStatus)
    assert gone.state is VersionState.GONE
    assert served.states("tree", 2) == ["START", "LOADING", "READY"]
    assert served.states("tree", 1) == ["UNLOADING", "GONE"]
    assert [(s.name, s.version, s.state) for s in served.models.statuses()] == [
        ("line", 1, VersionState.READY),
        ("tree", 2, VersionState.READY),
    ]


def test_without_a_file_of_aliases_production_is_the_highest_at_the_start_and_stays(
    serve: Callable[..., Operated],
) -> None:
    assert serve().version() == 2
    served = serve("tree/2")
    assert served.version() == 1
    served.load("tree", 2)
    assert [served.version(model) for model in ("", "tree", "tree@production", "tree:2")] == [1, 1, 1, 2]
    assert isinstance(served.unload("tree", 1), VersionInUse)
    served.unload("tree", 1, force=True)
    assert served.version() == 2


def test_a_switch_takes_effect_for_the_next_request_on_every_path(serve: Callable[..., Operated]) -> None:
    for lanes in (True, False):
        served = serve(lanes=lanes)
        warm(served)
        current = served.models.in_force("tree").production
        assert current is not None
        for version in (3 - current, current):
            changed = served.point("tree", version, expected=3 - version)
            assert isinstance(changed, Aliases)
            answer = served.ask()
            assert isinstance(answer, pb.PredictResponse)
            assert answer.model.version == version
            vector = served.engine.feature_stores[0].vectors[served.engine.symbols.row("A")]
            meant = served.engine.registry.resolve(f"tree:{version}").scorer.score(np.ascontiguousarray(vector))
            assert answer.prediction.value == 2.0 * meant - 1.0


def test_of_two_promotions_at_once_one_wins_and_the_other_learns_what_is(serve: Callable[..., Operated]) -> None:
    served = serve()
    results: list[object] = []
    for version in (1, None):
        served.models.change_alias(
            "tree", "production", version, expected=2, done=results.append, reason="race", who="tester"
        )
    served.until(lambda: len(results) == 2)
    won, lost = sorted(results, key=lambda result: isinstance(result, Exception))
    assert isinstance(won, Aliases)
    assert isinstance(lost, AliasConflict)
    assert (won.production, lost.expected, lost.current) == (1, 2, 1)
    assert served.version() == 1


def test_a_roll_back_takes_effect_at_once_and_loads_nothing(serve: Callable[..., Operated], models: Path) -> None:
    served = serve()
    assert isinstance(served.roll_back("tree", expected=None), NothingBefore)
    served.point("tree", 1, expected=2)
    (models / "tree" / "2" / MODEL_FILE).write_bytes(b"nobody reads this again")
    served.changes.clear()
    back = served.roll_back("tree", expected=1)
    assert isinstance(back, Aliases)
    assert (back.production, served.version()) == (2, 2)
    assert not [change for change in served.changes if isinstance(change, VersionStatus)]


def test_a_switch_to_a_version_that_is_not_loaded_is_refused(serve: Callable[..., Operated], models: Path) -> None:
    served = serve("tree/2")
    refused = served.point("tree", 2, expected=1)
    assert isinstance(refused, ModelNotLoaded)
    assert read_aliases(models / "tree") is None
    assert served.version() == 1


def wrong_hash(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def truncated(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(folder, lambda document: document.update(model_sha256=digest))


def wrong_schema(folder: Path) -> None:
    edit_manifest(folder, lambda document: document["features"].update(schema_id="micro10-0000000000000000"))


def golden_off(folder: Path) -> None:
    def change(document: dict[str, dict[str, list[float]]]) -> None:
        outputs = document["golden"]["outputs"]
        outputs[40] = outputs[40] + 1e-3 if outputs[40] < 0.5 else outputs[40] - 1e-3

    edit_manifest(folder, change)


def over_budget(folder: Path) -> None:
    edit_manifest(folder, lambda document: document.update(latency_budget_ms=1e-6))


def copied_half(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[:100])


def manifest_half(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:100])


BAD = {
    "wrong hash": (wrong_hash, HashMismatch, "sha256"),
    "truncated ONNX": (truncated, GraphInvalid, "refuses it"),
    "wrong schema id": (wrong_schema, SchemaMismatch, "micro10-0000000000000000"),
    "golden vectors off by 1e-3": (golden_off, GoldenMismatch, "golden vector 40"),
    "over its latency budget": (over_budget, LatencyOverBudget, "latency_budget_ms"),
    "no model": (lambda folder: (folder / MODEL_FILE).unlink(), PackageFileMissing, "cannot be read"),
    "no manifest": (lambda folder: (folder / MANIFEST_FILE).unlink(), PackageFileMissing, "cannot be read"),
    "model being copied": (copied_half, HashMismatch, "sha256"),
    "manifest being copied": (manifest_half, ManifestInvalid, "EOF"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_candidate_is_refused_with_the_reason_and_changes_nothing(
    serve: Callable[..., Operated], models: Path, bad: str
) -> None:
    spoil, error, why = BAD[bad]
    served = serve("tree/2")
    warm(served)
    spoil(models / "tree" / "2")
    references = dict(served.engine.registry.references)
    refused = served.load("tree", 2)
    assert isinstance(refused, error)
    assert why in str(refused)
    assert served.engine.registry.references == references
    assert served.states("tree", 2) == ["START", "LOADING", "FAILED"]
    status = served.models.status("tree", 2)
    assert status is not None
    assert why in status.reason
    assert served.version() == 1
    refusal = served.ask("tree:2")
    assert isinstance(refusal, Status)
    assert refusal.code.name == "FAILED_PRECONDITION"
    assert why in refusal.message


def test_a_graph_of_another_shape_is_refused(serve: Callable[..., Operated], models: Path) -> None:
    served = serve()
    publish_model(models, constant_onnx(width=2), name="tree", version=3)
    refused = served.load("tree", 3)
    assert isinstance(refused, GraphInvalid)
    assert "[N, 1]" in str(refused)
    assert served.version() == 2


@pytest.mark.parametrize(
    ("name", "version", "error"),
    [
        ("tree", 0, FieldInvalid),
        ("tree", -1, FieldInvalid),
        ("../models/tree", 1, FieldInvalid),
        ("", 1, FieldInvalid),
    ],
)
def test_what_cannot_be_a_version_is_refused_at_once(
    serve: Callable[..., Operated], name: str, version: int, error: type[Exception]
) -> None:
    served = serve()
    assert isinstance(served.load(name, version), error)
    assert served.changes == []


def test_a_version_that_is_not_there_is_missing_and_leaves_no_trace(serve: Callable[..., Operated]) -> None:
    served = serve()
    assert isinstance(served.load("tree", 9), VersionMissing)
    assert served.models.status("tree", 9) is None
    assert isinstance(served.ask("tree:9"), Status)


def test_a_failed_version_loads_once_it_is_whole(serve: Callable[..., Operated], models: Path) -> None:
    served = serve("tree/2")
    whole = (models / "tree" / "2" / MODEL_FILE).read_bytes()
    copied_half(models / "tree" / "2")
    assert isinstance(served.load("tree", 2), HashMismatch)
    (models / "tree" / "2" / MODEL_FILE).write_bytes(whole)
    assert isinstance(served.load("tree", 2), VersionStatus)
    assert served.version("tree:2") == 2


def test_a_version_in_use_is_not_unloaded_unless_forced_and_then_finds_nobody(serve: Callable[..., Operated]) -> None:
    served = serve()
    served.point("tree", 1, expected=2)
    refused = served.unload("tree", 1)
    assert isinstance(refused, VersionInUse)
    assert (refused.version, refused.alias) == (1, "production")
    served.unload("tree", 1, force=True)
    refusal = served.ask("tree")
    assert isinstance(refusal, Status)  # production is named: nothing takes its place
    assert refusal.code.name == "FAILED_PRECONDITION"
    assert served.version("tree:2") == 2
    assert isinstance(served.load("tree", 1), VersionStatus)
    assert served.version("tree") == 1


def test_what_is_under_way_ends_on_the_version_it_began_with(serve: Callable[..., Operated], models: Path) -> None:
    slow = publish_model(models, long_onnx(30), name="slow", version=1, latency_budget_ms=60_000.0)
    copied(slow, 2)
    served = serve(inline_limit_us=500.0)
    served.point("slow", 1, expected=2)
    for _ in range(11):
        served.ask("line")
    settled: list[object] = []
    pending = served.answers.predict(served.request("slow"), *_now())
    served.answers.start(pending, served.models._posted.append, lambda: settled.append(pending.answer))
    served.point("slow", 2, expected=1)
    gone: list[object] = []
    served.models.unload("slow", 1, gone.append)
    assert served.states("slow", 1) == ["UNLOADING"]
    assert isinstance(served.ask("slow:1"), Status)
    served.until(lambda: settled)
    answer = pb.PredictResponse.FromString(settled[0])
    assert answer.model.version == 1
    assert answer.prediction.confidence == 0.5
    served.until(lambda: gone)
    assert served.states("slow", 1) == ["UNLOADING", "GONE"]


def _now() -> tuple[int, int]:
    return perf_counter_ns(), 0


def test_a_repeat_names_the_version_that_answered_though_it_is_gone(serve: Callable[..., Operated]) -> None:
    for lanes in (True, False):
        served = serve(lanes=lanes)
        warm(served)
        data = served.request("tree", request_id="once")
        first = served.answer(data)
        assert isinstance(first, pb.PredictResponse)
        old = first.model.version
        served.point("tree", 3 - old, expected=old)
        served.unload("tree", old)
        again = served.answer(data)
        assert isinstance(again, pb.PredictResponse)
        assert again.repeated
        assert again.model == first.model
        assert again.prediction == first.prediction
        assert served.version("tree") == 3 - old
        served.load("tree", old)
        served.point("tree", old, expected=3 - old)


# -- aliases as others change them -------------------------------------------------------------------------------------


def test_a_change_of_the_file_is_followed_and_a_named_version_is_loaded_first(
    serve: Callable[..., Operated], models: Path
) -> None:
    served = serve("tree/2", follow_s=0.01)
    change_alias(models / "tree", "production", 1, expected=None, **BY)
    change_alias(models / "tree", "production", 2, expected=1, **BY)
    served.until(lambda: served.models.in_force("tree").production == 2)
    assert served.version() == 2
    assert served.states("tree", 2) == ["START", "LOADING", "READY"]
    assert served.models.aliases("tree") == read_aliases(models / "tree")


def test_a_named_version_that_fails_leaves_in_force_what_was(serve: Callable[..., Operated], models: Path) -> None:
    served = serve("tree/2", follow_s=0.01)
    wrong_hash(models / "tree" / "2")
    change_alias(models / "tree", "production", 2, expected=None, **BY)
    served.until(lambda: "FAILED" in served.states("tree", 2))
    assert served.models.in_force("tree") == InForce(production=1)
    assert served.version() == 1


def test_a_start_with_a_named_version_that_fails_has_no_production(
    serve: Callable[..., Operated], models: Path
) -> None:
    change_alias(models / "tree", "production", 2, expected=None, **BY)
    wrong_hash(models / "tree" / "2")
    served = serve()
    refusal = served.ask("tree")
    assert isinstance(refusal, Status)
    assert refusal.code.name == "FAILED_PRECONDITION"
    assert served.version("tree:1") == 1
    assert served.version("line") == 1


@pytest.mark.parametrize("at_start", [True, False])
def test_a_file_that_is_none_changes_nothing_and_at_a_start_there_is_no_alias(
    serve: Callable[..., Operated],
    models: Path,
    at_start: bool,  # noqa: FBT001 - a parameter
) -> None:
    def spoil() -> None:
        (models / "tree" / ALIASES_FILE).write_text('{"production": 0}')

    if at_start:
        spoil()
    served = serve(follow_s=0.01)
    if at_start:
        assert isinstance(served.ask("tree"), Status)
    else:
        spoil()
        served.until(lambda: not served.models.aliases("tree").revision and "tree" in served.models._files)
        assert served.version("tree") == 2
    assert served.version("tree:1") == 1
    (models / "tree" / ALIASES_FILE).unlink()
    change_alias(models / "tree", "production", 1, expected=None, **BY)
    served.until(lambda: served.models.in_force("tree").production == 1)
    assert served.version("tree") == 1


def test_versions_that_appear_are_loaded_where_that_is_wanted(serve: Callable[..., Operated], models: Path) -> None:
    served = serve(follow_s=0.01, watch=True)
    change_alias(models / "tree", "production", 2, expected=None, **BY)
    copied(models / "tree" / "1", 3)
    served.until(lambda: "READY" in served.states("tree", 3))
    assert served.version("tree:3") == 3
    assert served.version("tree") == 2


# -- the canary --------------------------------------------------------------------------------------------------------


def test_a_canary_answers_for_its_share_of_the_symbols_on_every_path(serve: Callable[..., Operated]) -> None:
    symbols = [f"S{number}" for number in range(40)]
    seen = []
    for lanes in (True, False):
        served = serve(lanes=lanes)
        served.point("tree", 1, expected=served.models.in_force("tree").production)
        expected = served.models.aliases("tree").version_of("canary")
        changed = served.point("tree", 2, expected=expected, alias="canary", share_percent=30.0)
        assert isinstance(changed, Aliases)
        for symbol in symbols * 2:  # the second time by the lane
            seen += [(lanes, symbol, served.version(model, symbol)) for model in ("", "tree", "tree@production")]
            assert served.version("tree:1", symbol) == 1
            assert served.version("tree@canary", symbol) == 2
    of_canary = {symbol for _, symbol, version in seen if version == 2}
    assert 4 <= len(of_canary) <= 20
    assert all((version == 2) == (symbol in of_canary) for _, symbol, version in seen)


def test_a_canary_that_is_not_loaded_answers_for_nobody(serve: Callable[..., Operated], models: Path) -> None:
    served = serve("tree/2", follow_s=0.01)
    wrong_hash(models / "tree" / "2")
    change_alias(models / "tree", "canary", 2, expected=None, share_percent=100.0, **BY)
    served.until(lambda: "FAILED" in served.states("tree", 2))
    assert served.version() == 1


def test_a_shadow_never_answers(serve: Callable[..., Operated]) -> None:
    served = serve()
    served.point("tree", 2, expected=None, alias="shadow")
    assert served.version() == 1  # production is not named, and a shadow is not the highest that may serve
    assert served.version("tree@shadow") == 2


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_endless_swaps_use_no_more_numbers_and_indices_than_there_are_versions(
    serve: Callable[..., Operated],
) -> None:
    served = serve("tree/2")
    current = 1
    for _ in range(12):
        served.load("tree", 3 - current)
        served.point("tree", 3 - current, expected=current)
        served.unload("tree", current)
        current = 3 - current
        assert served.version() == current
    served.until(lambda: len(served.engine.roster.numbers) == 2)
    assert len(served.engine.desk.models) == 3
    assert served.journal._next_index == 3
    served.turn()
    assert len(served.answers._encoder._judged) == 2
    assert len(served.answers._lane._models) == 1
    assert served.answers._lane._references._lengths.size == 256


def test_the_number_of_the_version_unloaded_first_is_taken_when_there_are_no_more(
    serve: Callable[..., Operated], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickgate_server.roster.MODELS_LIMIT", 3)
    served = serve()
    warm(served)
    served.ask("tree:1", request_id="of-one")
    data = served.request("tree:1", request_id="of-one-again")
    served.answer(data)
    copied(models / "tree" / "1", 3)
    refused = served.load("tree", 3)
    assert isinstance(refused, ValueError)
    served.unload("tree", 1)
    assert isinstance(served.load("tree", 3), VersionStatus)
    assert served.version("tree:3") == 3
    assert ("tree", 1) not in served.engine.desk.models
    again = served.answer(data)
    assert isinstance(again, Status)  # it was asked by a number that nothing is loaded under
    assert sorted(served.engine.roster.numbers.values()) == [0, 1, 2]
