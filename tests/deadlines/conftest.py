import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest
from tests.support.messages import features, zigzag
from tests.support.packages import long_onnx, publish_logistic, publish_model
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import text
from tickgate_server.journal.reader import JournalReader

PATIENT_MS = 600_000.0
WAIT_S = 20.0
_ids = itertools.count()


@pytest.fixture(params=["queue", "aio"], scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fast`, and `slow`: some 40 ms, no node of it 0.5 ms."""
    folder = tmp_path_factory.mktemp("deadlines")
    publish_logistic(folder, name="fast", latency_budget_ms=PATIENT_MS)
    publish_model(folder, long_onnx(130, numbers=150_000), name="slow", latency_budget_ms=PATIENT_MS)
    return folder


@dataclass(frozen=True)
class Journaled:
    """A server, and what its journal has."""

    server: Served
    folder: Path

    def entries(self) -> list[DecisionEntry | ControlEntry]:
        with JournalReader(self.folder) as reader:
            return list(reader)

    def decisions(self, *request_ids: str) -> list[DecisionEntry]:
        """Records of requests, in the journal's order."""
        found = [entry for entry in self.entries() if isinstance(entry, DecisionEntry)]
        return [entry for entry in found if text(entry.row, "request_id") in request_ids]

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Until the journal says so."""
        ends = monotonic() + WAIT_S
        while not what():
            assert monotonic() < ends, [entry.as_dict() for entry in self.entries()]
            sleep(0.001)


@pytest.fixture(scope="session")
def shared(transport: str, models: Path) -> Iterator[Journaled]:
    """One server; two requests may wait for a slow model."""
    limits = {"TICKGATE_MODELS__QUEUE_LIMIT": "2", "TICKGATE_MODELS__STANDING_LIMIT": "2"}
    arguments = ("--clock", "replay", "--transport", transport, "--default-model", "fast")
    with served(models, *arguments, environment=limits) as running:
        for request in zigzag("KNOWN", 30):
            running.predict(request)
        yield Journaled(running, Path(running.process._journal.name))


def ask(model: str, *, budget_us: int = 0, name: str = "") -> pb.PredictRequest:
    """A request that changes no state, with an id of its own."""
    request = features("KNOWN", [0.0] * 10)
    request.model = model
    request.budget_us = budget_us
    request.request_id = f"{name}-{next(_ids)}"
    return request
