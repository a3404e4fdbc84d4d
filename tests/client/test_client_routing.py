"""Routed clients against scripted workers: old topologies, lost workers, and the order of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tests.client.scripted_server import Answer, Refusal, ScriptedServer, hold, numbered_requests, symbol_of, trade_tick

from tickgate.symbol_hash import worker_of
from tickgate.v1 import signal_pb2, topology_pb2
from tickgate.v1.signal_pb2_grpc import add_SignalServiceServicer_to_server
from tickgate.v1.topology_pb2_grpc import TopologyServiceServicer, add_TopologyServiceServicer_to_server
from tickgate_client import (
    AsyncRoutedSignalClient,
    ContractBroken,
    NotSupported,
    RoutedSignalClient,
    ServerUnavailable,
    WrongWorker,
)
from tickgate_client.routes import read_routes

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@dataclass
class Fleet(TopologyServiceServicer):
    """Workers that share the symbols out by `workers`, and tell the topology as `told`."""

    workers: int = 2
    symbol_hash: int = topology_pb2.SYMBOL_HASH_FNV1A64_JUMP
    told: list[int] = field(default_factory=lambda: [0, 1])  # which of the peers are the workers, by index
    peers: list[ScriptedServer] = field(default_factory=list)
    asked: int = 0

    def GetTopology(  # noqa: N802 - gRPC's name
        self, request: topology_pb2.GetTopologyRequest, context: grpc.ServicerContext
    ) -> topology_pb2.GetTopologyResponse:
        del request, context
        self.asked += 1
        targets = [self.peers[peer].target for peer in self.told]
        return topology_pb2.GetTopologyResponse(
            workers=[topology_pb2.Worker(index=index, address=target) for index, target in enumerate(targets)],
            symbol_hash=self.symbol_hash,  # type: ignore[arg-type]  # a test sends one that nobody knows
            epoch=f"{self.told}",
        )

    def move(self, told: Sequence[int]) -> None:
        self.told = list(told)
        self.workers = len(told)

    def answer_of(self, peer: int, request: signal_pb2.PredictRequest) -> Answer:
        owner = worker_of(symbol_of(request), self.workers)
        if peer in self.told and self.told.index(peer) == owner:
            return hold(request)
        text = f"symbol: expected worker {owner} of {self.workers}, reached worker {peer}"
        return Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)

    def symbols(self, peer: int) -> list[str]:
        """What a peer was asked about, in order."""
        return [symbol_of(seen.request) for seen in self.peers[peer].seen]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Four peers, of which the first two are workers."""
    one = Fleet()
    servers = []
    for peer in range(4):
        scripted = ScriptedServer(answer=lambda request, peer=peer: one.answer_of(peer, request))  # type: ignore[misc]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        add_SignalServiceServicer_to_server(scripted, server)
        add_TopologyServiceServicer_to_server(one, server)
        scripted.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        servers.append(server)
        one.peers.append(scripted)
    yield one
    for server in servers:
        server.stop(None).wait()


class Sync:
    """A routed client of either kind, driven alike."""

    def __init__(self, target: str, **arguments: Any) -> None:
        self._client = RoutedSignalClient(target, deadline_s=10.0, **arguments)
        try:
            self._client.connect(timeout_s=10.0)
        except BaseException:
            self._client.close()
            raise

    def predict(self, symbol: str) -> signal_pb2.PredictResponse:
        return self._client.predict(trade_tick(symbol))

    def stream(
        self, requests: Iterator[signal_pb2.PredictRequest], batch: int, in_flight: int
    ) -> list[signal_pb2.PredictStreamResult]:
        return list(self._client.predict_stream(requests, batch, in_flight=in_flight))

    def close(self) -> None:
        self._client.close()


class Asyncio:
    def __init__(self, target: str, **arguments: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self._client = self._runner.run(self._open(target, arguments))
        except BaseException:
            self._runner.close()
            raise

    async def _open(self, target: str, arguments: dict[str, Any]) -> AsyncRoutedSignalClient:
        client = AsyncRoutedSignalClient(target, deadline_s=10.0, **arguments)
        try:
            await client.connect(timeout_s=10.0)
        except BaseException:
            await client.close()
            raise
        return client

    def predict(self, symbol: str) -> signal_pb2.PredictResponse:
        return self._runner.run(self._client.predict(trade_tick(symbol)))

    def stream(
        self, requests: Iterator[signal_pb2.PredictRequest], batch: int, in_flight: int
    ) -> list[signal_pb2.PredictStreamResult]:
        async def given() -> AsyncIterator[signal_pb2.PredictRequest]:
            for request in requests:
                yield request

        async def collect() -> list[signal_pb2.PredictStreamResult]:
            return [result async for result in self._client.predict_stream(given(), batch, in_flight=in_flight)]

        return self._runner.run(collect())

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Sync, Asyncio], ids=["sync", "asyncio"])
def kind(request: pytest.FixtureRequest) -> type[Sync | Asyncio]:
    return request.param  # type: ignore[no-any-return]


def symbol_for(owner: int, workers: int = 2) -> str:
    return next(name for name in (f"S{n}" for n in range(1000)) if worker_of(name, workers) == owner)


def mixed(count: int) -> list[signal_pb2.PredictRequest]:
    requests = numbered_requests(count)
    for number, request in enumerate(requests):
        request.tick.symbol = f"S{number % 7}"
    return requests


def test_each_symbol_goes_to_its_worker_over_one_topology(fleet: Fleet, kind: type[Sync | Asyncio]) -> None:
    client = kind(fleet.peers[1].target)
    for number in range(20):
        assert client.predict(f"S{number}").symbol == f"S{number}"
    client.close()
    assert fleet.asked == 1
    for peer in (0, 1):
        expected = [f"S{number}" for number in range(20) if worker_of(f"S{number}", 2) == peer]
        assert fleet.symbols(peer) == expected


