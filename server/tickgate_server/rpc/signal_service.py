"""`SignalService` on `grpc.aio`."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter_ns
from typing import Any, TypeAlias, cast

import grpc

from tickgate.v1 import signal_pb2 as pb
from tickgate.v1 import signal_pb2_grpc
from tickgate_server.errors import FieldInvalid
from tickgate_server.rpc.answers import Answers, remaining_ns
from tickgate_server.rpc.status import DRAINING, status_of

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class SignalService(signal_pb2_grpc.SignalServiceServicer):
    """Both methods over one engine, on one event loop."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._waiting: set[asyncio.Task[Any]] = set()  # streams between two messages
        self._draining = False

    async def Predict(  # noqa: N802 - the name in the contract
        self, request: pb.PredictRequest, context: Context
    ) -> pb.PredictResponse:
        """One request, one answer."""
        response = pb.PredictResponse()
        deadline_ns = remaining_ns(context.time_remaining())
        failed = self._answers.one(request, response, perf_counter_ns(), deadline_ns)
        if failed is not None:
            await context.abort(failed.code, failed.message)
        return response

    async def PredictStream(  # type: ignore[override]  # noqa: N802 - a handler that writes returns nothing
        self, request_iterator: AsyncIterator[pb.PredictStreamRequest], context: Context
    ) -> None:
        """Messages answered in order, one for one; a failed item carries its own status."""
        del request_iterator  # read() takes fewer turns of the loop
        while not self._draining:
            message = await self._next(context)
            if message is None:
                return
            answer = pb.PredictStreamResponse()
            try:
                for _ in self._answers.all(message, answer, remaining_ns(context.time_remaining())):
                    await asyncio.sleep(0)
            except FieldInvalid as error:
                failed = status_of(error)
                await context.abort(failed.code, failed.message)
            await context.write(answer)
        await context.abort(DRAINING.code, DRAINING.message)

    def drain(self) -> None:
        """End streams that wait for their next message; those at work end after the message at hand."""
        self._draining = True
        for task in self._waiting:
            task.cancel()

    async def _next(self, context: Context) -> pb.PredictStreamRequest | None:
        """A stream's next message; None at its end. Aborts the stream where the server drains."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting.add(task)
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if not self._draining:  # the caller went away
                raise
            task.uncancel()
            await context.abort(DRAINING.code, DRAINING.message)
        finally:
            self._waiting.discard(task)
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            return None
        return cast("pb.PredictStreamRequest", message)
