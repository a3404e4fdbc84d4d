"""The data listener on gRPC's own completion queue: one thread polls it and answers in place.

grpcio's servers hand each call over, between threads or through a socket that wakes an event loop; this one does not,
which makes it two to three times faster. `cygrpc` is grpcio's private binding of its core, so this file is small, is
the only one that knows it, names the versions it was tested with, and passes the same contract suite as the public
transport.

A call's life is a chain of batches. Each batch's tag is the function that takes its event; dropping the last reference
to a call frees it.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from time import perf_counter_ns
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tickgate_server.engine import Engine
from tickgate_server.rpc import reflection
from tickgate_server.rpc.answers import Answers, Pending, remaining_ns
from tickgate_server.rpc.busy_poll import BusyPoll, Event
from tickgate_server.rpc.health import HEALTH_NAME, SERVICE_NAME, HealthBoard
from tickgate_server.rpc.listener import ABANDONED_S, ListenerSettings, ListenFailed
from tickgate_server.rpc.status import DRAINING, Status
from tickgate_server.rpc.topology import TOPOLOGY_NAME, Topology

TESTED_GRPCIO = ("1.85.1",)

# Calls that the core may hand over before the loop has asked for more; a longer burst waits in the core.
_CALLS_ASKED_FOR = 64
# The longest the loop sleeps, so that a signal is taken up.
_POLL_S = 0.2

_NO_FLAGS = 0
_NO_METADATA: tuple[()] = ()
_SERVER_SHUT_DOWN = "server shut down"
_NEW_CALL = "new call"

_DONE = Status(grpc.StatusCode.OK, "")
# How a watch ends that must not hold up the end of the server: before an error the caller's gRPC drops what it has not
# read yet.
_NO_MORE = _DONE

Answering: TypeAlias = bytes | Generator[Pending | None, None, bytes | Status]


class QueueListener:
    """See `rpc.listener.Listener`."""

    def __init__(self, engine: Engine, settings: ListenerSettings) -> None:
        self._settings = settings
        self._answers = Answers(engine)
        self._board = HealthBoard(engine.registry.names)
        self._reflection = reflection.servicer()
        self._topology = Topology("", (), 0)  # until it is bound
        self._stopping = False
        self.draining = False
        self._active = 0
        self._turns: deque[Callable[[], bool]] = deque()
        self._streams: set[_Stream] = set()
        self._queue = cygrpc.CompletionQueue()
        self._poll = BusyPoll(self._queue, settings.busy_poll_us * 1000)
        self._server = cygrpc.Server(tuple(settings.options), False)
        self._server.register_completion_queue(self._queue)
        self._methods: dict[bytes, Callable[[Any, float], None]] = {
            f"/{SERVICE_NAME}/Predict".encode(): self._start_predict,
            f"/{SERVICE_NAME}/PredictStream".encode(): self._start_predict_stream,
            f"/{TOPOLOGY_NAME}/GetTopology".encode(): self._start_get_topology,
            f"/{HEALTH_NAME}/Check".encode(): self._start_check,
            f"/{HEALTH_NAME}/Watch".encode(): self._start_watch,
            f"/{reflection.REFLECTION_NAME}/ServerReflectionInfo".encode(): self._start_reflection,
        }

    # -- life ------------------------------------------------------------------------------------------------------

    def run(
        self,
        on_bound: Callable[[str], Topology],
        on_serving: Callable[[str], None],
        on_draining: Callable[[], None],
    ) -> None:
        """See `rpc.listener.Listener`."""
        address = self._bind()
        self._topology = on_bound(address)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._server.start()
        for _ in range(_CALLS_ASKED_FOR):
            self._server.request_call(self._queue, self._queue, _NEW_CALL)
        self._board.serving()
        on_serving(address)
        while not self._stopping:
            self._step(time.time() + _POLL_S)
        on_draining()
        self._drain()

    def _stop(self, number: int, frame: object) -> None:
        del number, frame
        self._stopping = True

    def _bind(self) -> str:
        settings = self._settings
        credentials = settings.credentials()
        address = settings.address.encode()
        try:
            if credentials is None:
                port = self._server.add_http2_port(address)
            else:
                port = self._server.add_http2_port(address, credentials._credentials)  # type: ignore[attr-defined]  # noqa: SLF001 - as grpc._server
        except RuntimeError as error:
            raise ListenFailed(settings.address, str(error)) from error
        if port == 0:
            raise ListenFailed(settings.address, "the address is taken or cannot be resolved")
        return settings.bound(port)

    def _drain(self) -> None:
        self.draining = True
        self._board.draining()
        self._server.shutdown(self._queue, _SERVER_SHUT_DOWN)
        for stream in list(self._streams):
            stream.drain()
        self._until_shut_down()
        self._answers.close()  # no thread may post to a queue that is shut down
        self._server.destroy()
        self._queue.shutdown()
        while self._queue.poll().completion_type != cygrpc.CompletionType.queue_shutdown:
            pass

    def _until_shut_down(self) -> None:
        """Go on with the calls in flight; in the end they are answered for, and then cancelled."""
        grace_ends = time.time() + self._settings.drain_s
        last_words = [(grace_ends, self._answers.abandon), (grace_ends + ABANDONED_S, self._server.cancel_all_calls)]
        while not self._step(time.time() + _POLL_S):
            if last_words and time.time() >= last_words[0][0]:
                last_words.pop(0)[1]()

    def _step(self, wake_at: float) -> bool:
        """Take one event, or give unfinished stream messages a turn each; True once the server is shut down."""
        awake = not self._answers.waiting
        if self._turns:
            for _ in range(len(self._turns)):
                unfinished = self._turns.popleft()
                if unfinished():
                    self._turns.append(unfinished)
            wake_at = time.time()
            awake = False
        event = self._poll.next(wake_at, awake=awake)
        if event.completion_type == cygrpc.CompletionType.queue_timeout:
            return False
        tag = event.tag
        if tag is _NEW_CALL:
            self._take_call(event)
        elif tag is _SERVER_SHUT_DOWN:
            return True
        else:
            tag(event)
        return False

    # -- calls -----------------------------------------------------------------------------------------------------

    def _take_call(self, event: Event) -> None:
        if not event.success:  # the server shuts down
            return
        if not self.draining:
            self._server.request_call(self._queue, self._queue, _NEW_CALL)
        call = event.call
        details = event.call_details
        start = self._methods.get(details.method)
        if start is None:
            self.finish(call, Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
        elif self._active >= self._settings.max_concurrent_requests:
            self.finish(call, Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many concurrent calls"))
        else:
            start(call, details.deadline)

    def finish(self, call: Any, status: Status) -> None:
        """End a call that has sent nothing yet."""
        operations = (
            cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(_NO_METADATA, status.number, status.message.encode(), _NO_FLAGS),
            cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        )
        call.start_server_batch(operations, _ended)

    def _answer_unary(self, call: Any, answer: bytes | Status) -> None:
        if isinstance(answer, Status):
            self.finish(call, answer)
            return
        operations = (
            cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS),
            cygrpc.SendMessageOperation(answer, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(_NO_METADATA, 0, b"", _NO_FLAGS),
            cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        )
        call.start_server_batch(operations, _ended)

    def _start_predict(self, call: Any, deadline: float) -> None:
        def answer(event: Event) -> None:
            arrival_ns = perf_counter_ns()
            data = event.batch_operations[0].message()
            if data is None:  # the caller went away, or sent too much: the core has answered
                return
            remaining = remaining_ns(deadline - time.time())
            found = self._answers.predict(data, arrival_ns, remaining)
            if isinstance(found, Pending):
                _Unsettled(self, call, self._answers, found).start()
            else:
                self._answer_unary(call, found)

        call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), answer)

    def _start_check(self, call: Any, deadline: float) -> None:
        del deadline
        self._start_unary(call, self._check)

    def _start_get_topology(self, call: Any, deadline: float) -> None:
        del deadline
        self._start_unary(call, self._topology.answer)

    def _start_unary(self, call: Any, handler: Callable[[bytes], bytes | Status]) -> None:
        def answer(event: Event) -> None:
            data = event.batch_operations[0].message()
            if data is not None:
                self._answer_unary(call, handler(data))

        call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), answer)

    def _check(self, data: bytes) -> bytes | Status:
        try:
            name = health_pb2.HealthCheckRequest.FromString(data).service
        except DecodeError as error:
            return Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}")
        status = self._board.check(name)
        if status is None:
            return Status(grpc.StatusCode.NOT_FOUND, f"service: nothing is known of {name!r}")
        return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def _start_predict_stream(self, call: Any, deadline: float) -> None:
        def answer(data: bytes) -> Answering:
            return self._answers.predict_stream(data, perf_counter_ns(), remaining_ns(deadline - time.time()))

        _Stream(self, call, answer, self._answers).start()

    def _start_reflection(self, call: Any, deadline: float) -> None:
        del deadline
        _Stream(self, call, self._reflect, self._answers).start()

    def _reflect(self, data: bytes) -> Generator[None, None, bytes | Status]:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError as error:
            return Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}")
        yield from ()  # never pauses
        servicer: Any = self._reflection
        (answer,) = servicer.ServerReflectionInfo(iter((request,)), None)
        return bytes(answer.SerializeToString())

    def _start_watch(self, call: Any, deadline: float) -> None:
        del deadline
        _Watch(self, call, self._board).start()

    # -- what streams ask for --------------------------------------------------------------------------------------

    def opened(self, stream: "_Stream") -> None:
        """Count a stream in."""
        self._streams.add(stream)
        self.count(1)

    def closed(self, stream: "_Stream") -> None:
        """Count a stream out."""
        if stream in self._streams:
            self._streams.discard(stream)
            self.count(-1)

    def count(self, calls: int) -> None:
        """Count calls that stay in, or out."""
        self._active += calls

    def take_turns(self, unfinished: Callable[[], bool]) -> None:
        """Call `unfinished` between other events until it returns False."""
        self._turns.append(unfinished)


def _ended(event: Event) -> None:
    """The last batch of a call; nothing is left to do."""
    del event


def _post(call: Any, function: Callable[[], None]) -> None:
    """Have the polling thread call a function, from any thread: an empty batch is an event at once."""
    call.start_server_batch((), lambda event: function())  # noqa: ARG005 - a tag takes its event


def _status(status: Status) -> Any:
    return cygrpc.SendStatusFromServerOperation(_NO_METADATA, status.number, status.message.encode(), _NO_FLAGS)


class _Unsettled:
    """A unary call whose model runs on a thread of its own."""

    def __init__(self, listener: QueueListener, call: Any, answers: Answers, pending: Pending) -> None:
        self._listener = listener
        self._call = call
        self._answers = answers
        self._pending = pending
        self._over = False

    def start(self) -> None:
        self._listener.count(1)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)
        self._answers.start(self._pending, partial(_post, self._call), self._on_settled)

    def _on_settled(self) -> None:
        answer = self._pending.answer
        if isinstance(answer, Status):
            operations = [_status(answer)]
        else:
            operations = [cygrpc.SendMessageOperation(answer, _NO_FLAGS), _status(_DONE)]
        first = cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS)
        self._call.start_server_batch((first, *operations), _ended)

    def _on_close(self, event: Event) -> None:
        del event  # ended by us, or cancelled: then the answer is not wanted any more
        self._listener.count(-1)
        self._answers.cancel(self._pending)


class _Stream:
    """A bidirectional stream that answers each message with one, in order.

    An answer and the wish for the next message go out in one batch, so there is one event a message.
    """

    def __init__(
        self, listener: QueueListener, call: Any, answer: Callable[[bytes], Answering], answers: Answers
    ) -> None:
        self._listener = listener
        self._call = call
        self._answer = answer
        self._answers = answers
        self._turns: Iterator[Pending | None] = iter(())
        self._pending: Pending | None = None
        self._waiting = True  # for the next message
        self._over = False
        self._receive = cygrpc.ReceiveMessageOperation(_NO_FLAGS)  # filled again by each batch

    def start(self) -> None:
        self._listener.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)
        operations = (cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS), self._receive)
        self._call.start_server_batch(operations, self._on_message)

    def drain(self) -> None:
        """End now if the stream waits for its next message, else after the message at hand."""
        if self._waiting:
            self._end(DRAINING)

    def _on_close(self, event: Event) -> None:
        del event  # cancelled, or ended by us
        self._over = True
        self._listener.closed(self)
        if self._pending is not None:
            self._answers.cancel(self._pending)

    def _on_message(self, event: Event) -> None:
        if self._over:
            return
        data = event.batch_operations[-1].message() if event.success else None
        if data is None:  # the caller has no more, or is gone
            self._end(_DONE)
            return
        self._waiting = False
        answering = self._answer(data)
        if isinstance(answering, bytes):
            self._reply(answering)
        else:
            self._turns = answering
            self._go_on()

    def _go_on(self) -> None:
        if self._unfinished():
            self._listener.take_turns(self._unfinished)

    def _unfinished(self) -> bool:
        """Take one turn at the message at hand; False once it is answered, or waits for a model."""
        if self._over:
            return False
        try:
            self._pending = next(self._turns)
        except StopIteration as finished:
            self._reply(finished.value)
            return False
        if self._pending is not None:
            self._answers.start(self._pending, partial(_post, self._call), self._go_on)
        return self._pending is None

    def _reply(self, answer: bytes | Status) -> None:
        if isinstance(answer, Status):
            self._end(answer)
        elif self._listener.draining:
            self._end(DRAINING, cygrpc.SendMessageOperation(answer, _NO_FLAGS))
        else:
            self._waiting = True
            operations = (cygrpc.SendMessageOperation(answer, _NO_FLAGS), self._receive)
            self._call.start_server_batch(operations, self._on_message)

    def _end(self, status: Status, *before: Any) -> None:
        self._over = True
        self._call.start_server_batch((*before, _status(status)), _ended)


class _Watch:
    """Health.Watch: the status of one name, now and whenever it changes."""

    def __init__(self, listener: QueueListener, call: Any, board: HealthBoard) -> None:
        self._call = call
        self._board = board
        self._listener = listener
        self._name = ""
        self._told: int | None = None
        self._sending = False
        self._over = False
        self._unwatch: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)
        operations = (
            cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS),
            cygrpc.ReceiveMessageOperation(_NO_FLAGS),
        )
        self._call.start_server_batch(operations, self._on_message)

    def _on_message(self, event: Event) -> None:
        data = event.batch_operations[-1].message() if event.success else None
        if data is None or self._over:
            return
        try:
            self._name = health_pb2.HealthCheckRequest.FromString(data).service
        except DecodeError as error:
            self._end(Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}"))
            return
        self._unwatch = self._board.watch(self._tell)
        self._tell()

    def _tell(self) -> None:
        """Send the status if it is news; one message at a time, so a slow watcher sees the latest only."""
        status = self._board.watched(self._name)
        if self._over or self._sending:
            return
        if status == self._told:
            if self._listener.draining:
                self._end(_NO_MORE)
            return
        self._told = status
        self._sending = True
        message = health_pb2.HealthCheckResponse(status=status).SerializeToString()
        self._call.start_server_batch((cygrpc.SendMessageOperation(message, _NO_FLAGS),), self._on_sent)

    def _on_sent(self, event: Event) -> None:
        del event
        self._sending = False
        self._tell()

    def _end(self, status: Status) -> None:
        if not self._over:
            self._over = True
            self._call.start_server_batch((_status(status),), _ended)

    def _on_close(self, event: Event) -> None:
        del event
        self._over = True
        self._unwatch()
