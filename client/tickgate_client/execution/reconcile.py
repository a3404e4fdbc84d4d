"""Positions compared: at the venue, in the outbox, and at the server."""

from __future__ import annotations

import time

from tickgate_client.call_errors import CallError
from tickgate_client.execution.desk import DeskWatch
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.outcomes import PositionDifference, Reconciliation
from tickgate_client.execution.reporter import Reporter

_ATTEMPTS = 5
_TOLERANCE = 1e-9
"""Units, and share of a position: what sums of many fills may differ by."""


def compare(
    engine: ExecutionEngine,
    outbox: Outbox,
    reporter: Reporter,
    desk: DeskWatch,
    *,
    symbols: frozenset[str] | None,
    report_timeout_s: float,
    settle_s: float,
) -> Reconciliation:
    """Compare positions without stopping anything: what moved meanwhile is compared again.

    The server's positions count only if it had every report when they were read, and nothing was recorded since. The
    venue may be ahead of what it told, so a difference to it counts once it is still there after `settle_s`.

    Args:
        engine: The venue.
        outbox: What was recorded.
        reporter: Sends what waits there.
        desk: The server.
        symbols: Which to compare; None: all.
        report_timeout_s: How long to wait for the server to take reports in.
        settle_s: As above, over all attempts.
    """
    found = Reconciliation(conclusive=False, text="positions moved all the while")
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(settle_s / (_ATTEMPTS - 1))
        if not reporter.flush(report_timeout_s):
            why = reporter.last_error or f"not within {report_timeout_s:g} s"
            return Reconciliation(conclusive=False, text=f"the server has not taken {outbox.waiting} reports: {why}")
        revision, recorded = outbox.revision, outbox.positions()
        try:
            server = {one.symbol: one.filled for one in desk.portfolio().positions}
        except CallError as error:
            return Reconciliation(conclusive=False, text=f"the server gave no positions: {error}")
        venue = dict(engine.positions())
        if outbox.revision != revision or outbox.waiting:
            continue
        named = symbols if symbols is not None else {*server, *recorded, *venue}
        rows = [
            PositionDifference(name, server.get(name, 0.0), recorded.get(name, 0.0), venue.get(name, 0.0))
            for name in sorted(named)
        ]
        found = Reconciliation(conclusive=True, differences=tuple(row for row in rows if not _agrees(row)))
        if found.agrees:
            return found
    return found


def _agrees(row: PositionDifference) -> bool:
    least, most = min(row.server, row.recorded, row.venue), max(row.server, row.recorded, row.venue)
    return most - least <= _TOLERANCE * max(1.0, abs(least), abs(most))  # NaN does not
