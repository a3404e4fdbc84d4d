"""What a stream has sent and not seen answered yet: order, pairing and time of its messages.

Both clients drive a stream in lockstep with it: send until the window is full, then take one answer for each
message sent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from tickgate.v1 import signal_pb2
from tickgate_client.errors import ContractBroken
from tickgate_client.latency import CallRecorder

_UNKNOWN = 2
"""The number of gRPC's UNKNOWN."""


class StreamLedger:
    """Pairs the answers of one stream with its messages, and records how long each took.

    Args:
        latency: Takes one sample a message.
        in_flight: Messages that may wait for their answers.
    """

    def __init__(self, latency: CallRecorder, in_flight: int) -> None:
        self._latency = latency
        self._in_flight = in_flight
        self._waiting: deque[tuple[int, signal_pb2.PredictStreamRequest]] = deque()

    @property
    def full(self) -> bool:
        """An answer has to be taken before another message may be sent."""
        return len(self._waiting) >= self._in_flight

    @property
    def waiting(self) -> int:
        """Messages without an answer."""
        return len(self._waiting)

    def sending(self, message: signal_pb2.PredictStreamRequest) -> None:
        """A message is about to be sent: its time starts now."""
        self._waiting.append((self._latency.begin(), message))

    def answered(self, response: signal_pb2.PredictStreamResponse) -> Sequence[signal_pb2.PredictStreamResult]:
        """The oldest message has its answer: record its time, and give its results in the order of its requests.

        Raises ContractBroken if they are not the answers to its requests.
        """
        ended_ns = time.perf_counter_ns()
        call, message = self._waiting.popleft()
        results = response.results
        self._latency.end(call, *outcome_of(results), ended_ns)
        expected = [request.request_id for request in message.requests]
        found = [result.request_id for result in results]
        if expected != found:
            raise ContractBroken(expected=_named(expected), found=_named(found))
        return results

    def ended(self, status: int) -> None:
        """The stream ended badly: every message still without an answer took until now.

        Args:
            status: The number of the gRPC status that they count with.
        """
        while self._waiting:
            call, _ = self._waiting.popleft()
            self._latency.end(call, status)

    def abandoned(self) -> None:
        """The caller closed the stream: nobody waits for what is still without an answer."""
        while self._waiting:
            call, _ = self._waiting.popleft()
            self._latency.abandon(call)

    def ended_early(self) -> ContractBroken:
        """The error for a stream that the server closed as OK with messages unanswered."""
        unanswered = len(self._waiting)
        self.ended(_UNKNOWN)
        return ContractBroken(expected=f"answers to {unanswered} more messages", found="the end of the stream")


def outcome_of(results: Sequence[signal_pb2.PredictStreamResult]) -> tuple[int, int | None]:
    """Status and server time of a message as a whole: its first failure, and the largest of its answers, if any."""
    status = next((result.code for result in results if result.code), 0)
    server_ns = max(
        (result.response.timing.total_ns for result in results if result.response.HasField("timing")), default=None
    )
    return status, server_ns


def _named(request_ids: Sequence[str]) -> str:
    shown = ", ".join(repr(request_id) for request_id in request_ids[:3])
    more = ", ..." if len(request_ids) > 3 else ""
    return f"{len(request_ids)} results with request ids [{shown}{more}]"
