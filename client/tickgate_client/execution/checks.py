"""What is looked at just before an order is sent."""

from __future__ import annotations

from collections.abc import Callable

from tickgate_client.execution.desk import DeskState, DeskWatch
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.outcomes import Refusal
from tickgate_client.execution.parents import Approval
from tickgate_client.execution.reconcile import Reconciler
from tickgate_client.sla.monitor import SlaMonitor

_DUST = 1e-9


class OrderChecks:
    """The checks of one gateway; what is not certain is a refusal.

    Args:
        engine: What the venue has.
        desk: What the desk lets through.
        positions: Whether they agree.
        monitor: Judges the client's calls; None: nobody does.
        clock: The gateway's.

    Attributes:
        failed: What could not be recorded; None: everything could.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        desk: DeskWatch,
        positions: Reconciler,
        monitor: SlaMonitor | None,
        clock: Callable[[], int],
    ) -> None:
        self.failed: Exception | None = None
        self._engine = engine
        self._desk = desk
        self._positions = positions
        self._monitor = monitor
        self._clock = clock

    def refused(self, approval: Approval, units: float) -> tuple[Refusal, str] | None:
        """Why nothing of an approval may be sent now, the first reason that holds; None: it may.

        Args:
            approval: What was approved.
            units: That may still be filled of it, and of all other orders on its symbol and side.
        """
        desk = self._desk.view
        rules = [
            (self.failed is not None, Refusal.OUTBOX_UNWRITABLE, str(self.failed)),
            (self._clock() >= approval.expires_ns, Refusal.SIGNAL_EXPIRED, ""),
            (desk.state is DeskState.LOST, Refusal.DESK_LOST, desk.why),
            (desk.state is DeskState.HALTED, Refusal.DESK_HALTED, desk.why),
        ]
        if not self._reduces(approval, units):
            alarm = None if self._monitor is None else self._monitor.alarm()
            causes = "" if alarm is None else f"{alarm.objective.name}: {', '.join(alarm.causes)}"
            rules += [
                (desk.state is not DeskState.ACTIVE, Refusal.DESK_REDUCING, desk.why),
                (not self._positions.agree, Refusal.POSITIONS_DIFFER, ""),
                (alarm is not None, Refusal.SLA_HELD, causes),
            ]
        return next(((refusal, text) for holds, refusal, text in rules if holds), None)

    def _reduces(self, approval: Approval, units: float) -> bool:
        """Whether it only takes off what the venue has, by the server's word and by our own."""
        if not approval.reducing:
            return False
        held = -approval.side.sign * self._engine.positions().get(approval.symbol, 0.0)
        return units <= held * (1.0 + _DUST)
