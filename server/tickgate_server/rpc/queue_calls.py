"""Calls on gRPC's own completion queue: what a listener keeps of them, and how one that is answered in place ends.

A call's life is a chain of batches. Each batch's tag is the function that takes its event; dropping the last reference
to a call frees it.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs

from tickgate_server.rpc.busy_poll import Event
from tickgate_server.rpc.methods import Answer, Handler
from tickgate_server.rpc.status import Status

NO_FLAGS = 0
_NO_METADATA: tuple[()] = ()
DONE = Status(grpc.StatusCode.OK, "")

# Takes a new call, and the Unix time of its deadline in seconds.
Start: TypeAlias = Callable[[Any, float], None]


class Staying(Protocol):
    """A call that stays while others come and go."""

    def drain(self) -> None:
        """End as soon as may be."""


class Told(Protocol):
    """A watch, as `Turns` knows it.

    Attributes:
        due_s: Monotonic time from which the next message may leave.
    """

    due_s: float

    def tell(self) -> None:
        """Send what is news."""


class Turns:
    """What is to be done between events, for all listeners.

    Attributes:
        unfinished: Stream messages that are answered in turns; each returns False once it is.
    """

    def __init__(self) -> None:
        self.unfinished: deque[Callable[[], bool]] = deque()
        self._news: set[Told] = set()

    def take(self) -> bool:
        """Give each unfinished message a turn; False where there was none."""
        if not self.unfinished:
            return False
        for _ in range(len(self.unfinished)):
            unfinished = self.unfinished.popleft()
            if unfinished():
                self.unfinished.append(unfinished)
        return True

    def to_look_at(self, watch: Told) -> None:
        """There may be news for a watch; many for one are one."""
        self._news.add(watch)

    def forget(self, watch: Told) -> None:
        """The watch is over."""
        self._news.discard(watch)

    def tell_news(self, now_s: float) -> None:
        """Have each watch that there may be news for tell it."""
        for watch in [watch for watch in self._news if watch.due_s <= now_s]:
            self._news.discard(watch)
            watch.tell()


class Calls:
    """The calls of one listener that stay: how many, and which to end when it drains."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.draining = False
        self.active = 0
        self._staying: set[Staying] = set()

    def opened(self, call: Staying) -> None:
        """Count a call in."""
        self._staying.add(call)
        self.active += 1

    def closed(self, call: Staying) -> None:
        """Count a call out."""
        if call in self._staying:
            self._staying.discard(call)
            self.active -= 1

    def drain(self) -> None:
        """End what waits; what is at work ends after it."""
        self.draining = True
        for call in list(self._staying):
            call.drain()


def ended(event: Event) -> None:
    """The last batch of a call; nothing is left to do."""
    del event


def is_lost(event: Event) -> bool:
    """Whether a call whose last operation was to wait for its close had been cancelled, by the caller or its end."""
    return not event.success or bool(event.batch_operations[-1].cancelled())


def finish(call: Any, status: Status) -> None:
    """End a call that has sent nothing yet."""
    operations = (greeting(), status_operation(status), cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS))
    call.start_server_batch(operations, ended)


def start_unary(call: Any, handler: Handler) -> None:
    """Take a call's message, and answer it in place."""

    def answer(event: Event) -> None:
        data = event.batch_operations[0].message()
        if data is not None:  # else the caller went away, or sent too much: the core has answered
            answer_unary(call, handler(data))

    call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), answer)


def answer_unary(call: Any, answer: Answer, not_sent: Callable[[], None] | None = None) -> None:
    """Answer a call, and end it.

    Args:
        call: gRPC's.
        answer: As it leaves.
        not_sent: Called if the caller went away before the answer had left; None: that does not matter.
    """
    if isinstance(answer, Status):
        finish(call, answer)
        return

    def settle(event: Event) -> None:
        if not_sent is not None and is_lost(event):
            not_sent()

    operations = (
        greeting(),
        cygrpc.SendMessageOperation(answer, NO_FLAGS),
        cygrpc.SendStatusFromServerOperation(_NO_METADATA, 0, b"", NO_FLAGS),
        cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
    )
    call.start_server_batch(operations, ended if not_sent is None else settle)


def post(call: Any, function: Callable[[], None]) -> None:
    """Have the polling thread call a function, from any thread: an empty batch is an event at once."""
    call.start_server_batch((), lambda event: function())  # noqa: ARG005 - a tag takes its event


def greeting() -> Any:
    """What a call sends first."""
    return cygrpc.SendInitialMetadataOperation(_NO_METADATA, NO_FLAGS)


def status_operation(status: Status) -> Any:
    """What a call sends last."""
    return cygrpc.SendStatusFromServerOperation(_NO_METADATA, status.number, status.message.encode(), NO_FLAGS)
