"""The portfolio against a slow model: the same operations at random, everything visible compared after each."""

import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.desk.desk_child import CALENDARS as CAMPAIGN_CALENDARS
from tests.desk.desk_child import LIMITS as CAMPAIGN_LIMITS
from tests.desk.desk_child import Driver, apply, close, models_of, new_engine, publish
from tests.risk.slow_portfolio import DAY_NS, GuardedPortfolio, Refused, SlowPortfolio, assert_same
from tests.support.messages import SECOND_NS, START_NS

from tickgate_server.desk import Desk
from tickgate_server.desk_store import restore
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.records import TICK, Decision, Request, Stage
from tickgate_server.risk import book as columns
from tickgate_server.risk import portfolio, valuation
from tickgate_server.risk.book import ORDERS_LIMIT, Book
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.feed import Found, exposures_of
from tickgate_server.risk.gate import OUT_VALUES
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import (
    FillReport,
    FillReused,
    OrderReport,
    OrderState,
    OrderUnknown,
    PositionSet,
    Side,
    TableFull,
)
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.market import TRADE
from tickgate_server.ticks.symbols import SymbolTable

SYMBOLS = ("A", "B", "C", "OUTSIDE")
INSIDE = SYMBOLS[:3]  # of the covariance
CALENDARS = {"B": "XNYS", "C": "CMES"}
LIMITS = Limits(
    max_position_size=25.0,
    max_position_notional=3_000.0,
    max_gross_exposure=4_500.0,
    max_net_exposure=3_500.0,
    # No sum of quarters is either: which side of a limit a sum lies on is not a matter of the order of adding.
    max_daily_loss=500.1,
    max_drawdown=400.1,
)
COVARIANCE = np.array([[4.0, 1.0, -1.0], [1.0, 3.0, 0.5], [-1.0, 0.5, 2.0]]) * 1e-4
OPEN = (OrderState.RESERVED, OrderState.ACCEPTED)


