"""The engine's ingestion: what waits, and how it is applied.

Everything happens on the thread that answers. A message is taken in whole, or refused; its ticks wait, in a feed's
reorder window first where it has one, then in one queue for all, and are applied in slices that are bounded in time, so
that whoever asks meanwhile waits for one slice at most. A message is settled, and its publisher told, once the journal
has the last of its ticks.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.desk import Desk
from tickgate_server.errors import FieldInvalid, IngestFull
from tickgate_server.ingest import kernel
from tickgate_server.ingest.arrays import IngestArrays
from tickgate_server.ingest.codes import Codes
from tickgate_server.ingest.columns import MESSAGE_TICKS, Columns, Source, Ticks
from tickgate_server.ingest.reorder import ReorderWindow
from tickgate_server.intake import Intake, stated_held
from tickgate_server.journal.layout import NO_ROW, PUBLISHED, ControlKind, TickOutcome
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.risk import portfolio, valuation
from tickgate_server.risk.reasons import Reason
from tickgate_server.ticks import market
from tickgate_server.ticks import symbols as symbol_rows
from tickgate_server.ticks.market import QUOTE, TRADE

MESSAGES = 4096
"""Most messages that wait."""
FEED_BYTES = 32
CHUNK = 1024
_VIEWED_BYTES = 256
_NO_WORDS = np.zeros(0, np.uint64)
_NEVER_NS = 1 << 62
_ACCEPTED, _CONFIRMED = int(TickOutcome.ACCEPTED), int(TickOutcome.CONFIRMED)
# What `market.apply` said of a tick, as far as a stored state that waits for it depends on that; else it was rejected.
_VERDICTS = {
    _ACCEPTED: market.ACCEPTED_NEW,
    _CONFIRMED: market.ACCEPTED_BOTH,
    int(TickOutcome.AGAIN): market.ACCEPTED_AGAIN,
    int(TickOutcome.HELD_BACK): market.PRICE_JUMP,
}


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How published ticks are taken in.

    Attributes:
        queue_ticks: Most that wait, in the queue and in all reorder windows; at least `MESSAGE_TICKS`.
        conflate: While more than half of the queue is in use, drop ticks that a later one of their symbol supersedes.
        windows_ns: The reorder window of each feed that has one.
        window_ticks: Most ticks that one of these holds.
        slice_ns: How long ticks are applied before others get their turn.
    """

    queue_ticks: int = 131_072
    conflate: bool = False
    windows_ns: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    window_ticks: int = 65_536
    slice_ns: int = 60_000


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a message's ticks.

    Attributes:
        accepted: Applied; one held back and confirmed by another counts with that.
        repeated_latest: The symbol's latest once more.
        conflated: Superseded while they waited.
        rejected: The others, by reason.
    """

    accepted: int = 0
    repeated_latest: int = 0
    conflated: int = 0
    rejected: Mapping[Reason, int] = field(default_factory=dict)


OnSettled = Callable[[Counts | Exception], None]


class Ingestion:
    """Published ticks of one engine; one thread, the one that decides.

    Attributes:
        settings: As given.
        on_work: Called when there is something to apply again: `turn` is to be called until it says that there is not.

    Args:
        settings: See there.
        intake: The state that ticks change.
        desk: Values what is held, and has the clock.
        journal: None: there is none.
        replay: Time is the ticks' own.
        wall_ns: What reorder windows count by; nanoseconds since the epoch.
    """

    def __init__(
        self,
        settings: IngestSettings,
        intake: Intake,
        desk: Desk,
        journal: JournalWriter | None,
        *,
        replay: bool,
        wall_ns: Callable[[], int],
    ) -> None:
        if settings.queue_ticks < MESSAGE_TICKS:
            raise ValueError(f"queue_ticks: expected at least {MESSAGE_TICKS}, got {settings.queue_ticks}")
        self.settings = settings
        self.on_work: Callable[[], None] = lambda: None
        self._intake = intake
        self._symbols = intake.symbols
        self._desk = desk
        self._journal = journal
        self._replay = replay
        self._wall_ns = wall_ns
        capacity = intake.market.stamps.shape[0]
        self._codes = Codes(self._symbols, capacity)
        self._arrays = IngestArrays(intake, desk.book, self._codes.rows_of, CHUNK, MESSAGES, conflate=settings.conflate)
        self._facts = self._arrays.facts
        self._chunk = self._arrays.chunk
        self._windows = {feed: ReorderWindow(ns, settings.window_ticks) for feed, ns in settings.windows_ns.items()}
        self._wanting: deque[Callable[[], bool]] = deque()
        self._segment = 0  # of the journal, that `stated` is about
        self._waits = np.zeros(capacity, np.bool_)  # rows whose symbol a stored state waits for
        self._waits_as_of = (0, 0)
        self._forget()

    def _forget(self) -> None:
        """Nothing waits."""
        self._sources: deque[Source] = deque()
        self._queued = 0
        self._first = 0  # number in the queue of the chunk's first tick
        self._at = self._end = 0  # of the chunk: what is left of it
        self._free_slots = list(range(MESSAGES))
        self._waiting: dict[int, OnSettled] = {}
        self._facts[kernel.DONE_COUNT] = 0
        self._arrays.latest[:] = -1
        self._codes.clear()
        for window in self._windows.values():
            window.clear()

    @property
    def waiting(self) -> int:
        """Ticks that wait, in the queue and in windows."""
        return self._queued + sum(map(len, self._windows.values()))

    @property
    def released_early(self) -> int:
        """Ticks that a full reorder window let go before their time."""
        return sum(window.early for window in self._windows.values())

    def has_room(self, ticks: int) -> bool:
        """Whether so many could be taken in now."""
        return self.waiting + ticks <= self.settings.queue_ticks and bool(self._free_slots)

    def on_room(self, again: Callable[[], bool]) -> None:
        """Have `again` called, after others that asked before, when there may be room; until it returns True."""
        self._wanting.append(again)

    # -- taking in -----------------------------------------------------------------------------------------------------

    def take_in(
        self,
        feed: str,
        data: bytes,
        spans: NDArray[np.int64],
        columns: Columns,
        on_settled: OnSettled,
        *,
        where: str = "ticks.symbols[{}]",
    ) -> None:
        """Take a message's ticks in, all or none.

        Args:
            feed: Whose they are.
            data: Holds the symbols.
            spans: Where each symbol begins in it and its length, int64 [n, 2].
            columns: The ticks; `index` is below n.
            on_settled: Called once, with what became of them, or with the error that kept them from being journaled;
                not before this returns, unless there are none.
            where: As `Codes.find`.

        Raises:
            FieldInvalid: The feed's name is too long, or there are too many ticks; or as `Codes.find`.
            SymbolElsewhere: One of the symbols is another worker's.
            IngestFull: There is no room.
        """
        count = len(columns)
        if len(feed) > FEED_BYTES // 4 and len(feed.encode()) > FEED_BYTES:
            raise FieldInvalid("feed", f"up to {FEED_BYTES} bytes of UTF-8", feed)
        if count > MESSAGE_TICKS:
            raise FieldInvalid("ticks", f"at most {MESSAGE_TICKS:,}", count)
        if self.waiting + count > self.settings.queue_ticks:
            raise IngestFull("ticks", self.settings.queue_ticks)
        if count and not self._free_slots:
            raise IngestFull("messages", MESSAGES)
        try:
            codes = self._codes.find(data, spans, where)
            self._codes.count_in(codes[columns.index])
        finally:
            self._codes.forget_unused()
        if not count:
            on_settled(Counts())
            return
        slot = self._free_slots.pop()
        self._arrays.tallies[slot] = 0
        self._arrays.tallies[slot, kernel.TOTAL] = count
        self._waiting[slot] = on_settled
        source = Source(columns, codes, slot)
        window = self._windows.get(feed)
        # Columns may be views of the message, which then stays as long as they do: not for a few ticks in a large one.
        small = len(codes) <= count and len(data) <= _VIEWED_BYTES * count
        if window is None and not self.settings.conflate and small:
            self._put(source)
            return
        ticks = Ticks.empty(count)
        source.take(ticks, 0)
        if window is None:
            self._queue(ticks)
            return
        self._queue(window.take(ticks, self._wall_ns(), self._plausible_ns()))

    def poll(self) -> None:
        """Let go what has waited long enough in the reorder windows."""
        for window in self._windows.values():
            if len(window) and window.due_ns <= self._wall_ns():
                self._queue(window.let_go(self._wall_ns()))

    def flush(self) -> None:
        """Let go all that the reorder windows hold: no more is to come."""
        for window in self._windows.values():
            self._queue(window.flush())

    def _plausible_ns(self) -> int:
        return _NEVER_NS if self._replay else self._desk.now_ns() + self._intake.future_limit_ns

    def _queue(self, ticks: Ticks) -> None:
        if not len(ticks):
            return
        if self.settings.conflate:
            number = self._first + self._at + self._queued  # of the first of them in the queue
            kernel.note_latest(ticks.integers, ticks.numbers, self._arrays.latest, number, self._plausible_ns())
        self._put(Source(ticks, ticks.integers[:0, 0], -1))

    def _put(self, source: Source) -> None:
        idle = not self._queued
        self._queued += source.left
        self._sources.append(source)
        if idle:
            self.on_work()

    # -- applying ------------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Apply one slice, and tell the publishers whose ticks are settled; whether more waits."""
        due_ns = perf_counter_ns() + self.settings.slice_ns
        try:
            self._arrays.follow()
            while self._queued and self._apply(due_ns):
                pass
        except Exception as error:  # noqa: BLE001 - the boundary: whoever waits is told, and others are served on
            self._fail(error)
        self._tell()
        while self._wanting and self._wanting[0]():
            self._wanting.popleft()
        return self._queued > 0

    def _fail(self, error: Exception) -> None:
        """What waits cannot be journaled, say, and is given up: it may be sent again."""
        told = list(self._waiting.values())
        self._forget()
        for on_settled in told:
            on_settled(error)

    def _tell(self) -> None:
        done = self._arrays.done[: self._facts[kernel.DONE_COUNT]].tolist()
        self._facts[kernel.DONE_COUNT] = 0
        for slot in done:
            counts = counts_of(self._arrays.tallies[slot])
            self._free_slots.append(slot)
            self._waiting.pop(slot)(counts)

    def _refill(self) -> None:
        """Fill the chunk anew."""
        chunk = self._chunk
        self._first += self._end
        self._at, self._end = 0, 0
        while self._sources and self._end < len(chunk):
            self._end += self._sources[0].take(chunk, self._end)
            if not self._sources[0].left:
                self._sources.popleft()

    def _clock_ns(self) -> int:
        return 0 if self._replay else self._desk.now_ns()

    def _apply(self, due_ns: int) -> bool:
        """Apply what is left of the chunk, or some of it; False where the time is over."""
        if self._at == self._end:
            self._refill()
        journal, facts, begin, end = self._journal, self._facts, self._at, self._end
        if self._intake.waiting:
            end = self._before_waiting()
            if end == begin:
                self._apply_first(self._clock_ns())
                return perf_counter_ns() < due_ns
        facts[kernel.CONFLATING] = self.settings.conflate and self._queued > self.settings.queue_ticks // 2
        words, at, sequence, room = (_NO_WORDS, -1, 0, 0) if journal is None else self._places(journal)
        now_ns = self._clock_ns()
        self._at = kernel.apply_ticks(
            self._arrays.table, words, at, sequence, room, begin, end, self._first, now_ns, due_ns
        )
        why = int(facts[kernel.WHY])
        if journal is not None:
            journal.took(int(facts[kernel.RECORDS]))
            if why == kernel.UNSTATED:
                self._state_rows(journal)
            elif why == kernel.CONFIRMED:
                self._journal_applied(int(self._codes.rows_of[self._chunk.integers[self._at, kernel.CODE]]), now_ns)
        if why == kernel.NEWCOMER:
            self._apply_newcomer(now_ns)
        self._queued -= self._at - begin
        self._codes.count_out(self._chunk.integers[begin : self._at, kernel.CODE])
        return why != kernel.TIME_OVER

    def _places(self, journal: JournalWriter) -> tuple[NDArray[np.uint64], int, int, int]:
        """Where the next records go; in another segment rows are to be named again."""
        found = journal.places()
        if journal.segments_begun != self._segment:
            self._segment = journal.segments_begun
            self._arrays.stated[:] = False
        return found

    def _state_rows(self, journal: JournalWriter) -> None:
        """Name the rows that the rest of the chunk has and the journal's segment has not named."""
        codes = self._chunk.integers[self._at : self._end, kernel.CODE]
        rows = np.unique(self._codes.rows_of[codes[codes >= 0]])
        self._state(journal, rows[rows >= 0])

    def _state(self, journal: JournalWriter, rows: NDArray[np.int64]) -> None:
        rows = rows[~self._arrays.stated[rows]]
        names = self._desk.names
        said = {"rows": rows.tolist(), "symbols": [names[row] for row in rows]}
        journal.append_control(ControlKind.SYMBOLS, said, clock_ns=self._clock_ns())
        if journal.segments_begun != self._segment:  # it did not fit the one before
            self._segment = journal.segments_begun
            self._arrays.stated[:] = False
        self._arrays.stated[rows] = True

    def _journal_applied(self, row: int, now_ns: int) -> None:
        """Journal the chunk's tick at hand by itself, before it what it confirmed, and go on behind it."""
        journal = self._journal
        if journal is not None:
            if int(self._arrays.outcomes[self._at, kernel.OUTCOME]) == _CONFIRMED:
                held = stated_held(self._desk.names[row], row, self._intake.market)
                journal.append_control(ControlKind.TICK, held, clock_ns=now_ns)
            self._journal_one(journal, row, now_ns)
        self._at += 1

    def _journal_one(self, journal: JournalWriter, row: int, now_ns: int) -> None:
        """Journal the chunk's tick at hand by itself; `row` below 0: it has none."""
        self._places(journal)
        while row >= 0 and not self._arrays.stated[row]:
            self._state(journal, np.array([row]))
            self._places(journal)
        journal.append_ticks(self._published(self._at, row), clock_ns=now_ns)

    def _published(self, index: int, row: int) -> NDArray[np.void]:
        integers, numbers = self._chunk.integers[index], self._chunk.numbers[index]
        kind = int(integers[kernel.KIND]) & (TRADE | QUOTE)
        found = np.zeros(1, PUBLISHED)
        found["row"] = row if row >= 0 else NO_ROW
        found["kind"] = kind
        found["outcome"], found["reason"] = self._arrays.outcomes[index]
        found["exchange_ts_ns"] = integers[kernel.EXCHANGE_TS_NS]
        found["tick_sequence"] = integers[kernel.SEQUENCE : kernel.SEQUENCE + 1].view(np.uint64)
        if kind & TRADE:
            found["price"], found["size"] = numbers[: kernel.BID]
        if kind & QUOTE:
            found["bid"], found["ask"], found["bid_size"], found["ask_size"] = numbers[kernel.BID :]
        return found

    def _apply_newcomer(self, now_ns: int) -> None:
        """Apply the tick at hand, of a symbol that has no row yet: with it, if it is accepted, the symbol gets one."""
        code = int(self._chunk.integers[self._at, kernel.CODE])
        symbol, rows_of = self._codes.name(code), self._codes.rows_of
        row = self._symbols.row(symbol)
        if row < 0:
            row = self._symbols.offer(symbol)
            if row == symbol_rows.FULL:
                rows_of[code] = row
                return
            row = self._apply_offered(symbol, code, row, now_ns)
            self._journal_applied(row, now_ns)
        if row >= 0:
            rows_of[code] = row

    def _apply_offered(self, symbol: str, code: int, row: int, now_ns: int) -> int:
        """Apply the tick at hand to the row that its symbol was offered; the row if it is kept, else `NEW`."""
        at, facts, rows_of = self._at, self._facts, self._codes.rows_of
        rows_of[code] = row
        facts[kernel.WITH_BOOK] = 0  # which does not know the row yet
        fits = self._try_on(symbol, row)
        kernel.apply_ticks(self._arrays.table, _NO_WORDS, -1, 0, 0, at, at + 1, self._first, now_ns, _NEVER_NS)
        facts[kernel.WITH_BOOK] = 1
        rows_of[code] = kernel.NEW
        table = self._desk.book.table
        kept = int(self._arrays.outcomes[at, kernel.OUTCOME]) in {_ACCEPTED, _CONFIRMED}
        resumed = self._settle(symbol, row, fits, new=True)
        if kept and not resumed:
            self._symbols.keep()
        if now_ns:
            portfolio.advance(table, now_ns)
        elif kept:
            portfolio.advance(table, int(self._chunk.integers[at, kernel.EXCHANGE_TS_NS]))
        if kept and int(self._chunk.integers[at, kernel.KIND]) & TRADE:
            valuation.mark(table, row, float(self._chunk.numbers[at, kernel.PRICE]))
        return row if kept or resumed else kernel.NEW

    # -- stored states, see `states.waiting` ---------------------------------------------------------------------------

    def _before_waiting(self) -> int:
        """The chunk's first tick of a symbol that has a row and that a stored state waits for; its end: there is none.

        Of a symbol that has no row the kernel stops by itself.
        """
        waiting = self._intake.waiting
        as_of = (waiting.changes, len(self._symbols))
        if as_of != self._waits_as_of:
            self._waits_as_of = as_of
            self._waits[:] = False
            rows = [self._symbols.row(state.symbol) for state in waiting.all()]
            self._waits[[row for row in rows if row >= 0]] = True
        codes = self._chunk.integers[self._at : self._end, kernel.CODE]
        rows_of = np.where(codes >= 0, self._codes.rows_of[codes], -1)
        found = np.flatnonzero((rows_of >= 0) & self._waits[rows_of])
        return self._at + int(found[0]) if found.size else self._end

    def _apply_first(self, now_ns: int) -> None:
        """Apply the tick at hand, of a symbol that has a row, and that a stored state waits for."""
        code = int(self._chunk.integers[self._at, kernel.CODE])
        row = int(self._codes.rows_of[code])
        self._apply_known(self._desk.names[row], row, now_ns)
        self._journal_applied(row, now_ns)
        self._queued -= 1
        self._codes.count_out(np.array([code]))

    def _apply_known(self, symbol: str, row: int, now_ns: int) -> None:
        """Apply the tick at hand, of a symbol that has a row, to the state that waits for it, if it goes on from it."""
        fits, at = self._try_on(symbol, row), self._at
        kernel.apply_ticks(self._arrays.table, _NO_WORDS, -1, 0, 0, at, at + 1, self._first, now_ns, _NEVER_NS)
        self._settle(symbol, row, fits, new=False)

    def _try_on(self, symbol: str, row: int) -> bool | None:
        """Put what waits for a symbol into its row, if the tick at hand goes on from it; None: nothing waits."""
        waiting = self._intake.waiting
        if not waiting:
            return None
        integers = self._chunk.integers[self._at]
        stamp_ns, sequence = int(integers[kernel.EXCHANGE_TS_NS]), int(integers[kernel.SEQUENCE].view(np.uint64))
        return waiting.try_on(symbol, row, stamp_ns, sequence, self._intake.market, self._intake.stores)

    def _settle(self, symbol: str, row: int, fits: bool | None, *, new: bool) -> bool:  # noqa: FBT001 - None too
        """What becomes of it, now that the tick was judged; whether the stored state is in force."""
        if fits is None:
            return False
        intake, outcome = self._intake, int(self._arrays.outcomes[self._at, kernel.OUTCOME])
        verdict = _VERDICTS.get(outcome, market.DUPLICATE)
        in_force = intake.waiting.settle(symbol, row, verdict, intake.market, intake.stores, fits=fits)
        if in_force:
            intake.resumed(row, new=new)
        return in_force

    # -- replay --------------------------------------------------------------------------------------------------------

    def apply_again(self, ticks: NDArray[np.void], symbols: list[str], now_ns: int) -> NDArray[np.int64]:
        """Apply what a record of the journal has, as it was applied then; nothing may wait.

        Args:
            ticks: `layout.PUBLISHED` [n].
            symbols: Of each; empty where it had no row, and so changed nothing.
            now_ns: The clock that was read for them; 0: time was the ticks' own.

        Returns:
            int64 [n, 2]: TickOutcome and reason of each; of those without a row as recorded.
        """
        self._arrays.follow()
        if now_ns:
            portfolio.advance(self._desk.book.table, now_ns)
        chunk, rows_of = self._chunk, self._codes.rows_of
        count = ticks.size
        chunk.integers[:count, kernel.KIND] = ticks["kind"]
        chunk.integers[:count, kernel.KIND] |= np.where(ticks["outcome"] == TickOutcome.CONFLATED, kernel.DROPPED, 0)
        chunk.integers[:count, kernel.EXCHANGE_TS_NS] = ticks["exchange_ts_ns"]
        chunk.integers[:count, kernel.SEQUENCE] = ticks["tick_sequence"].view(np.int64)
        chunk.integers[:count, kernel.MESSAGE] = -1
        for column, name in enumerate(PUBLISHED.names[-kernel.NUMBERS :] if PUBLISHED.names else ()):
            chunk.numbers[:count, column] = ticks[name]
        found = np.stack((ticks["outcome"], ticks["reason"]), axis=1).astype(np.int64)
        self._first = 0
        for index, symbol in enumerate(symbols):
            if not symbol:
                continue
            self._at = index
            row = self._symbols.row(symbol)
            code = row
            if row < 0:
                row = self._symbols.offer(symbol)
                code = len(rows_of) - 1
                if row < 0:
                    found[index] = -1
                    continue
                chunk.integers[index, kernel.CODE] = code
                self._apply_offered(symbol, code, row, now_ns)
            else:
                chunk.integers[index, kernel.CODE] = code
                self._apply_known(symbol, row, now_ns)
            found[index] = self._arrays.outcomes[index]
        self._at = self._end = 0
        return found


def counts_of(tally: NDArray[Any]) -> Counts:
    """A message's counts, of a row of `kernel.TALLY` columns."""
    numbers = tally.tolist()
    rejected = {Reason(kernel.FIRST_REASON + at): count for at, count in enumerate(numbers[kernel.REJECTED :]) if count}
    return Counts(numbers[kernel.ACCEPTED], numbers[kernel.AGAIN], numbers[kernel.CONFLATED], rejected)
