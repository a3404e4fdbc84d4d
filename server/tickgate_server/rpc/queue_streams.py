"""Calls on gRPC's own completion queue that stay a while: streams, watches, and those that wait for a slow model."""

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeAlias

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs

from tickgate_server.rpc.answers import Answers, Pending
from tickgate_server.rpc.busy_poll import Event
from tickgate_server.rpc.methods import (
    Answer,
    LaterMethod,
    LaterStreamMethod,
    Method,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from tickgate_server.rpc.queue_calls import (
    DONE,
    NO_FLAGS,
    Calls,
    Start,
    ended,
    greeting,
    is_lost,
    post,
    start_unary,
    status_operation,
)
from tickgate_server.rpc.queue_later import Later, LaterStream
from tickgate_server.rpc.status import DRAINING, Status

# How a watch ends that must not hold up the end of the server: before an error the caller's gRPC drops what it has not
# read yet.
_NO_MORE = DONE

Answering: TypeAlias = Answer | Generator[Pending | None, None, Answer]


def start(method: Method, calls: Calls) -> Start:
    """How a call of a method begins."""
    if isinstance(method, UnaryMethod):
        return lambda call, _: start_unary(call, method.answer)
    if isinstance(method, LaterMethod):
        return lambda call, deadline: Later(calls, call, method, deadline).start()
    if isinstance(method, LaterStreamMethod):
        return lambda call, _: LaterStream(calls, call, method).start()
    if isinstance(method, StreamMethod):
        return lambda call, _: Stream(calls, call, method.answer).start()
    return lambda call, _: Watch(calls, call, method).start()


class Unsettled:
    """A unary call whose model runs on a thread of its own."""

    def __init__(self, calls: Calls, call: Any, answers: Answers, pending: Pending) -> None:
        self._calls = calls
        self._call = call
        self._answers = answers
        self._pending = pending

    def start(self) -> None:
        """Run the model, and answer when it has ended."""
        self._calls.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._on_close)
        self._answers.start(self._pending, partial(post, self._call), self._on_settled)

    def drain(self) -> None:
        """It is at work."""

    def _on_settled(self) -> None:
        answer = self._pending.answer
        if isinstance(answer, Status):
            operations = [status_operation(answer)]
        else:
            operations = [cygrpc.SendMessageOperation(answer, NO_FLAGS), status_operation(DONE)]
        self._call.start_server_batch((greeting(), *operations), ended)

    def _on_close(self, event: Event) -> None:
        self._calls.closed(self)  # ended by us, or cancelled: then the answer is not wanted any more
        self._answers.cancel(self._pending)
        if self._pending.reserved and is_lost(event):
            self._answers.not_sent(self._pending.reserved)


