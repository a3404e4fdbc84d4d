import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.messages import SECOND_NS, START_NS, tick, untimed, zigzag
from tests.support.packages import constant_onnx, publish_logistic, publish_model
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE

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
    with served(mixed_repository, "--clock", "replay", "--transport", transport, environment=BY_ITSELF) as running:
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
