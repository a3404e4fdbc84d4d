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
from tickgate_client.latency import LatencyRecorder


class StreamLedger:
    """Pairs the answers of one stream with its messages, and records how long each took.

    Args:
        latency: Takes one sample a message.
        in_flight: Messages that may wait for their answers.
    """

    def __init__(self, latency: LatencyRecorder, in_flight: int) -> None:
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
        self._waiting.append((time.perf_counter_ns(), message))

    def answered(self, response: signal_pb2.PredictStreamResponse) -> Sequence[signal_pb2.PredictStreamResult]:
        """The oldest message has its answer: record its time, and give its results in the order of its requests.

        Raises ContractBroken if they are not the answers to its requests.
        """
        now_ns = time.perf_counter_ns()
        sent_ns, message = self._waiting.popleft()
        results = response.results
        server_ns = max(
            (result.response.timing.total_ns for result in results if result.response.HasField("timing")), default=None
        )
        self._latency.record(now_ns - sent_ns, server_ns)
        expected = [request.request_id for request in message.requests]
        found = [result.request_id for result in results]
        if expected != found:
            raise ContractBroken(expected=_named(expected), found=_named(found))
        return results

    def ended(self) -> None:
        """The stream ended badly: every message still without an answer took until now."""
        now_ns = time.perf_counter_ns()
        while self._waiting:
            sent_ns, _ = self._waiting.popleft()
            self._latency.record(now_ns - sent_ns)

    def ended_early(self) -> ContractBroken:
        """The error for a stream that the server closed as OK with messages unanswered."""
        unanswered = len(self._waiting)
        self.ended()
        return ContractBroken(expected=f"answers to {unanswered} more messages", found="the end of the stream")


def _named(request_ids: Sequence[str]) -> str:
    shown = ", ".join(repr(request_id) for request_id in request_ids[:3])
    more = ", ..." if len(request_ids) > 3 else ""
    return f"{len(request_ids)} results with request ids [{shown}{more}]"
