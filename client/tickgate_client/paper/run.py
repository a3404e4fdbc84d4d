"""The paper desk: ticks to the venue and to the server, orders to the venue, fills to the server.

One tick at a time, and each report is with the server before the next tick is asked about: so the same capture, seed
and models give the same orders and fills. Time is the ticks' own. A run that was killed goes on with the next tick;
what worked at the venue then is gone, as the venue was, and the server is told.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import grpc

from tickgate.v1 import market_pb2
from tickgate_client.call_errors import CallError, ServerUnavailable
from tickgate_client.client import SignalClient
from tickgate_client.execution.account import Account, Holding
from tickgate_client.execution.desk import DeskState, service_channel
from tickgate_client.execution.gateway import OrderGateway
from tickgate_client.execution.gateway_settings import GatewaySettings
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.outcomes import GatewayEvent, OrderEnded, Outcome, Reconciliation
from tickgate_client.execution.paper import PaperBroker
from tickgate_client.paper.config import PaperConfig
from tickgate_client.paper.progress import Progress
from tickgate_client.paper.server import PaperServer
from tickgate_client.readers import read_ticks
from tickgate_client.replay import reason_name
from tickgate_client.sla.judge import Breach
from tickgate_client.sla.monitor import SlaMonitor
from tickgate_client.sla.record import SlaRecord, record_of, write_record

_LOOK_S = 0.02
_RUN_OFF_NS = 3_600_000_000_000  # after the last tick every order has ended


@dataclass(frozen=True, slots=True)
class PaperResult:
    """What a run came to.

    Attributes:
        progress: What was asked, and what came of it.
        account: What was filled, from the outbox.
        reconciliation: Positions at the end.
        sla: What the calls of this process did.
        refused_reports: Reports that the server would not take.
    """

    progress: Progress
    account: Account
    reconciliation: Reconciliation
    sla: SlaRecord
    refused_reports: int


class PaperRun:
    """One run of a configuration.

    Args:
        config: What to run.
        on_tick: Called after each tick, between two calls.

    Attributes:
        progress: What was asked so far.
    """

    def __init__(self, config: PaperConfig, on_tick: Callable[[PaperRun], None] = lambda _run: None) -> None:
        self.config = config
        self._on_tick = on_tick
        config.folder.mkdir(parents=True, exist_ok=True)
        self.progress = Progress(config.folder / "progress.json")
        self._reconcile_ns = 0

    def run(self) -> PaperResult:
        """Run to the end of the feed.

        Raises what the feed does, OutboxBusy where another run of the folder goes on, ServerNotStarted, and
        ServerUnavailable once a server that is gone was waited for in vain.
        """
        config = self.config
        self.progress.starts += 1
        with ExitStack() as stack:
            ticks = itertools.islice(read_ticks(config.feed.format, config.feed.source), config.feed.limit or None)
            self.outbox = stack.enter_context(Outbox(config.folder / "orders.outbox", multiplier_of=self._multiplier))
            self._server = stack.enter_context(PaperServer(config.server, config.folder))
            self.monitor = stack.enter_context(SlaMonitor([config.sla.objective()], flatten=self._flatten))
            self._client = stack.enter_context(self._connected())
            self.broker = PaperBroker(config.venue, instruments=config.instruments, account=self._account())
            self._warm(ticks)
            channel = stack.enter_context(service_channel(self._server.service))
            self.gateway = OrderGateway(
                self._client,
                self.broker,
                self.outbox,
                channel,
                monitor=self.monitor,
                plan=config.plan.of,
                on_event=self._on_event,
                clock=self.broker.now_ns,
                settings=GatewaySettings(step_every_s=0.0, reconcile_every_s=0.0),
            )
            with self.gateway:
                for tick in ticks:
                    self._take(tick)
                return self._finish()

    # -- one tick ------------------------------------------------------------------------------------------------------

    def _take(self, tick: market_pb2.Tick) -> None:
        progress = self.progress
        self.broker.on_tick(tick)
        self.gateway.step()
        self._settle()
        outcome = self._ask(tick)
        if outcome is not None:
            progress.reasons[reason_name(outcome.response.signal.reason)] += 1
            if outcome.refusal is not None:
                progress.refusals[outcome.refusal.value] += 1
        self._settle()
        progress.asked += 1
        progress.last_ns = self.broker.now_ns()
        if tick.HasField("trade"):
            progress.prices[tick.symbol] = tick.trade.price
        progress.save()
        if progress.last_ns - self._reconcile_ns >= self.config.reconcile_every_s * 1e9:
            self._reconcile()
        self._on_tick(self)

    def _ask(self, tick: market_pb2.Tick) -> Outcome | None:
        """Ask about a tick, again where the server was gone: it knows the request by its id, and the tick too."""
        request_id = self.progress.request_id(self.progress.asked)
        while True:
            try:
                outcome = self.gateway.ask(tick, request_id=request_id)
            except ServerUnavailable as error:
                self.progress.statuses[error.status_code.name] += 1
                self._await_server(error)
            except CallError as error:
                self.progress.statuses[error.status_code.name] += 1
                return None
            else:
                self.progress.statuses["OK"] += 1
                return outcome

    def _settle(self) -> None:
        """Have the server take every report in."""
        while self.outbox.waiting and not self.gateway.reporter.flush(1.0):
            self._await_server(self.gateway.reporter.last_error)

    def _await_server(self, why: Exception | None) -> None:
        """Wait until the server answers and its desk is heard of; raises ServerUnavailable if not in time."""
        due_s = time.monotonic() + self.config.server.wait_s
        while time.monotonic() < due_s:
            time.sleep(_LOOK_S)
            self._server.ensure()
            with suppress(ServerUnavailable):
                self._client.connect(1.0)
                if self.gateway.desk.view.state is not DeskState.LOST:
                    return
        raise ServerUnavailable(
            f"{self._server.target} did not come back within {self.config.server.wait_s:g} s ({why})",
            status_code=grpc.StatusCode.UNAVAILABLE,
        )

    def _reconcile(self) -> Reconciliation:
        self._reconcile_ns = self.broker.now_ns()
        return self.gateway.reconcile()

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def _connected(self) -> SignalClient:
        calls = self.config.calls
        client = SignalClient(
            self._server.target,
            deadline_s=calls.deadline_ms / 1e3,
            budget_us=calls.budget_us,
            model=calls.model,
            latency=self.monitor,
        )
        client.connect(self.config.server.wait_s)
        return client

    def _account(self) -> Account:
        """What the venue has as it begins: what was filled before, of which the outbox tells."""
        held = {symbol: Holding(position=one.position) for symbol, one in self.outbox.account}
        return Account(self._multiplier, held)

    def _warm(self, ticks: itertools.islice[market_pb2.Tick]) -> None:
        """Have the venue see the ticks that an earlier process asked about."""
        for tick in itertools.islice(ticks, self.progress.asked):
            self.broker.on_tick(tick)

    def _finish(self) -> PaperResult:
        self.gateway.cancel_all()
        self.broker.advance(self.broker.now_ns() + _RUN_OFF_NS)
        self._settle()
        found = self._reconcile()
        self.progress.save()
        sla = record_of(self.monitor, "unary, 1 in flight, 1 connection")
        write_record(self.config.folder / "sla.json", sla)
        return PaperResult(self.progress, self.outbox.account, found, sla, len(self.outbox.refused()))

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, OrderEnded):
            self.progress.ends[event.state.value] += 1

    def _flatten(self, _breach: Breach) -> None:
        self.gateway.flatten()

    def _multiplier(self, symbol: str) -> float:
        found = self.config.instruments.get(symbol)
        return 1.0 if found is None else found.multiplier