class Stream:
    """A bidirectional stream that answers each message with one, in order.

    An answer and the wish for the next message go out in one batch, so there is one event a message.

    Args:
        calls: Of its listener.
        call: gRPC's.
        answer: What a message is answered with, or how to come to it.
        answers: Where a model on a thread of its own is waited for, if there can be one.
    """

    def __init__(
        self, calls: Calls, call: Any, answer: Callable[[bytes], Answering], answers: Answers | None = None
    ) -> None:
        self._calls = calls
        self._call = call
        self._answer = answer
        self._answers = answers
        self._turns: Generator[Pending | None, None, Answer] | None = None
        self._pending: Pending | None = None
        self._waiting = True  # for the next message
        self._over = False
        self._reserved: tuple[int, ...] = ()  # by the answer that is on its way
        self._receive = cygrpc.ReceiveMessageOperation(NO_FLAGS)  # filled again by each batch

    def start(self) -> None:
        """Wait for the first message."""
        self._calls.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._on_close)
        self._call.start_server_batch((greeting(), self._receive), self._on_message)

    def drain(self) -> None:
        """End now if the stream waits for its next message, else after the message at hand."""
        if self._waiting:
            self._end(DRAINING)

    def _on_close(self, event: Event) -> None:
        del event  # cancelled, or ended by us
        self._over = True
        self._calls.closed(self)
        if self._pending is not None and self._answers is not None:
            self._answers.cancel(self._pending)
        if self._turns is not None:
            self._turns.close()  # what its items reserved is released

    def _on_message(self, event: Event) -> None:
        if self._reserved and not event.success and self._answers is not None:
            self._answers.not_sent(self._reserved)
        self._reserved = ()
        if self._over:
            return
        data = event.batch_operations[-1].message() if event.success else None
        if data is None:  # the caller has no more, or is gone
            self._end(DONE)
            return
        self._waiting = False
        answering = self._answer(data)
        if isinstance(answering, bytes | Status):
            self._reply(answering)
        else:
            self._turns = answering
            self._go_on()

    def _go_on(self) -> None:
        if self._unfinished():
            self._calls.turns.unfinished.append(self._unfinished)

    def _unfinished(self) -> bool:
        """Take one turn at the message at hand; False once it is answered, or waits for a model."""
        if self._over or self._turns is None:
            return False
        try:
            self._pending = next(self._turns)
        except StopIteration as finished:
            self._reply(finished.value)
            return False
        if self._pending is not None and self._answers is not None:
            self._answers.start(self._pending, partial(post, self._call), self._go_on)
        return self._pending is None

    def _reply(self, answer: Answer) -> None:
        if isinstance(answer, Status):
            self._end(answer)
        elif self._calls.draining:
            self._end(DRAINING, cygrpc.SendMessageOperation(answer, NO_FLAGS))
        else:
            self._waiting = True
            if self._answers is not None:
                self._reserved = self._answers.reserved
            operations = (cygrpc.SendMessageOperation(answer, NO_FLAGS), self._receive)
            self._call.start_server_batch(operations, self._on_message)

    def _end(self, status: Status, *before: Any) -> None:
        self._over = True
        self._call.start_server_batch((*before, status_operation(status)), ended)


class Watch:
    """A call that is told what it watches, now and whenever that changes.

    One message at a time is on its way, so a slow caller is told the latest only.

    Attributes:
        due_s: Monotonic time from which the next message may leave.
    """

    def __init__(self, calls: Calls, call: Any, method: WatchMethod) -> None:
        self._calls = calls
        self._call = call
        self._method = method
        self._current: Callable[[], Answer | None] = lambda: None
        self._close: Callable[[], None] = lambda: None
        self._sending = False
        self._over = False
        self.due_s = 0.0

    def start(self) -> None:
        """Wait for the message that says what to watch."""
        self._calls.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._on_close)
        operations = (greeting(), cygrpc.ReceiveMessageOperation(NO_FLAGS))
        self._call.start_server_batch(operations, self._on_message)

    def drain(self) -> None:
        """Tell the latest, then end."""
        self.tell()

    def _on_message(self, event: Event) -> None:
        data = event.batch_operations[-1].message() if event.success else None
        if data is None or self._over:
            return
        found = self._method.open(data, self._changed)
        if isinstance(found, Status):
            self._end(found)
            return
        self._current = found.current
        self._close = found.close
        self.tell()

    def _changed(self) -> None:
        self._calls.turns.to_look_at(self)

    def tell(self) -> None:
        """Send what is news; where nothing is and the server drains, end."""
        if self._over or self._sending:
            return
        message = self._current()
        if isinstance(message, Status):
            self._end(message)
        elif message is not None:
            self._sending = True
            self.due_s = time.monotonic() + self._method.every_s
            self._call.start_server_batch((cygrpc.SendMessageOperation(message, NO_FLAGS),), self._on_sent)
        elif self._calls.draining:
            self._end(_NO_MORE)

    def _on_sent(self, event: Event) -> None:
        del event
        self._sending = False
        if self._calls.draining:
            self.tell()
        else:
            self._changed()  # it may have while this was on its way

    def _end(self, status: Status) -> None:
        if not self._over:
            self._over = True
            self._call.start_server_batch((status_operation(status),), ended)

    def _on_close(self, event: Event) -> None:
        del event
        self._over = True
        self._calls.closed(self)
        self._calls.turns.forget(self)
        self._close()
