"""The gateway: what it executes, and everything that it must not."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.execution.scripted_desk import ACTIVE, HALTED, REDUCING, ScriptedDesk

from tickgate.v1 import market_pb2, signal_pb2
from tickgate.v1 import portfolio_pb2 as pb
from tickgate_client import AsyncSignalClient, ContractBroken, DeadlineExceeded, SignalClient
from tickgate_client.execution import (
    Approval,
    AsyncOrderGateway,
    DeskChanged,
    DeskState,
    FixedLatency,
    GatewayFailed,
    GatewaySettings,
    NewOrder,
    OrderEnded,
    OrderGateway,
    OrderState,
    Outbox,
    OutboxUnwritable,
    Outcome,
    PaperBroker,
    PaperTerms,
    Reconciliation,
    Refusal,
    ReportRefused,
    Schedule,
    Side,
    twap,
)
from tickgate_client.sla import Objective, SlaMonitor

S = 1_000_000_000
LATE_S = 30.0
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.min_reconnect_backoff_ms", 100)]
TERMS = PaperTerms(latency=FixedLatency(0.0), impact=0.0, participation=math.inf, half_spread_bps=0.0)
SETTINGS = GatewaySettings(step_every_s=0.0, settle_s=0.02, report_timeout_s=LATE_S)


def until(there: Callable[[], object]) -> None:
    give_up = time.monotonic() + LATE_S
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def tick(at_ns: int, price: float = 100.0, symbol: str = "A") -> market_pb2.Tick:
    return market_pb2.Tick(symbol=symbol, exchange_ts_ns=at_ns, trade=market_pb2.Trade(price=price, size=10.0))


@dataclass
class Signals:
    """Approves what a test asks for; HOLD otherwise."""

    changes: dict[str, Any] | None = None
    repeated: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        answer = signal_pb2.PredictResponse(
            request_id=request.request_id, symbol=request.tick.symbol, repeated=self.repeated
        )
        if self.changes is None:
            answer.signal.action = signal_pb2.ACTION_HOLD
            return answer
        order = {
            "action": signal_pb2.ACTION_BUY,
            "size": 2.0,
            "limit_price": 101.0,
            "valid_for_us": 5_000_000,
            "approved": True,
            "order_id": next(self.numbers),
            **self.changes,
        }
        answer.signal.CopyFrom(signal_pb2.Signal(**order))
        return answer


@dataclass
class Desk:
    """A gateway between a scripted server and a paper venue; time stands still unless a test moves it."""

    server: ScriptedDesk
    signals: Signals
    broker: PaperBroker
    outbox: Outbox
    gateway: OrderGateway
    heard: list[Any]
    now_ns: int = S

    def ask(self, price: float = 100.0, symbol: str = "A", **order: Any) -> Outcome:
        """Feed a tick to the venue, ask about it, and let the venue get what was sent."""
        self.signals.changes = order or None
        self.now_ns += S // 100
        found = tick(self.now_ns, price, symbol)
        self.broker.on_tick(found)
        outcome = self.gateway.ask(found)
        self.broker.advance(self.now_ns)
        return outcome

    def buy(self, size: float = 2.0, **order: Any) -> Outcome:
        return self.ask(size=size, **order)

    def pass_time(self, by_ns: int, price: float | None = None) -> None:
        self.now_ns += by_ns
        if price is None:
            self.broker.advance(self.now_ns)
        else:
            self.broker.on_tick(tick(self.now_ns, price))
        self.gateway.step()

    def settled(self) -> ScriptedDesk:
        """The server, once it has every report."""
        assert self.gateway.reporter.flush(LATE_S)
        return self.server

    def ended(self) -> list[tuple[int, OrderState, float]]:
        return [(one.approval.order_id, one.state, one.filled) for one in self.heard if isinstance(one, OrderEnded)]


@contextmanager
def trading(
    path: Path,
    server: ScriptedDesk,
    *,
    terms: PaperTerms = TERMS,
    broker: PaperBroker | None = None,
    numbers: Iterator[int] | None = None,
    settings: GatewaySettings = SETTINGS,
    **options: Any,
) -> Iterator[Desk]:
    signals = Signals(numbers=numbers or itertools.count(1))
    server.signals.answer = signals
    broker = broker or PaperBroker(terms)
    heard: list[Any] = []
    with (
        Outbox(path / "box") as outbox,
        grpc.insecure_channel(server.target, options=OPTIONS) as channel,
        SignalClient(server.target, deadline_s=LATE_S, latency=options.get("monitor")) as client,
        OrderGateway(
            client,
            broker,
            outbox,
            channel,
            **{"clock": broker.now_ns, "on_event": heard.append, "settings": settings, **options},
        ) as gateway,
    ):
        yield Desk(server, signals, broker, outbox, gateway, heard, max(broker.now_ns(), S))


@pytest.fixture
def server() -> Iterator[ScriptedDesk]:
    found = ScriptedDesk().start()
    yield found
    found.stop()


@pytest.fixture
def desk(tmp_path: Path, server: ScriptedDesk) -> Iterator[Desk]:
    with trading(tmp_path, server) as found:
        yield found


# -- what is executed --------------------------------------------------------------------------------------------------


def test_an_approved_order_is_worked_and_every_step_of_it_reported(desk: Desk) -> None:
    outcome = desk.buy()
    assert outcome.refusal is None
    assert outcome.approval is not None
    assert (outcome.approval.size, outcome.approval.arrival_price) == (2.0, 100.0)
    server = desk.settled()
    assert server.states(1) == ["ACCEPTED"]
    assert [(one.order_id, one.size, one.price, one.symbol) for one in server.fills.values()] == [(1, 2.0, 100.0, "A")]
    assert desk.broker.positions() == desk.outbox.positions() == server.positions() == {"A": 2.0}
    assert desk.ended() == [(1, OrderState.FILLED, 2.0)]
    assert desk.gateway.working == []


def test_hold_is_no_order_and_no_refusal(desk: Desk) -> None:
    outcome = desk.ask()
    assert (outcome.approval, outcome.refusal) == (None, None)
    assert desk.settled().reports == []


def test_an_order_that_expires_at_the_venue_is_reported_so(desk: Desk) -> None:
    desk.buy(limit_price=90.0)
    desk.pass_time(6 * S)
    assert desk.settled().states(1) == ["ACCEPTED", "EXPIRED"]
    assert desk.ended() == [(1, OrderState.EXPIRED, 0.0)]


def test_an_order_that_the_venue_rejects_is_reported_so(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server, terms=replace(TERMS, reject_probability=1.0)) as desk:
        desk.buy()
        assert desk.settled().states(1) == ["REJECTED"]


def test_a_schedule_sends_children_over_time_within_the_approval(tmp_path: Path, server: ScriptedDesk) -> None:
    def plan(approval: Approval) -> Schedule:
        return twap(approval.size, 4 * S, 4)

    with trading(tmp_path, server, plan=plan) as desk:
        desk.buy(size=4.0)
        for _ in range(4):
            desk.pass_time(S, price=100.0)
            desk.broker.advance(desk.now_ns)
        fills = list(desk.settled().fills.values())
        assert [(one.order_id, one.size) for one in fills] == [(1, 1.0)] * 4
        assert server.states(1) == ["ACCEPTED"]
        assert desk.ended() == [(1, OrderState.FILLED, 4.0)]


def test_asyncio_gateways_do_the_same(tmp_path: Path, server: ScriptedDesk) -> None:
    server.signals.answer = Signals({"size": 2.0})
    broker = PaperBroker(TERMS)

    async def run() -> Outcome:
        with Outbox(tmp_path / "box") as outbox, grpc.insecure_channel(server.target, options=OPTIONS) as channel:
            async with (
                AsyncSignalClient(server.target, deadline_s=LATE_S) as client,
                AsyncOrderGateway(client, broker, outbox, channel, clock=broker.now_ns, settings=SETTINGS) as gateway,
            ):
                broker.on_tick(tick(S))
                outcome = await gateway.ask(tick(S))
                broker.advance(2 * S)
                return outcome

    outcome = asyncio.run(run())
    assert outcome.approval is not None
    assert server.positions() == {"A": 2.0}


# -- what is not -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0.0},
        {"size": math.nan},
        {"limit_price": math.inf},
        {"order_id": 0},
        {"action": signal_pb2.ACTION_HOLD},
    ],
)
def test_an_approval_that_is_no_order_is_not_executed(desk: Desk, changes: dict[str, Any]) -> None:
    assert desk.ask(**changes).refusal is Refusal.SIGNAL_INVALID
    assert desk.broker.open_orders() == []


def test_a_repeated_answer_is_not_executed_and_the_first_ones_order_is_left_alone(desk: Desk) -> None:
    desk.buy(limit_price=90.0)
    desk.signals.numbers = itertools.count(1)
    desk.signals.repeated = True
    assert desk.buy(limit_price=90.0).refusal is Refusal.SIGNAL_REPEATED
    assert [one.order.order_id for one in desk.broker.open_orders()] == ["1-1"]
    assert desk.settled().states(1) == ["ACCEPTED"]


def test_an_order_id_that_comes_again_is_not_executed_also_after_a_restart(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    with trading(tmp_path, server) as desk:
        desk.buy()
        desk.signals.numbers = itertools.count(1)
        assert desk.buy().refusal is Refusal.SIGNAL_DUPLICATE
        broker = desk.broker
    with trading(tmp_path, server, broker=broker) as desk:
        assert desk.buy().refusal is Refusal.SIGNAL_DUPLICATE
        assert desk.settled().positions() == {"A": 2.0}


def test_a_signal_is_late_by_our_own_clock_counted_from_before_it_was_asked_for(desk: Desk) -> None:
    answer = Signals({"valid_for_us": 1_000_000})(signal_pb2.PredictRequest(tick=tick(S)))
    desk.pass_time(S)
    asked_ns = desk.broker.now_ns() - S
    assert desk.gateway.take(answer, asked_ns).refusal is Refusal.SIGNAL_EXPIRED
    assert desk.settled().states(1) == ["CANCELLED"]
    answer.signal.order_id = 2
    assert desk.gateway.take(answer, asked_ns + 1).refusal is None


def test_a_signal_without_validity_is_late_at_once(desk: Desk) -> None:
    assert desk.ask(valid_for_us=0).refusal is Refusal.SIGNAL_EXPIRED


def test_an_answer_to_something_else_is_not_executed(desk: Desk) -> None:
    def other(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        answer = Signals({"size": 1.0})(request)
        answer.request_id = "another"
        return answer

    desk.server.signals.answer = other
    with pytest.raises(ContractBroken):
        desk.gateway.ask(tick(2 * S))
    assert desk.broker.open_orders() == []


def test_an_answer_after_the_deadline_is_not_executed(desk: Desk) -> None:
    def slow(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        time.sleep(0.3)  # longer than the client waits: what the test is about
        return Signals({"size": 1.0})(request)

    desk.server.signals.answer = slow
    with SignalClient(desk.server.target, deadline_s=0.05) as client:
        desk.gateway.client = client
        with pytest.raises(DeadlineExceeded):
            desk.gateway.ask(tick(2 * S))
    assert desk.broker.open_orders() == []


def test_before_it_begins_and_after_it_ends_nothing_is_executed(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server) as desk:
        gateway = desk.gateway
        gateway.end()
        answer = Signals({"size": 1.0})(signal_pb2.PredictRequest(tick=tick(S)))
        assert gateway.take(answer, S).refusal is Refusal.GATEWAY_CLOSED


# -- the desk ----------------------------------------------------------------------------------------------------------


def test_a_halt_cancels_what_works_and_lets_nothing_pass_until_it_is_taken_back(desk: Desk) -> None:
    desk.buy(limit_price=90.0)
    desk.server.set_state(HALTED, "the test halts")
    until(lambda: any(isinstance(one, DeskChanged) and one.view.state is DeskState.HALTED for one in desk.heard))
    desk.pass_time(1)
    assert desk.ended() == [(1, OrderState.CANCELLED, 0.0)]
    assert desk.buy().refusal is Refusal.DESK_HALTED
    assert desk.buy().text == "the test halts"
    assert desk.settled().states(1) == ["ACCEPTED", "CANCELLED"]
    assert desk.server.states(2) == ["CANCELLED"]
    desk.server.set_state(ACTIVE)
    until(lambda: desk.gateway.desk.view.state is DeskState.ACTIVE)
    assert desk.buy().refusal is None


def test_a_reducing_desk_lets_only_pass_what_takes_off_what_the_venue_has(desk: Desk) -> None:
    desk.buy(size=3.0)
    desk.server.set_state(REDUCING)
    until(lambda: desk.gateway.desk.view.state is DeskState.REDUCING)
    sell = {"action": signal_pb2.ACTION_SELL, "limit_price": 99.0, "reducing": True}
    assert desk.buy().refusal is Refusal.DESK_REDUCING
    assert desk.ask(**sell, size=3.5).refusal is Refusal.DESK_REDUCING
    assert desk.ask(**{**sell, "reducing": False}, size=1.0).refusal is Refusal.DESK_REDUCING
    assert desk.ask(**sell, size=3.0).refusal is None
    assert desk.broker.positions() == {}


def test_exits_under_way_count_against_what_is_held(desk: Desk) -> None:
    desk.buy(size=3.0)
    desk.server.set_state(REDUCING)
    until(lambda: desk.gateway.desk.view.state is DeskState.REDUCING)
    sell = {"action": signal_pb2.ACTION_SELL, "limit_price": 110.0, "reducing": True}
    assert desk.ask(**sell, size=2.0).refusal is None
    assert desk.ask(**sell, size=2.0).refusal is Refusal.DESK_REDUCING
    assert desk.ask(**sell, size=1.0).refusal is None


def test_a_lost_server_cancels_what_works_and_counts_as_halted_until_it_is_heard_of(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    objective = Objective("o", 1e7, 0.9, stall_us=1e8, clean_s=0.01, burn_rules=())
    with (
        SlaMonitor([objective]) as monitor,
        trading(tmp_path, server, watch_lease_s=0.6, monitor=monitor) as desk,
    ):
        desk.buy(limit_price=90.0)
        answer = desk.signals(signal_pb2.PredictRequest(tick=tick(S)))
        port = server.stop()
        until(lambda: desk.gateway.desk.view.state is DeskState.LOST)
        until(lambda: any(isinstance(one, DeskChanged) and one.view.state is DeskState.LOST for one in desk.heard))
        assert not monitor.may_add_risk
        desk.pass_time(1)
        assert desk.ended() == [(1, OrderState.CANCELLED, 0.0)]
        assert desk.gateway.take(answer, desk.now_ns).refusal is Refusal.DESK_LOST
        server.start(port)
        until(lambda: desk.gateway.desk.view.state is DeskState.ACTIVE)
        assert desk.settled().states(1)[-1] == "CANCELLED"
        assert not desk.gateway.positions.agree
        until(lambda: desk.gateway.step() or desk.gateway.positions.agree)
        assert desk.server.positions() == desk.outbox.positions()


def test_a_desk_that_says_nothing_any_more_is_lost(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server, watch_lease_s=0.3) as desk:
        desk.buy(limit_price=90.0)
        server.mute()
        until(lambda: desk.gateway.desk.view.state is DeskState.LOST)
        until(lambda: desk.gateway.working == [] or desk.pass_time(1))
        assert desk.ended() == [(1, OrderState.CANCELLED, 0.0)]


# -- the SLA -----------------------------------------------------------------------------------------------------------


def test_a_breach_holds_new_risk_before_the_next_order_and_lets_exits_pass(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    objective = Objective("signals", limit_us=1e7, target=0.9, stall_us=2e7, clean_s=1.0, burn_rules=())
    now = [S]
    with (
        SlaMonitor([objective], clock=lambda: now[0]) as monitor,
        trading(tmp_path, server, monitor=monitor) as desk,
    ):
        assert desk.buy().refusal is None
        monitor.record(int(3e10))  # a call of 30 s
        refused = desk.buy()
        assert refused.refusal is Refusal.SLA_HELD
        assert "signals: LATENCY_STALL" in refused.text
        assert desk.ask(action=signal_pb2.ACTION_SELL, limit_price=99.0, reducing=True, size=2.0).refusal is None
        monitor.look()
        now[0] += S + 1
        desk.ask()  # a good call, begun after everything that was wrong
        monitor.look()
        assert desk.buy().refusal is None


def test_a_breach_keeps_the_next_child_of_a_schedule_back(tmp_path: Path, server: ScriptedDesk) -> None:
    objective = Objective("signals", limit_us=1e7, target=0.9, stall_us=2e7, clean_s=3600.0, burn_rules=())
    with (
        SlaMonitor([objective]) as monitor,
        trading(tmp_path, server, monitor=monitor, plan=lambda approval: twap(approval.size, 2 * S, 2)) as desk,
    ):
        desk.buy()
        monitor.record(int(3e10))
        desk.pass_time(S, price=100.0)
        desk.pass_time(S, price=100.0)
        assert desk.settled().positions() == {"A": 1.0}
        desk.pass_time(4 * S)
        assert desk.ended() == [(1, OrderState.EXPIRED, 1.0)]


def test_flatten_cancels_and_closes_every_position_and_tells_the_fills_alone(desk: Desk) -> None:
    desk.buy(size=3.0)
    desk.ask(symbol="B", action=signal_pb2.ACTION_SELL, limit_price=99.0, size=1.0)
    desk.buy(limit_price=90.0)
    desk.gateway.flatten()
    assert desk.broker.positions() == {"A": 3.0, "B": -1.0}
    desk.pass_time(S)
    desk.pass_time(S)
    desk.pass_time(S)
    assert desk.broker.positions() == {}
    assert desk.settled().positions() == {}
    closing = [(one.symbol, one.side, one.size) for one in desk.server.fills.values() if one.order_id == 0]
    assert sorted(closing) == [("A", 2, 3.0), ("B", 1, 1.0)]
    assert desk.ended()[-1] == (3, OrderState.CANCELLED, 0.0)


def test_a_halt_also_cancels_orders_that_close_positions(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server, terms=replace(TERMS, participation=0.3)) as desk:
        desk.buy(size=3.0)  # all that the traded volume allows: what closes it waits
        desk.gateway.flatten()
        desk.pass_time(1)
        assert [one.order.size for one in desk.broker.open_orders()] == [3.0]
        server.set_state(HALTED)
        until(lambda: any(isinstance(one, DeskChanged) and one.view.state is DeskState.HALTED for one in desk.heard))
        desk.pass_time(S, price=100.0)
        assert desk.broker.open_orders() == []
        assert desk.broker.positions() == {"A": 3.0}


def test_while_a_position_is_being_closed_no_exit_adds_to_it(desk: Desk) -> None:
    desk.buy(size=3.0)
    desk.gateway.flatten()
    desk.server.set_state(REDUCING)
    until(lambda: desk.gateway.desk.view.state is DeskState.REDUCING)
    answer = Signals({"action": signal_pb2.ACTION_SELL, "limit_price": 99.0, "reducing": True, "size": 1.0})
    found = answer(signal_pb2.PredictRequest(tick=tick(S)))
    found.signal.order_id = 9
    assert desk.gateway.take(found, desk.now_ns).refusal is Refusal.DESK_REDUCING


def test_a_reducing_schedule_goes_on_while_the_desk_reduces(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server, plan=lambda approval: twap(approval.size, 3 * S, 3)) as desk:
        desk.buy(size=3.0)
        for _ in range(3):
            desk.pass_time(S, price=100.0)
            desk.broker.advance(desk.now_ns)
        assert desk.broker.positions() == {"A": 3.0}
        desk.ask(action=signal_pb2.ACTION_SELL, limit_price=99.0, reducing=True, size=3.0)
        server.set_state(REDUCING)
        until(lambda: desk.gateway.desk.view.state is DeskState.REDUCING)
        for _ in range(3):
            desk.pass_time(S, price=100.0)
            desk.broker.advance(desk.now_ns)
        assert desk.broker.positions() == {}


# -- positions ---------------------------------------------------------------------------------------------------------


def test_positions_that_differ_stop_new_risk_until_they_agree(tmp_path: Path, server: ScriptedDesk) -> None:
    server.opening = {"A": 5.0}
    with trading(tmp_path, server) as desk:
        found = [one for one in desk.heard if isinstance(one, Reconciliation)]
        assert [(row.symbol, row.server, row.recorded, row.venue) for row in found[0].differences] == [
            ("A", 5.0, 0.0, 0.0)
        ]
        assert desk.buy().refusal is Refusal.POSITIONS_DIFFER
        server.opening = {}
        assert desk.gateway.reconcile().agrees
        assert desk.buy().refusal is None
        assert desk.gateway.reconcile().agrees


def test_a_fill_that_the_venue_made_behind_our_back_is_noticed(desk: Desk) -> None:
    desk.ask()
    desk.broker.submit(NewOrder("manual", "A", Side.BUY, 1.0, 200.0, S))
    desk.ask()
    found = desk.gateway.reconcile()
    assert [(row.server, row.recorded, row.venue) for row in found.differences] == [(0.0, 0.0, 1.0)]
    assert desk.buy().refusal is Refusal.POSITIONS_DIFFER


def test_positions_of_others_are_left_out_where_symbols_are_named(tmp_path: Path, server: ScriptedDesk) -> None:
    server.opening = {"Z": 5.0}
    with trading(tmp_path, server, settings=replace(SETTINGS, symbols=frozenset({"A"}))) as desk:
        assert desk.buy().refusal is None


def test_without_an_answer_of_the_server_nothing_is_known_and_no_risk_taken(desk: Desk) -> None:
    desk.gateway.positions.report_timeout_s = 0.05
    desk.server.refuse = lambda _report: pb.ReportResponse(code=14)
    desk.buy()
    found = desk.gateway.reconcile()
    assert (found.conclusive, found.agrees) == (False, False)
    assert "has not taken 2 reports" in found.text
    assert desk.buy().refusal is Refusal.POSITIONS_DIFFER
    desk.server.refuse = lambda _report: None
    desk.gateway.positions.report_timeout_s = LATE_S
    assert desk.gateway.reconcile().agrees


def test_a_report_that_the_server_refuses_stops_new_risk_until_positions_were_compared(desk: Desk) -> None:
    desk.server.refuse = lambda report: pb.ReportResponse(code=6, message="no") if report.HasField("fill") else None
    desk.buy()
    until(lambda: any(isinstance(one, ReportRefused) for one in desk.heard))
    assert desk.buy().refusal is Refusal.POSITIONS_DIFFER
    assert not desk.gateway.reconcile().agrees


# -- after a restart ---------------------------------------------------------------------------------------------------


def test_what_still_works_after_a_restart_is_taken_back_and_what_was_filled_meanwhile_recorded(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    """The venue outlives the gateway, as a real one does."""
    broker = PaperBroker(TERMS)
    with trading(tmp_path, server, broker=broker) as desk:
        desk.buy(limit_price=90.0)
        desk.buy(limit_price=80.0)
        desk.settled()
        # As if it had died here: nobody hears what the venue says from now on.
        desk.gateway._unsubscribe()
        desk.gateway.cancel_all = lambda **_: None  # type: ignore[method-assign]
    broker.on_tick(tick(S + S // 2, 85.0))
    assert broker.positions() == {"A": 2.0}
    with trading(tmp_path, server, broker=broker) as desk:
        assert desk.outbox.positions() == {"A": 2.0}
        desk.now_ns = 2 * S
        desk.pass_time(1)
        assert desk.settled().states(2) == ["ACCEPTED", "CANCELLED"]
        assert server.positions() == {"A": 2.0}
        assert desk.outbox.begun() == []
        assert desk.gateway.reconcile().agrees


def test_orders_of_a_venue_that_forgot_them_are_told_to_the_server_as_cancelled(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    with trading(tmp_path, server) as desk:
        desk.buy(limit_price=90.0)
        desk.settled()
        desk.gateway._unsubscribe()
        desk.gateway.cancel_all = lambda **_: None  # type: ignore[method-assign]
    with trading(tmp_path, server, numbers=itertools.count(5)) as desk:
        assert desk.settled().states(1) == ["ACCEPTED", "CANCELLED"]
        assert desk.buy().refusal is None


# -- what cannot be recorded, and what an adapter does wrong -----------------------------------------------------------


def test_once_something_cannot_be_recorded_nothing_is_executed_any_more(desk: Desk) -> None:
    desk.buy(limit_price=90.0)
    desk.outbox.close()
    for _ in range(2):
        assert desk.buy().refusal is Refusal.OUTBOX_UNWRITABLE
    assert desk.broker.open_orders() == []
    failed = [one.error for one in desk.heard if isinstance(one, GatewayFailed)]
    assert [type(error) for error in failed] == [OutboxUnwritable]


class Failing(PaperBroker):
    """Its connection breaks as an order is sent: it may be out."""

    broken = False

    def submit(self, order: NewOrder) -> None:
        super().submit(order)
        if self.broken:
            raise ConnectionError("reset by peer")

    def positions(self) -> Mapping[str, float]:
        return super().positions()


def test_an_order_that_may_have_been_sent_is_cancelled_and_what_it_did_is_booked(
    tmp_path: Path, server: ScriptedDesk
) -> None:
    broker = Failing(TERMS)
    with trading(tmp_path, server, broker=broker) as desk:
        broker.broken = True
        refused = desk.buy()
        assert (refused.refusal, refused.text) == (Refusal.ENGINE_FAILED, "reset by peer")
        assert desk.settled().positions() == {"A": 2.0}
        assert desk.gateway.reconcile().agrees


def test_an_order_that_the_engine_does_not_take_is_given_back(tmp_path: Path, server: ScriptedDesk) -> None:
    with trading(tmp_path, server, settings=replace(SETTINGS, prefix="x" * 40)) as desk:
        assert desk.buy().refusal is Refusal.ENGINE_REFUSED
        assert desk.settled().states(1) == ["CANCELLED"]


def test_a_full_outbox_takes_no_new_order(desk: Desk) -> None:
    desk.outbox.capacity = 1
    desk.server.refuse = lambda _report: pb.ReportResponse(code=14)
    desk.buy()
    assert desk.buy().refusal is Refusal.OUTBOX_FULL
    desk.server.refuse = lambda _report: None
    assert desk.settled().states(2) == ["CANCELLED"]


def test_its_own_thread_steps_and_compares(tmp_path: Path, server: ScriptedDesk) -> None:
    settings = replace(SETTINGS, step_every_s=0.005, reconcile_every_s=0.01)
    with trading(tmp_path, server, settings=settings, plan=lambda approval: twap(approval.size, 2 * S, 2)) as desk:
        desk.buy()
        desk.broker.advance(desk.now_ns + S)
        until(lambda: len(desk.broker.open_orders()) == 1)
        server.opening = {"A": 9.0}
        until(lambda: any(isinstance(one, Reconciliation) and one.differences for one in desk.heard))
