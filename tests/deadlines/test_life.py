"""Models on threads of their own, from start to drain; and the bound on calls."""

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.deadlines.conftest import PATIENT_MS, Journaled
from tests.support.messages import features, zigzag
from tests.support.packages import long_onnx, publish_model
from tests.support.processes import CALL_S, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.journal.entries import DecisionEntry
from tickgate_server.replay import replay

EVERY_MODEL = {"TICKGATE_MODELS__INLINE_LIMIT_US": "0"}


def test_decisions_of_offloaded_models_replay_bit_for_bit(repository: Path, transport: str) -> None:
    environment = {**EVERY_MODEL, "TICKGATE_MODELS__STANDING_LIMIT": "1000", "TICKGATE_MODELS__QUEUE_LIMIT": "1000"}
    with served(repository, "--clock", "replay", "--transport", transport, environment=environment) as server:
        requests = [zigzag(name, 40) for name in "AB"]
        streams = [server.stream([[request] for request in one]) for one in requests]
        asked = [server.predict(pb.PredictRequest(symbol=name)) for name in "AB" * 20]
        results = [result for answers in streams for answer in answers for result in answer.results]
        assert {result.code for result in results} == {0}
        assert {result.response.signal.reason for result in results} >= {pb.REASON_APPROVED}
        answers = [*asked, *(result.response for result in results)]
        journaled = Journaled(server, Path(server.process._journal.name))
        found = [entry for entry in journaled.entries() if isinstance(entry, DecisionEntry)]
        assert len(found) == len(answers) == 120
        assert sum(entry.row["ticket"] > 0 for entry in found) == sum(answer.features.ready for answer in answers) > 58
        result = replay(journaled.folder, repository)
        assert server.process.stop() == 0
    assert (result.decisions, result.differences) == (120, [])


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some 10 ms."""
    folder = tmp_path_factory.mktemp("brief")
    publish_model(folder, long_onnx(100), name="brief", latency_budget_ms=PATIENT_MS)
    return folder


@pytest.mark.parametrize(("drain_s", "codes"), [("30", {0}), ("0.02", {0, 14})])
def test_a_draining_server_answers_for_what_waits_for_a_model(
    brief: Path, transport: str, drain_s: str, codes: set[int]
) -> None:
    environment = {"TICKGATE_SERVER__DRAIN_S": drain_s}
    with served(brief, "--clock", "replay", "--transport", transport, environment=environment) as server:
        for request in zigzag("A", 12):
            server.predict(request)
        asked = [features("A", [0.0] * 10) for _ in range(61)]
        names = [f"asked-{number}" for number in range(61)]
        for request, name in zip(asked, names, strict=True):
            request.request_id = name
        message = pb.PredictStreamRequest(requests=asked[:60])
        answers = server.stub.PredictStream(iter([message]), timeout=CALL_S)
        unary = server.stub.Predict.future(asked[60], timeout=CALL_S)
        journaled = Journaled(server, Path(server.process._journal.name))
        journaled.wait_for(lambda: len(journaled.decisions(*names)) > 1)
        server.process.process.terminate()
        results = next(iter(answers)).results
        assert {result.code for result in results} == codes
        assert len(results) == 60
        assert unary.code() in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert server.process.stop() == 0
        statuses = [int(entry.row["status"]) for entry in journaled.decisions(*names)]
    sent = [*(result.code for result in results), unary.code().value[0]]
    assert sorted(statuses) == sorted(sent)


def test_calls_beyond_the_bound_are_refused_at_once(repository: Path, transport: str) -> None:
    environment = {"TICKGATE_SERVER__MAX_CONCURRENT_REQUESTS": "2"}
    with served(repository, "--clock", "replay", "--transport", transport, environment=environment) as server:
        end = threading.Event()

        def messages() -> Iterator[pb.PredictStreamRequest]:
            yield pb.PredictStreamRequest()
            end.wait(CALL_S)

        held = [server.stub.PredictStream(messages(), timeout=CALL_S) for _ in range(2)]
        try:
            for answers in held:
                next(iter(answers))
            assert server.refusal(zigzag("A", 1)[0])[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        finally:
            end.set()
