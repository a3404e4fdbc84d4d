"""What was published and is not acknowledged yet: in what order it is sent, sent again, and acknowledged.

A `Batch` is what the caller published at once. It is split into messages, each for one worker; a `ResendWindow` keeps
one worker's in order until they are answered; `Receipts` lets batches go in the order in which they were published.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client.call_errors import InvalidRequest
from tickgate_client.feeds.counts import TickTally

MAX_TICKS = 1024
"""Ticks in one message of a stream; the contract's bound."""


@dataclass(frozen=True, slots=True)
class RefusedTick:
    """A tick that the server does not take, whatever its state: it breaks the contract.

    Attributes:
        index: Its place in what was published at once.
        tick: As it was published.
        error: What the server said of it.
    """

    index: int
    tick: market_pb2.Tick
    error: InvalidRequest


@dataclass(frozen=True, slots=True)
class Published:
    """What became of ticks that were published at once.

    Attributes:
        ticks: How many there were.
        tally: What the server did with them.
        refused: Those that it does not take; they are not in the tally.
        resent: Ticks that were sent more than once, counted each time.
    """

    ticks: int
    tally: TickTally
    refused: Sequence[RefusedTick]
    resent: int


@dataclass(slots=True, eq=False)
class Batch:
    """Ticks that were published at once, and what of them is unanswered.

    Attributes:
        number: Batches before it.
        ticks: How many.
        receipt: Gets its `Published`, after those of the batches before it.
        waiting: Messages without an answer.
    """

    number: int
    ticks: int
    receipt: asyncio.Future[Published]
    waiting: int = 0
    tally: TickTally = field(default_factory=TickTally)
    refused: list[RefusedTick] = field(default_factory=list)
    resent: int = 0

    def published(self) -> Published:
        """What became of it, once all is answered."""
        return Published(self.ticks, self.tally, tuple(self.refused), self.resent)


@dataclass(slots=True, eq=False)
class Message:
    """A batch's ticks for one worker, or some of them.

    Attributes:
        batch: Whose.
        ticks: In the batch's order, at most MAX_TICKS.
        indexes: The place of each in the batch.
        sent: How often.
    """

    batch: Batch
    ticks: list[market_pb2.Tick]
    indexes: list[int]
    sent: int = 0

    def without(self, at: int) -> tuple[int, market_pb2.Tick]:
        """Take a tick out; gives its place in the batch, and it."""
        return self.indexes.pop(at), self.ticks.pop(at)


class ResendWindow:
    """One worker's messages from when they are published until they are answered.

    On one stream they are sent in order and answered in order. On the next, those without an answer are sent again,
    before any other: so the worker sees every message at least once, and the first time in order.
    """

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._sent = 0

    @property
    def in_flight(self) -> int:
        """Messages that were sent on the stream under way and have no answer."""
        return self._sent

    @property
    def unsent(self) -> int:
        """Messages that are still to be sent on the stream under way."""
        return len(self._waiting) - self._sent

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, message: Message) -> None:
        """Take a message, behind all others."""
        self._waiting.append(message)

    def next(self) -> Message:
        """The message to send now (IndexError if there is none); it counts as sent."""
        message = self._waiting[self._sent]
        self._sent += 1
        if message.sent:
            message.batch.resent += len(message.ticks)
        message.sent += 1
        return message

    def oldest(self) -> Message:
        """The message whose answer comes next."""
        return self._waiting[0]

    def answered(self) -> Message:
        """The oldest has its answer, or needs none: it is let go."""
        self._sent = max(self._sent - 1, 0)
        return self._waiting.popleft()

    def rewind(self) -> None:
        """A new stream begins: all is to be sent."""
        self._sent = 0

    def take_all(self) -> list[Message]:
        """Everything unanswered, in order; the window is empty then."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._sent = 0
        return taken


class Receipts:
    """Lets batches go in the order in which they were published.

    Attributes:
        ticks: Published and not acknowledged.
    """

    def __init__(self) -> None:
        self.ticks = 0
        self._batches: deque[Batch] = deque()
        self._numbered = 0

    def __len__(self) -> int:
        return len(self._batches)

    def open(self, ticks: int) -> Batch:
        """A batch of so many ticks, behind all others."""
        batch = Batch(self._numbered, ticks, asyncio.get_running_loop().create_future())
        self._numbered += 1
        self.ticks += ticks
        self._batches.append(batch)
        return batch

    def settle(self) -> bool:
        """Acknowledge what is answered with everything before it; False if that is nothing."""
        settled = False
        while self._batches and not self._batches[0].waiting:
            batch = self._batches.popleft()
            self.ticks -= batch.ticks
            settled = True
            if not batch.receipt.done():
                batch.receipt.set_result(batch.published())
        return settled

    def fail(self, error: BaseException) -> None:
        """Nothing more is acknowledged."""
        while self._batches:
            receipt = self._batches.popleft().receipt
            if not receipt.done():
                receipt.set_exception(error)
                receipt.exception()  # seen: `publish` and `flush` raise it too, nobody has to look here
        self.ticks = 0


def messages_of(
    batch: Batch, ticks: Sequence[market_pb2.Tick], indexes: Sequence[int], owner: Callable[[str], int]
) -> list[tuple[int, Message]]:
    """A batch's ticks as messages, each with the worker that it is for; a symbol's ticks stay in order.

    Args:
        batch: Whose ticks they are.
        ticks: Some of its ticks, in its order.
        indexes: The place of each in the batch.
        owner: The worker of a symbol.
    """
    open_: dict[int, Message] = {}
    made: list[tuple[int, Message]] = []
    for index, tick in zip(indexes, ticks, strict=True):
        worker = owner(tick.symbol)
        message = open_.get(worker)
        if message is None or len(message.ticks) == MAX_TICKS:
            message = open_[worker] = Message(batch, [], [])
            made.append((worker, message))
        message.ticks.append(tick)
        message.indexes.append(index)
    return made


def request_of(feed: str, message: Message) -> market_data_pb2.PublishTicksRequest:
    """What is sent of a message."""
    return market_data_pb2.PublishTicksRequest(feed=feed, ticks=message.ticks)
