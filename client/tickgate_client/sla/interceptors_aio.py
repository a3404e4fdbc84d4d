"""The monitor around any asyncio stub: `tickgate_client.sla.interceptors` for grpc.aio.

channel = grpc.aio.insecure_channel(target, interceptors=async_interceptors(monitor))
stub = SignalServiceStub(channel)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
from grpc import aio

from tickgate_client.call_errors import number_of
from tickgate_client.latency import CallRecorder
from tickgate_client.sla.pairing import MEASURED, PairedStream, method_name, outcome_of_answer

_Continuation = Callable[[Any, Any], Awaitable[Any]]


def async_interceptors(recorder: CallRecorder, methods: Collection[str] = MEASURED) -> tuple[Any, Any]:
    """What an asyncio channel takes as its `interceptors`: it wants one for unary calls and one for streams.

    Args:
        recorder: As SlaInterceptor.
        methods: As SlaInterceptor.
    """
    wanted = frozenset(methods)
    return _Unary(recorder, wanted), _Stream(recorder, wanted)


class _Unary(aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    def __init__(self, recorder: CallRecorder, methods: frozenset[str]) -> None:
        self._recorder = recorder
        self._methods = methods

    async def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: aio.ClientCallDetails, request: Any
    ) -> Any:
        if method_name(client_call_details.method) not in self._methods:
            return await continuation(client_call_details, request)
        number = self._recorder.begin()
        try:
            call = await continuation(client_call_details, request)
            answer = await call
        except grpc.RpcError as error:
            self._recorder.end(number, number_of(error))
            raise
        except BaseException:
            self._recorder.abandon(number)
            raise
        self._recorder.end(number, *outcome_of_answer(answer))
        return call


class _Stream(aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, recorder: CallRecorder, methods: frozenset[str]) -> None:
        self._recorder = recorder
        self._methods = methods

    async def intercept_stream_stream(  # type: ignore[override]  # the stubs' continuation is not awaited
        self,
        continuation: _Continuation,
        client_call_details: aio.ClientCallDetails,
        request_iterator: AsyncIterator[Any],
    ) -> Any:
        if method_name(client_call_details.method) not in self._methods:
            return await continuation(client_call_details, request_iterator)
        paired = PairedStream(self._recorder)

        async def requests() -> AsyncIterator[Any]:
            async for request in request_iterator:
                paired.sending()
                yield request

        return _Answers(await continuation(client_call_details, requests()), paired)


class _Answers:
    """A stream's answers, which says which of them are read."""

    def __init__(self, call: Any, paired: PairedStream) -> None:
        self._answers = aiter(call)
        self._paired = paired

        def done(ended: Any) -> None:
            if ended.cancelled():
                paired.abandoned()

        call.add_done_callback(done)

    def __aiter__(self) -> _Answers:
        return self

    async def __anext__(self) -> Any:
        try:
            answer = await anext(self._answers)
        except StopAsyncIteration:
            self._paired.ended(0)
            raise
        except grpc.RpcError as error:
            self._paired.ended(number_of(error))
            raise
        self._paired.answered(answer)
        return answer

    def __del__(self) -> None:
        self._paired.abandoned()