def test_a_moved_symbol_is_asked_for_once_more_at_its_new_worker(fleet: Fleet, kind: type[Sync | Asyncio]) -> None:
    client = kind(fleet.peers[0].target)
    moved = next(n for n in (f"S{n}" for n in range(1000)) if worker_of(n, 2) == 0 and worker_of(n, 3) == 2)
    fleet.move([0, 1, 2])
    assert client.predict(moved).symbol == moved
    assert client.predict(moved).symbol == moved
    client.close()
    assert fleet.asked == 2
    assert (fleet.symbols(0), fleet.symbols(2)) == ([moved], [moved, moved])


def test_a_worker_that_refuses_its_own_symbol_is_not_asked_without_end(
    fleet: Fleet, kind: type[Sync | Asyncio]
) -> None:
    client = kind(fleet.peers[0].target)
    refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "symbol: expected worker 1 of 2, reached worker 0")
    fleet.peers[0].answer = lambda _: refusal
    with pytest.raises(WrongWorker):
        client.predict(symbol_for(0))
    client.close()
    assert len(fleet.symbols(0)) == 2


def test_a_lost_request_is_not_sent_again_unless_asked(fleet: Fleet, kind: type[Sync | Asyncio]) -> None:
    fleet.peers[0].answer = lambda _: Refusal(UNAVAILABLE, "the server is draining")
    client = kind(fleet.peers[0].target)
    with pytest.raises(ServerUnavailable):
        client.predict(symbol_for(0))
    client.close()
    assert len(fleet.symbols(0)) == 1
    assert fleet.asked == 2  # the next request knows better

    resending = kind(fleet.peers[0].target, resend_lost=True)
    with pytest.raises(ServerUnavailable):
        resending.predict(symbol_for(0))
    resending.close()
    assert len(fleet.symbols(0)) == 3


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 1), (5, 1), (5, 3), (64, 2)])
def test_a_routed_stream_answers_in_the_order_of_its_requests(
    fleet: Fleet, kind: type[Sync | Asyncio], batch: int, in_flight: int
) -> None:
    client = kind(fleet.peers[0].target)
    requests = mixed(48)
    results = client.stream(iter(requests), batch, in_flight)
    client.close()
    assert [result.request_id for result in results] == [request.request_id for request in requests]
    assert [result.response.symbol for result in results] == [request.tick.symbol for request in requests]
    for peer in (0, 1):
        assert fleet.symbols(peer) == [r.tick.symbol for r in requests if worker_of(r.tick.symbol, 2) == peer]


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 1), (5, 3)])
def test_a_stream_follows_its_symbols_when_they_move_and_keeps_their_order(
    fleet: Fleet, kind: type[Sync | Asyncio], batch: int, in_flight: int
) -> None:
    client = kind(fleet.peers[0].target)
    requests = mixed(60)

    def moving() -> Iterator[signal_pb2.PredictRequest]:
        for number, request in enumerate(requests):
            if number == 20:
                fleet.move([0, 1, 2, 3])
            yield request

    results = client.stream(moving(), batch, in_flight)
    client.close()
    assert [(result.code, result.request_id) for result in results] == [(0, request.request_id) for request in requests]
    assert fleet.asked == 2
    sequences: dict[str, list[int]] = {}
    for peer in (2, 3):  # new workers: all that they saw was applied
        for seen in fleet.peers[peer].seen:
            sequences.setdefault(symbol_of(seen.request), []).append(seen.request.tick.sequence)
    assert sequences
    assert all(seen == sorted(set(seen)) for seen in sequences.values())


def test_a_stream_outlives_the_stream_of_one_worker(fleet: Fleet, kind: type[Sync | Asyncio]) -> None:
    def ends(
        message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext
    ) -> signal_pb2.PredictStreamResponse:
        del message
        context.abort(UNAVAILABLE, "the server is draining")
        raise AssertionError("abort raises")

    fleet.peers[0].stream_step = ends
    client = kind(fleet.peers[1].target)
    requests = mixed(30)
    results = client.stream(iter(requests), 5, 2)
    client.close()
    assert [result.request_id for result in results] == [request.request_id for request in requests]
    lost = [worker_of(request.tick.symbol, 2) == 0 for request in requests]
    assert [result.code for result in results] == [UNAVAILABLE.value[0] if gone else 0 for gone in lost]
    assert any(lost)
    assert not all(lost)


def test_a_server_without_topology_is_not_supported(peer: ScriptedServer, kind: type[Sync | Asyncio]) -> None:
    with pytest.raises(NotSupported):
        kind(peer.target)


@pytest.mark.parametrize(
    ("response", "asked", "why"),
    [
        (topology_pb2.GetTopologyResponse(workers=[topology_pb2.Worker()]), "a:1", "symbol hash"),
        (topology_pb2.GetTopologyResponse(symbol_hash=1), "a:1", "workers numbered from 0"),
        (
            topology_pb2.GetTopologyResponse(symbol_hash=1, workers=[topology_pb2.Worker(index=1, address="a:1")]),
            "a:1",
            "workers numbered from 0",
        ),
        (
            topology_pb2.GetTopologyResponse(symbol_hash=1, workers=[topology_pb2.Worker(address=":1")]),
            "unix:/s",
            "address with a host",
        ),
    ],
)
def test_a_topology_that_cannot_be_followed_breaks_the_contract(
    response: topology_pb2.GetTopologyResponse, asked: str, why: str
) -> None:
    with pytest.raises(ContractBroken, match=why):
        read_routes(response, asked)
