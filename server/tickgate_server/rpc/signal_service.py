"""`SignalService` on `grpc.aio`: decode, decide, encode."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter_ns
from typing import Any, TypeAlias, cast

import grpc

from tickgate.v1 import signal_pb2 as pb
from tickgate.v1 import signal_pb2_grpc
from tickgate_server.engine import Engine
from tickgate_server.records import Decision, Request
from tickgate_server.rpc.codec import STREAM_ITEMS, budget_ns, decode, encode
from tickgate_server.rpc.status import Status, status_of

# Items of one stream message answered before other calls get a turn.
_TURN_ITEMS = 32
# gRPC gives a call without a deadline one that lies decades ahead.
_LONGEST_S = 86_400.0

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class SignalService(signal_pb2_grpc.SignalServiceServicer):
    """Both methods over one engine, on one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statuses = engine.telemetry.statuses
        self._request = Request()
        self._decision = Decision()
        self._waiting: set[asyncio.Task[Any]] = set()  # streams between two messages
        self._draining = False

    async def Predict(  # noqa: N802 - the name in the contract
        self, request: pb.PredictRequest, context: Context
    ) -> pb.PredictResponse:
        """One request, one answer."""
        response = pb.PredictResponse()
        failed = self._answer(request, response, perf_counter_ns(), _remaining_ns(context))
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
            await context.write(await self._answer_all(message, context))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is draining")

    def drain(self) -> None:
        """End streams that wait for their next message; those at work end after the message at hand."""
        self._draining = True
        for task in self._waiting:
            task.cancel()

    async def _next(self, context: Context) -> pb.PredictStreamRequest | None:
        """A stream's next message; None at its end. Aborts the stream where the server drains or it is too long."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting.add(task)
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if not self._draining:  # the caller went away
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is draining")
        finally:
            self._waiting.discard(task)
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            return None
        if len(message.requests) > STREAM_ITEMS:
            text = f"requests: expected at most {STREAM_ITEMS} a message, got {len(message.requests)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return cast("pb.PredictStreamRequest", message)

    async def _answer_all(self, message: pb.PredictStreamRequest, context: Context) -> pb.PredictStreamResponse:
        arrival_ns = perf_counter_ns()
        remaining_ns = _remaining_ns(context)
        answer = pb.PredictStreamResponse()
        for index, request in enumerate(message.requests):
            if index and index % _TURN_ITEMS == 0:
                await asyncio.sleep(0)
            result = answer.results.add(request_id=request.request_id)
            response = pb.PredictResponse()
            failed = self._answer(request, response, arrival_ns, remaining_ns)
            if failed is None:
                result.response.CopyFrom(response)
            else:
                result.code = failed.number
                result.message = failed.message
        return answer

    def _answer(
        self, message: pb.PredictRequest, response: pb.PredictResponse, arrival_ns: int, remaining_ns: int
    ) -> Status | None:
        """Decide one request into `response`; the status instead where it fails."""
        request = self._request
        try:
            decode(message, request)
            request.arrival_ns = arrival_ns
            request.budget_ns = budget_ns(message.budget_us, remaining_ns)
            self._engine.decide(request, self._decision)
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            failed = status_of(error)
            self._statuses[failed.number] += 1
            return failed
        encode(self._decision, response)
        response.request_id = message.request_id
        self._statuses[0] += 1
        return None


def _remaining_ns(context: Context) -> int:
    """What the caller's gRPC deadline leaves, in nanoseconds; 0 where there is none, 1 where it has passed."""
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > _LONGEST_S:
        return 0
    return max(int(remaining_s * 1e9), 1)
