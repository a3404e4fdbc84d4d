"""The listeners on gRPC's own completion queue: one thread polls it and answers in place.

grpcio's servers hand each call over, between threads or through a socket that wakes an event loop; this one does not,
which makes it two to three times faster. `cygrpc` is grpcio's private binding of its core, so little is written on it
(here, `queue_calls`, `queue_streams`, `busy_poll`), the versions it was tested with are named, and it passes the same
contract suite as the public transport.

Every listener is a server of its own on the one queue, so calls of all of them are answered by the same thread.
"""

import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs

from tickgate_server.engine import Engine
from tickgate_server.rpc.answers import Answers, Pending, remaining_ns
from tickgate_server.rpc.busy_poll import BusyPoll, Event
from tickgate_server.rpc.health import SERVICE_NAME
from tickgate_server.rpc.listener import ABANDONED_S, Bound, ListenerSettings, Place
from tickgate_server.rpc.methods import Method
from tickgate_server.rpc.queue_calls import NO_FLAGS, Calls, Start, Turns, answer_unary, finish
from tickgate_server.rpc.queue_streams import Answering, Stream, Unsettled, start
from tickgate_server.rpc.services import POLL_S, Services
from tickgate_server.rpc.status import Status
from tickgate_server.rpc.topology import Topology

TESTED_GRPCIO = ("1.85.1",)

# Calls that the core may hand over before the loop has asked for more; a longer burst waits in the core.
_CALLS_ASKED_FOR = 64
# After an event the desk's turn is taken so much before it is due: caches are warm then, and the thread need not wake
# up for it alone.
_EARLY_S = POLL_S / 2.0
# While published ticks wait: a request's events are two or three, so this many serve a handful of requests at once.
_EVENTS_FIRST = 16
# A time long past: for one that is now the core waits out the millisecond.
_AT_ONCE = 0.0


class QueueListener:
    """See `rpc.listener.Listener`."""

    def __init__(self, engine: Engine, settings: ListenerSettings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._answers = Answers(engine)
        self._ingestion = engine.ingestion
        self._ingestion.on_work = self._ingest
        self._ingesting = False
        self._events = 0  # since the last slice
        self._stopping = False
        self._turns = Turns()
        self._next_turn_s = 0.0
        self._queue = cygrpc.CompletionQueue()
        self._poll = BusyPoll(self._queue, settings.busy_poll_us * 1000)
        self._servers = [_Server(place, settings, self._queue, self._turns) for place in settings.places]

    # -- life ------------------------------------------------------------------------------------------------------

    def run(
        self,
        on_bound: Callable[[Bound], Topology],
        on_serving: Callable[[Bound], None],
        on_draining: Callable[[], None],
    ) -> None:
        """See `rpc.listener.Listener`."""
        credentials = self._settings.credentials()
        bound = Bound(**{server.place.name: server.bind(credentials) for server in self._servers})
        methods = self._services.methods(on_bound(bound))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for server in self._servers:
            own = self._signal_methods(server.calls) if server.place.name == "data" else {}
            server.start(methods[server.place.name], own)
        self._services.board.serving()
        on_serving(bound)
        while not self._stopping:
            self._step()
        on_draining()
        self._drain()

    def _stop(self, number: int, frame: object) -> None:
        del number, frame
        self._stopping = True

    def _drain(self) -> None:
        self._services.drain()
        for server in self._servers:
            server.drain()
        self._until_shut_down()
        self._answers.close()  # no thread may post to a queue that is shut down
        self._services.close()
        for server in self._servers:
            server.destroy()
        self._queue.shutdown()
        while self._queue.poll().completion_type != cygrpc.CompletionType.queue_shutdown:
            pass

    def _until_shut_down(self) -> None:
        """Go on with the calls in flight; in the end they are answered for, and then cancelled."""
        grace_ends = time.time() + self._settings.drain_s
        last_words = [(grace_ends, self._answers.abandon), (grace_ends + ABANDONED_S, self._cancel)]
        while not all(server.over for server in self._servers):
            self._step()
            if last_words and time.time() >= last_words[0][0]:
                last_words.pop(0)[1]()

    def _cancel(self) -> None:
        for server in self._servers:
            server.cancel()

    def _step(self) -> None:
        """Take one event, or give unfinished stream messages a turn each; and the desk its own when that is due.

        Published ticks are applied, a slice at a time, where no event waits, or so many went first.
        """
        sleep_s = self._next_turn_s - time.monotonic()
        if sleep_s <= _EARLY_S:
            self._take_turns()
            sleep_s = POLL_S
        awake = not self._answers.waiting
        wake_at = time.time() + sleep_s
        if self._turns.take() or self._ingesting:
            wake_at = _AT_ONCE
            awake = False
        event = self._poll.next(wake_at, awake=awake)
        if event.completion_type != cygrpc.CompletionType.queue_timeout:
            event.tag(event)
            self._events += 1
            if not self._ingesting or self._events < _EVENTS_FIRST:
                return
        if self._ingesting:
            self._take_slice()

    def _ingest(self) -> None:
        """Published ticks wait to be applied."""
        self._ingesting = True

    def _take_slice(self) -> None:
        self._events = 0
        self._ingesting = False  # what is taken in meanwhile says so
        if self._ingestion.turn():
            self._ingesting = True

    def _take_turns(self) -> None:
        self._services.poll()
        now_s = time.monotonic()
        self._turns.tell_news(now_s)
        self._next_turn_s = now_s + POLL_S

    # -- SignalService ---------------------------------------------------------------------------------------------

    def _signal_methods(self, calls: Calls) -> dict[bytes, Start]:
        def predict(call: Any, deadline: float) -> None:
            self._start_predict(calls, call, deadline)

        def predict_stream(call: Any, deadline: float) -> None:
            def answer(data: bytes) -> Answering:
                return self._answers.predict_stream(data, perf_counter_ns(), remaining_ns(deadline - time.time()))

            Stream(calls, call, answer, self._answers).start()

        return {
            f"/{SERVICE_NAME}/Predict".encode(): predict,
            f"/{SERVICE_NAME}/PredictStream".encode(): predict_stream,
        }

    def _start_predict(self, calls: Calls, call: Any, deadline: float) -> None:
        def answer(event: Event) -> None:
            arrival_ns = perf_counter_ns()
            data = event.batch_operations[0].message()
            if data is None:  # the caller went away, or sent too much: the core has answered
                return
            remaining = remaining_ns(deadline - time.time())
            found = self._answers.predict(data, arrival_ns, remaining)
            if isinstance(found, Pending):
                Unsettled(calls, call, self._answers, found).start()
            else:
                reserved = self._answers.reserved
                answer_unary(call, found, partial(self._answers.not_sent, reserved) if reserved else None)

        call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), answer)


