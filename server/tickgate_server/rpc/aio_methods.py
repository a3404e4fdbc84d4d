"""A table of methods as handlers of `grpc.aio`, without (de)serializers: bad bytes are answered the same everywhere."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias, cast

import grpc

from tickgate_server.rpc.answers import remaining_ns
from tickgate_server.rpc.methods import (
    Answer,
    Handler,
    LaterMethod,
    LaterStreamMethod,
    Method,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from tickgate_server.rpc.services import POLL_S
from tickgate_server.rpc.status import DRAINING, Status

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Life:
    """Which calls wait, so that they end when the server drains.

    Attributes:
        draining: It does.
    """

    def __init__(self) -> None:
        self.draining = False
        self.waiting: set[asyncio.Task[Any]] = set()  # streams between two messages
        self.watching: set[Callable[[], None]] = set()  # what wakes a watch
        self.drained = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the server drains."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.drained.wait(), seconds)

    def drain(self) -> None:
        """End streams that wait for their next message, and watches; those at work end after the message at hand."""
        self.draining = True
        self.drained.set()
        for task in self.waiting:
            task.cancel()
        for wake in list(self.watching):
            wake()


def rpc_handlers(methods: Sequence[Method], life: Life) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
    """For `add_generic_rpc_handlers`."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = defaultdict(dict)
    for method in methods:
        _, service, name = method.path.split("/")
        services[service][name] = _handler(method, life)
    return tuple(grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items())


def _handler(method: Method, life: Life) -> "grpc.RpcMethodHandler[Any, Any]":
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(method.answer))
    if isinstance(method, LaterMethod):
        return grpc.unary_unary_rpc_method_handler(_later(method))
    if isinstance(method, LaterStreamMethod):
        return grpc.stream_stream_rpc_method_handler(_later_stream(method, life))
    if isinstance(method, StreamMethod):
        return grpc.stream_stream_rpc_method_handler(_stream(method.answer, life))
    return grpc.unary_stream_rpc_method_handler(_watch(method, life))


async def next_message(context: Context, life: Life) -> bytes | None:
    """A stream's next message; None at its end. Aborts the stream where the server drains."""
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    life.waiting.add(task)
    try:
        data = await context.read()
    except asyncio.CancelledError:
        if not life.draining:  # the caller went away
            raise
        task.uncancel()
        await context.abort(DRAINING.code, DRAINING.message)
    finally:
        life.waiting.discard(task)
    if data is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
        return None
    return cast("bytes", data)


async def _good(answer: Answer, context: Context) -> bytes:
    if isinstance(answer, Status):
        await context.abort(answer.code, answer.message)
    return answer


def _unary(answer: Handler) -> Any:
    async def call(data: bytes, context: Context) -> bytes:
        return await _good(answer(data), context)

    return call


def _later(method: LaterMethod) -> Any:
    async def call(data: bytes, context: Context) -> bytes:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer) -> None:
            if not answered.done():  # else the caller went away
                answered.set_result(answer)

        def done(answer: Answer) -> None:
            loop.call_soon_threadsafe(settle, answer)

        begun = method.begin(data, remaining_ns(context.time_remaining()), done)
        if isinstance(begun, bytes | Status):
            return await _good(begun, context)
        try:
            answer = await answered
        except asyncio.CancelledError:
            begun()
            raise
        return await _good(answer, context)

    return call


def _stream(answer: Handler, life: Life) -> Any:
    async def call(messages: AsyncIterator[bytes], context: Context) -> None:
        del messages  # read() takes fewer turns of the loop
        while not life.draining:
            data = await next_message(context, life)
            if data is None:
                return
            await context.write(await _good(answer(data), context))
        await context.abort(DRAINING.code, DRAINING.message)

    return call


def _later_stream(method: LaterStreamMethod, life: Life) -> Any:
    async def call(messages: AsyncIterator[bytes], context: Context) -> None:
        del messages  # read() can be waited for beside other things
        changed = asyncio.Event()
        conversation = method.open(changed.set)
        reading: asyncio.Future[Any] | None = None
        no_more = False
        life.watching.add(changed.set)
        try:
            while True:
                changed.clear()
                if reading is not None and reading.done():
                    data, reading = reading.result(), None
                    if data is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
                        no_more = True
                    else:
                        conversation.take(data)
                while (answer := conversation.next_answer()) is not None:
                    await context.write(await _good(answer, context))
                if conversation.idle and (no_more or life.draining):
                    break
                if reading is None and not (no_more or life.draining) and conversation.wants_more:
                    reading = asyncio.ensure_future(context.read())
                    reading.add_done_callback(lambda _: changed.set())
                await changed.wait()
            if not no_more:
                await context.abort(DRAINING.code, DRAINING.message)
        finally:
            life.watching.discard(changed.set)
            if reading is not None:
                reading.cancel()
            conversation.close()

    return call


def _watch(method: WatchMethod, life: Life) -> Any:
    async def call(data: bytes, context: Context) -> None:
        changed = asyncio.Event()
        subscription = method.open(data, changed.set)
        if isinstance(subscription, Status):
            await context.abort(subscription.code, subscription.message)
        life.watching.add(changed.set)
        try:
            while True:
                changed.clear()
                message = subscription.current()
                if message is not None:
                    await context.write(await _good(message, context))
                    await life.pause(method.every_s)
                elif life.draining:  # OK: before an error the caller's gRPC drops what it has not read yet
                    return
                else:
                    await changed.wait()
                    await life.pause(POLL_S)  # many changes are told at once
        finally:
            life.watching.discard(changed.set)
            subscription.close()

    return call
