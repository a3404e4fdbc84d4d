"""Positions compared: at the venue, in the outbox, and at the server."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tickgate_client.call_errors import CallError
from tickgate_client.execution.desk import DeskState, DeskWatch
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.outcomes import PositionDifference, Reconciliation
from tickgate_client.execution.reporter import Reporter

_ATTEMPTS = 5
_AGAIN_S = 1.0  # after a comparison that told nothing
_TOLERANCE = 1e-9
"""Units, and share of a position: what sums of many fills may differ by."""


class Reconciler:
    """Compares positions without stopping anything: what moved meanwhile is compared again.

    Args:
        engine: The venue.
        outbox: What was recorded.
        reporter: Sends what waits there.
        desk: The server.
        symbols: Which to compare; None: all.
        report_timeout_s: How long to wait for the server to take reports in.
        settle_s: How long the venue may be ahead of what it told.

    Attributes:
        agree: The last comparison found no difference, and the desk was not lost since.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        outbox: Outbox,
        reporter: Reporter,
        desk: DeskWatch,
        *,
        symbols: frozenset[str] | None,
        report_timeout_s: float,
        settle_s: float,
    ) -> None:
        self.agree = False
        self.report_timeout_s = report_timeout_s
        self._engine = engine
        self._outbox = outbox
        self._reporter = reporter
        self._desk = desk
        self._symbols = symbols
        self._settle_s = settle_s
        self._losses = 0
        self._due_s: float | None = None

    def lost(self) -> None:
        """The desk was lost: who comes back may have another book."""
        self._losses += 1
        self.agree = False
        self._due_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether to compare now: the desk was lost and is there again, or the last comparison told nothing."""
        due_s = self._due_s
        return due_s is not None and time.monotonic() >= due_s and self._desk.view.state is not DeskState.LOST

    def compare(self) -> Reconciliation:
        """Compare now.

        The server's positions count only if it had every report when they were read, and nothing was recorded since. A
        difference to the venue counts once it is still there after the time to settle.
        """
        losses = self._losses
        found = self._compared()
        if self._losses == losses:  # else it was lost meanwhile, and is compared again
            self.agree = found.agrees
            self._due_s = None if found.conclusive else time.monotonic() + _AGAIN_S
        return found

    def _compared(self) -> Reconciliation:
        found = Reconciliation(conclusive=False, text="positions moved all the while")
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(self._settle_s / (_ATTEMPTS - 1))
            if not self._reporter.flush(self.report_timeout_s):
                why = self._reporter.last_error or f"not within {self.report_timeout_s:g} s"
                text = f"the server has not taken {self._outbox.waiting} reports: {why}"
                return Reconciliation(conclusive=False, text=text)
            revision, recorded = self._outbox.revision, self._outbox.positions()
            try:
                server = {one.symbol: one.filled for one in self._desk.portfolio().positions}
            except CallError as error:
                return Reconciliation(conclusive=False, text=f"the server gave no positions: {error}")
            venue = dict(self._engine.positions())
            if self._outbox.revision != revision or self._outbox.waiting:
                continue
            found = Reconciliation(conclusive=True, differences=self._differences(server, recorded, venue))
            if found.agrees:
                return found
        return found

    def _differences(
        self, server: Mapping[str, float], recorded: Mapping[str, float], venue: Mapping[str, float]
    ) -> tuple[PositionDifference, ...]:
        named = self._symbols if self._symbols is not None else {*server, *recorded, *venue}
        rows = (
            PositionDifference(name, server.get(name, 0.0), recorded.get(name, 0.0), venue.get(name, 0.0))
            for name in sorted(named)
        )
        return tuple(row for row in rows if not _agrees(row))


def _agrees(row: PositionDifference) -> bool:
    least, most = min(row.server, row.recorded, row.venue), max(row.server, row.recorded, row.venue)
    return most - least <= _TOLERANCE * max(1.0, abs(least), abs(most))  # NaN does not