class _Server:
    """One listener: gRPC's server on the common queue, and its calls.

    Attributes:
        place: Where it listens.
        calls: Those that stay.
        over: It was shut down, and no call is left.
    """

    def __init__(self, place: Place, settings: ListenerSettings, queue: Any, turns: Turns) -> None:
        self.place = place
        self.calls = Calls(turns)
        self.over = False
        self._limit = settings.max_concurrent_requests
        self._queue = queue
        self._methods: dict[bytes, Start] = {}
        self._server = cygrpc.Server(tuple(settings.options), False)
        self._server.register_completion_queue(queue)

    def bind(self, credentials: grpc.ServerCredentials | None) -> str:
        """Take the address; it, with the port that was taken.

        Raises:
            ListenFailed: It cannot be had.
        """
        address = self.place.address.encode()
        with self.place.binding():
            if credentials is None or not self.place.tls:
                port = self._server.add_http2_port(address)
            else:
                port = self._server.add_http2_port(address, credentials._credentials)  # type: ignore[attr-defined]  # noqa: SLF001 - as grpc._server
        return self.place.bound(port)

    def start(self, methods: Sequence[Method], own: dict[bytes, Start]) -> None:
        """Take calls.

        Args:
            methods: The table.
            own: Methods that the transport answers itself.
        """
        self._methods = {method.path.encode(): start(method, self.calls) for method in methods} | own
        self._server.start()
        for _ in range(_CALLS_ASKED_FOR):
            self._ask_for_a_call()

    def drain(self) -> None:
        """Take no new calls, end those that wait."""
        self._server.shutdown(self._queue, self._on_shut_down)
        self.calls.drain()

    def cancel(self) -> None:
        """End all calls that are left."""
        self._server.cancel_all_calls()

    def destroy(self) -> None:
        """Let go of the address."""
        self._server.destroy()

    def _on_shut_down(self, event: Event) -> None:
        del event
        self.over = True

    def _ask_for_a_call(self) -> None:
        self._server.request_call(self._queue, self._queue, self._take_call)

    def _take_call(self, event: Event) -> None:
        if not event.success:  # the server shuts down
            return
        if not self.calls.draining:
            self._ask_for_a_call()
        call = event.call
        details = event.call_details
        begin = self._methods.get(details.method)
        if begin is None:
            finish(call, Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
        elif self.calls.active >= self._limit:
            finish(call, Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many concurrent calls"))
        else:
            begin(call, details.deadline)
