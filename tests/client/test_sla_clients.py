"""The monitor in the call path of every client, and around stubs, against scripted servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, Protocol

import grpc
import pytest
from tests.client.scripted_server import Refusal, ScriptedServer, hold, numbered_requests, symbol_of, trade_tick

from tickgate.symbol_hash import worker_of
from tickgate.v1 import signal_pb2, topology_pb2
from tickgate.v1.signal_pb2_grpc import SignalServiceStub, add_SignalServiceServicer_to_server
from tickgate.v1.topology_pb2_grpc import TopologyServiceServicer, add_TopologyServiceServicer_to_server
from tickgate_client import (
    AsyncRoutedSignalClient,
    AsyncSignalClient,
    CallError,
    DeadlineExceeded,
    RoutedSignalClient,
    ServerUnavailable,
    SignalClient,
)
from tickgate_client.sla import SlaInterceptor, SlaMonitor, async_interceptors

OK, CANCELLED, UNKNOWN, INVALID, DEADLINE, NOT_FOUND, UNAVAILABLE = 0, 1, 2, 3, 4, 5, 14
NOWHERE = "127.0.0.1:1"


def refuse_every_third(request: signal_pb2.PredictRequest) -> Any:
    number = int(request.request_id.removeprefix("r"))
    return Refusal(grpc.StatusCode.NOT_FOUND, "no such model") if number % 3 == 2 else hold(request)


class Client(Protocol):
    """A way to ask: each test runs with all of them."""

    def unary(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        """Ask so many times."""

    def stream(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        """The same on a stream."""


class Sync(Client):
    def unary(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        with SignalClient(target, latency=monitor, deadline_s=deadline_s) as client:
            for request in numbered_requests(count):
                with suppress(CallError):
                    client.ask(request, deadline_s)

    def stream(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        with SignalClient(target, latency=monitor, deadline_s=deadline_s) as client:
            list(client.predict_stream(numbered_requests(count)))


class Asyncio(Client):
    def unary(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        async def run() -> None:
            async with AsyncSignalClient(target, latency=monitor, deadline_s=deadline_s) as client:
                for request in numbered_requests(count):
                    with suppress(CallError):
                        await client.ask(request, deadline_s)

        asyncio.run(run())

    def stream(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        async def run() -> None:
            async with AsyncSignalClient(target, latency=monitor, deadline_s=deadline_s) as client:
                async for _ in client.predict_stream(numbered_requests(count)):
                    pass

        asyncio.run(run())


class Stub(Client):
    def unary(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        with grpc.insecure_channel(target) as plain:
            stub = SignalServiceStub(grpc.intercept_channel(plain, SlaInterceptor(monitor)))
            for at, request in enumerate(numbered_requests(count)):
                with suppress(grpc.RpcError):
                    if at % 2:
                        stub.Predict.future(request, timeout=deadline_s).result()
                    else:
                        stub.Predict(request, timeout=deadline_s)

    def stream(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        with grpc.insecure_channel(target) as plain:
            stub = SignalServiceStub(grpc.intercept_channel(plain, SlaInterceptor(monitor)))
            messages = (signal_pb2.PredictStreamRequest(requests=[one]) for one in numbered_requests(count))
            try:
                list(stub.PredictStream(messages, timeout=deadline_s))
            except grpc.RpcError as error:
                raise translated(error) from error


class AsyncioStub(Client):
    def unary(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        async def run() -> None:
            async with grpc.aio.insecure_channel(target, interceptors=async_interceptors(monitor)) as channel:
                stub: Any = SignalServiceStub(channel)
                for request in numbered_requests(count):
                    with suppress(grpc.RpcError):
                        await stub.Predict(request, timeout=deadline_s)

        asyncio.run(run())

    def stream(self, target: str, monitor: SlaMonitor, count: int, deadline_s: float = 10.0) -> None:
        async def messages() -> AsyncIterator[signal_pb2.PredictStreamRequest]:
            for one in numbered_requests(count):
                yield signal_pb2.PredictStreamRequest(requests=[one])

        async def run() -> None:
            async with grpc.aio.insecure_channel(target, interceptors=async_interceptors(monitor)) as channel:
                stub: Any = SignalServiceStub(channel)
                try:
                    async for _ in stub.PredictStream(messages(), timeout=deadline_s):
                        pass
                except grpc.RpcError as error:
                    raise translated(error) from error

        asyncio.run(run())


def translated(error: grpc.RpcError) -> CallError:
    kind = {grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded, grpc.StatusCode.UNAVAILABLE: ServerUnavailable}
    return kind[error.code()](error.details() or "", status_code=error.code())


@pytest.fixture(params=[Sync, Asyncio, Stub, AsyncioStub])
def client(request: pytest.FixtureRequest) -> Client:
    return request.param()  # type: ignore[no-any-return]


def test_every_unary_call_counts_once_by_its_status(client: Client, peer: ScriptedServer) -> None:
    peer.answer = refuse_every_third
    monitor = SlaMonitor()
    client.unary(peer.target, monitor, 9)
    seen = monitor.everything()
    assert dict(seen.by_status) == {OK: 6, NOT_FOUND: 3}
    assert (monitor.in_flight, monitor.abandoned) == (0, 0)
    summary = monitor.summary()
    assert (summary.round_trip.count, summary.server.count, summary.network.count) == (9, 6, 6)
    assert summary.server.p50_us == pytest.approx(11.0, rel=0.001)  # what the scripted server says
    assert summary.round_trip.max_us > summary.server.max_us


def test_every_message_of_a_stream_counts_once_by_its_first_failure(client: Client, peer: ScriptedServer) -> None:
    peer.answer = refuse_every_third
    monitor = SlaMonitor()
    client.stream(peer.target, monitor, 9)
    seen = monitor.everything()
    assert dict(seen.by_status) == {OK: 6, NOT_FOUND: 3}
    assert (monitor.in_flight, monitor.abandoned) == (0, 0)
    assert monitor.summary().server.count == 6


def test_a_unary_call_without_an_answer_is_a_deadline_miss(client: Client, peer: ScriptedServer) -> None:
    go_on = Event()

    def wait(request: signal_pb2.PredictRequest) -> Any:
        go_on.wait(30)
        return hold(request)

    peer.answer = wait
    monitor = SlaMonitor()
    try:
        client.unary(peer.target, monitor, 1, deadline_s=0.2)
    finally:
        go_on.set()
    assert dict(monitor.everything().by_status) == {DEADLINE: 1}
    assert (monitor.in_flight, monitor.percentiles().count) == (0, 1)


def test_a_stream_without_an_answer_is_a_deadline_miss(client: Client, peer: ScriptedServer) -> None:
    go_on = Event()

    def wait(message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext) -> None:
        del message, context
        go_on.wait(30)

    peer.stream_step = wait
    monitor = SlaMonitor()
    try:
        with pytest.raises(DeadlineExceeded):
            client.stream(peer.target, monitor, 1, deadline_s=0.2)
    finally:
        go_on.set()
    assert dict(monitor.everything().by_status) == {DEADLINE: 1}
    assert monitor.in_flight == 0


def test_no_server_is_unavailable(client: Client) -> None:
    monitor = SlaMonitor()
    client.unary(NOWHERE, monitor, 1)
    assert dict(monitor.everything().by_status) == {UNAVAILABLE: 1}
    assert monitor.in_flight == 0


def test_a_stream_that_the_caller_leaves_abandons_what_it_waits_for(peer: ScriptedServer) -> None:
    monitor = SlaMonitor()
    with SignalClient(peer.target, latency=monitor) as client:
        results = client.predict_stream(numbered_requests(4), in_flight=2)
        next(results)
        results.close()  # type: ignore[attr-defined]  # it is a generator
    assert (monitor.in_flight, monitor.abandoned) == (0, 1)
    assert dict(monitor.everything().by_status) == {OK: 1}


def test_a_call_that_its_task_gives_up_is_abandoned(peer: ScriptedServer) -> None:
    go_on, asked = Event(), Event()

    def wait(request: signal_pb2.PredictRequest) -> Any:
        asked.set()
        go_on.wait(30)
        return hold(request)

    peer.answer = wait
    monitor = SlaMonitor()

    async def run() -> None:
        async with AsyncSignalClient(peer.target, latency=monitor) as client:
            task = asyncio.create_task(client.predict(trade_tick()))
            await asyncio.to_thread(asked.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    try:
        asyncio.run(run())
    finally:
        go_on.set()
    assert (monitor.in_flight, monitor.abandoned, monitor.everything().calls) == (0, 1, 0)


def test_a_stubs_stream_that_the_caller_cancels_abandons_what_it_waits_for(peer: ScriptedServer) -> None:
    monitor = SlaMonitor()
    ended = Event()
    with grpc.insecure_channel(peer.target) as plain:
        stub = SignalServiceStub(grpc.intercept_channel(plain, SlaInterceptor(monitor)))

        def messages() -> Iterator[signal_pb2.PredictStreamRequest]:
            for one in numbered_requests(2):
                yield signal_pb2.PredictStreamRequest(requests=[one])
            ended.wait(30)

        call: Any = stub.PredictStream(messages(), timeout=30)
        next(call)
        call.cancel()
        with pytest.raises(grpc.RpcError):
            list(call)
        ended.set()
    assert monitor.in_flight == 0
    # The second message may have been taken by then, or not.
    assert monitor.everything().calls + monitor.abandoned in {1, 2}


def test_methods_that_are_not_asked_for_pass_unmeasured(peer: ScriptedServer) -> None:
    monitor = SlaMonitor()
    with grpc.insecure_channel(peer.target) as plain:
        stub = SignalServiceStub(grpc.intercept_channel(plain, SlaInterceptor(monitor, methods=())))
        stub.Predict(signal_pb2.PredictRequest(tick=trade_tick()), timeout=10)
        message = signal_pb2.PredictStreamRequest(requests=numbered_requests(1))
        assert len(list(stub.PredictStream(iter([message]), timeout=10))) == 1
    assert monitor.everything().calls == 0


class _Topology(TopologyServiceServicer):
    def __init__(self) -> None:
        self.peers: list[ScriptedServer] = []

    def GetTopology(  # noqa: N802 - gRPC's name
        self, request: topology_pb2.GetTopologyRequest, context: grpc.ServicerContext
    ) -> topology_pb2.GetTopologyResponse:
        del request, context
        return topology_pb2.GetTopologyResponse(
            workers=[topology_pb2.Worker(index=at, address=peer.target) for at, peer in enumerate(self.peers)],
            symbol_hash=topology_pb2.SYMBOL_HASH_FNV1A64_JUMP,
            epoch="one",
        )


@contextmanager
def fleet() -> Iterator[list[tuple[ScriptedServer, grpc.Server]]]:
    topology = _Topology()
    running = []
    for _ in range(2):
        peer = ScriptedServer()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        add_SignalServiceServicer_to_server(peer, server)
        add_TopologyServiceServicer_to_server(topology, server)
        peer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        topology.peers.append(peer)
        running.append((peer, server))
    yield running
    for _, server in running:
        server.stop(None).wait()


def one_of_each_worker() -> list[str]:
    names = [f"SYM-{number}" for number in range(50)]
    return [next(name for name in names if worker_of(name, 2) == worker) for worker in range(2)]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "asyncio"])
def test_one_monitor_sees_the_calls_to_every_worker_and_the_one_that_is_lost(*, asynchronous: bool) -> None:
    monitor = SlaMonitor()
    with fleet() as running:
        symbols = one_of_each_worker()

        async def ask_async() -> None:
            async with AsyncRoutedSignalClient(running[0][0].target, latency=monitor) as client:
                await client.connect(10)
                for symbol in symbols:
                    await client.predict(symbol)
                await asyncio.to_thread(running[1][1].stop(None).wait)
                with pytest.raises(ServerUnavailable):
                    await client.predict(symbols[1])
                await client.predict(symbols[0])

        def ask() -> None:
            with RoutedSignalClient(running[0][0].target, latency=monitor) as client:
                client.connect(10)
                for symbol in symbols:
                    client.predict(symbol)
                running[1][1].stop(None).wait()
                with pytest.raises(ServerUnavailable):
                    client.predict(symbols[1])
                client.predict(symbols[0])

        if asynchronous:
            asyncio.run(ask_async())
        else:
            ask()
        assert [symbol_of(peer.seen[0].request) for peer, _ in running] == symbols
    assert dict(monitor.everything().by_status) == {OK: 3, UNAVAILABLE: 1}
    assert monitor.in_flight == 0


def test_an_asyncio_stubs_stream_that_is_written_and_read_by_hand_counts_each_message(peer: ScriptedServer) -> None:
    monitor = SlaMonitor()

    async def run() -> None:
        async with grpc.aio.insecure_channel(peer.target, interceptors=async_interceptors(monitor)) as channel:
            stub: Any = SignalServiceStub(channel)
            call = stub.PredictStream(timeout=30)
            for request in numbered_requests(3):
                await call.write(signal_pb2.PredictStreamRequest(requests=[request]))
                assert (await call.read()).results[0].request_id == request.request_id
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(run())
    assert dict(monitor.everything().by_status) == {OK: 3}
    assert (monitor.in_flight, monitor.abandoned) == (0, 0)


def test_an_asyncio_stubs_stream_that_is_cancelled_abandons_what_it_waits_for(peer: ScriptedServer) -> None:
    monitor = SlaMonitor()
    go_on, asked = Event(), Event()

    def wait(message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext) -> None:
        del message, context
        asked.set()
        go_on.wait(30)

    peer.stream_step = wait

    async def run() -> None:
        async with grpc.aio.insecure_channel(peer.target, interceptors=async_interceptors(monitor)) as channel:
            stub: Any = SignalServiceStub(channel)
            call = stub.PredictStream(timeout=30)
            await call.write(signal_pb2.PredictStreamRequest(requests=numbered_requests(1)))
            await asyncio.to_thread(asked.wait, 30)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.read()

    try:
        asyncio.run(run())
    finally:
        go_on.set()
    assert (monitor.in_flight, monitor.abandoned, monitor.everything().calls) == (0, 1, 0)
