"""The ledger: the book with names to its rows and ids to its orders, and every change of it that a record tells of.

What a report, a person or the observer changes is changed here by the same method that a record of the journal is
applied with, at a restart and in a replay. Nothing here writes to the journal: that is the desk's.
"""

import hashlib
import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tickgate_server.desk import terms
from tickgate_server.errors import FieldInvalid, RequestError
from tickgate_server.journal.layout import ControlKind
from tickgate_server.records import TICK
from tickgate_server.risk import orders, portfolio, valuation
from tickgate_server.risk.book import (
    ALLOWED_REGIMES,
    BREACHED,
    CALENDAR,
    DEGRADED,
    EVICTED,
    EXPIRES_NS,
    FRESH,
    HELD,
    HIGHEST_ROW,
    MEMBER,
    MODELS_LIMIT,
    NOW_NS,
    ORDER_ROW,
    ORDER_STATE,
    POINT_VALUE,
    REGIME,
    REMAINING,
    TRADING,
    Book,
)
from tickgate_server.risk.feed import Found
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.risk.reports import (
    FillReport,
    OrderState,
    PositionSet,
    ReportRefused,
    Side,
    StateView,
    TableFull,
)
from tickgate_server.risk.request_ids import MODEL, RequestIds
from tickgate_server.ticks import symbols as symbol_rows
from tickgate_server.ticks.instruments import Instrument
from tickgate_server.ticks.market import TRADE, VALUES
from tickgate_server.ticks.symbols import LOT, MULTIPLIER, SymbolTable

FILLS_KEPT = 65_536
"""Fill ids that repeats are known by; the oldest are forgotten, and a repeat of one would be booked again."""
OPEN = (OrderState.RESERVED, OrderState.ACCEPTED)


@dataclass(slots=True)
class ModelFacts:
    """A model's number in the book, the regimes its manifest allows, and its index in the journal; -1: not heeded.

    `reopened`: a person opened it again, and the observer still says that it is degraded.
    """

    number: int
    allowed_regimes: tuple[str, ...]
    index: int = -1
    reopened: bool = False


