"""Models in a plain layout: what loads and what is refused, and a repository that is loaded when somebody says so."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.support import graphs
from tests.support.packages import edit_manifest, publish_logistic

from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE
from tickgate_server.models.plain import PlainModel, TensorSpec, load_plain
from tickgate_server.models.plain_config import CONFIG_FILE, PlainConfig, read_config
from tickgate_server.models.plain_errors import (
    PlainNotFound,
    PlainNotLoaded,
    PlainNotReady,
    PlainPackageInvalid,
    RepositoryBusy,
)
from tickgate_server.models.plain_repository import COMMANDS, IndexEntry, PlainRepository, PlainState

WAIT_S = 60.0


def load(folder: Path) -> PlainModel:
    return load_plain(folder, read_config(folder.parent))


# -- one version -------------------------------------------------------------------------------------------------------


def test_a_plain_model_has_the_inputs_and_outputs_of_its_graph(tmp_path: Path) -> None:
    model = load(graphs.place(tmp_path, "simple", graphs.add_sub(), version=3))
    assert (model.name, model.version) == ("simple", 3)
    assert model.inputs == (TensorSpec("INPUT0", "INT32", (-1, 16)), TensorSpec("INPUT1", "INT32", (-1, 16)))
    assert [spec.name for spec in model.outputs] == ["OUTPUT0", "OUTPUT1"]
    ones = np.ones((2, 16), np.int32)
    (found,) = model.run(["OUTPUT0"], {"INPUT0": ones, "INPUT1": ones}, ort.RunOptions())
    assert found.tolist() == (ones + ones).tolist()


def test_a_configuration_narrows_the_graph_and_leaves_outputs_out(tmp_path: Path) -> None:
    config = """
    max_batch_size: 4
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
    """
    model = load(graphs.place(tmp_path, "narrow", graphs.identity("FP32", ("N", None)), config=config))
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert model.outputs == (TensorSpec("y", "FP32", (-1, -1)),)
    one = 'output [ { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ -1, 16 ] } ]'
    model = load(graphs.place(tmp_path, "one", graphs.add_sub(), config=one))
    assert [spec.name for spec in model.outputs] == ["OUTPUT1"]


def test_another_name_of_the_file_may_be_configured(tmp_path: Path) -> None:
    folder = graphs.place(tmp_path, "named", graphs.add_sub(), config='default_model_filename: "graph.onnx"')
    (folder / "model.onnx").rename(folder / "graph.onnx")
    assert load(folder).version == 1


def declared(place: int, datatype: str, dims: str) -> str:
    return f'input [ {{ name: "INPUT{place}" data_type: TYPE_{datatype} dims: [ {dims} ] }} ]'


WHOLE = declared(0, "INT32", "-1, 16")
CONFLICTS = {
    WHOLE: "input: the graph has ['INPUT1'] as well",
    WHOLE + declared(1, "FP32", "-1, 16"): "input 'INPUT1': data_type is FP32, the graph's INT32",
    WHOLE + declared(1, "INT32", "-1, 8"): "input 'INPUT1': dims are [-1, 8], the graph's shape is [-1, 16]",
    WHOLE + declared(1, "INT32", "16"): "input 'INPUT1': dims are [16], the graph's shape is [-1, 16]",
    "max_batch_size: 2 " + declared(0, "INT32", "-1, 16") + declared(1, "INT32", "16"): (
        "input 'INPUT0': dims are [-1, 16] with the batch before them, the graph's shape is [-1, 16]"
    ),
    declared(2, "INT32", "-1, 16"): "input 'INPUT2': the graph has ['INPUT0', 'INPUT1']",
    'output [ { name: "x" data_type: TYPE_INT32 dims: 16 } ]': "output 'x': the graph has ['OUTPUT0', 'OUTPUT1']",
}


@pytest.mark.parametrize("config", CONFLICTS)
def test_a_configuration_that_contradicts_the_graph_is_refused(tmp_path: Path, config: str) -> None:
    folder = graphs.place(tmp_path, "simple", graphs.add_sub(), config=config)
    with pytest.raises(PlainPackageInvalid) as error:
        load(folder)
    assert error.value.path == tmp_path / "simple" / CONFIG_FILE
    assert error.value.why == CONFLICTS[config]


def test_a_batch_needs_a_free_first_dimension(tmp_path: Path) -> None:
    folder = graphs.place(tmp_path, "fixed", graphs.identity("FP32", (2, 3)), config="max_batch_size: 2")
    with pytest.raises(PlainPackageInvalid, match="max_batch_size is 2, and input 'x' of the graph has shape"):
        load(folder)


def test_what_is_no_tensor_of_a_known_type_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = graphs.place(tmp_path, "brain", model.SerializeToString())
    with pytest.raises(PlainPackageInvalid, match=r"output 'y' of the graph is tensor\(bfloat16\): not served here"):
        load(folder)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_truncated_graph_is_refused(tmp_path: Path, cut: int) -> None:
    folder = graphs.place(tmp_path, "cut", graphs.add_sub()[:cut])
    with pytest.raises(PlainPackageInvalid, match=r"ONNX Runtime refuses it|the graph has") as error:
        load(folder)
    assert error.value.path == folder / "model.onnx"


def test_a_version_without_a_graph_is_refused(tmp_path: Path) -> None:
    folder = graphs.place(tmp_path, "empty", b"")
    (folder / "model.onnx").unlink()
    with pytest.raises(PlainPackageInvalid, match="there is no such file"):
        load(folder)


def test_a_package_is_held_to_its_hash_and_to_its_golden_vectors(tmp_path: Path) -> None:
    assert load(publish_logistic(tmp_path, name="good")).inputs == (TensorSpec("features", "FP32", (-1, 10)),)
    other = publish_logistic(tmp_path, name="other")
    (other / MODEL_FILE).write_bytes((publish_logistic(tmp_path, name="source", bias=1.0) / MODEL_FILE).read_bytes())
    with pytest.raises(PlainPackageInvalid, match="sha256 is"):
        load(other)
    off = publish_logistic(tmp_path, name="off")
    edit_manifest(off, lambda document: document["golden"]["outputs"].__setitem__(5, 0.9))
    with pytest.raises(PlainPackageInvalid, match="it does not give its golden vectors' outputs within 1e-5"):
        load(off)
    unreadable = publish_logistic(tmp_path, name="unreadable")
    (unreadable / MANIFEST_FILE).write_text("{}")
    with pytest.raises(PlainPackageInvalid) as error:
        load(unreadable)
    assert error.value.path == unreadable / MANIFEST_FILE


# -- a repository ------------------------------------------------------------------------------------------------------


@contextmanager
def opened(folder: Path, *, load_all: bool = True) -> Iterator[PlainRepository]:
    repository = PlainRepository(folder, load_all=load_all)
    try:
        index(repository)  # it comes behind what is loaded at the start
        yield repository
    finally:
        repository.close()


def asked(ask: Callable[[Callable[[Any], None]], None]) -> Any:
    """What `done` was called with."""
    told: Queue[Any] = Queue()
    ask(told.put)
    return told.get(timeout=WAIT_S)


def index(repository: PlainRepository) -> list[IndexEntry]:
    found: list[IndexEntry] = asked(repository.index)
    return found


def load_by_name(repository: PlainRepository, name: str) -> Exception | None:
    found: Exception | None = asked(lambda done: repository.load(name, done))
    return found


def unload(repository: PlainRepository, name: str) -> None:
    assert asked(lambda done: repository.unload(name, done)) is None


def ready(repository: PlainRepository, name: str = "") -> list[tuple[str, int]]:
    return [(model.name, model.version) for model in repository.ready_models(name)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in (1, 2, 10):
        graphs.place(tmp_path, "many", graphs.add_sub(), version=version)
    graphs.place(tmp_path, "one", graphs.add_sub())
    publish_logistic(tmp_path, name="package", version=1)
    publish_logistic(tmp_path, name="package", version=2)
    (tmp_path / "no model").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / ".hidden" / "1").mkdir(parents=True)
    return tmp_path


def test_it_begins_with_the_highest_plain_version_and_all_versions_of_packages(folder: Path) -> None:
    with opened(folder) as repository:
        assert ready(repository) == [("many", 10), ("one", 1), ("package", 1), ("package", 2)]
        assert repository.ready
        assert repository.resolve("package", None).version == 2
        assert repository.resolve("package", 1).version == 1
        assert IndexEntry("many", 10, PlainState.READY) in index(repository)


def test_it_begins_with_nothing_where_that_is_wanted_and_names_what_there_is(folder: Path) -> None:
    with opened(folder, load_all=False) as repository:
        assert ready(repository) == []
        assert repository.ready
        assert index(repository) == [IndexEntry("many"), IndexEntry("one"), IndexEntry("package")]
        with pytest.raises(PlainNotFound, match="'one' is not found"):
            repository.resolve("one", None)
        assert load_by_name(repository, "one") is None
        assert ready(repository) == [("one", 1)]


def test_what_its_configuration_does_not_want_any_more_is_unloaded(folder: Path) -> None:
    config = folder / "many" / CONFIG_FILE
    config.write_text("version_policy { latest { num_versions: 2 } }")
    with opened(folder) as repository:
        assert ready(repository, "many") == [("many", 2), ("many", 10)]
        config.write_text("version_policy { specific { versions: [ 1, 2 ] } }")
        assert load_by_name(repository, "many") is None
        assert ready(repository, "many") == [("many", 1), ("many", 2)]
        with pytest.raises(PlainNotReady):
            repository.resolve("many", 10)
        config.write_text("version_policy { specific { versions: [ 7 ] } }")
        error = load_by_name(repository, "many")
        assert isinstance(error, PlainNotLoaded)
        assert "no version is available" in str(error)
        assert ready(repository, "many") == [("many", 1), ("many", 2)]  # as it was


def test_a_version_that_does_not_load_anew_stays_as_it_was(folder: Path) -> None:
    with opened(folder) as repository:
        before = repository.resolve("one", None)
        (folder / "one" / "1" / "model.onnx").write_bytes(b"half")
        error = load_by_name(repository, "one")
        assert isinstance(error, PlainNotLoaded)
        assert error.name == "one"
        assert "version 1" in error.why
        assert repository.resolve("one", None) is before
        (folder / "one" / CONFIG_FILE).write_text("max_bach_size: 1")
        assert "max_bach_size" in str(load_by_name(repository, "one"))
        assert repository.resolve("one", None) is before


def test_one_bad_version_does_not_keep_the_others_from_serving(folder: Path) -> None:
    (folder / "package" / "1" / MODEL_FILE).write_bytes(b"other")
    with opened(folder) as repository:
        assert ready(repository, "package") == [("package", 2)]
        assert repository.ready
        entry = next(entry for entry in index(repository) if (entry.name, entry.version) == ("package", 1))
        assert entry.state is PlainState.UNAVAILABLE
        assert "sha256" in entry.reason


@pytest.mark.parametrize("fault", ["graph", "configuration"])
def test_a_model_without_any_version_that_loads_makes_the_repository_unready(folder: Path, fault: str) -> None:
    if fault == "graph":
        (folder / "one" / "1" / "model.onnx").write_bytes(b"half")
    else:
        (folder / "one" / CONFIG_FILE).write_text("max_bach_size: 1")
    with opened(folder) as repository:
        assert not repository.ready
        with pytest.raises(PlainNotFound, match="'one' has no available versions"):
            repository.resolve("one", None)
        (entry,) = [entry for entry in index(repository) if entry.name == "one"]
        assert entry.state is PlainState.UNAVAILABLE
        assert entry.reason


def test_a_name_is_no_way_out_of_the_repository(folder: Path) -> None:
    outside = folder.parent / "outside"
    graphs.place(folder.parent, "outside", graphs.add_sub())
    with opened(folder, load_all=False) as repository:
        for name in (f"../{outside.name}", str(outside), "..", "", "no model", "one/../one"):
            assert isinstance(load_by_name(repository, name), PlainNotLoaded)
        assert ready(repository) == []


def test_an_unloaded_version_goes_on_the_repositorys_thread_when_its_last_request_has_ended(folder: Path) -> None:
    freed: Queue[str] = Queue()
    with opened(folder) as repository:
        model = repository.acquire("one", None)
        weakref.finalize(model.session, lambda: freed.put(threading.current_thread().name))
        assert repository.acquire("one", 1) is model
        unload(repository, "one")
        repository.release(model)
        index(repository)
        gc.collect()
        assert freed.empty()  # one request runs it still
        (found,) = model.run(["OUTPUT0"], {"INPUT0": ONES, "INPUT1": ONES}, ort.RunOptions())
        assert np.all(found == 2)
        with held(repository):  # until nobody else has it
            repository.release(model)
            del model
        assert freed.get(timeout=WAIT_S) == "tickgate-repository"


ONES = np.ones((1, 16), np.int32)


@contextmanager
def held(repository: PlainRepository) -> Iterator[None]:
    """Its thread does nothing inside."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        go_on.wait(WAIT_S)

    repository.index(hold)
    assert begun.wait(WAIT_S)
    try:
        yield
    finally:
        go_on.set()


