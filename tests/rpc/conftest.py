import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support import graphs
from tests.support.messages import SECOND_NS, START_NS, tick, untimed, zigzag
from tests.support.packages import constant_onnx, make_manifest, publish_forest, publish_logistic, publish_model
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.schema import micro10
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE, publish
from tickgate_training import calibration
from tickgate_training.export import export
from tickgate_training.learners import LightGBMConfig

PATIENT_MS = 60_000.0
# What one test's orders leave open is nothing to the next: every reservation has ended a second later, and no limit is
# shared. Tests that have orders approved begin at a time of their own, later than all before: `later`.
BY_ITSELF = {
    "TICKGATE_RISK__VALID_FOR_US": "500000",
    "TICKGATE_RISK__MAX_GROSS_EXPOSURE": "off",
    "TICKGATE_RISK__MAX_NET_EXPOSURE": "off",
    "TICKGATE_RISK__MAX_ORDERS_PER_S": "off",
    "TICKGATE_RISK__MAX_ORDERS_PER_S_SYMBOL": "off",
}


_hours = itertools.count(1)


@pytest.fixture
def later() -> int:
    """A time an hour behind those that any test had before."""
    return START_NS + next(_hours) * 3600 * SECOND_NS


@pytest.fixture(params=["queue", "aio"], scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport of the data listener: what a caller sees is the same on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def mixed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`trend` 1 and 2 are fit; `trend` 3 and `broken`, `half`, `failing` are not."""
    folder = tmp_path_factory.mktemp("mixed")
    publish_logistic(folder, name="trend", version=1, bias=0.5, latency_budget_ms=PATIENT_MS)
    publish_logistic(folder, name="trend", version=2, latency_budget_ms=PATIENT_MS)
    publish_logistic(folder, name="trend", version=3, latency_budget_ms=1e-6)
    (publish_logistic(folder, name="broken") / MODEL_FILE).write_bytes(b"other")
    (publish_logistic(folder, name="half") / MANIFEST_FILE).unlink()
    publish_model(folder, constant_onnx(fails=True), name="failing")
    return folder


@pytest.fixture(scope="session")
def shared(transport: str, mixed_repository: Path) -> Iterator[Served]:
    """One replay server for every test that brings symbols of its own and leaves the server as it was."""
    arguments = ("--clock", "replay", "--transport", transport)
    with served(mixed_repository, *arguments, environment=BY_ITSELF, observed=True) as running:
        yield running


LONG_RUNS = 3000


@pytest.fixture(scope="session")
def inference_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain layouts and packages, every one fit."""
    folder = tmp_path_factory.mktemp("inference")
    graphs.place(folder, "simple", graphs.add_sub())
    graphs.place(folder, "batched", graphs.add_sub("FP32", 4), config="max_batch_size: 8")
    for version in (1, 2, 10):
        config = "version_policy: { all {} }" if version == 1 else None
        graphs.place(folder, "versioned", graphs.add_sub("INT64", version), version=version, config=config)
    for name in ("counted", "swapped", "gone"):
        graphs.place(folder, name, graphs.add_sub())
    for datatype in graphs.TYPES:
        graphs.place(folder, f"identity_{datatype}", graphs.identity(datatype, ("N", None)))
    graphs.place(folder, "long", graphs.long(LONG_RUNS))
    publish_forest(folder, name="forest", latency_budget_ms=PATIENT_MS)
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, 10)).astype(np.float32)
    model = LightGBMConfig(trees=20, leaves=7).fit(rows, (rows[:, 0] + rows[:, 1] > 0).astype(np.int8), 1)
    chosen = calibration.fit("none", model.raw_scores(rows), (rows[:, 0] > 0).astype(np.int8))
    expected = np.asarray(chosen.apply(model.raw_scores(rows)), np.float64)
    onnx = export(model, chosen)
    manifest = make_manifest(onnx, micro10(), rows[:64], expected[:64], name="lightgbm", latency_budget_ms=PATIENT_MS)
    publish(folder, manifest, onnx)
    np.savez(folder / "lightgbm-rows.npz", rows=rows, expected=expected)
    return folder


@pytest.fixture(scope="session")
def inferring(transport: str, inference_repository: Path) -> Iterator[Served]:
    """A server with the Open Inference Protocol, its models loaded; two threads, so that no test waits for another."""
    environment = {"TICKGATE_INFERENCE__ENABLED": "true", "TICKGATE_INFERENCE__THREADS": "2"}
    with served(inference_repository, "--transport", transport, environment=environment) as running:
        loaded = "inference models loaded"
        line = (running.process.logged(loaded) or [running.process.wait_for(loaded)])[0]
        assert line["ready"] == 11 + len(graphs.TYPES)
        yield running


class Steady:
    """A symbol whose latest tick is asked about again and again: the answer must never change."""

    def __init__(self, server: Served) -> None:
        self._server = server
        *history, self.request = zigzag("STEADY", 30)
        for earlier in history:
            server.predict(earlier)
        self.first = self.ask()

    def ask(self) -> pb.PredictResponse:
        """Without what depends on the desk, which others trade on too."""
        answer = untimed(self._server.predict(self.request))
        target = answer.signal.target_position
        answer.ClearField("signal")
        answer.signal.target_position = target
        return answer


@pytest.fixture(scope="session")
def steady(shared: Served) -> Steady:
    answers = Steady(shared)
    assert answers.first.signal.target_position > 0.0
    assert tick("STEADY", 1).tick.symbol == answers.first.symbol
    return answers