class Ledger:
    """Positions, orders, limits and trading state of one engine; one thread.

    Attributes:
        book: The arrays.
        ids: Request ids that were answered.
        symbols: Rows of the symbols.
        names: Symbols by row.
        models: By name and version.
        whole: Limits of the whole desk.
        limits: Those in force here: this worker's slice.

    Args:
        book: Empty.
        symbols: Rows of the symbols; rows that are made later are to be told by `add_row`.
        limits: Of the whole desk.
        workers: Among how many they are sliced.
        clock_ns: Wall clock; None: time is the ticks' own.
    """

    def __init__(
        self,
        book: Book,
        symbols: SymbolTable,
        limits: Limits,
        *,
        workers: int = 1,
        clock_ns: Callable[[], int] | None = time.time_ns,
    ) -> None:
        self.book = book
        self.ids = RequestIds()
        self.symbols = symbols
        self.names: list[str] = []
        self.models: dict[tuple[str, int], ModelFacts] = {}
        self._free_numbers = list(range(MODELS_LIMIT))  # a heap
        self.whole = limits
        self.limits = limits.slice_of(workers)
        self._workers = workers
        self._clock_ns = clock_ns
        self._slot_of: dict[int, int] = {}  # by order id, as long as its slot is not needed
        self._fills: OrderedDict[str, int] = OrderedDict()
        self._members: dict[str, int] = {}
        self._state = StateView(TradingState.ACTIVE, "start", "tickgate", 0)
        book.keep_calendars(symbols.universe.calendars)
        self._calendar_of = {calendar.name: number for number, calendar in enumerate(book.calendars)}
        self._apply_limits()
        for symbol in symbols.names:
            self.add_row(symbols.row(symbol), self._instrument(symbol))

    def add_row(self, row: int, instrument: Instrument) -> None:
        """A symbol got its row."""
        book = self.book
        self.names.append(instrument.symbol)
        book.state[HIGHEST_ROW] = max(int(book.state[HIGHEST_ROW]), row + 1)
        book.facts[row, CALENDAR] = self._calendar_of[instrument.calendar]
        self._set_row(row, instrument)
        member = self._members.get(instrument.symbol, -1)
        book.facts[row, MEMBER] = member
        if member >= 0 and book.risk_data is not None:
            book.facts[row, REGIME] = book.risk_data.regimes[member]

    def add_model(self, name: str, version: int, allowed_regimes: Sequence[str]) -> int:
        """Give a model its number in the book; a version that comes back has the one it had, degraded or not.

        Args:
            name: Its own.
            version: Its own.
            allowed_regimes: By name, those that its manifest allows.

        Raises:
            ValueError: There are too many models; `forget_model` makes room.
        """
        known = self.models.get((name, version))
        if known is not None:
            known.allowed_regimes = tuple(allowed_regimes)
            self._set_regimes()
            return known.number
        if not self._free_numbers:
            raise ValueError(f"models: expected at most {MODELS_LIMIT} versions")
        number = heapq.heappop(self._free_numbers)
        self.models[name, version] = ModelFacts(number, tuple(allowed_regimes))
        self.book.models[number] = 0
        self._set_regimes()
        return number

    def forget_model(self, name: str, version: int) -> None:
        """Free the number of a version that is not loaded; its answers become as those before a restart."""
        number = self.models.pop((name, version)).number
        model_of_id = self.ids.facts[:, MODEL]
        model_of_id[model_of_id == number] = -1
        heapq.heappush(self._free_numbers, number)

    def _set_regimes(self) -> None:
        policy = set(self.limits.allowed_regimes)
        for model in self.models.values():
            mask = sum(1 << Regime[regime.upper()] for regime in model.allowed_regimes if regime in policy)
            self.book.models[model.number, ALLOWED_REGIMES] = mask

    def heed(self, name: str, version: int, index: int) -> None:
        """Heed what the observer says of a version by its index in the journal."""
        self.models[name, version].index = index

    def now_ns(self) -> int:
        """The clock, which never goes back; in replay the latest tick's time."""
        known = int(self.book.state[NOW_NS])
        return known if self._clock_ns is None else max(known, self._clock_ns())

    @property
    def state(self) -> StateView:
        """The trading state, who set it, why, and when."""
        return self._state

    def reserve(self, row: int, signed_size: float, valid_for_us: int, order_id: int) -> None:
        """Reserve what was approved and is in the journal as decided."""
        slot = portfolio.reserve(self.book.table, row, signed_size, valid_for_us, order_id)
        self.took_slot(slot, order_id)

    def took_slot(self, slot: int, order_id: int) -> None:
        """A kernel gave an order that slot."""
        evicted = int(self.book.state[EVICTED])
        if evicted:
            self._slot_of.pop(evicted, None)
        self._slot_of[order_id] = slot

    def release_unsent(self, sequences: Sequence[int]) -> None:
        """Answers of these decisions did not leave: their reservations end, and their request ids are forgotten."""
        for sequence in sequences:
            slot = self._slot_of.get(sequence)
            if slot is not None and self.book.order_facts[slot, ORDER_STATE] == OrderState.RESERVED:
                orders.end_order(self.book.table, slot, OrderState.CANCELLED)
            self.ids.forget(sequence)

    # -- what records tell -----------------------------------------------------------------------------------------

    def apply(self, code: int, payload: Mapping[str, Any], sequence: int, clock_ns: int) -> None:
        """Apply a record of the journal to the book, as it was applied when it was written.

        Controls that are none of the desk's change nothing.
        """
        if code in (ControlKind.ORDER, ControlKind.FILL, ControlKind.POSITIONS, ControlKind.TIME):
            portfolio.advance(self.book.table, clock_ns)
        if code == ControlKind.ORDER:
            if payload["order_id"]:
                slot = self._slot_of.get(payload["order_id"])
                if slot is not None:
                    self._apply_order(slot, OrderState(payload["state"]))
                elif "symbol" in payload:  # it had ended long ago, and its slot was not stated
                    self._apply_foreign(self.row_of(payload["symbol"]), payload["signed_size"], payload["order_id"])
            else:
                self._apply_foreign(self.row_of(payload["symbol"]), payload["signed_size"], sequence)
        elif code == ControlKind.FILL:
            report = FillReport(**{**payload, "side": Side(payload["side"])})
            slot = self._slot_of.get(report.order_id, -1) if report.order_id else -1
            self._apply_fill(report, self.row_of(report.symbol), slot, content_of(report))
        elif code == ControlKind.POSITIONS:
            self._apply_positions([PositionSet(**position) for position in payload["positions"]])
        elif code == ControlKind.TRADING_STATE:
            state = TradingState(payload["state"])
            self.apply_state(StateView(state, payload["reason"], payload["who"], clock_ns))
        elif code == ControlKind.UNSENT:
            self.release_unsent(payload["sequences"])
        else:
            self._apply_control(code, payload, clock_ns)

    def _apply_control(self, code: int, payload: Mapping[str, Any], clock_ns: int) -> None:
        if code in (ControlKind.MODEL_DEGRADED, ControlKind.MODEL_REOPENED):
            degraded = int(code == ControlKind.MODEL_DEGRADED)
            self.apply_degraded(payload["name"], payload["version"], degraded=degraded)
        elif code == ControlKind.STARTED:
            self._apply_started(payload["request"], clock_ns)
        elif code == ControlKind.LIMITS:
            said = {name: value for name, value in payload.items() if name not in ("reason", "who")}
            self._apply_limits(Limits.model_validate(said))
        elif code == ControlKind.CONTROL_BLOCK and "fresh" in payload:
            self.book.state[FRESH] = payload["fresh"]

    def _apply_order(self, slot: int, state: OrderState) -> None:
        table = self.book.table
        if state is OrderState.ACCEPTED:
            orders.accept_order(table, slot)
        elif self.book.order_facts[slot, ORDER_STATE] in OPEN:
            orders.end_order(table, slot, state)
            self.book.order_facts[slot, EXPIRES_NS] = 0  # said, and not lapsed

    def _apply_foreign(self, row: int, signed: float, order_id: int) -> None:
        slot = orders.open_order(self.book.table, row, signed, 0, order_id)
        self.took_slot(slot, order_id)

    def _apply_fill(self, report: FillReport, row: int, slot: int, content: int) -> None:
        signed = report.size if report.side is Side.BUY else -report.size
        contract = self.symbols.contracts[row]
        fee = report.fee * (float(self.book.rows[row, POINT_VALUE]) / float(contract[MULTIPLIER]))
        portfolio.book_fill(
            self.book.table, row, slot, signed, report.price, fee if report.fee else 0.0, float(contract[LOT])
        )
        self._fills[report.fill_id] = content
        if len(self._fills) > FILLS_KEPT:
            self._fills.popitem(last=False)

    def _apply_positions(self, positions: Sequence[PositionSet]) -> None:
        for position in positions:
            portfolio.set_position(self.book.table, self.row_of(position.symbol), position.size, position.average_cost)

    def _apply_started(self, request: Mapping[str, Any], clock_ns: int) -> None:
        """A request's input was applied, whose decision came later: time passed, and a tick is what it brought."""
        if request["input"] != TICK:
            portfolio.advance(self.book.table, clock_ns)
        else:
            price = request["price"] if request["kind"] & TRADE else None
            self.restore_decision(
                symbol=request["symbol"],
                clock_ns=clock_ns or request["exchange_ts_ns"],
                price=price,
                signed_size=0.0,
                valid_for_us=0,
                sequence=0,
            )

    def apply_state(self, found: StateView) -> None:
        """The trading state is another one; a limit that was seen passed is dealt with."""
        self._state = found
        self.book.state[TRADING] = found.state
        self.book.state[BREACHED] = 0

    def apply_degraded(self, name: str, version: int, *, degraded: int) -> None:
        """A version is degraded, 1, or open again, 0; one that is not loaded is none of ours."""
        if (name, version) in self.models:
            self.book.models[self.models[name, version].number, DEGRADED] = degraded

    def _apply_limits(self, limits: Limits | None = None) -> None:
        """Put limits in force: those given, or again those that are."""
        if limits is not None:
            self.whole, self.limits = limits, limits.slice_of(self._workers)
        terms.write_limits(self.book, self.limits)
        self._set_regimes()
        for row, name in enumerate(self.names):
            self._set_row(row, self._instrument(name))

    def _instrument(self, symbol: str) -> Instrument:
        return self.symbols.universe.find(symbol) or Instrument(symbol=symbol)

    def _set_row(self, row: int, instrument: Instrument) -> None:
        terms.write_row(self.book, row, instrument, self.limits)
        if self.book.facts[row, HELD]:
            valuation.revalue(self.book.table, row)

    def apply_risk_data(self, found: Found) -> None:
        """Take risk data in, without a word to the journal."""
        self._members = {symbol: index for index, symbol in enumerate(found.data.symbols)}
        members = np.array([self._members.get(name, -1) for name in self.names], np.int64)
        self.book.adopt(found.data, found.exposures, members)
        valuation.recompute(self.book.table)

    def put_state(self, state: TradingState, reason: str, who: str) -> None:
        """Set the trading state while the book is restored, without a word to the journal."""
        self.apply_state(StateView(state, reason, who, self.now_ns()))

    def restore_decision(
        self,
        *,
        symbol: str,
        clock_ns: int,
        price: float | None,
        signed_size: float,
        valid_for_us: int,
        sequence: int,
    ) -> None:
        """Apply what a decision did to the book.

        Args:
            symbol: Its own.
            clock_ns: That was read for it; in replay the tick's time.
            price: Of its trade, where one was applied.
            signed_size: Of the order that it approved; 0: none.
            valid_for_us: Of the approval.
            sequence: Of its record.
        """
        table = self.book.table
        portfolio.advance(table, clock_ns)
        try:
            row = self.row_of(symbol)
        except (RequestError, ReportRefused):
            if signed_size:
                raise
            return  # a price of what is traded here no more
        if price is not None:
            valuation.mark(table, row, price)
        if signed_size:
            self.reserve(row, signed_size, valid_for_us, sequence)

    def twin(self) -> "Ledger":
        """An empty one with the same instruments, models and limits, and rows of its own."""
        rows = self.symbols.twin()
        quotes_trades = np.full((len(self.book.rows), VALUES), np.nan)
        book = Book(len(self.book.rows), quotes_trades, rows.contracts, self.book.bounds.size, self.book.out.size)
        found = Ledger(book, rows, self.whole, workers=self._workers, clock_ns=None)
        rows.on_row = found.add_row
        for (name, version), model in self.models.items():
            found.add_model(name, version, model.allowed_regimes)
        return found

    def take_memory(self, other: "Ledger") -> None:
        """Take over the request ids and fill ids that another ledger knows."""
        self.ids = other.ids
        self._fills = OrderedDict(other.fills())

    def know_fills(self, fills: Iterable[tuple[str, int]]) -> None:
        """Know fill ids again that were booked before, with their contents."""
        self._fills.update(fills)

    def fills(self) -> dict[str, int]:
        """A copy of the fill ids that repeats are known by."""
        return dict(self._fills)

    # -- small things ------------------------------------------------------------------------------------------------

    def row_of(self, symbol: str) -> int:
        """The symbol's row, made if need be."""
        row = self.symbols.row(symbol)
        if row < 0:
            row = self.symbols.offer(symbol)
            if row == symbol_rows.UNKNOWN:
                raise FieldInvalid("symbol", "a symbol of the instrument file", symbol)
            if row < 0:
                raise TableFull(len(self.names))
            self.symbols.keep()
        return row

    def _row_of_slot(self, slot: int) -> int:
        return int(self.book.order_facts[slot, ORDER_ROW])

    def _open_units(self, slot: int) -> float:
        is_open = self.book.order_facts[slot, ORDER_STATE] in OPEN
        return float(self.book.orders[slot, REMAINING]) if is_open else 0.0

    def _state_at(self, slot: int, clock_ns: int) -> OrderState:
        """An order's state once time has passed to `clock_ns`: a reservation may have ended by then."""
        state = OrderState(int(self.book.order_facts[slot, ORDER_STATE]))
        lapsed = state is OrderState.RESERVED and self.book.order_facts[slot, EXPIRES_NS] <= clock_ns
        return OrderState.EXPIRED if lapsed else state

    def _pass_time(self, clock_ns: int) -> None:
        portfolio.advance(self.book.table, clock_ns)


def content_of(report: FillReport) -> int:
    """What makes two reports of one fill the same."""
    said = f"{report.symbol}|{report.side:d}|{report.size!r}|{report.price!r}|{report.order_id}|{report.fee!r}"
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")
