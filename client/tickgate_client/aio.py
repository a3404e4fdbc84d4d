"""The asyncio client of SignalService: `tickgate_client.client` with `await`.

async with AsyncSignalClient("localhost:50051", deadline_s=0.05) as client:
    await client.connect(timeout_s=5)
    answer = await client.predict(tick)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from tickgate.v1 import signal_pb2, topology_pb2
from tickgate.v1.signal_pb2_grpc import SignalServiceStub
from tickgate.v1.topology_pb2_grpc import TopologyServiceStub
from tickgate_client.call_errors import DeadlineExceeded, ServerUnavailable, error_of_call, number_of
from tickgate_client.latency import CallRecorder, LatencyRecorder
from tickgate_client.options import CHANNEL_OPTIONS, STREAM_DEADLINE_S, CallDefaults, Input, StreamShape
from tickgate_client.stream import StreamLedger

# What grpc.aio makes of a stream that the server ends while a message is being written: the server's own status, that
# it drains for example, is lost then.
WRITE_FAILED = "Internal error from Core"

_DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]


class AsyncSignalClient:
    """Asks one process of a server for signals, over one connection; belongs to the event loop that it is made in.

    Arguments, defaults and errors are those of SignalClient.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline_s: float = 1.0,
        budget_us: int = 0,
        model: str = "",
        channel_credentials: grpc.ChannelCredentials | None = None,
        latency: CallRecorder | None = None,
        channel: aio.Channel | None = None,
    ) -> None:
        if channel is not None and channel_credentials is not None:
            raise ValueError("a channel has its credentials already: give one of the two")
        self.target = target
        self.latency: CallRecorder = LatencyRecorder() if latency is None else latency
        self._defaults = CallDefaults(deadline_s=deadline_s, budget_us=budget_us, model=model)
        if channel is None:
            channel = (
                aio.insecure_channel(target, options=CHANNEL_OPTIONS)
                if channel_credentials is None
                else aio.secure_channel(target, channel_credentials, options=CHANNEL_OPTIONS)
            )
        self._channel = channel
        stub = SignalServiceStub(self._channel)
        self._predict = stub.Predict
        self._predict_stream = stub.PredictStream
        self._get_topology = TopologyServiceStub(self._channel).GetTopology

    async def connect(self, timeout_s: float = 5.0) -> None:
        """Wait until the connection stands, so that the first call does not pay for it.

        Raises ServerUnavailable if it does not within timeout_s seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise ServerUnavailable(
                f"no connection to {self.target} within {timeout_s:g} s", status_code=grpc.StatusCode.UNAVAILABLE
            ) from error

    async def predict(
        self,
        what: Input,
        *,
        model: str | None = None,
        budget_us: int | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> signal_pb2.PredictResponse:
        """Ask for one signal; see SignalClient.predict."""
        deadline_s = self._defaults.deadline_of(deadline_s)
        request = self._defaults.request(
            what, model=model, budget_us=budget_us, deadline_s=deadline_s, request_id=request_id
        )
        return await self.ask(request, deadline_s)

    async def ask(self, request: signal_pb2.PredictRequest, deadline_s: float) -> signal_pb2.PredictResponse:
        """Send one request as it is; `predict` makes it from its parts."""
        call = self.latency.begin()
        try:
            response = await self._predict(request, timeout=deadline_s)
        except grpc.RpcError as error:
            self.latency.end(call, number_of(error))
            raise error_of_call(error, request) from error
        except BaseException:
            self.latency.abandon(call)
            raise
        self.latency.end(call, 0, response.timing.total_ns if response.HasField("timing") else None)
        return response

    def predict_stream(
        self,
        requests: Iterable[signal_pb2.PredictRequest] | AsyncIterable[signal_pb2.PredictRequest],
        batch: int = 1,
        *,
        in_flight: int = 1,
        deadline_s: float | None = None,
        stream_deadline_s: float = STREAM_DEADLINE_S,
    ) -> AsyncIterator[signal_pb2.PredictStreamResult]:
        """Ask for many signals over one stream; see SignalClient.predict_stream.

        A plain iterable is read on the event loop: one that blocks blocks the loop.
        """
        shape = StreamShape(batch, in_flight, self._defaults.deadline_of(deadline_s), stream_deadline_s)
        return self._drive(requests, shape)

    async def topology(self, deadline_s: float | None = None) -> topology_pb2.GetTopologyResponse:
        """Ask which worker of the server serves which symbol; raises a CallError by the answer's status."""
        try:
            return await self._get_topology(
                topology_pb2.GetTopologyRequest(), timeout=self._defaults.deadline_of(deadline_s)
            )
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    async def close(self) -> None:
        """Close the connection; calls under way end with asyncio.CancelledError, as grpc.aio has it."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _drive(
        self,
        requests: Iterable[signal_pb2.PredictRequest] | AsyncIterable[signal_pb2.PredictRequest],
        shape: StreamShape,
    ) -> AsyncIterator[signal_pb2.PredictStreamResult]:
        stream = self.open_stream(shape)
        try:
            async for chunk in chunks(requests, shape.batch):
                await stream.send(self._defaults.message(chunk, shape.deadline_s))
                if stream.ledger.full:
                    for result in await stream.receive():
                        yield result
            await stream.finish()
            while stream.ledger.waiting:
                for result in await stream.receive():
                    yield result
        finally:
            stream.close()

    def open_stream(self, shape: StreamShape) -> AsyncOpenStream:
        """A stream to drive by hand; `predict_stream` drives one. Close it."""
        call = self._predict_stream(None, timeout=shape.stream_deadline_s)
        return AsyncOpenStream(call, StreamLedger(self.latency, shape.in_flight), shape.deadline_s)


class AsyncOpenStream:
    """One PredictStream under way: each message is sent and read within the deadline; gRPC's own is the whole stream's.

    Attributes:
        ledger: What was sent and has no answer yet.
    """

    def __init__(
        self,
        call: aio.StreamStreamCall[signal_pb2.PredictStreamRequest, signal_pb2.PredictStreamResponse],
        ledger: StreamLedger,
        deadline_s: float,
    ) -> None:
        self.ledger = ledger
        self._call = call
        self._deadline_s = deadline_s

    async def send(self, message: signal_pb2.PredictStreamRequest) -> None:
        """Send a message; it must not change until it is answered."""
        self.ledger.sending(message)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._call.write(message)
        except TimeoutError as error:
            raise self._overdue("the stream took no message") from error
        except asyncio.InvalidStateError:
            # The stream is over. Reading tells how, after any answers that came before its end.
            return
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and error.details() == WRITE_FAILED:
                self.ledger.ended(_UNAVAILABLE)
                raise ServerUnavailable(
                    "the stream ended while a message was being sent", status_code=grpc.StatusCode.UNAVAILABLE
                ) from error
            self.ledger.ended(number_of(error))
            raise error_of_call(error) from error

    async def receive(self) -> Sequence[signal_pb2.PredictStreamResult]:
        """Wait for the answer to the oldest message; raises a CallError if the stream ended badly."""
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await self._call.read()
        except TimeoutError as error:
            raise self._overdue("no answer on the stream") from error
        except grpc.RpcError as error:
            self.ledger.ended(number_of(error))
            raise error_of_call(error) from error
        if not isinstance(response, signal_pb2.PredictStreamResponse):
            raise self.ledger.ended_early()
        return self.ledger.answered(response)

    async def finish(self) -> None:
        """Say that no more is sent."""
        await self._call.done_writing()

    def close(self) -> None:
        """End the stream, whatever it waits for."""
        self._call.cancel()
        self.ledger.abandoned()

    def _overdue(self, what: str) -> DeadlineExceeded:
        self.ledger.ended(_DEADLINE_EXCEEDED)
        return DeadlineExceeded(f"{what} within {self._deadline_s:g} s", status_code=grpc.StatusCode.DEADLINE_EXCEEDED)


async def chunks(
    requests: Iterable[signal_pb2.PredictRequest] | AsyncIterable[signal_pb2.PredictRequest], size: int
) -> AsyncIterator[list[signal_pb2.PredictRequest]]:
    """The requests in lists of that size, the last one shorter."""
    chunk: list[signal_pb2.PredictRequest] = []
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            chunk.append(request)
            if len(chunk) == size:
                yield chunk
                chunk = []
    else:
        for request in requests:
            chunk.append(request)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk
