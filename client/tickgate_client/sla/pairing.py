"""What both interceptors share: which methods are measured, and which answer of a stream belongs to which message."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from tickgate.v1 import signal_pb2
from tickgate_client.latency import CallRecorder
from tickgate_client.stream import outcome_of

PREDICT = "/tickgate.v1.SignalService/Predict"
PREDICT_STREAM = "/tickgate.v1.SignalService/PredictStream"
MEASURED = (PREDICT, PREDICT_STREAM)

_UNKNOWN = 2


def outcome_of_answer(answer: Any) -> tuple[int, int | None]:
    """Status and server time of an answer; of messages that are not tickgate's own nothing is known: OK, None."""
    if isinstance(answer, signal_pb2.PredictResponse):
        return 0, answer.timing.total_ns if answer.HasField("timing") else None
    if isinstance(answer, signal_pb2.PredictStreamResponse):
        return outcome_of(answer.results)
    return 0, None


def method_name(method: str | bytes) -> str:
    """The full name of a method; grpc.aio gives bytes."""
    return method.decode() if isinstance(method, bytes) else method


class PairedStream:
    """The messages of one stream that wait for their answers, which come in order.

    gRPC takes messages on a thread of its own, and may take one more after the stream has ended.
    """

    def __init__(self, recorder: CallRecorder) -> None:
        self._recorder = recorder
        self._waiting: deque[int] = deque()
        self._over = False
        self._lock = threading.Lock()

    def sending(self) -> None:
        """A message is taken by gRPC."""
        with self._lock:
            if not self._over:
                self._waiting.append(self._recorder.begin())

    def answered(self, answer: Any) -> None:
        """The oldest message has its answer."""
        with self._lock:
            if self._waiting:
                self._recorder.end(self._waiting.popleft(), *outcome_of_answer(answer))

    def ended(self, status: int) -> None:
        """The stream is over; messages without an answer end with its status, UNKNOWN where that is OK."""
        with self._lock:
            self._over = True
            while self._waiting:
                self._recorder.end(self._waiting.popleft(), status or _UNKNOWN)

    def abandoned(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            self._over = True
            while self._waiting:
                self._recorder.abandon(self._waiting.popleft())
