"""The portfolio of spec section 6 in plain Python: dicts, loops, nothing kept that can be added up."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tickgate_server.journal.entries import ControlEntry, DecisionEntry, Entry
from tickgate_server.journal.layout import ControlKind, Flags, text
from tickgate_server.records import TICK
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import FillReport, OrderState, PortfolioView, PositionSet, Side
from tickgate_server.ticks.calendars import ROUND_THE_CLOCK, session_calendar
from tickgate_server.ticks.market import TRADE

DAY_NS = 86_400_000_000_000
OPEN = (OrderState.RESERVED, OrderState.ACCEPTED)
NAN = math.nan


class Refused(Exception):
    """A report that the portfolio cannot take; it is what it was."""


@dataclass(slots=True)
class SlowOrder:
    """An order; `signed` > 0 buys. `expires_ns`: of a reservation, and still of one that lapsed."""

    order_id: int
    symbol: str
    signed: float
    remaining: float
    state: OrderState
    expires_ns: int = 0


@dataclass(slots=True)
class SlowPosition:
    """What is held of a symbol. `basis`: what it cost, so that the average cost is basis / filled."""

    filled: float = 0.0
    basis: float = 0.0
    realised: float = 0.0
    carried: float = 0.0  # what was unrealised when the session began
    mark: float = NAN


class SlowPortfolio:
    """One desk's portfolio. Time passes by `advance` alone; sizes are units, prices and money one currency.

    Args:
        limits: Positions and exposures by which reports reduce the desk.
        orders_limit: Orders known at once.
        calendars: By symbol, of those that are not `24/7`.
    """

    def __init__(
        self, limits: Limits | None = None, orders_limit: int = 16_384, calendars: Mapping[str, str] | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.orders_limit = orders_limit
        self.now_ns = 0
        self.calendars = dict(calendars or {})
        self.session_end_ns = dict.fromkeys([ROUND_THE_CLOCK, *self.calendars.values()], 0)
        self.positions: dict[str, SlowPosition] = {}
        self.orders: dict[int, SlowOrder] = {}
        self.open: dict[int, SlowOrder] = {}
        self.ended: dict[int, None] = {}  # ids, oldest first
        self.fills: dict[str, FillReport] = {}
        self.state = TradingState.ACTIVE
        self.peak = dict.fromkeys(self.session_end_ns, 0.0)
        self.breached = False

    # -- what it comes to ------------------------------------------------------------------------------------------

    def open_units(self, symbol: str, side: Side) -> float:
        return math.fsum(
            order.remaining
            for order in self.open.values()
            if order.symbol == symbol and (order.signed > 0) == (side is Side.BUY)
        )

    def units(self, symbol: str) -> tuple[float, float]:
        """Filled + open buys, filled - open sells."""
        filled = self.positions[symbol].filled if symbol in self.positions else 0.0
        return filled + self.open_units(symbol, Side.BUY), filled - self.open_units(symbol, Side.SELL)

    def worst(self, symbol: str) -> float:
        """Units of the worst case."""
        return max(map(abs, self.units(symbol)))

    def notional(self, symbol: str) -> float:
        """Of the worst case, signed."""
        return largest(self._worth(symbol, units) for units in self.units(symbol))

    def _worth(self, symbol: str, units: float) -> float:
        return units * self.positions[symbol].mark if units else 0.0

    @property
    def gross(self) -> float:
        return math.fsum(abs(self.notional(symbol)) for symbol in self.positions)

    @property
    def net(self) -> float:
        """With all open buys filled, or with all open sells, whichever is larger."""
        return largest(
            math.fsum(self._worth(symbol, self.units(symbol)[case]) for symbol in self.positions) for case in (0, 1)
        )

    def unrealised(self, symbol: str) -> float:
        """By the mark, since the position began."""
        found = self.positions[symbol]
        return found.filled * found.mark - found.basis if found.filled else 0.0

    def calendar(self, symbol: str) -> str:
        return self.calendars.get(symbol, ROUND_THE_CLOCK)

    def pnl_of(self, calendar: str) -> float:
        """Of its symbols, since its session began."""
        return math.fsum(
            found.realised + self.unrealised(symbol) - found.carried
            for symbol, found in self.positions.items()
            if self.calendar(symbol) == calendar
        )

    @property
    def pnl(self) -> float:
        return math.fsum(map(self.pnl_of, self.session_end_ns))

    @property
    def drawdown(self) -> float:
        """The sum of the calendars'."""
        return math.fsum(self.peak[calendar] - self.pnl_of(calendar) for calendar in self.session_end_ns)

    def held(self) -> Iterator[str]:
        """Symbols with a position, an open order, or P&L of the session."""
        working = {order.symbol for order in self.open.values()}
        for symbol, found in self.positions.items():
            if found.filled or symbol in working or found.realised or self.unrealised(symbol) != found.carried:
                yield symbol

    # -- time and prices -------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        if now_ns <= self.now_ns:
            return
        self.now_ns = now_ns
        for calendar, end_ns in self.session_end_ns.items():
            if now_ns >= end_ns:
                if end_ns:
                    self._begin_session(calendar)
                self.session_end_ns[calendar] = self._next_begin_ns(calendar)
        due = [
            order for order in self.open.values() if order.state is OrderState.RESERVED and order.expires_ns <= now_ns
        ]
        for order in sorted(due, key=lambda order: order.expires_ns):
            self._end(order, OrderState.EXPIRED)

    def _begin_session(self, calendar: str) -> None:
        self.peak[calendar] = 0.0
        for symbol, found in self.positions.items():
            if self.calendar(symbol) == calendar:
                found.realised = 0.0
                found.carried = self.unrealised(symbol)

    def _next_begin_ns(self, calendar: str) -> int:
        if calendar == ROUND_THE_CLOCK:
            offset_ns = self.limits.session_rollover_utc_s * 1_000_000_000
            return ((self.now_ns - offset_ns) // DAY_NS + 1) * DAY_NS + offset_ns
        known = session_calendar(calendar).begins_ns.tolist()
        after = bisect_right(known, self.now_ns)
        if after < len(known):
            return int(known[after])
        beyond = known[-1]
        while beyond <= self.now_ns:
            beyond += DAY_NS
        return int(beyond)

    def mark(self, symbol: str, price: float) -> None:
        found = self._position(symbol)
        if found.mark != price:
            found.mark = price
            if symbol in self.held():
                self._valued()

    # -- orders ----------------------------------------------------------------------------------------------------

    def reserve(self, order_id: int, symbol: str, signed: float, valid_for_us: int) -> None:
        """An approved order, at the time that is."""
        self._take(SlowOrder(order_id, symbol, signed, abs(signed), OrderState.RESERVED, self._expiry(valid_for_us)))

    def _expiry(self, valid_for_us: int) -> int:
        return self.now_ns + valid_for_us * 1000

    def foreign(self, order_id: int, symbol: str, signed: float) -> None:
        """An order that nobody approved."""
        if len(self.open) >= self.orders_limit:
            raise Refused
        self._take(SlowOrder(order_id, symbol, signed, abs(signed), OrderState.ACCEPTED))
        self._enforce(symbol)

    def _take(self, order: SlowOrder) -> None:
        if len(self.orders) == self.orders_limit:
            oldest = next(iter(self.ended))
            del self.ended[oldest], self.orders[oldest]
        self._position(order.symbol)
        self.orders[order.order_id] = self.open[order.order_id] = order
        self._valued()

    def report(self, order_id: int, symbol: str, state: OrderState) -> bool:
        """What became of an order; whether that was new."""
        order = self.orders.get(order_id)
        if order is None or order.symbol != symbol:
            raise Refused
        if order.state is OrderState.FILLED or order.state is state:
            return False
        if state is OrderState.ACCEPTED:
            ended = order.state is not OrderState.RESERVED
            self._reopen(order)
            if ended:
                self._valued()
        elif order.state in OPEN:
            order.expires_ns = 0
            self._end(order, state)
        else:
            return False
        self._enforce(symbol)
        return True

    def _reopen(self, order: SlowOrder) -> None:
        self.ended.pop(order.order_id, None)
        order.state, order.expires_ns = OrderState.ACCEPTED, 0
        self.open[order.order_id] = order

    def release(self, order_id: int) -> None:
        """The answer that approved an order did not leave."""
        order = self.orders.get(order_id)
        if order is not None and order.state is OrderState.RESERVED:
            self._end(order, OrderState.CANCELLED)

    def _end(self, order: SlowOrder, state: OrderState) -> None:
        order.state = state
        del self.open[order.order_id]
        self.ended[order.order_id] = None
        self._valued()

    # -- fills -----------------------------------------------------------------------------------------------------

    def fill(self, report: FillReport) -> bool:
        """Book a fill; False: it was booked before."""
        order = self.orders.get(report.order_id)
        signed = report.size if report.side is Side.BUY else -report.size
        if order is not None and (order.symbol != report.symbol or (order.signed > 0) != (signed > 0)):
            raise Refused
        if report.fill_id in self.fills:
            if self.fills[report.fill_id] != report:
                raise Refused
            return False
        self.fills[report.fill_id] = report
        self._book(report.symbol, signed, report.price, report.fee)
        if order is not None:
            lapsed = order.state is OrderState.EXPIRED and order.expires_ns  # by our clock, not as the venue said
            if order.state is OrderState.RESERVED or lapsed:  # what fills is at work
                self._reopen(order)
            order.remaining -= min(report.size, order.remaining)
            if not order.remaining and order.state in OPEN:
                self._end(order, OrderState.FILLED)
            elif not order.remaining:
                order.state = OrderState.FILLED
        self._valued()
        self._enforce(report.symbol)
        return True

    def _book(self, symbol: str, signed: float, price: float, fee: float) -> None:
        found = self._position(symbol)
        if math.isnan(found.mark):
            found.mark = price
        found.realised -= fee
        left = signed
        if found.filled * signed < 0:
            closed = math.copysign(min(abs(signed), abs(found.filled)), signed)
            cost = found.basis / found.filled
            found.realised += -closed * (price - cost)
            found.filled += closed
            found.basis = found.filled * cost
            left -= closed
        found.filled += left
        found.basis += left * price
        if not found.filled:
            found.basis = 0.0

    def set_positions(self, positions: Iterable[PositionSet]) -> None:
        for said in positions:
            found = self._position(said.symbol)
            gained = self.unrealised(said.symbol) - found.carried
            found.filled = said.size
            found.basis = said.size * said.average_cost if said.size else 0.0
            if math.isnan(found.mark) and said.size:
                found.mark = said.average_cost
            found.carried = self.unrealised(said.symbol) - gained  # what a person states is no P&L
        for said in positions:
            self._enforce(said.symbol)

    # -- what follows ----------------------------------------------------------------------------------------------

    def _position(self, symbol: str) -> SlowPosition:
        return self.positions.setdefault(symbol, SlowPosition())

    def _valued(self) -> None:
        pnl = {calendar: self.pnl_of(calendar) for calendar in self.peak}
        self.peak = {calendar: max(peak, pnl[calendar]) for calendar, peak in self.peak.items()}
        drawdown = math.fsum(self.peak[calendar] - pnl[calendar] for calendar in pnl)
        losses = ((-math.fsum(pnl.values()), self.limits.max_daily_loss), (drawdown, self.limits.max_drawdown))
        if any(limit != "off" and not value <= limit for value, limit in losses):
            self.breached = True

    def over_limit(self, symbol: str) -> bool:
        """Whether what is held and open of a symbol, or of all, is over a limit; what is not known is."""
        limits = self.limits
        pairs = (
            (self.worst(symbol), limits.max_position_size),
            (abs(self.notional(symbol)), limits.max_position_notional),
            (self.gross, limits.max_gross_exposure),
            (abs(self.net), limits.max_net_exposure),
        )
        return any(limit != "off" and not value <= limit for value, limit in pairs)

    def _enforce(self, symbol: str) -> None:
        over = self.breached or self.over_limit(symbol)
        self.breached = False
        if over and self.state is TradingState.ACTIVE:
            self.set_state(TradingState.REDUCING)

    def poll(self, now_ns: int | None) -> None:
        """What happens though nobody asks; None: time is not the wall clock's."""
        due = [order.expires_ns for order in self.open.values() if order.state is OrderState.RESERVED]
        if now_ns is not None and due and min(due) <= now_ns:
            self.advance(now_ns)
        if self.breached:
            self.breached = False
            if self.state is TradingState.ACTIVE:
                self.set_state(TradingState.REDUCING)

    def set_state(self, state: TradingState) -> None:
        self.state = state
        self.breached = False

    def restart(self, ended: int = 1024) -> None:
        """The process began anew: of the orders that ended the newest are known, and what is over a limit reduces."""
        for order_id in list(self.ended)[:-ended]:
            del self.ended[order_id], self.orders[order_id]
        self.breached = False
        if self.state is TradingState.ACTIVE and any(map(self.over_limit, self.held())):
            self.state = TradingState.REDUCING


class GuardedPortfolio(SlowPortfolio):
    """Asserts with every step that no limit was passed, but by what nobody had asked for.

    What may: a fill of no order, of one that had ended, or of more than was left of it; an order that nobody approved,
    or that is accepted after it had ended; a position as a person states it. Then the desk must not be ACTIVE.

    Attributes:
        approved, late: How many steps of these kinds there were.
    """

    def __init__(self, limits: Limits, orders_limit: int = 16_384, calendars: Mapping[str, str] | None = None) -> None:
        super().__init__(limits, orders_limit, calendars)
        self.approved = 0
        self.late = 0

    def reduces(self, symbol: str, signed: float) -> bool:
        """Whether an order only takes off what is held and not on its way out yet."""
        filled = self.positions[symbol].filled if symbol in self.positions else 0.0
        exits = self.open_units(symbol, Side.SELL if filled > 0 else Side.BUY)
        return signed * filled < 0 and abs(signed) <= abs(filled) - exits

    def reserve(self, order_id: int, symbol: str, signed: float, valid_for_us: int) -> None:
        limits, before, reduces = self.limits, self.worst(symbol), self.reduces(symbol, signed)
        assert self.state is TradingState.ACTIVE or (self.state is TradingState.REDUCING and reduces)
        super().reserve(order_id, symbol, signed, valid_for_us)
        self.approved += 1
        if reduces:
            assert self.worst(symbol) <= before
        else:
            assert abs(signed) <= limits.max_order_size
            assert self.worst(symbol) <= limits.max_position_size
            assert abs(self.notional(symbol)) <= limits.max_position_notional
            assert limits.max_gross_exposure == "off" or self.gross <= limits.max_gross_exposure
            assert limits.max_net_exposure == "off" or abs(self.net) <= limits.max_net_exposure

    @contextmanager
    def _step(self, symbol: str, *, unasked: bool) -> Iterator[None]:
        before = self.worst(symbol)
        yield
        after = self.worst(symbol)
        if after > before and after > self.limits.max_position_size:
            assert unasked
            assert self.state is not TradingState.ACTIVE
            self.late += 1

    def fill(self, report: FillReport) -> bool:
        order = self.orders.get(report.order_id)
        with self._step(
            report.symbol, unasked=order is None or order.state not in OPEN or report.size > order.remaining
        ):
            return super().fill(report)

    def report(self, order_id: int, symbol: str, state: OrderState) -> bool:
        with self._step(symbol, unasked=order_id in self.ended):
            return super().report(order_id, symbol, state)

    def foreign(self, order_id: int, symbol: str, signed: float) -> None:
        with self._step(symbol, unasked=True):
            super().foreign(order_id, symbol, signed)

    def _end(self, order: SlowOrder, state: OrderState) -> None:
        with self._step(order.symbol, unasked=False):
            super()._end(order, state)


def apply_entry(slow: SlowPortfolio, entry: Entry) -> None:
    """Do to the model what a record of the journal says was done to the desk."""
    if isinstance(entry, DecisionEntry):
        _apply_decision(slow, entry)
    else:
        _apply_control(slow, entry)


def _apply_decision(slow: SlowPortfolio, entry: DecisionEntry) -> None:
    row = entry.row
    if row["flags"] & Flags.REPEATED or not row["stage"]:
        return
    clock_ns = int(row["clock_ns"]) or (int(row["exchange_ts_ns"]) if row["applied"] else 0)
    slow.advance(clock_ns)
    symbol = text(row, "symbol")
    if row["applied"] and row["tick_kind"] & TRADE and not row["ticket"]:  # else with its STARTED record
        slow.mark(symbol, float(row["price"]))
    if row["status"] == 0 and row["action"] in (Action.BUY, Action.SELL):
        size = float(row["order_size"])
        signed = size if row["action"] == Action.BUY else -size
        slow.reserve(entry.sequence, symbol, signed, int(row["valid_for_us"]))


def _apply_control(slow: SlowPortfolio, entry: ControlEntry) -> None:
    said = entry.payload
    match entry.code:
        case ControlKind.ORDER:
            slow.advance(entry.clock_ns)
            if said["order_id"]:
                order = slow.orders[said["order_id"]]
                assert slow.report(order.order_id, order.symbol, OrderState(said["state"]))
            else:
                slow.foreign(entry.sequence, said["symbol"], said["signed_size"])
        case ControlKind.FILL:
            slow.advance(entry.clock_ns)
            assert slow.fill(FillReport(**{**said, "side": Side(said["side"])}))
        case ControlKind.POSITIONS:
            slow.advance(entry.clock_ns)
            slow.set_positions([PositionSet(**position) for position in said["positions"]])
        case ControlKind.TIME:
            slow.advance(entry.clock_ns)
        case ControlKind.STARTED:
            _apply_started(slow, said["request"], entry.clock_ns)
        case ControlKind.TRADING_STATE:
            slow.set_state(TradingState(said["state"]))
        case ControlKind.UNSENT:
            for sequence in said["sequences"]:
                slow.release(sequence)


def _apply_started(slow: SlowPortfolio, request: Mapping[str, Any], clock_ns: int) -> None:
    """A request whose model runs on a thread of its own: what it brought is applied first."""
    ticked = request["input"] == TICK
    slow.advance(clock_ns or (request["exchange_ts_ns"] if ticked else 0))
    if ticked and request["kind"] & TRADE:
        slow.mark(request["symbol"], request["price"])


def largest(values: Iterable[float]) -> float:
    """By size; NaN if any is."""
    found = list(values)
    return NAN if any(map(math.isnan, found)) else max(found, key=abs)


def assert_same(view: PortfolioView, slow: SlowPortfolio) -> None:
    """Everything that the desk shows is what the slow model has: sizes exactly, money to 1e-9."""
    assert view.state.state is slow.state
    positions = {found.symbol: found for found in view.positions}
    for symbol in set(positions) ^ set(slow.held()):  # the P&L of one of them is a rounding
        assert not slow.positions[symbol].filled
        assert slow.positions[symbol].realised - slow.positions[symbol].carried == near(0.0), symbol
    for symbol, found in positions.items():
        mine = slow.positions[symbol]
        sizes = (found.filled, found.open_buys, found.open_sells)
        assert sizes == (mine.filled, slow.open_units(symbol, Side.BUY), slow.open_units(symbol, Side.SELL)), symbol
        cost = mine.basis / mine.filled if mine.filled else NAN
        money = (found.average_cost, found.mark, found.realised, found.unrealised)
        assert money == near((cost, mine.mark, mine.realised, slow.unrealised(symbol) - mine.carried)), symbol
    orders = {
        order.order_id: (
            order.symbol,
            order.size if order.side is Side.BUY else -order.size,
            order.remaining,
            order.state,
            order.expires_ns,
        )
        for order in view.orders
    }
    assert orders == {
        order.order_id: (order.symbol, order.signed, order.remaining, order.state, order.expires_ns)
        for order in slow.open.values()
    }
    realised = math.fsum(found.realised for found in slow.positions.values())
    assert (view.realised, view.unrealised) == near((realised, slow.pnl - realised))
    assert (view.gross, view.drawdown) == near((slow.gross, slow.drawdown))
    if not math.isnan(slow.gross):  # which of two sums is the larger is not said of NaN
        assert abs(view.net) == near(abs(slow.net))


def near(expected: object) -> object:
    return pytest.approx(expected, rel=1e-9, abs=1e-7, nan_ok=True)