def test_no_more_versions_are_ready_than_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickgate_server.models.plain_repository.VERSIONS", 3)
    with opened(folder) as repository:
        assert ready(repository) == [("many", 10), ("one", 1)]
        assert "2 versions of other models are ready, and at most 3 may be" in str(load_by_name(repository, "package"))
        unload(repository, "one")
        assert load_by_name(repository, "package") is None
        assert ready(repository) == [("many", 10), ("package", 1), ("package", 2)]


def test_too_many_calls_are_refused_and_the_rest_done_in_order(folder: Path) -> None:
    with opened(folder) as repository:
        told: Queue[int] = Queue()
        with held(repository):
            for number in range(COMMANDS):
                repository.unload("never", lambda _, number=number: told.put(number))  # type: ignore[misc]
            with pytest.raises(RepositoryBusy):
                repository.load("one", lambda _: None)
        assert [told.get(timeout=WAIT_S) for _ in range(COMMANDS)] == list(range(COMMANDS))


def test_nobody_is_told_after_it_was_closed(folder: Path) -> None:
    told: list[Any] = []
    with opened(folder) as repository:
        pass
    repository.index(told.append)
    repository.close()
    assert told == []


def test_a_configuration_of_all_versions_is_kept_with_the_model(folder: Path) -> None:
    with opened(folder) as repository:
        assert repository.resolve("package", None).config == PlainConfig(latest=0)
