"""The data listener on the public `grpc.aio` server, under uvloop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Generator
from time import perf_counter_ns
from typing import Any, TypeAlias, cast

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tickgate_server.engine import Engine
from tickgate_server.rpc import reflection
from tickgate_server.rpc.answers import Answers, Pending, remaining_ns
from tickgate_server.rpc.health import SERVICE_NAME, HealthBoard
from tickgate_server.rpc.listener import ABANDONED_S, ListenerSettings, ListenFailed
from tickgate_server.rpc.status import DRAINING, Status
from tickgate_server.rpc.topology import TOPOLOGY_NAME, Topology

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class AioListener:
    """See `rpc.listener.Listener`."""

    def __init__(self, engine: Engine, settings: ListenerSettings) -> None:
        self._engine = engine
        self._settings = settings

    def run(
        self,
        on_bound: Callable[[str], Topology],
        on_serving: Callable[[str], None],
        on_draining: Callable[[], None],
    ) -> None:
        """See `rpc.listener.Listener`."""
        uvloop.run(self._serve(on_bound, on_serving, on_draining))

    async def _serve(
        self,
        on_bound: Callable[[str], Topology],
        on_serving: Callable[[str], None],
        on_draining: Callable[[], None],
    ) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        settings = self._settings
        server = grpc.aio.server(options=settings.options, maximum_concurrent_rpcs=settings.max_concurrent_requests)
        answers = Answers(self._engine)
        signals = _SignalHandlers(answers)
        board = HealthBoard(self._engine.registry.names)
        server.add_generic_rpc_handlers((signals.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(_Health(board), server)
        reflection.enable(server)
        credentials = settings.credentials()
        try:
            if credentials is None:
                port = server.add_insecure_port(settings.address)
            else:
                port = server.add_secure_port(settings.address, credentials)
        except RuntimeError as error:
            raise ListenFailed(settings.address, str(error)) from error
        server.add_generic_rpc_handlers((_topology_handler(on_bound(settings.bound(port))),))
        await server.start()
        board.serving()
        on_serving(settings.bound(port))
        await stop.wait()
        on_draining()
        board.draining()
        signals.drain()
        stopped = asyncio.ensure_future(server.stop(settings.drain_s + ABANDONED_S))
        await asyncio.wait((stopped,), timeout=settings.drain_s)
        answers.abandon()
        await stopped
        answers.close()


class _SignalHandlers:
    """`SignalService`, from bytes to bytes."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._waiting: set[asyncio.Task[Any]] = set()  # streams between two messages
        self._draining = False

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """For the server; no (de)serializers, so that bad bytes are answered the same on every transport."""
        methods = {
            "Predict": grpc.unary_unary_rpc_method_handler(self._predict),
            "PredictStream": grpc.stream_stream_rpc_method_handler(self._predict_stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def _predict(self, data: bytes, context: Context) -> bytes:
        answer = self._answers.predict(data, perf_counter_ns(), remaining_ns(context.time_remaining()))
        if isinstance(answer, Pending):
            await self._settled(answer)
            answer = answer.answer
        if isinstance(answer, Status):
            await context.abort(answer.code, answer.message)
        return answer

    async def _predict_stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        del messages  # read() takes fewer turns of the loop
        while not self._draining:
            data = await self._next(context)
            if data is None:
                return
            found = self._answers.predict_stream(data, perf_counter_ns(), remaining_ns(context.time_remaining()))
            answer = found if isinstance(found, bytes) else await self._come_to(found)
            if isinstance(answer, Status):
                await context.abort(answer.code, answer.message)
            await context.write(answer)
        await context.abort(DRAINING.code, DRAINING.message)

    async def _come_to(self, turns: Generator[Pending | None, None, bytes | Status]) -> bytes | Status:
        """What a stream message is answered with, in turns with other calls."""
        while True:
            try:
                pending = next(turns)
            except StopIteration as finished:
                return cast("bytes | Status", finished.value)
            if pending is None:
                await asyncio.sleep(0)
            else:
                await self._settled(pending)

    async def _settled(self, pending: Pending) -> None:
        """Run the model of a request on its thread; cancelled with the call."""
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[None] = loop.create_future()

        def on_settled() -> None:
            if not settled.done():  # else cancelled in the same turn of the loop
                settled.set_result(None)

        self._answers.start(pending, loop.call_soon_threadsafe, on_settled)
        try:
            await settled
        except asyncio.CancelledError:
            self._answers.cancel(pending)
            raise

    def drain(self) -> None:
        """End streams that wait for their next message; those at work end after the message at hand."""
        self._draining = True
        for task in self._waiting:
            task.cancel()

    async def _next(self, context: Context) -> bytes | None:
        """A stream's next message; None at its end. Aborts the stream where the server drains."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting.add(task)
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if not self._draining:  # the caller went away
                raise
            task.uncancel()
            await context.abort(DRAINING.code, DRAINING.message)
        finally:
            self._waiting.discard(task)
        if data is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            return None
        return cast("bytes", data)


def _topology_handler(topology: Topology) -> "grpc.GenericRpcHandler[Any, Any]":
    async def get_topology(data: bytes, context: Context) -> bytes:
        answer = topology.answer(data)
        if isinstance(answer, Status):
            await context.abort(answer.code, answer.message)
        return answer

    methods = {"GetTopology": grpc.unary_unary_rpc_method_handler(get_topology)}
    return grpc.method_handlers_generic_handler(TOPOLOGY_NAME, methods)


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # no stubs
    """The board as a servicer."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    async def Check(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The status of one name."""
        status = self._board.check(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service: nothing is known of {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """The status of one name, now and whenever it changes."""
        changed = asyncio.Event()
        unwatch = self._board.watch(changed.set)
        try:
            told: int | None = None
            while True:
                changed.clear()
                status = self._board.watched(request.service)
                if status != told:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    told = status
                if self._board.over:  # OK: before an error the caller's gRPC drops what it has not read yet
                    return
                await changed.wait()
        finally:
            unwatch()
