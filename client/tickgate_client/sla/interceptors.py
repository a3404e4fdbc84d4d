"""The monitor around any synchronous stub.

channel = grpc.intercept_channel(grpc.insecure_channel(target), SlaInterceptor(monitor))
stub = SignalServiceStub(channel)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import grpc

from tickgate_client.call_errors import number_of
from tickgate_client.latency import CallRecorder
from tickgate_client.sla.pairing import MEASURED, PairedStream, method_name, outcome_of_answer


class SlaInterceptor(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Tells a recorder about the calls of a channel.

    `SignalClient` needs none: it takes the monitor as its `latency`.

    Args:
        recorder: An SlaMonitor, or a LatencyRecorder.
        methods: Full names of the methods to measure, unary ones and streams in which each message has one answer, in
            order. Others pass untouched.
    """

    def __init__(self, recorder: CallRecorder, methods: Collection[str] = MEASURED) -> None:
        self._recorder = recorder
        self._methods = frozenset(methods)

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Measure one call, blocking or future."""
        if method_name(client_call_details.method) not in self._methods:
            return continuation(client_call_details, request)
        number = self._recorder.begin()
        try:
            call = continuation(client_call_details, request)
        except BaseException:
            self._recorder.abandon(number)
            raise
        # A blocking call is done by now, and the callback runs at once.
        call.add_done_callback(lambda done: self._unary_done(number, done))
        return call

    def intercept_stream_stream(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request_iterator: Iterator[Any]
    ) -> Any:
        """Measure each message of one stream, from gRPC taking it to its answer being read."""
        if method_name(client_call_details.method) not in self._methods:
            return continuation(client_call_details, request_iterator)
        paired = PairedStream(self._recorder)

        def requests() -> Iterator[Any]:
            for request in request_iterator:
                paired.sending()
                yield request

        return _MeasuredCall(continuation(client_call_details, requests()), paired)

    def _unary_done(self, number: int, call: Any) -> None:
        if call.cancelled():
            self._recorder.abandon(number)
        elif call.code() is grpc.StatusCode.OK:
            self._recorder.end(number, *outcome_of_answer(call.result()))
        else:
            self._recorder.end(number, int(call.code().value[0]))


class _MeasuredCall:
    """A stream's call that says which answers are read; everything else is the call's own."""

    def __init__(self, call: Any, paired: PairedStream) -> None:
        self._call = call
        self._paired = paired
        call.add_done_callback(self._done_callback(paired))

    def __iter__(self) -> _MeasuredCall:
        return self

    def __next__(self) -> Any:
        try:
            answer = next(self._call)
        except StopIteration:
            self._paired.ended(0)
            raise
        except grpc.RpcError as error:
            self._paired.ended(number_of(error))
            raise
        self._paired.answered(answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __del__(self) -> None:
        self._paired.abandoned()

    @staticmethod
    def _done_callback(paired: PairedStream) -> Callable[[Any], None]:
        def done(call: Any) -> None:
            if call.cancelled():
                paired.abandoned()
            elif call.code() is not grpc.StatusCode.OK:  # what came before an OK is still to be read
                paired.ended(int(call.code().value[0]))

        return done
