"""SIGTERM: what is at work is answered, what waits is told, and the process ends with status 0."""

import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.support.messages import features, tick, untimed, zigzag
from tests.support.packages import constant_onnx, publish_model
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb

_ENDS = ("draining", "stopped")
ITEMS = 256  # whose answers fit into a socket's buffer: what a slow reader has not got by the end may be lost with it
OK = ("tickgate_requests_total", frozenset({("code", "OK")}))


class Caller:
    """A stream whose messages are sent one by one, and that stays open."""

    def __init__(self, server: Served) -> None:
        self._messages: queue.Queue[pb.PredictStreamRequest | None] = queue.Queue()
        self.answers = iter(server.stub.PredictStream(self._sent(), timeout=60))

    def _sent(self) -> Iterator[pb.PredictStreamRequest]:
        while (message := self._messages.get()) is not None:
            yield message

    def send(self, requests: list[pb.PredictRequest]) -> None:
        self._messages.put(pb.PredictStreamRequest(requests=requests))

    def ends_unavailable(self) -> bool:
        try:
            with pytest.raises(grpc.RpcError) as caught:
                next(self.answers)
        finally:
            self._messages.put(None)
        return caught.value.code() is grpc.StatusCode.UNAVAILABLE and "draining" in caught.value.details()


def ended_orderly(server: Served) -> bool:
    """Whether the server said that it drains, and then that it stopped; its observer may speak in between."""
    return [line["event"] for line in server.process.events if line["event"] in _ENDS] == list(_ENDS)


def test_an_idle_stream_ends_unavailable_and_the_server_with_status_0(repository: Path, transport: str) -> None:
    with served(repository, "--clock", "replay", "--transport", transport) as server:
        caller = Caller(server)
        caller.send(zigzag("A", 2))
        assert len(next(caller.answers).results) == 2
        server.process.process.terminate()
        assert caller.ends_unavailable()
        assert server.process.stop() == 0
        assert ended_orderly(server)


def test_a_stream_message_at_work_is_answered_in_full(tmp_path: Path, transport: str) -> None:
    publish_model(tmp_path, constant_onnx(work=1_600_000), name="slow", latency_budget_ms=600_000.0)
    patient = {"TICKGATE_SERVER__DRAIN_S": "60"}  # on a busy machine the message takes a while
    with served(tmp_path, "--clock", "replay", "--transport", transport, environment=patient, observed=True) as server:
        server.predict(tick("A", 1, trade=(100.0, 1.0)))
        caller = Caller(server)
        before = after = 1.0
        with ThreadPoolExecutor(1) as pool:  # who does not wait for an answer may lose it to the end of the stream
            while True:  # until one is seen at work: on a busy machine it may end unseen
                caller.send([features("A", [0.0] * 10)] * ITEMS)
                answer = pool.submit(next, caller.answers)
                while after == before:
                    after = server.scrape()[OK]
                if after < before + ITEMS:
                    break
                assert len(answer.result().results) == ITEMS
                before = after
            server.process.process.terminate()
            results = answer.result().results
        assert [result.code for result in results] == [0] * ITEMS
        assert {untimed(result.response).SerializeToString() for result in results} == {
            untimed(results[0].response).SerializeToString()
        }
        assert caller.ends_unavailable()
        assert server.process.stop() == 0


def test_an_interrupted_server_drains_as_a_terminated_one_and_takes_no_new_call(
    repository: Path, transport: str
) -> None:
    with served(repository, "--clock", "replay", "--transport", transport) as server:
        server.predict(zigzag("A", 1)[0])
        assert server.process.stop(signal.SIGINT) == 0
        assert ended_orderly(server)
        assert server.refusal(zigzag("A", 2)[1])[0] is grpc.StatusCode.UNAVAILABLE