class Clock:
    """The desk's wall clock."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def new_desk(
    clock: Clock | None = None, journal: JournalWriter | None = None, limits: Limits = LIMITS, capacity: int = 8
) -> Desk:
    """A desk by itself; its symbols of `24/7` get their rows as they come."""
    known = {symbol: Instrument(symbol=symbol, calendar=calendar) for symbol, calendar in CALENDARS.items()}
    table = SymbolTable(Universe(known, closed=False), capacity)
    prices = np.full((capacity, 8), np.nan)
    book = Book(capacity, prices, table.contracts, checks=len(CHECKS), out=OUT_VALUES)
    desk = Desk(book, table, limits, clock_ns=clock, journal=journal)
    table.on_row = desk.add_row
    return desk


def check_book(desk: Desk) -> None:
    """Every sum, count and list in the arrays follows from the orders and the rows."""
    book = desk.book
    state, rows, row_facts, facts, orders = book.state, book.rows, book.facts, book.order_facts, book.orders
    used = int(state[columns.UNUSED])
    by_state: dict[int, list[int]] = {}
    for slot in range(used):
        by_state.setdefault(int(facts[slot, columns.ORDER_STATE]), []).append(slot)
    opened = sorted(slot for one in OPEN for slot in by_state.get(one, ()))
    ended = sorted(slot for one, slots in by_state.items() if one not in OPEN for slot in slots)
    reserved = by_state.get(OrderState.RESERVED, [])

    assert state[columns.OPEN_ORDERS] == len(opened)
    by_expiry = walk(book, columns.EXPIRY_HEAD, columns.EXPIRY_TAIL)
    assert sorted(by_expiry) == sorted(reserved)
    expiries = [int(facts[slot, columns.EXPIRES_NS]) for slot in by_expiry]
    assert expiries == sorted(expiries)
    assert sorted(walk(book, columns.ENDED_HEAD, columns.ENDED_TAIL)) == ended
    assert desk._slot_of == {int(facts[slot, columns.ORDER_ID]): slot for slot in range(used)}

    highest = int(state[columns.HIGHEST_ROW])
    for row in range(highest):
        for side, units, count in (
            (1.0, columns.OPEN_BUYS, columns.BUY_ORDERS),
            (-1.0, columns.OPEN_SELLS, columns.SELL_ORDERS),
        ):
            own = [
                slot
                for slot in opened
                if facts[slot, columns.ORDER_ROW] == row and orders[slot, columns.SIGNED_SIZE] * side > 0.0
            ]
            assert row_facts[row, count] == len(own)
            assert rows[row, units] == sum(orders[slot, columns.REMAINING] for slot in own)
    pnl = rows[:highest, columns.REALISED] + rows[:highest, columns.UNREALISED]
    pnl -= rows[:highest, columns.UNREALISED_BASE]
    of = row_facts[:highest, columns.CALENDAR]
    sums = [pnl[of == number].sum() for number in range(len(book.calendars))]
    np.testing.assert_allclose(book.sessions[:, columns.SESSION_PNL], sums, rtol=1e-9, atol=1e-7)
    pnls, peaks = book.sessions.T.tolist()
    assert repr(book.account[[columns.PNL, columns.PEAK]].tolist()) == repr([sum(pnls), sum(peaks)])  # NaN is NaN
    assert not book.account[columns.PEAK] < book.account[columns.PNL]
    assert state[columns.NEXT_SESSION_NS] == book.session_facts[:, columns.SESSION_END_NS].min()

    notional = rows[:highest, columns.NOTIONAL]
    up, down = rows[:highest, columns.UP_NOTIONAL].sum(), rows[:highest, columns.DOWN_NOTIONAL].sum()
    found = book.account[[columns.GROSS, columns.NET_UP, columns.NET_DOWN]]
    np.testing.assert_allclose(found, [np.abs(notional).sum(), up, down], rtol=1e-9, atol=1e-9)
    exposed = notional != 0.0
    members = row_facts[:highest, columns.MEMBER]
    assert state[columns.EXPOSED] == exposed.sum()
    assert state[columns.OUTSIDERS] == (exposed & (members < 0)).sum()
    weights = np.zeros(len(book.exposures.weights))
    weights[members[members >= 0]] = notional[members >= 0]
    np.testing.assert_array_equal(book.exposures.weights, weights)
    np.testing.assert_allclose(book.exposures.sigma_w, book.exposures.covariance @ weights, rtol=1e-9, atol=1e-9)


def walk(book: Book, head: int, tail: int) -> list[int]:
    """Slots of one of the lists, which is the same from both ends."""
    facts = book.order_facts
    found: list[int] = []
    slot, before = int(book.state[head]), -1
    while slot >= 0:
        assert facts[slot, columns.PREVIOUS] == before
        found.append(slot)
        slot, before = int(facts[slot, columns.NEXT]), slot
    assert book.state[tail] == before
    return found


def session_ends_ns(desk: Desk) -> dict[str, int]:
    ends_ns = desk.book.session_facts[:, columns.SESSION_END_NS].tolist()
    return {calendar.name: end_ns for calendar, end_ns in zip(desk.book.calendars, ends_ns, strict=True)}


def at_ns(utc: str) -> int:
    return int(np.datetime64(utc, "ns").astype(np.int64))


# In New York: a Friday, the eves of both changes of the clocks, of Thanksgiving with its half day and of New Year, and
# the last known session.
starts = st.sampled_from(
    [
        START_NS,
        at_ns("2025-03-07T20:59:59"),
        at_ns("2025-10-31T13:00"),
        at_ns("2025-11-26T20:00"),
        at_ns("2025-12-31T14:29:59"),
        at_ns("2039-12-30T12:00"),
    ]
)
symbols = st.sampled_from(SYMBOLS)
sizes = st.integers(1, 10).map(float)
signed_sizes = sizes.flatmap(lambda size: st.sampled_from([size, -size]))
prices = st.integers(320, 480).map(lambda quarters: quarters / 4)
picks = st.integers(0, 2**20)
reported = st.sampled_from([OrderState.ACCEPTED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED])


class Portfolios(RuleBasedStateMachine):
    """One desk without a journal, and the slow model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.journal: JournalWriter | None = None
        self.ids: list[tuple[int, str]] = []  # of every order there was, with its symbol
        self.reports: list[FillReport] = []

    @initialize(start_ns=starts)
    def open(self, start_ns: int) -> None:
        self.clock.now_ns = start_ns
        self.desk = new_desk(self.clock, self.journal)
        self.slow = SlowPortfolio(LIMITS, calendars=CALENDARS)
        data = RiskData(start_ns, INSIDE, COVARIANCE, np.zeros((0, 3)), np.full(3, 2, np.int8))
        self.desk.apply_risk_data(Found(data, "", exposures_of(data)))
        self.desk.judge_age(vouched=True)

    @rule(
        ns=st.sampled_from([0, 1, SECOND_NS, 2 * SECOND_NS, 5 * SECOND_NS, DAY_NS, 3 * DAY_NS])
        | st.integers(0, SECOND_NS)
    )
    def time_passes(self, ns: int) -> None:
        self.clock.now_ns += ns

    @precondition(lambda self: self._next_expiry_ns() > self.clock.now_ns)
    @rule(before_ns=st.integers(0, 1))
    def time_passes_until_a_reservation_ends(self, before_ns: int) -> None:
        self.clock.now_ns = self._next_expiry_ns() - before_ns

    @precondition(lambda self: self.slow.now_ns > 0)
    @rule(calendar=st.sampled_from(["24/7", *CALENDARS.values()]), before_ns=st.integers(0, 1))
    def time_passes_until_a_session_begins(self, calendar: str, before_ns: int) -> None:
        self.clock.now_ns = max(self.clock.now_ns, self.slow.session_end_ns[calendar] - before_ns)

    def _next_expiry_ns(self) -> int:
        return min((order.expires_ns for order in self.slow.open.values() if order.expires_ns), default=0)

    @rule()
    def poll(self) -> None:
        self.desk.poll()
        self.slow.poll(self.clock.now_ns)

    @rule(
        symbol=symbols,
        price=prices,
        signed=signed_sizes | st.just(0.0),
        valid_for_us=st.sampled_from([1_000_000, 5_000_000]),
    )
    def decide(self, symbol: str, price: float, signed: float, valid_for_us: int) -> None:
        """As the engine does: time passes, the trade is the mark, and what is approved is reserved."""
        desk, now_ns = self.desk, self.clock.now_ns
        row = desk.row_of(symbol)
        portfolio.advance(desk.book.table, now_ns)
        valuation.mark(desk.book.table, row, price)
        self.slow.advance(now_ns)
        self.slow.mark(symbol, price)
        order_id = self._journaled(symbol, price, signed, valid_for_us)
        if signed:
            desk.reserve(row, signed, valid_for_us, order_id)
            self.slow.reserve(order_id, symbol, signed, valid_for_us)
            self.ids.append((order_id, symbol))

    def _journaled(self, symbol: str, price: float, signed: float, valid_for_us: int) -> int:
        if self.journal is None:
            return self.desk.next_order_id()
        request = Request(input=TICK, symbol=symbol, exchange_ts_ns=START_NS, kind=TRADE, price=price, size=1.0)
        action = Action.HOLD if not signed else Action.BUY if signed > 0 else Action.SELL
        decision = Decision(action=action, size=abs(signed), valid_for_us=valid_for_us if signed else 0)
        return self.journal.append_decision(
            request, decision, stage=Stage.ENCODING, applied=True, clock_ns=self.clock.now_ns
        )

    @rule(symbol=symbols, signed=signed_sizes)
    def open_foreign_order(self, symbol: str, signed: float) -> None:
        side = Side.BUY if signed > 0 else Side.SELL
        answer = self.desk.report_order(OrderReport(symbol, OrderState.ACCEPTED, side=side, size=abs(signed)))
        self.slow.advance(self.clock.now_ns)
        self.slow.foreign(answer.order_id, symbol, signed)
        self.ids.append((answer.order_id, symbol))

    @precondition(lambda self: self.ids)
    @rule(pick=picks, state=reported, wrong=st.booleans())
    def report_order(self, pick: int, state: OrderState, *, wrong: bool) -> None:
        order_id, symbol = self.ids[-1 - pick % min(len(self.ids), 8)]
        if wrong and pick % 7 == 0:
            with pytest.raises(OrderUnknown):
                self.desk.report_order(OrderReport("B" if symbol != "B" else "C", state, order_id=order_id))
            return
        answer = self.desk.report_order(OrderReport(symbol, state, order_id=order_id))
        self.slow.advance(self.clock.now_ns)
        assert answer.changed == self.slow.report(order_id, symbol, state)
        order = self.slow.orders[order_id]
        assert (answer.state, answer.remaining) == (order.state, order.remaining if order.state in OPEN else 0.0)

    @precondition(lambda self: self.ids)
    @rule(pick=picks, size=sizes, price=prices, fee=st.sampled_from([0.0, 0.5, -0.25]))
    def fill_an_order(self, pick: int, size: float, price: float, fee: float) -> None:
        order_id, symbol = self.ids[-1 - pick % min(len(self.ids), 8)]
        side = Side.BUY if self.slow.orders[order_id].signed > 0 else Side.SELL
        self._fill(FillReport(f"fill-{len(self.reports)}", symbol, side, size, price, order_id=order_id, fee=fee))

    @rule(symbol=symbols, side=st.sampled_from(Side), size=sizes, price=prices)
    def fill_what_nobody_ordered(self, symbol: str, side: Side, size: float, price: float) -> None:
        self._fill(FillReport(f"fill-{len(self.reports)}", symbol, side, size, price))

    def _fill(self, report: FillReport) -> None:
        self.reports.append(report)
        answer = self.desk.report_fill(report)
        self.slow.advance(self.clock.now_ns)
        assert self.slow.fill(report)
        order = self.slow.orders.get(report.order_id)
        remaining = order.remaining if order is not None and order.state in OPEN else 0.0
        assert (answer.booked, answer.position) == (True, self.slow.positions[report.symbol].filled)
        assert answer.remaining == remaining

    @precondition(lambda self: self.reports)
    @rule(pick=picks, same=st.booleans())
    def repeat_a_fill(self, pick: int, *, same: bool) -> None:
        first = self.reports[pick % len(self.reports)]
        if same:
            answer = self.desk.report_fill(first)
            assert not self.slow.fill(first)
            assert (answer.booked, answer.position) == (False, self.slow.positions[first.symbol].filled)
            return
        other = FillReport(first.fill_id, first.symbol, first.side, first.size + 1.0, first.price, first.order_id)
        with pytest.raises(FillReused):
            self.desk.report_fill(other)
        with pytest.raises(Refused):
            self.slow.fill(other)

    @precondition(lambda self: self.ids)
    @rule(pick=picks)
    def lose_an_answer(self, pick: int) -> None:
        order_id, _ = self.ids[-1 - pick % min(len(self.ids), 3)]
        if self.journal is not None:
            self.journal.append_control(ControlKind.UNSENT, {"sequences": [order_id], "status": 4})
        self.desk.release_unsent([order_id])
        self.slow.release(order_id)

    @rule(symbol=symbols, size=st.integers(-20, 20).map(float), cost=prices)
    def set_positions(self, symbol: str, size: float, cost: float) -> None:
        said = [PositionSet(symbol, size, cost), PositionSet("B", 1.0, 90.0)]
        self.desk.set_positions(said, reason="a test", who="hypothesis")
        self.slow.advance(self.clock.now_ns)
        self.slow.set_positions(said)

    @rule(state=st.sampled_from([TradingState.ACTIVE, TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED]))
    def set_state(self, state: TradingState) -> None:
        self.desk.set_state(state, reason="a test", who="hypothesis")
        self.slow.set_state(state)

    @invariant()
    def the_desk_shows_what_the_model_has(self) -> None:
        view = self.desk.portfolio()
        assert_same(view, self.slow)
        assert session_ends_ns(self.desk) == self.slow.session_end_ns
        check_book(self.desk)
        if not math.isnan(self.slow.gross):
            self._check_value_at_risk(view.value_at_risk)

    def _check_value_at_risk(self, found: float) -> None:
        exposed = {symbol for symbol in self.slow.positions if self.slow.notional(symbol)}
        if exposed - set(INSIDE):
            assert math.isnan(found)
            return
        weights = np.array([self.slow.notional(name) if name in exposed else 0.0 for name in INSIDE])
        expected = 2.3263478740408408 * math.sqrt(weights @ COVARIANCE @ weights)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


