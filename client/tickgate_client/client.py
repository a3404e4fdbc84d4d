"""The synchronous client of SignalService.

with SignalClient("localhost:50051", deadline_s=0.05) as client:
    client.connect(timeout_s=5)
    answer = client.predict(tick)
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from tickgate.v1 import signal_pb2, topology_pb2
from tickgate.v1.signal_pb2_grpc import SignalServiceStub
from tickgate.v1.topology_pb2_grpc import TopologyServiceStub
from tickgate_client.call_errors import DeadlineExceeded, ServerUnavailable, error_of_call, number_of
from tickgate_client.latency import CallRecorder, LatencyRecorder
from tickgate_client.options import CHANNEL_OPTIONS, STREAM_DEADLINE_S, CallDefaults, Input, StreamShape
from tickgate_client.stream import StreamLedger

_DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class SignalClient:
    """Asks one process of a server for signals, over one connection. Safe to use from several threads.

    A server with several workers is asked through `routing.RoutedSignalClient`. Every call carries a deadline and a
    budget, is sent once, and is recorded in `latency`.

    Args:
        target: `host:port`, `unix:/path`, or any name that gRPC resolves.
        deadline_s: gRPC deadline of a call in seconds; on a stream, the longest wait for one message's answer.
        budget_us: What the server may take from arrival to answer, in microseconds; 0: as long as the deadline.
        model: `name`, `name@alias` or `name:version`; empty: the server's default model.
        channel_credentials: From `grpc.ssl_channel_credentials(...)`; None: plain text.
        latency: A recorder to share with other clients, or an `sla.SlaMonitor`, which judges the calls too; None: a
            recorder of its own.
        channel: One that is there already, `testing.memory_channel(...)` for example, which then is this client's to
            close; None: one to `target`.

    Raises ValueError for a channel with credentials beside it.
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
        channel: grpc.Channel | None = None,
    ) -> None:
        if channel is not None and channel_credentials is not None:
            raise ValueError("a channel has its credentials already: give one of the two")
        self.target = target
        self.latency: CallRecorder = LatencyRecorder() if latency is None else latency
        self._defaults = CallDefaults(deadline_s=deadline_s, budget_us=budget_us, model=model)
        if channel is None:
            channel = (
                grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
                if channel_credentials is None
                else grpc.secure_channel(target, channel_credentials, options=CHANNEL_OPTIONS)
            )
        self._channel = channel
        stub = SignalServiceStub(self._channel)
        self._predict = stub.Predict
        self._predict_stream = stub.PredictStream
        self._get_topology = TopologyServiceStub(self._channel).GetTopology

    def connect(self, timeout_s: float = 5.0) -> None:
        """Wait until the connection stands, so that the first call does not pay for it.

        Raises ServerUnavailable if it does not within timeout_s seconds.
        """
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=timeout_s)
        except grpc.FutureTimeoutError as error:
            ready.cancel()
            raise ServerUnavailable(
                f"no connection to {self.target} within {timeout_s:g} s", status_code=grpc.StatusCode.UNAVAILABLE
            ) from error

    def predict(
        self,
        what: Input,
        *,
        model: str | None = None,
        budget_us: int | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> signal_pb2.PredictResponse:
        """Ask for one signal; what is None is as the client was made.

        Args:
            what: A Tick (applied to its symbol's state first), a FeatureVector, or a symbol whose latest features
                to use.
            model: `name`, `name@alias` or `name:version`; empty: the server's default.
            budget_us: What the server may take, in microseconds; 0: as long as the deadline.
            deadline_s: gRPC deadline in seconds.
            request_id: Up to 36 bytes; comes back in the answer or in the error.

        Raises a CallError by the answer's status. A signal to HOLD is an answer.
        """
        deadline_s = self._defaults.deadline_of(deadline_s)
        request = self._defaults.request(
            what, model=model, budget_us=budget_us, deadline_s=deadline_s, request_id=request_id
        )
        return self.ask(request, deadline_s)

    def ask(self, request: signal_pb2.PredictRequest, deadline_s: float) -> signal_pb2.PredictResponse:
        """Send one request as it is; `predict` makes it from its parts."""
        call = self.latency.begin()
        try:
            response = self._predict(request, timeout=deadline_s)
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
        requests: Iterable[signal_pb2.PredictRequest],
        batch: int = 1,
        *,
        in_flight: int = 1,
        deadline_s: float | None = None,
        stream_deadline_s: float = STREAM_DEADLINE_S,
    ) -> Iterator[signal_pb2.PredictStreamResult]:
        """Ask for many signals over one stream; yields their results in order.

        With one message in flight a result is yielded before the next request is taken from the iterable. With more,
        the client reads that far ahead: results wait until so many messages are sent, or the iterable ends.

        Args:
            requests: Copied as they are sent; model and budget are filled in where they are empty.
            batch: Requests in one message, up to 1,024.
            in_flight: Messages that may wait for their answers, up to 1,024.
            deadline_s: Longest wait for one message's answer, in seconds; None: the client's.
            stream_deadline_s: gRPC deadline of the stream as a whole, in seconds.

        An item that failed is yielded with its code (see `error_of_result`), not raised. Raises a CallError if the
        stream itself ends badly, and ContractBroken if its answers are not those to the requests.
        """
        shape = StreamShape(batch, in_flight, self._defaults.deadline_of(deadline_s), stream_deadline_s)
        return self._drive(iter(requests), shape)

    def topology(self, deadline_s: float | None = None) -> topology_pb2.GetTopologyResponse:
        """Ask which worker of the server serves which symbol; raises a CallError by the answer's status."""
        try:
            return self._get_topology(topology_pb2.GetTopologyRequest(), timeout=self._defaults.deadline_of(deadline_s))
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    def close(self) -> None:
        """Close the connection; calls under way end with CallCancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drive(
        self, requests: Iterator[signal_pb2.PredictRequest], shape: StreamShape
    ) -> Iterator[signal_pb2.PredictStreamResult]:
        stream = self.open_stream(shape)
        try:
            while chunk := list(itertools.islice(requests, shape.batch)):
                stream.send(self._defaults.message(chunk, shape.deadline_s))
                if stream.ledger.full:
                    yield from stream.receive()
            stream.finish()
            while stream.ledger.waiting:
                yield from stream.receive()
        finally:
            stream.close()

    def open_stream(self, shape: StreamShape) -> OpenStream:
        """A stream to drive by hand; `predict_stream` drives one. Close it."""
        return OpenStream(self._predict_stream, StreamLedger(self.latency, shape.in_flight), shape)


class OpenStream:
    """One PredictStream under way.

    gRPC takes a stream's messages on a thread of its own. The caller's requests are read on the caller's thread, where
    their errors belong, and only messages are handed over.

    Attributes:
        ledger: What was sent and has no answer yet.
    """

    def __init__(self, method: Any, ledger: StreamLedger, shape: StreamShape) -> None:
        self.ledger = ledger
        self._outbox: queue.SimpleQueue[signal_pb2.PredictStreamRequest | None] = queue.SimpleQueue()
        self._call: Any = method(iter(self._outbox.get, None), timeout=shape.stream_deadline_s)
        self._watch = _AnswerWatch(self._call, shape.deadline_s)

    def send(self, message: signal_pb2.PredictStreamRequest) -> None:
        """Send a message; it must not change until it is answered."""
        self.ledger.sending(message)
        self._outbox.put(message)

    def receive(self) -> Sequence[signal_pb2.PredictStreamResult]:
        """Wait for the answer to the oldest message; raises a CallError if the stream ended badly."""
        return self.ledger.answered(self._watch.next_answer(self.ledger))

    def finish(self) -> None:
        """Say that no more is sent."""
        self._outbox.put(None)

    def close(self) -> None:
        """End the stream, whatever it waits for."""
        self._outbox.put(None)
        self._call.cancel()
        self._watch.stop()
        self.ledger.abandoned()


class _AnswerWatch:
    """Bounds how long one answer of a stream is waited for; gRPC's deadline is the whole stream's.

    A thread that sleeps until the answer waited for is overdue, and then cancels the call. It wakes about once a
    deadline, however many answers come.
    """

    def __init__(self, call: Any, deadline_s: float) -> None:
        self._call = call
        self._deadline_s = deadline_s
        self._waiting_since: float | None = None
        self._expired = False
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="tickgate-stream-deadline", daemon=True).start()

    def next_answer(self, ledger: StreamLedger) -> signal_pb2.PredictStreamResponse:
        self._waiting_since = time.monotonic()
        try:
            response: signal_pb2.PredictStreamResponse = next(self._call)
        except StopIteration:
            raise ledger.ended_early() from None
        except grpc.RpcError as error:
            if self._expired:
                ledger.ended(_DEADLINE_EXCEEDED)
                raise DeadlineExceeded(
                    f"no answer on the stream within {self._deadline_s:g} s",
                    status_code=grpc.StatusCode.DEADLINE_EXCEEDED,
                ) from error
            ledger.ended(number_of(error))
            raise error_of_call(error) from error
        self._waiting_since = None
        return response

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        pause_s = self._deadline_s
        while not self._stopped.wait(pause_s):
            since = self._waiting_since
            pause_s = self._deadline_s if since is None else since + self._deadline_s - time.monotonic()
            if pause_s <= 0:
                self._expired = True
                self._call.cancel()
                return
