"""One worker's stream of ticks: messages go out in order, answers come back in order, whatever ends it is an error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import grpc

from tickgate.v1 import market_data_pb2
from tickgate_client.aio import WRITE_FAILED
from tickgate_client.call_errors import DeadlineExceeded, InvalidRequest, ServerUnavailable, error_of_call
from tickgate_client.errors import ContractBroken
from tickgate_client.feeds.tasks import end
from tickgate_client.feeds.window import Message, RefusedTick, ResendWindow, request_of
from tickgate_client.options import STREAM_DEADLINE_S

# How the server names a tick of a message: `ticks[3].trade.price`.
_TICK = re.compile(r"ticks\[(\d+)\]")

_CAREFUL = 64
"""Messages that go one at a time after a stream ended for a reason that may lie in one of them."""


class Lane:
    """Sends a worker its messages, each until it is answered.

    Args:
        method: The stub's PublishTicks.
        feed: Whose ticks these are.
        deadline_s: Longest wait for an answer while one is due, in seconds.
        on_answer: Called with each message that is through, and its counts.

    Attributes:
        window: Messages without an answer.
        answers: Messages that were answered, over all streams.
    """

    def __init__(
        self,
        method: Any,
        feed: str,
        deadline_s: float,
        on_answer: Callable[[Message, market_data_pb2.TickCounts | None], None],
    ) -> None:
        self.window = ResendWindow()
        self.answers = 0
        self._method = method
        self._feed = feed
        self._deadline_s = deadline_s
        self._on_answer = on_answer
        self._more = asyncio.Event()
        self._finishing = False
        # Messages that are still sent one at a time.
        self._careful = 0

    def push(self, message: Message) -> None:
        """Take a message, behind all others."""
        self.window.push(message)
        self._more.set()

    def finish(self) -> None:
        """End the stream once all is answered."""
        self._finishing = True
        self._more.set()

    async def stream(self) -> None:
        """One stream, opened when there is something to send, until it ends.

        Returns after `finish`. Raises a CallError, or ContractBroken for answers that are not to what was sent.
        """
        self.window.rewind()
        while not self.window.unsent:
            if self._finishing:
                return
            self._more.clear()
            await self._more.wait()
        call = self._method(timeout=STREAM_DEADLINE_S)
        try:
            async with asyncio.timeout(None) as limit:
                await self._drive(call, limit)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no acknowledgement within {self._deadline_s:g} s", status_code=grpc.StatusCode.DEADLINE_EXCEEDED
            ) from error
        finally:
            call.cancel()

    def refused(self, error: InvalidRequest) -> None:
        """The server ended the stream because of one tick: leave it out.

        An answer that came with the end may be lost. So which message had the tick is known only where one was under
        way; if there were more, they are sent one at a time. Raises the error itself where it is not about a tick.
        """
        named = _TICK.match(error.field or "")
        if named is None or not self.window.in_flight:
            raise error
        if self.window.in_flight > 1:
            self._one_at_a_time()
            return
        message = self.window.oldest()
        at = int(named.group(1))
        if at >= len(message.ticks):
            raise ContractBroken(expected=f"a fault in one of {len(message.ticks)} ticks", found=error.message)
        index, tick = message.without(at)
        message.batch.refused.append(RefusedTick(index, tick, error))
        if not message.ticks:
            self._through(None)

    async def _drive(self, call: Any, limit: asyncio.Timeout) -> None:
        tasks = [asyncio.create_task(side(call, limit)) for side in (self._read, self._write)]
        try:
            # The reader alone knows how a stream ended: the writer goes quietly.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await end(*tasks)

    async def _write(self, call: Any, limit: asyncio.Timeout) -> None:
        while True:
            while not self.window.unsent or (self._careful and self.window.in_flight):
                if self._finishing and not self.window.unsent:
                    await call.done_writing()
                    return
                self._more.clear()
                await self._more.wait()
            message = self.window.next()
            if self.window.in_flight == 1:
                self._expect(limit)
            try:
                await call.write(request_of(self._feed, message))
            except (asyncio.InvalidStateError, grpc.RpcError):
                return

    async def _read(self, call: Any, limit: asyncio.Timeout) -> None:
        answers = 0
        while True:
            try:
                response = await call.read()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INTERNAL or error.details() != WRITE_FAILED:
                    raise error_of_call(error) from error
                # The server's own status is lost: to see it, should it come again, nothing is written when it does.
                self._one_at_a_time()
                raise ServerUnavailable(
                    "the stream ended while a message was being sent", status_code=grpc.StatusCode.UNAVAILABLE
                ) from error
            if not isinstance(response, market_data_pb2.PublishTicksResponse):
                if self._finishing and not len(self.window):
                    return
                raise ContractBroken(
                    expected=f"answers to {self.window.in_flight} more messages", found="the end of the stream"
                )
            answers += 1
            if response.messages != answers or not self.window.in_flight:
                sent = answers - 1 + self.window.in_flight
                raise ContractBroken(
                    expected=f"the answer to message {answers} of {sent}",
                    found=f"one that counts {response.messages} messages",
                )
            self._through(response.counts)
            self._expect(limit)

    def _through(self, counts: market_data_pb2.TickCounts | None) -> None:
        message = self.window.answered()
        self.answers += 1
        self._careful = max(self._careful - 1, 0)
        self._more.set()
        self._on_answer(message, counts)

    def _one_at_a_time(self) -> None:
        self._careful = min(self.window.in_flight, _CAREFUL)

    def _expect(self, limit: asyncio.Timeout) -> None:
        """The next answer is due within the deadline from now, if there is one to come."""
        due = asyncio.get_running_loop().time() + self._deadline_s
        limit.reschedule(due if self.window.in_flight else None)
