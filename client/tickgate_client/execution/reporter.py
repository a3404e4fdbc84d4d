"""Sends what waits in an outbox to the server, in order, until each report is answered."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from tickgate.v1 import portfolio_pb2
from tickgate.v1.portfolio_pb2_grpc import PortfolioServiceStub
from tickgate_client.call_errors import CallError, ServerUnavailable, error_of_call, status_of
from tickgate_client.execution.errors import OutboxUnwritable
from tickgate_client.execution.ledger import RefusedReport
from tickgate_client.execution.outbox import Outbox

_LOG = logging.getLogger(__name__)

_BATCH = 256
_BACKOFF_S, _BACKOFF_MOST_S = 0.1, 2.0

_NEVER = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""Answers that asking again does not change; any other is asked again, and what comes behind it waits."""


class Reporter:
    """A thread that sends what waits.

    Args:
        outbox: What is sent.
        channel: To the server's service listener.
        on_refused: Called with each report that the server will never take.
        deadline_s: Of one batch of reports, in seconds.

    Attributes:
        last_error: Why the last attempt failed; None: it did not.
    """

    def __init__(
        self,
        outbox: Outbox,
        channel: grpc.Channel,
        *,
        on_refused: Callable[[RefusedReport], None] = lambda _report: None,
        deadline_s: float = 5.0,
    ) -> None:
        self.last_error: CallError | OutboxUnwritable | None = None
        self._outbox = outbox
        self._send = PortfolioServiceStub(channel).Report
        self._on_refused = on_refused
        self._deadline_s = deadline_s
        self._wake = threading.Condition()
        self._asked = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tickgate-reports", daemon=True)
        outbox.on_waiting(self._hurry)

    def start(self) -> None:
        """Begin to send, what an earlier process left first."""
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits for the server; False: something still did after so many seconds."""
        due = time.monotonic() + timeout_s
        with self._wake:
            while self._outbox.waiting:
                left = due - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._wake.wait(left)
        return True

    def close(self) -> None:
        """End the thread; what waits stays in the outbox."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hurry(self) -> None:
        with self._wake:
            self._asked += 1
            self._wake.notify_all()

    def _run(self) -> None:
        backoff_s = 0.0
        while True:
            with self._wake:
                if backoff_s:
                    self._wake.wait_for(lambda: self._stopping, backoff_s)
                else:
                    self._wake.wait_for(lambda: self._stopping or self._outbox.waiting > 0)
                if self._stopping:
                    return
            try:
                self._send_some()
                self.last_error = None
                backoff_s = 0.0
            except CallError as error:
                self.last_error = error
                backoff_s = min(max(backoff_s * 2, _BACKOFF_S), _BACKOFF_MOST_S)
            except OutboxUnwritable as error:
                self.last_error = error
                _LOG.exception("reports are not sent any more")
                return
            finally:
                with self._wake:
                    self._wake.notify_all()

    def _send_some(self) -> None:
        batch = self._outbox.to_send(_BATCH)
        if not batch:
            return
        call: Any = self._send(iter([report for _, report in batch]), timeout=self._deadline_s)
        answered = 0
        try:
            for (sequence, report), answer in zip(batch, call, strict=False):
                self._answered(sequence, report, answer)
                answered += 1
        except grpc.RpcError as error:
            raise error_of_call(error) from error
        finally:
            call.cancel()
        if answered < len(batch):
            raise ServerUnavailable("the server ended the reports early", status_code=grpc.StatusCode.UNAVAILABLE)

    def _answered(
        self, sequence: int, report: portfolio_pb2.ReportRequest, answer: portfolio_pb2.ReportResponse
    ) -> None:
        if answer.code == 0:
            self._outbox.acknowledge(sequence)
            return
        status = status_of(answer.code)
        if status not in _NEVER:
            raise CallError(answer.message, status_code=status)
        self._outbox.refuse(sequence, answer.code, answer.message)
        _LOG.error("the server refused a report: %s: %s", status.name, answer.message)
        self._on_refused(RefusedReport(sequence, report, answer.code, answer.message))
