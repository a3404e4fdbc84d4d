"""The desk: what is held and open, what the limits are, and who changed any of it. The portfolio's one writer.

Every method runs on the thread that answers. What changes something is in the journal before it returns, and the
journal is how it comes back: `restore` applies the same records to the same kernels.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from tickgate_server.control_block import MODEL_SLOTS, ControlBlockReader, Slot
from tickgate_server.desk.ledger import OPEN, Ledger, content_of
from tickgate_server.desk.views import portfolio_view
from tickgate_server.errors import FieldInvalid
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.risk import checks, gate, portfolio
from tickgate_server.risk.book import (
    BREACHED,
    DEGRADED,
    EXPIRES_NS,
    EXPIRY_HEAD,
    FILLED,
    FRESH,
    NOW_NS,
    OPEN_ORDERS,
    ORDER_ROW,
    ORDER_STATE,
    ORDERS_LIMIT,
    PEAK,
    PNL,
    REVISION,
    SIGNED_SIZE,
    Book,
)
from tickgate_server.risk.feed import Found, RiskDataFeed
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import (
    FillAnswer,
    FillReport,
    FillReused,
    OrderAnswer,
    OrderReport,
    OrderState,
    OrderUnknown,
    PortfolioView,
    PositionSet,
    Side,
    StateView,
    TableFull,
)
from tickgate_server.ticks.calendars import DAY_NS, SessionCalendar
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.symbols import SymbolTable

_FILL_ID_BYTES = 36
_FUTURE_LIMIT_NS = 1_000_000_000  # by how much risk data may be ahead of the clock
_TEXT_BYTES = 200  # of a reason, or of who gave it
_CALENDAR_NOTICE_NS = 30 * DAY_NS
_LOG = structlog.get_logger()


class Desk(Ledger):
    """The ledger of one engine, with what it tells the journal and what it is told.

    Attributes:
        journal: As given.
        on_polled: Called at the end of each `poll`.

    Args:
        book: Empty.
        symbols: Rows of the symbols; rows that are made later are to be told by `add_row`.
        limits: Of the whole desk.
        workers: Among how many they are sliced.
        clock_ns: Wall clock; None: time is the ticks' own.
        journal: Where changes go; None: nowhere, and they are gone with the process.
        control: What the observer hands back; None: nothing, so risk data are never fresh, unless `vouched`.
        feed: Reads risk data; None: there are none.
        kill_file: While it is there the desk is halted.
        fsync: Flush fills and orders to the disk before they are acknowledged, against the host's death.
    """

    def __init__(
        self,
        book: Book,
        symbols: SymbolTable,
        limits: Limits,
        *,
        workers: int = 1,
        clock_ns: Callable[[], int] | None = time.time_ns,
        journal: JournalWriter | None = None,
        control: ControlBlockReader | None = None,
        feed: RiskDataFeed | None = None,
        kill_file: Path | None = None,
        fsync: bool = False,
    ) -> None:
        super().__init__(book, symbols, limits, workers=workers, clock_ns=clock_ns)
        self.journal = journal
        self.on_polled: Callable[[], None] = lambda: None
        self._control = control
        self._feed = feed
        self._kill_file = kill_file
        self._fsync = fsync
        self._next_id = 1  # without a journal
        self._watchers: set[Callable[[], None]] = set()
        self._told = 0
        self._asked: Callable[[], None] | None = None
        self._calendar_ends = sorted(_calendar_ends(book.calendars))

    def expect(self, order_id: int) -> None:
        """Without a journal: the id that the next order gets."""
        self._next_id = order_id

    def next_order_id(self) -> int:
        """The id that an order gets that is approved now: the sequence of its record in the journal."""
        return self._next_id if self.journal is None else self.journal.place()[2]

    def took_slot(self, slot: int, order_id: int) -> None:
        """See `Ledger.took_slot`."""
        super().took_slot(slot, order_id)
        if self.journal is None:
            self._next_id = order_id + 1

    # -- reports -------------------------------------------------------------------------------------------------------

    def report_order(self, report: OrderReport) -> OrderAnswer:
        """Take in what became of an order.

        Raises:
            FieldInvalid: Names the field.
            SymbolElsewhere: Another worker's symbol.
            OrderUnknown: No order of that id is known, or not of that symbol.
            TableFull: No room for an order that had no id, or for its symbol.
            JournalError: It is not in the journal; nothing changed.
        """
        _require_symbol(report.symbol)
        if report.state not in (OrderState.ACCEPTED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED):
            raise FieldInvalid("state", "ACCEPTED, CANCELLED, REJECTED or EXPIRED", report.state.name)
        if report.order_id == 0:
            return self._report_foreign(report)
        self.symbols.require_own(report.symbol)
        slot = self._slot_of.get(report.order_id)
        if slot is None or self.names[self.book.order_facts[slot, ORDER_ROW]] != report.symbol:
            raise OrderUnknown(report.order_id)
        clock_ns = self.now_ns()
        before = self._state_at(slot, clock_ns)
        changes = before in OPEN if report.state is not OrderState.ACCEPTED else before is not OrderState.ACCEPTED
        if not changes or before is OrderState.FILLED:
            self._journal(ControlKind.TIME, {}, clock_ns)  # time passes all the same, and a replay must know
            self._pass_time(clock_ns)
            return OrderAnswer(report.order_id, before, self._open_units(slot), changed=False)
        payload: dict[str, Any] = {"order_id": report.order_id, "state": int(report.state)}
        if before not in OPEN:  # open again: all of it is said, as a restart may not know it any more
            signed, remaining = self.book.orders[slot].tolist()
            payload |= {"symbol": report.symbol, "signed_size": remaining if signed > 0.0 else -remaining}
        self._journal(ControlKind.ORDER, payload, clock_ns, flush=True)
        self._pass_time(clock_ns)
        self._apply_order(slot, report.state)
        self._enforce_after(f"order {report.order_id} of {report.symbol}", slot_row=self._row_of_slot(slot))
        self._changed()
        return OrderAnswer(
            report.order_id,
            OrderState(int(self.book.order_facts[slot, ORDER_STATE])),
            self._open_units(slot),
            changed=True,
        )

    def _report_foreign(self, report: OrderReport) -> OrderAnswer:
        """An order that tickgate did not ask for: it counts as any other, and no gate has seen it."""
        if report.side is None:
            raise FieldInvalid("side", "BUY or SELL, for an order without order_id", None)
        if report.state is not OrderState.ACCEPTED:
            raise FieldInvalid("order_id", "the id of the order that ended", 0)
        if not 0.0 < report.size < float("inf"):
            raise FieldInvalid("size", "a finite number > 0", report.size)
        row = self.row_of(report.symbol)
        if int(self.book.state[OPEN_ORDERS]) >= ORDERS_LIMIT:
            raise TableFull(ORDERS_LIMIT)
        clock_ns = self.now_ns()
        order_id = self.next_order_id()
        signed = report.size if report.side is Side.BUY else -report.size
        payload = {"order_id": 0, "symbol": report.symbol, "signed_size": signed}
        order_id = self._journal(ControlKind.ORDER, payload, clock_ns, flush=True) or order_id
        self._pass_time(clock_ns)
        self._apply_foreign(row, signed, order_id)
        self._enforce_after(f"order {order_id} of {report.symbol}", slot_row=row)
        self._changed()
        return OrderAnswer(order_id, OrderState.ACCEPTED, report.size, changed=True)

    def report_fill(self, report: FillReport) -> FillAnswer:
        """Book a fill, however late, once by its id.

        Raises:
            FieldInvalid: Names the field.
            SymbolElsewhere: Another worker's symbol.
            FillReused: The id was booked with another content.
            OrderUnknown: The order is of another symbol or side.
            TableFull: No room for its symbol.
            JournalError: It is not in the journal; nothing changed.
        """
        _require_symbol(report.symbol)
        if not 0 < len(report.fill_id.encode()) <= _FILL_ID_BYTES:
            raise FieldInvalid("fill_id", f"1 to {_FILL_ID_BYTES} bytes of UTF-8", report.fill_id)
        for name, value in (("size", report.size), ("price", report.price)):
            if not 0.0 < value < float("inf"):
                raise FieldInvalid(name, "a finite number > 0", value)
        if not isfinite(report.fee):
            raise FieldInvalid("fee", "a finite number", report.fee)
        self.symbols.require_own(report.symbol)
        content = content_of(report)
        slot = self._slot_of.get(report.order_id, -1) if report.order_id else -1
        if slot >= 0:
            bought = bool(self.book.orders[slot, SIGNED_SIZE] > 0.0)
            of_symbol = self.names[self.book.order_facts[slot, ORDER_ROW]] == report.symbol
            if not of_symbol or bought != (report.side is Side.BUY):
                raise OrderUnknown(report.order_id)
        known = self._fills.get(report.fill_id)
        if known is not None and known != content:
            raise FillReused(report.fill_id)
        row = self.row_of(report.symbol)
        if known is None:
            clock_ns = self.now_ns()
            self._journal(ControlKind.FILL, asdict(report) | {"side": int(report.side)}, clock_ns, flush=True)
            self._pass_time(clock_ns)
            self._apply_fill(report, row, slot, content)
            self._enforce_after(f"fill {report.fill_id} of {report.symbol}", slot_row=row)
            self._changed()
        remaining = self._open_units(slot) if slot >= 0 else 0.0
        return FillAnswer(known is None, float(self.book.rows[row, FILLED]), remaining)

    def set_positions(self, positions: Sequence[PositionSet], *, reason: str, who: str) -> None:
        """Replace what is held of some symbols, as a person states it.

        Raises:
            FieldInvalid: Names the field; nothing changed.
            SymbolElsewhere: Another worker's symbol.
            TableFull: No room for a symbol.
            JournalError: It is not in the journal; nothing changed.
        """
        _require_text(reason, "reason")
        _require_text(who, "who")
        if not positions:
            raise FieldInvalid("positions", "at least one", "none")
        for position in positions:
            _require_symbol(position.symbol)
            self.symbols.require_own(position.symbol)
            if not isfinite(position.size):
                raise FieldInvalid("positions.size", "a finite number", position.size)
            if position.size and not 0.0 < position.average_cost < float("inf"):
                raise FieldInvalid("positions.average_cost", "a finite number > 0", position.average_cost)
        for position in positions:
            self.row_of(position.symbol)
        clock_ns = self.now_ns()
        payload = {"positions": [asdict(position) for position in positions], "reason": reason, "who": who}
        self._journal(ControlKind.POSITIONS, payload, clock_ns, flush=True)
        self._pass_time(clock_ns)
        self._apply_positions(positions)
        _LOG.warning("positions set", symbols=[position.symbol for position in positions], reason=reason, who=who)
        for position in positions:
            self._enforce_after(f"position of {position.symbol}", slot_row=self.row_of(position.symbol))
        self._changed()

    # -- trading state -------------------------------------------------------------------------------------------------

    def set_state(self, state: TradingState, *, reason: str, who: str) -> StateView:
        """Set the trading state; it survives a restart.

        Raises:
            FieldInvalid: There is no reason, or nobody gave it.
            JournalError: It is not in the journal. HALTED and REDUCING hold all the same.
        """
        _require_text(reason, "reason")
        _require_text(who, "who")
        found = StateView(state, reason, who, self.now_ns())
        if state > self._state.state:  # what guards money does not wait for a disk
            self.apply_state(found)
            self._changed()
        payload = {"state": int(state), "reason": reason, "who": who}
        self._journal(ControlKind.TRADING_STATE, payload, found.since_ns, flush=True)
        self.apply_state(found)
        _LOG.warning("trading state", state=state.name, reason=reason, who=who)
        self._changed()
        return found

    def reopen_model(self, name: str, version: int, *, reason: str, who: str) -> None:
        """Open a degraded version again, as a person decides.

        Raises:
            FieldInvalid: There is no such version, no reason, or nobody gave it.
            JournalError: It is not in the journal; nothing changed.
        """
        _require_text(reason, "reason")
        _require_text(who, "who")
        if (name, version) not in self.models:
            raise FieldInvalid("name", "a version that is loaded", f"{name}:{version}")
        payload = {"name": name, "version": version, "reason": reason, "who": who}
        self._journal(ControlKind.MODEL_REOPENED, payload, self.now_ns())
        self.apply_degraded(name, version, degraded=0)
        self.models[name, version].reopened = True
        _LOG.warning("model reopened", model=name, version=version, reason=reason, who=who)
        self._changed()

    def change_limits(self, limits: Limits, *, reason: str, who: str) -> list[str]:
        """Put other limits in force, all at once.

        Args:
            limits: Of the whole desk, validated.
            reason: Why.
            who: By whom.

        Returns:
            A line for each difference; none where there is none, and then nothing was done.

        Raises:
            FieldInvalid: Their version is below the one in force, or the same with other content; no reason, or nobody.
            JournalError: They are not in the journal; nothing changed.
        """
        _require_text(reason, "reason")
        _require_text(who, "who")
        lines = self.whole.differences(limits)
        if not lines:
            return []
        if limits.version <= self.whole.version:
            raise FieldInvalid("version", f"more than {self.whole.version}, which is in force", limits.version)
        payload = limits.model_dump(mode="json") | {"reason": reason, "who": who}
        self._journal(ControlKind.LIMITS, payload, self.now_ns(), flush=True)
        self._apply_limits(limits)
        _LOG.warning("limits changed", version=limits.version, changes=lines, reason=reason, who=who)
        self._changed()
        return lines

    # -- time, and what the observer says --------------------------------------------------------------------------

    def poll(self) -> None:
        """What must happen though nobody asks: reservations end, the kill file halts, the observer's values are read.

        To be called at least every 20 ms; it takes some microseconds.
        """
        book = self.book
        state = book.state
        if self._kill_file is not None and self._state.state is not TradingState.HALTED and self._kill_file.exists():
            self.set_state(TradingState.HALTED, reason=f"the kill file {self._kill_file} is there", who="kill file")
        head = int(state[EXPIRY_HEAD])
        if head >= 0 and self._clock_ns is not None:
            now_ns = self.now_ns()
            if book.order_facts[head, EXPIRES_NS] <= now_ns:
                self._journal(ControlKind.TIME, {}, now_ns)
                portfolio.advance(book.table, now_ns)
        if self._asked is not None:
            asked, self._asked = self._asked, None
            asked()
        if state[BREACHED]:
            self._enforce_loss()
        while self._calendar_ends and state[NOW_NS] >= self._calendar_ends[0][0]:
            _tell_calendar_end(*self._calendar_ends.pop(0))
        if self._control is not None:
            self._read_control(self._control)
        if state[REVISION] != self._told:
            self._changed()
        self.on_polled()

    def ask(self, function: Callable[[], None]) -> None:
        """Have the next `poll` call a function, in place of one that was asked for before; from any thread."""
        self._asked = function

    def _read_control(self, control: ControlBlockReader) -> None:
        max_age_ns = int(self.limits.max_risk_data_age_s * 1e9)
        if self._feed is not None:
            generation, _ = control.read(Slot.RISK_DATA_GENERATION, max_age_ns)
            self._feed.want(generation)
            found = self._feed.take()
            if found is not None:
                self.adopt(found)
        vouched_s, _ = control.read(Slot.RISK_DATA, max_age_ns)
        self.judge_age(vouched=vouched_s == vouched_s)  # noqa: PLR0124 - NaN: nobody vouches
        for (name, version), model in self.models.items():
            if 0 <= model.index < MODEL_SLOTS and not self.book.models[model.number, DEGRADED]:
                degraded, _ = control.read(Slot.MODEL_DEGRADED + model.index, max_age_ns)
                model.reopened = model.reopened and degraded == 1.0  # the observer has not heard of it yet
                if degraded == 1.0 and not model.reopened:
                    self._journal(ControlKind.MODEL_DEGRADED, {"name": name, "version": version}, self.now_ns())
                    self.apply_degraded(name, version, degraded=1)
                    _LOG.error("model degraded", model=name, version=version)
                    self._changed()

    def adopt(self, found: Found) -> None:
        """Take risk data in; the journal names them by their file's hash, which it is kept under."""
        self._journal(ControlKind.CONTROL_BLOCK, {"risk_data": found.sha256}, self.now_ns())
        self.apply_risk_data(found)

    def judge_age(self, *, vouched: bool) -> None:
        """Whether the risk data are fresh: somebody vouches for them, and their newest bar is young enough."""
        data = self.book.risk_data
        now_ns = self.now_ns()
        age_ns = now_ns - data.as_of_ns if data is not None and now_ns else 0  # in a replay time begins with a tick
        limit_ns = self.limits.max_risk_data_as_of_age_s * 1e9
        fresh = int(vouched and data is not None and -_FUTURE_LIMIT_NS <= age_ns <= limit_ns)
        if fresh != self.book.state[FRESH]:
            self._journal(ControlKind.CONTROL_BLOCK, {"fresh": fresh}, self.now_ns())
            self.book.state[FRESH] = fresh
            if fresh:
                _LOG.info("risk data fresh")
            else:
                _LOG.warning("risk data stale: reducing orders only", vouched=vouched, age_s=round(age_ns / 1e9, 1))
            self._changed()

    # -- what others see -----------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Grows with each change that `watch` tells of."""
        return self._told

    def portfolio(self, symbols: Sequence[str] = ()) -> PortfolioView:
        """What is held and open now; of these symbols, or of all that have anything."""
        return portfolio_view(self, self._told, symbols)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change of portfolio, limits or state; returns what ends that."""
        self._watchers.add(changed)
        return lambda: self._watchers.discard(changed)

    def _journal(self, kind: ControlKind, payload: Mapping[str, Any], clock_ns: int, *, flush: bool = False) -> int:
        """Append a control; its sequence, 0 without a journal."""
        if self.journal is None:
            return 0
        sequence = self.journal.append_control(kind, payload, clock_ns=clock_ns)
        if flush and self._fsync:
            self.journal.flush()
        return sequence

    def _enforce_loss(self) -> None:
        self.book.state[BREACHED] = 0
        if self._state.state is TradingState.ACTIVE:
            account = self.book.account
            why = (
                f"session P&L {account[PNL]:.2f}, {account[PEAK] - account[PNL]:.2f} below its peak: over a loss limit"
            )
            self.set_state(TradingState.REDUCING, reason=why, who="loss limit")

    def _enforce_after(self, what: str, *, slot_row: int) -> None:
        """Reduce if what was booked without the gate's leave is over a limit."""
        if self.book.state[BREACHED]:
            self._enforce_loss()
        if self._state.state is not TradingState.ACTIVE:
            return
        over = gate.exposure_over_limit(self.book.table, slot_row)
        if over >= 0:
            why = f"{what} passes the limit of {checks.CHECKS[over].reason.name}"
            self.set_state(TradingState.REDUCING, reason=why, who="limit")

    def _changed(self) -> None:
        self._told = max(int(self.book.state[REVISION]), self._told + 1)
        self.book.state[REVISION] = self._told
        for changed in list(self._watchers):
            changed()


