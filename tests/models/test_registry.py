import shutil
from pathlib import Path

import pytest
from tests.support.packages import constant_onnx, publish_logistic, publish_model

from tickgate_server.models.errors import GraphInvalid, HashMismatch, ModelNotFound, ModelNotLoaded, PackageFileMissing
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE
from tickgate_server.models.registry import load_repository


def break_model(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"other")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alpha` 1, 2 and a broken 10; `beta` 3; `gamma` broken altogether."""
    folder = tmp_path_factory.mktemp("mixed")
    publish_logistic(folder, name="alpha", version=1)
    publish_logistic(folder, name="alpha", version=2)
    break_model(publish_logistic(folder, name="alpha", version=10))
    publish_logistic(folder, name="beta", version=3)
    break_model(publish_logistic(folder, name="gamma", version=1))
    return folder


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("alpha", "alpha:2"),
        ("alpha@production", "alpha:2"),
        ("alpha:1", "alpha:1"),
        ("alpha:2", "alpha:2"),
        ("beta", "beta:3"),
        ("beta:3", "beta:3"),
    ],
)
def test_a_reference_means_one_version(mixed: Path, reference: str, found: str) -> None:
    model = load_repository(mixed).resolve(reference)
    assert f"{model.name}:{model.version}" == found


@pytest.mark.parametrize(
    "reference",
    [
        "delta",
        "alpha:3",
        "alpha:0",
        "alpha:01",
        "alpha:",
        "alpha@",
        "alpha@shadow",
        "@production",
        ":1",
        "ALPHA",
        " alpha",
        "alpha@production:1",
        "gamma:2",
        ".",
        "/",
    ],
)
def test_a_reference_to_nothing_says_what_there_is(mixed: Path, reference: str) -> None:
    with pytest.raises(ModelNotFound, match="known: alpha, beta") as caught:
        load_repository(mixed).resolve(reference)
    assert caught.value.asked == reference


@pytest.mark.parametrize("reference", ["alpha:10", "gamma", "gamma:1", "gamma@production"])
def test_a_version_that_failed_its_checks_says_why(mixed: Path, reference: str) -> None:
    with pytest.raises(ModelNotLoaded, match="sha256 is") as caught:
        load_repository(mixed).resolve(reference)
    assert caught.value.asked == reference


def test_the_empty_reference_means_the_only_model(tmp_path: Path) -> None:
    publish_logistic(tmp_path, name="alone", version=1)
    publish_logistic(tmp_path, name="alone", version=2)
    assert load_repository(tmp_path).resolve("").version == 2


def test_the_empty_reference_means_nothing_among_several(mixed: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_repository(mixed).resolve("")


@pytest.mark.parametrize(
    ("default", "found"),
    [("beta", "beta:3"), ("alpha", "alpha:2"), ("alpha:1", "alpha:1"), ("beta@production", "beta:3")],
)
def test_the_empty_reference_means_the_default_of_the_settings(mixed: Path, default: str, found: str) -> None:
    model = load_repository(mixed, default).resolve("")
    assert f"{model.name}:{model.version}" == found


def test_a_default_that_failed_its_checks_is_not_replaced_by_another_model(mixed: Path) -> None:
    with pytest.raises(ModelNotLoaded, match="sha256 is"):
        load_repository(mixed, "gamma").resolve("")


def test_a_default_that_is_not_there_is_not_replaced_by_another_model(tmp_path: Path) -> None:
    publish_logistic(tmp_path)
    with pytest.raises(ModelNotFound):
        load_repository(tmp_path, "another").resolve("")


def test_what_was_refused_is_kept_with_the_file_and_the_check(mixed: Path) -> None:
    registry = load_repository(mixed)
    assert [(one.name, one.version, type(one.error), one.error.path) for one in registry.refused] == [
        ("alpha", 10, HashMismatch, mixed / "alpha" / "10" / MODEL_FILE),
        ("gamma", 1, HashMismatch, mixed / "gamma" / "1" / MODEL_FILE),
    ]
    assert registry.names == ["alpha", "beta"]


def test_one_bad_package_of_any_kind_keeps_no_other_from_loading(repository: Path) -> None:
    (publish_logistic(repository, version=2) / MANIFEST_FILE).unlink()
    publish_model(repository, constant_onnx(fails=True), version=3)
    (repository / "tiny" / "4").mkdir()
    (repository / "tiny" / "4" / MANIFEST_FILE).mkdir()
    registry = load_repository(repository)
    assert [model.version for model in registry.models] == [1]
    assert [(one.version, type(one.error)) for one in registry.refused] == [
        (2, PackageFileMissing),
        (3, GraphInvalid),
        (4, PackageFileMissing),
    ]


def test_what_is_no_version_is_not_looked_at(repository: Path) -> None:
    good = repository / "tiny" / "1"
    for place in ("tiny/0", "tiny/.incoming-1a2b", "tiny/01", ".trash/1", "tiny/latest"):
        shutil.copytree(good, repository / place)
    (repository / "README").write_text("not a model")
    registry = load_repository(repository)
    assert [(model.name, model.version) for model in registry.models] == [("tiny", 1)]
    assert registry.refused == []


def test_a_half_copied_package_is_refused_until_it_is_whole(repository: Path) -> None:
    whole = publish_logistic(repository, version=2).rename(repository / "whole")
    half = repository / "tiny" / "2"
    half.mkdir()
    shutil.copy(whole / MODEL_FILE, half)
    assert load_repository(repository).resolve("tiny").version == 1
    shutil.copy(whole / MANIFEST_FILE, half)
    assert load_repository(repository).resolve("tiny").version == 2


def test_an_empty_repository_has_no_model(tmp_path: Path) -> None:
    registry = load_repository(tmp_path)
    assert (registry.models, registry.refused, registry.names) == ([], [], [])
    with pytest.raises(ModelNotFound, match="known: none"):
        registry.resolve("")