class JournaledPortfolios(Portfolios):
    """One desk with a journal, from which another comes to the same portfolio in the end."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="tickgate-portfolio-")
        self.folder = Path(self._folder.name)
        self.journal = JournalWriter(self.folder, segment_records=64, retained_segments=1000)

    def teardown(self) -> None:
        assert self.journal is not None
        self.journal.close()
        try:
            self._check_restored()
        finally:
            self._folder.cleanup()

    def _check_restored(self) -> None:
        found = new_desk()
        restore(found, self.folder)
        # Reports that said nothing new let time pass, and nobody wrote that down.
        portfolio.advance(found.book.table, self.clock.now_ns)
        self.slow.restart(ORDERS_LIMIT)
        self.slow.advance(self.clock.now_ns)
        assert_same(found.portfolio(), self.slow)
        assert session_ends_ns(found) == self.slow.session_end_ns
        assert found.fills() == self.desk.fills()
        check_book(found)


RUN = settings(
    max_examples=40,
    stateful_step_count=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink so many steps takes longer than to read them
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)
TestPortfolio = Portfolios.TestCase
TestPortfolio.settings = RUN
TestJournaledPortfolio = JournaledPortfolios.TestCase
TestJournaledPortfolio.settings = RUN


class Full:
    """A desk whose table of orders is full, all of them open."""

    def __init__(self) -> None:
        self.desk = new_desk(Clock(), limits=Limits(max_position_notional=1e9, max_gross_exposure="off"))
        self.desk.report_fill(FillReport("first", "A", Side.BUY, 1.0, 100.0))
        sides = itertools.cycle(Side)
        self.ids = [self.order(next(sides)) for _ in range(ORDERS_LIMIT)]

    def order(self, side: Side = Side.BUY) -> int:
        return self.desk.report_order(OrderReport("A", OrderState.ACCEPTED, side=side, size=1.0)).order_id

    def report(self, order_id: int, state: OrderState) -> OrderState:
        return self.desk.report_order(OrderReport("A", state, order_id=order_id)).state


@pytest.fixture
def full() -> Full:
    return Full()


def test_a_full_table_takes_no_other_order_and_stays_as_it_is(full: Full) -> None:
    before = full.desk.portfolio()
    with pytest.raises(TableFull):
        full.order()
    assert repr(full.desk.portfolio()) == repr(before)  # NaN is NaN
    check_book(full.desk)
    (position,) = before.positions
    assert (position.open_buys, position.open_sells) == (ORDERS_LIMIT / 2, ORDERS_LIMIT / 2)


def test_a_new_order_takes_the_slot_of_the_one_that_ended_first(full: Full) -> None:
    last, first, *_ = full.ids
    full.report(first, OrderState.CANCELLED)
    full.report(last, OrderState.CANCELLED)
    new = full.order()
    with pytest.raises(OrderUnknown):
        full.report(first, OrderState.ACCEPTED)
    assert full.report(last, OrderState.ACCEPTED) is OrderState.ACCEPTED
    assert full.report(new, OrderState.CANCELLED) is OrderState.CANCELLED
    check_book(full.desk)


def test_a_fill_of_an_order_that_nobody_remembers_is_booked(full: Full) -> None:
    forgotten = full.ids[0]
    full.report(forgotten, OrderState.CANCELLED)
    full.order(Side.SELL)
    answer = full.desk.report_fill(FillReport("late", "A", Side.BUY, 1.0, 101.0, order_id=forgotten))
    assert (answer.booked, answer.position, answer.remaining) == (True, 2.0, 0.0)
    check_book(full.desk)


def test_every_ended_order_is_remembered_until_its_slot_is_needed(full: Full) -> None:
    for order_id in full.ids:
        full.report(order_id, OrderState.REJECTED)
    assert full.desk.portfolio().orders == ()
    oldest, next_oldest = full.ids[:2]
    assert full.report(oldest, OrderState.ACCEPTED) is OrderState.ACCEPTED
    full.order()
    with pytest.raises(OrderUnknown):
        full.report(next_oldest, OrderState.ACCEPTED)
    check_book(full.desk)


def test_no_worst_case_passes_its_limit_but_by_what_nobody_asked_for(
    tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    publish(tmp_path)
    engine = new_engine(models_of(tmp_path), None)
    driver, slow = Driver(engine, seed=11), GuardedPortfolio(CAMPAIGN_LIMITS, calendars=CAMPAIGN_CALENDARS)
    requests = 0
    while requests < soak(20_000, 1_000_000):
        done = driver.step()
        requests += done[0] in {"tick", "request again"}
        apply(slow, done)
        assert engine.desk.state.state is slow.state
        if requests % 16 == 0:
            assert_same(engine.desk.portfolio(), slow)
    check_book(engine.desk)
    close(engine)
    assert slow.approved > requests // 50  # a lost session reduces the desk for most of a day
    assert slow.late > requests // 2000
