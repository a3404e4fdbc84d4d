"""Both clients against a server in memory: what a desk's own tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.client.scripted_server import hold, numbered_requests, trade_tick

from tickgate.v1 import signal_pb2
from tickgate_client import AsyncSignalClient, CallCancelled, ModelNotFound, SignalClient
from tickgate_client.testing import Refused, async_memory_channel, memory_channel


def answer(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
    if request.model == "none":
        raise Refused(grpc.StatusCode.NOT_FOUND, "model none: not in the repository")
    found = hold(request)
    assert isinstance(found, signal_pb2.PredictResponse)
    return found


def requests_of(count: int) -> list[signal_pb2.PredictRequest]:
    requests = list(numbered_requests(count))
    requests[1].model = "none"
    return requests


def told(results: list[signal_pb2.PredictStreamResult]) -> list[tuple[str, int]]:
    return [(result.request_id, result.code) for result in results]


def expected(requests: list[signal_pb2.PredictRequest]) -> list[tuple[str, int]]:
    return [(request.request_id, 5 if request.model == "none" else 0) for request in requests]


def test_calls_and_streams_are_answered_without_a_server() -> None:
    with SignalClient("memory", channel=memory_channel(answer), model="trend") as client:
        client.connect(timeout_s=1)
        response = client.predict(trade_tick(), request_id="a")
        assert response.request_id == "a"
        with pytest.raises(ModelNotFound, match="not in the repository"):
            client.predict(trade_tick(), model="none")
        requests = requests_of(7)
        assert told(list(client.predict_stream(requests, 2, in_flight=2))) == expected(requests)
        assert [worker.address for worker in client.topology().workers] == ["memory"]
        assert client.latency.summary().round_trip.count == 2 + 4  # calls, and messages of the stream
    with pytest.raises(CallCancelled):
        client.predict(trade_tick())


def test_so_they_are_with_await() -> None:
    async def ask() -> None:
        async with AsyncSignalClient("memory", channel=async_memory_channel(answer), model="trend") as client:
            await client.connect(timeout_s=1)
            response = await client.predict(trade_tick(), request_id="a")
            assert response.request_id == "a"
            with pytest.raises(ModelNotFound, match="not in the repository"):
                await client.predict(trade_tick(), model="none")
            requests = requests_of(7)

            async def given() -> AsyncIterator[signal_pb2.PredictRequest]:
                for request in requests:
                    yield request

            results = [result async for result in client.predict_stream(given(), 2, in_flight=2)]
            assert told(results) == expected(requests)
            topology = await client.topology()
            assert [worker.address for worker in topology.workers] == ["memory"]
        with pytest.raises(CallCancelled):
            await client.predict(trade_tick())

    asyncio.run(ask())


def test_what_is_asked_and_answered_is_a_copy() -> None:
    seen = []

    def keeps(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        seen.append(request)
        return answer(request)

    tick = trade_tick()
    with SignalClient("memory", channel=memory_channel(keeps)) as client:
        client.predict(tick)
    tick.symbol = "CHANGED"
    assert seen[0].tick.symbol != "CHANGED"


def test_a_channel_has_its_credentials_already() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        SignalClient("x", channel=memory_channel(answer), channel_credentials=grpc.ssl_channel_credentials())
