"""The listeners on the public `grpc.aio` server, under uvloop."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

import grpc
import uvloop

from tickgate_server.engine import Engine
from tickgate_server.ingest.ingestion import Ingestion
from tickgate_server.rpc.aio_methods import Context, Life, next_message, rpc_handlers
from tickgate_server.rpc.answers import Answers, Pending, remaining_ns
from tickgate_server.rpc.health import SERVICE_NAME
from tickgate_server.rpc.listener import ABANDONED_S, Bound, ListenerSettings, Place
from tickgate_server.rpc.services import POLL_S, Services
from tickgate_server.rpc.status import DRAINING, Status
from tickgate_server.rpc.topology import Topology


class AioListener:
    """See `rpc.listener.Listener`."""

    def __init__(self, engine: Engine, settings: ListenerSettings, services: Services) -> None:
        self._engine = engine
        self._settings = settings
        self._services = services

    def run(
        self,
        on_bound: Callable[[Bound], Topology],
        on_serving: Callable[[Bound], None],
        on_draining: Callable[[], None],
    ) -> None:
        """See `rpc.listener.Listener`."""
        uvloop.run(self._serve(on_bound, on_serving, on_draining))

    async def _serve(
        self,
        on_bound: Callable[[Bound], Topology],
        on_serving: Callable[[Bound], None],
        on_draining: Callable[[], None],
    ) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        settings, services = self._settings, self._services
        credentials = settings.credentials()
        servers, addresses = {}, {}
        for place in settings.places:
            server = servers[place.name] = grpc.aio.server(
                options=settings.options, maximum_concurrent_rpcs=settings.max_concurrent_requests
            )
            addresses[place.name] = _bind(server, place, credentials)
        bound = Bound(**addresses)
        methods = services.methods(on_bound(bound))
        answers, life = Answers(self._engine), Life()
        _Ingesting(self._engine.ingestion).start()
        servers["data"].add_generic_rpc_handlers((_SignalHandlers(answers, life).handlers(),))
        for name, server in servers.items():
            server.add_generic_rpc_handlers(rpc_handlers(methods[name], life))
            await server.start()
        turns = asyncio.create_task(_take_turns(services))
        services.board.serving()
        on_serving(bound)
        await stop.wait()
        on_draining()
        services.drain()
        life.drain()
        stopped = asyncio.gather(*(server.stop(settings.drain_s + ABANDONED_S) for server in servers.values()))
        await asyncio.wait((stopped,), timeout=settings.drain_s)
        answers.abandon()
        await stopped
        turns.cancel()
        answers.close()
        services.close()


def _bind(server: grpc.aio.Server, place: Place, credentials: grpc.ServerCredentials | None) -> str:
    with place.binding():
        if credentials is None or not place.tls:
            port = server.add_insecure_port(place.address)
        else:
            port = server.add_secure_port(place.address, credentials)
    return place.bound(port)


class _Ingesting:
    """Applies published ticks, a slice at each turn of the loop, while any wait."""

    def __init__(self, ingestion: Ingestion) -> None:
        self._ingestion = ingestion
        self._loop = asyncio.get_running_loop()
        self._at_work = False

    def start(self) -> None:
        """From here on."""
        self._ingestion.on_work = self._begin

    def _begin(self) -> None:
        if not self._at_work:
            self._at_work = True
            self._loop.call_soon(self._take_slice)

    def _take_slice(self) -> None:
        self._at_work = self._ingestion.turn()
        if self._at_work:
            self._loop.call_soon(self._take_slice)


async def _take_turns(services: Services) -> None:
    while True:
        services.poll()
        await asyncio.sleep(POLL_S)


class _SignalHandlers:
    """`SignalService`, from bytes to bytes."""

    def __init__(self, answers: Answers, life: Life) -> None:
        self._answers = answers
        self._life = life

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """For the server; no (de)serializers, so that bad bytes are answered the same on every transport."""
        methods = {
            "Predict": grpc.unary_unary_rpc_method_handler(self._predict),
            "PredictStream": grpc.stream_stream_rpc_method_handler(self._predict_stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def _predict(self, data: bytes, context: Context) -> bytes:
        answer = self._answers.predict(data, perf_counter_ns(), remaining_ns(context.time_remaining()))
        reserved = self._answers.reserved
        if isinstance(answer, Pending):
            await self._settled(answer)
            reserved, answer = answer.reserved, answer.answer
        if isinstance(answer, Status):
            await context.abort(answer.code, answer.message)
        if reserved:
            context.add_done_callback(partial(self._look_back, reserved))  # type: ignore[arg-type]  # takes what it gives
        return answer

    def _look_back(self, reserved: tuple[int, ...], context: Context) -> None:
        if context.cancelled():
            self._answers.not_sent(reserved)

    async def _predict_stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        del messages  # read() takes fewer turns of the loop
        while not self._life.draining:
            data = await next_message(context, self._life)
            if data is None:
                return
            found = self._answers.predict_stream(data, perf_counter_ns(), remaining_ns(context.time_remaining()))
            answer = found if isinstance(found, bytes) else await self._come_to(found)
            if isinstance(answer, Status):
                await context.abort(answer.code, answer.message)
            reserved = self._answers.reserved
            try:
                await context.write(answer)
            except BaseException:
                if reserved:
                    self._answers.not_sent(reserved)
                raise
        await context.abort(DRAINING.code, DRAINING.message)

    async def _come_to(self, turns: Generator[Pending | None, None, bytes | Status]) -> bytes | Status:
        """What a stream message is answered with, in turns with other calls."""
        with contextlib.closing(turns):  # cancelled, what its items reserved is released
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
