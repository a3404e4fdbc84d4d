"""A server in memory, for tests of what is built on a client: no socket, no process, nothing to wait for.

    def answer(request):
        if request.symbol == "NONE":
            raise Refused(grpc.StatusCode.NOT_FOUND, "no such model")
        return PredictResponse(request_id=request.request_id, signal=Signal(action=ACTION_HOLD))

    with SignalClient("memory", channel=memory_channel(answer)) as client:
        client.predict("BTCUSDT")

    async with AsyncSignalClient("memory", channel=async_memory_channel(answer)) as client:
        await client.predict("BTCUSDT")

Messages go through their bytes, as on a wire. Deadlines are carried and not measured: an answer is there at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from grpc import aio

from tickgate.v1 import signal_pb2, topology_pb2

Answer = Callable[[signal_pb2.PredictRequest], signal_pb2.PredictResponse]
"""What the server says to a request; it may raise `Refused`."""

_PREDICT = "/tickgate.v1.SignalService/Predict"
_STREAM = "/tickgate.v1.SignalService/PredictStream"
_TOPOLOGY = "/tickgate.v1.TopologyService/GetTopology"


class Refused(Exception):
    """Raised by an answer for a status other than OK; on a stream it is that item's.

    Args:
        status_code: Other than OK.
        message: What the server writes.
    """

    def __init__(self, status_code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message


class MemoryCallError(grpc.RpcError):
    """What gRPC raises for a call that ended badly."""

    def __init__(self, status_code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self._status_code = status_code
        self._message = message

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._status_code

    def details(self) -> str:
        """The text."""
        return self._message


def not_served(what: str) -> MemoryCallError:
    """The error for a method that is not served in memory."""
    return MemoryCallError(grpc.StatusCode.UNIMPLEMENTED, f"{what} is not served in memory")


def memory_channel(answer: Answer) -> grpc.Channel:
    """A channel for SignalClient to a server that answers so; one worker serves every symbol."""
    return _MemoryChannel(_MemoryServer(answer))


def async_memory_channel(answer: Answer) -> aio.Channel:
    """The same for AsyncSignalClient."""
    return _AsyncMemoryChannel(_MemoryServer(answer))


class _MemoryServer:
    """The three methods that a client calls."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.open = True

    def unary(self, method: str, data: bytes) -> bytes:
        if not self.open:
            raise MemoryCallError(grpc.StatusCode.CANCELLED, "the channel is closed")
        if method == _TOPOLOGY:
            found: Message = topology_pb2.GetTopologyResponse(
                workers=[topology_pb2.Worker(address="memory")], epoch="memory"
            )
        elif method == _PREDICT:
            try:
                found = self._answer(signal_pb2.PredictRequest.FromString(data))
            except Refused as refused:
                raise MemoryCallError(refused.status_code, refused.message) from refused
        else:
            raise not_served(method)
        return found.SerializeToString()

    def message(self, data: bytes) -> bytes:
        """The answer to one message of a stream."""
        if not self.open:
            raise MemoryCallError(grpc.StatusCode.CANCELLED, "the channel is closed")
        results = [self._item(request) for request in signal_pb2.PredictStreamRequest.FromString(data).requests]
        return signal_pb2.PredictStreamResponse(results=results).SerializeToString()

    def _item(self, request: signal_pb2.PredictRequest) -> signal_pb2.PredictStreamResult:
        try:
            return signal_pb2.PredictStreamResult(request_id=request.request_id, response=self._answer(request))
        except Refused as refused:
            number = refused.status_code.value[0]
            return signal_pb2.PredictStreamResult(request_id=request.request_id, code=number, message=refused.message)


class _MemoryChannel(grpc.Channel):
    def __init__(self, server: _MemoryServer) -> None:
        self._server = server

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,  # noqa: FBT001, FBT002 - grpc's
    ) -> None:
        """Connected at once."""
        del try_to_connect
        callback(grpc.ChannelConnectivity.READY)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """There is nothing more to be told."""
        del callback

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """A method with one message each way."""

        def call(request: Any, **_: Any) -> Any:
            return response_deserializer(self._server.unary(method, request_serializer(request)))

        return call

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """PredictStream."""
        del method

        def call(requests: Iterator[Any], **_: Any) -> _Stream:
            return _Stream(requests, lambda one: response_deserializer(self._server.message(request_serializer(one))))

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """No method of the clients."""
        raise not_served(method)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """No method of the clients."""
        raise not_served(method)

    def close(self) -> None:
        """Calls fail from now on."""
        self._server.open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


class _Stream:
    """A stream under way: each message is answered when its answer is asked for."""

    def __init__(self, requests: Iterator[Any], answer: Callable[[Any], Any]) -> None:
        self._requests = requests
        self._answer = answer
        self._cancelled = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._cancelled:
            raise MemoryCallError(grpc.StatusCode.CANCELLED, "cancelled by the caller")
        return self._answer(next(self._requests))

    def cancel(self) -> None:
        """End it."""
        self._cancelled = True


class _AsyncMemoryChannel(aio.Channel):
    def __init__(self, server: _MemoryServer) -> None:
        self._server = server

    async def channel_ready(self) -> None:
        """It is."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpc's
        """Connected from the beginning."""
        del try_to_connect
        return grpc.ChannelConnectivity.READY if self._server.open else grpc.ChannelConnectivity.SHUTDOWN

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """It changes when it is closed."""
        raise not_served(f"waiting for another state than {last_observed_state.name}")

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """A method with one message each way."""

        async def call(request: Any, **_: Any) -> Any:
            return response_deserializer(self._server.unary(method, request_serializer(request)))

        return call

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """PredictStream."""
        del method

        def call(_requests: None, **_: Any) -> _AsyncStream:
            return _AsyncStream(lambda one: response_deserializer(self._server.message(request_serializer(one))))

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """No method of the clients."""
        raise not_served(method)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """No method of the clients."""
        raise not_served(method)

    async def close(self, grace: float | None = None) -> None:
        """Calls fail from now on."""
        del grace
        self._server.open = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.close()


class _AsyncStream:
    """A stream under way: each message is answered when its answer is read."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        self._written: deque[Any] = deque()
        self._cancelled = False

    async def write(self, message: Any) -> None:
        """Take a message."""
        self._written.append(message)

    async def read(self) -> Any:
        """The answer to the oldest message; the end where there is none."""
        if self._cancelled:
            raise MemoryCallError(grpc.StatusCode.CANCELLED, "cancelled by the caller")
        if not self._written:
            return aio.EOF  # type: ignore[attr-defined]  # its stubs lack it
        return self._answer(self._written.popleft())

    async def done_writing(self) -> None:
        """No more is written."""

    def cancel(self) -> None:
        """End it."""
        self._cancelled = True
