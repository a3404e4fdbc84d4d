"""From approved signals to orders, safely: what `OrderGateway` and `AsyncOrderGateway` have in common.

Each order, and each child of one, passes the same checks just before it is sent: its signal is neither late nor
repeated, the desk is known and lets it through, positions agree, and the SLA is not in breach. What is not certain is
a refusal. What has happened is recorded before anything else is done about it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from tickgate.v1 import market_pb2, portfolio_pb2, signal_pb2
from tickgate_client.execution.checks import OrderChecks
from tickgate_client.execution.closing import NUMBER, Closing
from tickgate_client.execution.desk import DeskState, DeskView, DeskWatch
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.errors import (
    FillReused,
    OrderInvalid,
    OrderReused,
    OutboxFull,
    OutboxUnwritable,
)
from tickgate_client.execution.gateway_settings import GatewaySettings
from tickgate_client.execution.ledger import RefusedReport
from tickgate_client.execution.orders import NewOrder, OrderAccepted, OrderEvent, OrderFilled, OrderState
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.outcomes import (
    DeskChanged,
    GatewayEvent,
    GatewayFailed,
    OrderEnded,
    Outcome,
    Reconciliation,
    Refusal,
    ReportRefused,
)
from tickgate_client.execution.parents import Approval, ParentOrder, approval_of
from tickgate_client.execution.reconcile import Reconciler
from tickgate_client.execution.recovery import recover
from tickgate_client.execution.reporter import Reporter
from tickgate_client.execution.schedules import Schedule, at_once
from tickgate_client.execution.sending import cancel, send
from tickgate_client.sla.monitor import SlaMonitor

_LOG = logging.getLogger(__name__)

_REPORTED = {
    OrderState.CANCELLED: portfolio_pb2.ORDER_STATE_CANCELLED,
    OrderState.REJECTED: portfolio_pb2.ORDER_STATE_REJECTED,
    OrderState.EXPIRED: portfolio_pb2.ORDER_STATE_EXPIRED,
}


def whole_at_once(approval: Approval) -> Schedule:
    """The plan without a plan."""
    return at_once(approval.size)


class GatewayCore:
    """Everything but asking; see `OrderGateway`, whose arguments these are."""

    def __init__(
        self,
        engine: ExecutionEngine,
        outbox: Outbox,
        service: grpc.Channel,
        *,
        monitor: SlaMonitor | None = None,
        plan: Callable[[Approval], Schedule] = whole_at_once,
        on_event: Callable[[GatewayEvent], None] = lambda _event: None,
        clock: Callable[[], int] = time.monotonic_ns,
        settings: GatewaySettings | None = None,
        watch_lease_s: float = 3.0,
    ) -> None:
        self.engine = engine
        self.outbox = outbox
        self.settings = settings or GatewaySettings()
        self.reporter = Reporter(outbox, service, on_refused=self._on_refused)
        self.desk = DeskWatch(service, self._on_desk, renew_s=watch_lease_s / 3, lease_s=watch_lease_s)
        self.positions = Reconciler(
            engine,
            outbox,
            self.reporter,
            self.desk,
            symbols=self.settings.symbols,
            report_timeout_s=self.settings.report_timeout_s,
            settle_s=self.settings.settle_s,
        )
        self.checks = OrderChecks(engine, self.desk, self.positions, monitor, clock)
        self._monitor = monitor
        self._plan = plan
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.RLock()
        self._parents: dict[int, ParentOrder] = {}
        self._prices: dict[str, float] = {}
        self._closing = Closing(
            engine, self.settings.prefix, self.settings.flatten_collar, self.settings.flatten_valid_s
        )
        self._running = threading.Event()
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._keeper = threading.Thread(target=self._keep, name="tickgate-gateway", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def begin(self) -> Reconciliation:
        """Learn what was missed, take back what an earlier process left at work, and compare positions."""
        self._unsubscribe = self.engine.subscribe(self._on_order)
        with self._guarded():
            self._recover()
        if self.checks.failed is not None:
            raise self.checks.failed
        self.reporter.start()
        self.desk.start()
        self.desk.wait(self.settings.report_timeout_s)
        found = self.reconcile()
        self._running.set()
        if self.settings.step_every_s > 0:
            self._keeper.start()
        return found

    def end(self) -> None:
        """Execute nothing more, ask for what works to be taken back, and stop; what waits stays in the outbox."""
        self._running.clear()
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self.cancel_all()
        self._idle.wait(self.settings.settle_s)  # who starts next takes back what did not answer
        self.desk.close()
        self.reporter.flush(self.settings.report_timeout_s)
        self.reporter.close()
        self._unsubscribe()

    # -- signals -------------------------------------------------------------------------------------------------------

    def take(self, response: signal_pb2.PredictResponse, asked_ns: int, arrival_price: float = math.nan) -> Outcome:
        """Execute an answer's order, or say why not. HOLD is neither.

        Args:
            response: The answer.
            asked_ns: The gateway's clock before its request left: no clock but this one tells whether it is late.
            arrival_price: Of the market then, to measure slippage by; NaN: not known.
        """
        if not response.signal.approved:
            return Outcome(response)
        if response.repeated:
            return Outcome(response, refusal=Refusal.SIGNAL_REPEATED)
        approval = approval_of(response, asked_ns, arrival_price)
        if approval is None:
            return Outcome(response, refusal=Refusal.SIGNAL_INVALID, text=f"{response.signal}")
        refused: tuple[Refusal, str] | None = (Refusal.OUTBOX_UNWRITABLE, "")
        with self._guarded():
            refused = self._begin(approval)
            if refused is not None and self.checks.failed is None and not self.outbox.knows_order(approval.order_id):
                # Not used: the server frees what it reserved.
                self.outbox.state(approval.order_id, approval.symbol, portfolio_pb2.ORDER_STATE_CANCELLED)
        if refused is None:
            return Outcome(response, approval)
        return Outcome(response, refusal=refused[0], text=refused[1] or str(self.checks.failed or ""))

    def note_price(self, tick: market_pb2.Tick) -> float:
        """Remember what the symbol trades at: the middle of the quote, else the last trade's price; NaN: neither."""
        if tick.HasField("quote"):
            price = (tick.quote.bid + tick.quote.ask) / 2
        else:
            price = tick.trade.price if tick.HasField("trade") else self._prices.get(tick.symbol, math.nan)
        self._prices[tick.symbol] = price
        return price

    def _begin(self, approval: Approval) -> tuple[Refusal, str] | None:
        if not self._running.is_set():
            return Refusal.GATEWAY_CLOSED, ""
        refused = self._refused(approval)
        if refused is not None:
            return refused
        try:
            parent = ParentOrder(approval, self._plan(approval), self.settings.prefix)
            self.outbox.begin(approval.order_id, approval.symbol, approval.side, approval.size, approval.arrival_price)
        except OrderReused:
            return Refusal.SIGNAL_DUPLICATE, ""
        except OutboxFull as error:
            return Refusal.OUTBOX_FULL, str(error)
        self._parents[approval.order_id] = parent
        self._idle.clear()
        return self._send_due(parent, checked=True)

    # -- orders --------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Send the children that are due, end what has ended, and compare positions after the desk was lost."""
        with self._guarded():
            for parent in list(self._parents.values()):
                self._send_due(parent)
            self._close_if_quiet()
        if self.positions.is_due:
            self.reconcile()

    def cancel_all(self, *, symbol: str | None = None) -> None:
        """Send no more children, and ask for those at work to be taken back; of one symbol, or of all."""
        with self._guarded():
            self._closing.cancel_all(symbol)
            for parent in list(self._parents.values()):
                if symbol in (None, parent.approval.symbol):
                    parent.stop()
                    for child in list(parent.children):
                        cancel(self.engine, child)
                    self._finish(parent)

    def flatten(self) -> None:
        """Take back what works, then close every position at the venue; for `SlaMonitor(flatten=...)`, or a person.

        The orders are none that the server approved: it is told their fills alone. While the desk is halted or lost
        nothing is sent, and positions stay.
        """
        with self._guarded():
            self.cancel_all()
            self._closing.wanted = True
            self._close_if_quiet()

    @property
    def working(self) -> list[Approval]:
        """What is being executed."""
        with self._lock:
            return [parent.approval for parent in self._parents.values()]

    def _send_due(self, parent: ParentOrder, *, checked: bool = False) -> tuple[Refusal, str] | None:
        """Send the child that is due, unless something keeps it back for now; how that failed, if it did."""
        failed = None
        kept_back = None if checked or parent.cancelled else self._refused(parent.approval, parent.filled)
        if kept_back is None or kept_back[0] is Refusal.SIGNAL_EXPIRED:
            child = parent.next_child(self._clock())
            failed = None if child is None else self._send(parent, child)
        self._finish(parent)
        return failed

    def _send(self, parent: ParentOrder, child: NewOrder) -> tuple[Refusal, str] | None:
        failed = send(self.engine, child)
        if failed is not None and failed[0] is Refusal.ENGINE_REFUSED:
            parent.not_sent(child)
        elif failed is not None:
            parent.stop()
        return failed

    def _on_order(self, event: OrderEvent) -> None:
        """What the engine says; a fill is recorded before anything else is done."""
        with self._guarded():
            order_id = self._number_of(event.order_id)
            if order_id is None or self.checks.failed is not None:
                return
            if isinstance(event, OrderFilled) and not self.outbox.fill(event.fill, order_id):
                return  # told again
            if order_id == NUMBER:
                self._closing.take(event)
            parent = self._parents.get(order_id)
            if parent is not None:
                if isinstance(event, OrderAccepted) and not parent.accepted:
                    self.outbox.state(order_id, parent.approval.symbol, portfolio_pb2.ORDER_STATE_ACCEPTED)
                parent.apply(event)
                self._finish(parent)
            self._close_if_quiet()

    def _refused(self, approval: Approval, filled: float = 0.0) -> tuple[Refusal, str] | None:
        """Why nothing of an approval may be sent now, beside the other orders on its symbol and side; None: it may."""
        others = sum(
            parent.approval.size - parent.filled
            for number, parent in self._parents.items()
            if number != approval.order_id
            and (parent.approval.symbol, parent.approval.side) == (approval.symbol, approval.side)
        )
        others += self._closing.units(approval.symbol, approval.side)
        return self.checks.refused(approval, approval.size - filled + others)

    def _finish(self, parent: ParentOrder) -> None:
        end = parent.end
        approval = parent.approval
        if end is None or self._parents.pop(approval.order_id, None) is None:
            return
        if end is not OrderState.FILLED:  # of that the server knows by the fills
            self.outbox.state(approval.order_id, approval.symbol, _REPORTED[end])
        if not self._parents:
            self._idle.set()
        self._tell(OrderEnded(approval, end, parent.filled))

    def _close_if_quiet(self) -> None:
        if (
            self._closing.wanted
            and not self._parents
            and self.desk.view.state in (DeskState.ACTIVE, DeskState.REDUCING)
        ):
            self._closing.begin(self._prices)

    # -- positions -----------------------------------------------------------------------------------------------------

    def reconcile(self) -> Reconciliation:
        """Compare positions at the venue, in the outbox and at the server; new risk waits until they agree."""
        agreed = self.positions.agree
        found = self.positions.compare()
        if not found.agrees or not agreed:
            self._tell(found)
        return found

    def _recover(self) -> None:
        for parent in recover(self.engine, self.outbox, self._number_of):
            self._parents[parent.approval.order_id] = parent
            self._idle.clear()
            self._finish(parent)

    def _number_of(self, child: str) -> int | None:
        """The server's id in an order's id at the venue; None: it is none of ours."""
        number, dash, _ = child.removeprefix(self.settings.prefix).rpartition("-")
        ours = child.startswith(self.settings.prefix) and dash and number.isascii() and number.isdigit()
        return int(number) if ours else None

    # -- what else happens ---------------------------------------------------------------------------------------------

    def _on_desk(self, view: DeskView) -> None:
        if self._monitor is not None:
            if view.state is DeskState.LOST:
                self._monitor.server_lost(view.why)
            else:
                self._monitor.server_found()
        if view.state is DeskState.LOST:
            self.positions.lost()
        if view.state in (DeskState.HALTED, DeskState.LOST):
            self.cancel_all()
        self._tell(DeskChanged(view))

    def _on_refused(self, report: RefusedReport) -> None:
        self.positions.agree = False  # until they are compared anew
        self._tell(ReportRefused(report))

    def _keep(self) -> None:
        due_s = time.monotonic() + self.settings.reconcile_every_s
        while not self._stopping.wait(self.settings.step_every_s):
            try:
                self.step()
                if self.settings.reconcile_every_s > 0 and time.monotonic() >= due_s:
                    self.reconcile()
                    due_s = time.monotonic() + self.settings.reconcile_every_s
            except Exception as error:  # noqa: BLE001 - nothing is executed any more, and callers are told why
                _LOG.exception("the gateway's thread failed")
                self.checks.failed = error
                return

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One at a time. What cannot be recorded ends execution: it is told, and kept in `checks.failed`.

        What the venue does from then on is not recorded either: the next process asks it.
        """
        with self._lock:
            try:
                yield
            except (OutboxUnwritable, FillReused, OrderInvalid) as error:
                if self.checks.failed is None:
                    self.checks.failed = error
                    _LOG.exception("nothing is executed any more")
                    for parent in self._parents.values():
                        parent.stop()
                        for child in list(parent.children):
                            cancel(self.engine, child)
                    self._tell(GatewayFailed(error))

    def _tell(self, event: GatewayEvent) -> None:
        self._on_event(event)