def _calendar_ends(calendars: Sequence[SessionCalendar]) -> Iterator[tuple[int, str, int]]:
    """When it is to be said that a calendar ends: some weeks before its last known begin, and then."""
    for calendar in calendars:
        if calendar.last_known_ns is not None:
            yield calendar.last_known_ns - _CALENDAR_NOTICE_NS, calendar.name, calendar.last_known_ns
            yield calendar.last_known_ns, calendar.name, calendar.last_known_ns


def _tell_calendar_end(at_ns: int, name: str, last_known_ns: int) -> None:
    tell = _LOG.error if at_ns == last_known_ns else _LOG.warning
    tell(
        "session calendar ends: from its last known begin on, days of 24 hours; newer exchange_calendars may know more",
        calendar=name,
        last_known=f"{np.datetime64(last_known_ns, 'ns').astype('M8[s]')}Z",
    )


def _require_symbol(symbol: str) -> None:
    if not 0 < len(symbol.encode()) <= SYMBOL_BYTES:
        raise FieldInvalid("symbol", f"1 to {SYMBOL_BYTES} bytes of UTF-8", symbol)


def _require_text(text: str, field: str) -> None:
    if not text.strip() or len(text.encode()) > _TEXT_BYTES:
        raise FieldInvalid(field, f"1 to {_TEXT_BYTES} bytes of UTF-8 that say something", text)
