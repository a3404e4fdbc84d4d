"""Calls on gRPC's own completion queue whose answers come later: unary ones from any thread, streams from this one."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs

from tickgate_server.rpc.answers import remaining_ns
from tickgate_server.rpc.busy_poll import Event
from tickgate_server.rpc.methods import Answer, LaterMethod, LaterStreamMethod
from tickgate_server.rpc.queue_calls import DONE, NO_FLAGS, Calls, ended, greeting, post, status_operation
from tickgate_server.rpc.status import DRAINING, Status


class Later:
    """One such call.

    Args:
        calls: Of its listener.
        call: gRPC's.
        method: See `LaterMethod`.
        deadline: Unix time in seconds.
    """

    def __init__(self, calls: Calls, call: Any, method: LaterMethod, deadline: float) -> None:
        self._calls = calls
        self._call = call
        self._method = method
        self._deadline = deadline
        self._give_up: Callable[[], None] = lambda: None
        self._over = False

    def start(self) -> None:
        """Wait for the message."""
        self._calls.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._on_close)
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._on_message)

    def drain(self) -> None:
        """It is at work."""

    def _on_message(self, event: Event) -> None:
        data = event.batch_operations[0].message() if event.success else None
        if data is None or self._over:  # the caller went away, or sent too much: the core has answered
            return
        begun = self._method.begin(data, remaining_ns(self._deadline - time.time()), self._done)
        if isinstance(begun, bytes | Status):
            self._answer(begun)
        else:
            self._give_up = begun

    def _done(self, answer: Answer) -> None:
        """On any thread."""
        if self._over:  # work that is finished all the same, which tells so on the thread that answers
            return
        post(self._call, partial(self._answer, answer))

    def _answer(self, answer: Answer) -> None:
        if self._over:  # the caller went away
            return
        if isinstance(answer, Status):
            operations = [status_operation(answer)]
        else:
            operations = [cygrpc.SendMessageOperation(answer, NO_FLAGS), status_operation(DONE)]
        self._call.start_server_batch((greeting(), *operations), ended)

    def _on_close(self, event: Event) -> None:
        del event  # ended by us, or cancelled: then the answer is not wanted any more
        self._over = True
        self._calls.closed(self)
        self._give_up()


class LaterStream:
    """A stream whose messages are answered in order, and later; one answer at a time is on its way.

    Args:
        calls: Of its listener.
        call: gRPC's.
        method: See `LaterStreamMethod`.
    """

    def __init__(self, calls: Calls, call: Any, method: LaterStreamMethod) -> None:
        self._calls = calls
        self._call = call
        self._conversation = method.open(self._go_on)
        self._receive = cygrpc.ReceiveMessageOperation(NO_FLAGS)
        self._reading = True
        self._sending = False
        self._no_more = False  # the caller has said all
        self._over = False

    def start(self) -> None:
        """Wait for the first message."""
        self._calls.opened(self)
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._on_close)
        self._call.start_server_batch((greeting(), self._receive), self._on_message)

    def drain(self) -> None:
        """End once what was taken is answered."""
        self._go_on()

    def _on_message(self, event: Event) -> None:
        self._reading = False
        if self._over:
            return
        data = event.batch_operations[-1].message() if event.success else None
        if data is None:
            self._no_more = True
        else:
            self._conversation.take(data)
        self._go_on()

    def _on_sent(self, event: Event) -> None:
        del event
        self._sending = False
        self._go_on()

    def _go_on(self) -> None:
        """Send the next answer, and read the next message, where either may be."""
        if self._over:
            return
        conversation = self._conversation
        answer = None if self._sending else conversation.next_answer()
        if isinstance(answer, Status):
            self._end(answer)
        elif answer is not None:
            self._sending = True
            self._call.start_server_batch((cygrpc.SendMessageOperation(answer, NO_FLAGS),), self._on_sent)
        elif conversation.idle and not self._sending and (self._no_more or self._calls.draining):
            self._end(DONE if self._no_more else DRAINING)
        if not (self._over or self._reading or self._no_more or self._calls.draining) and conversation.wants_more:
            self._reading = True
            self._call.start_server_batch((self._receive,), self._on_message)

    def _end(self, status: Status) -> None:
        self._over = True
        self._call.start_server_batch((status_operation(status),), ended)

    def _on_close(self, event: Event) -> None:
        del event  # ended by us, or cancelled
        self._over = True
        self._calls.closed(self)
        self._conversation.close()
