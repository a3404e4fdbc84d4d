"""What is counted of screened pieces, by symbol and in all, in memory that does not grow with the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tickgate_server.ticks import market
from tickgate_server.ticks.calendars import SessionCalendar
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_training.data.rule_loop import CONFIRMED, LATE, SILENCE_NS, SKIPPED, STEP_NS
from tickgate_training.data_check.largest import Largest
from tickgate_training.data_check.recording import BadRow
from tickgate_training.data_check.screening import Reason, Screened, fault_text
from tickgate_training.data_check.sketch import Sketch
from tickgate_training.data_check.timeline import Timeline

LARGEST = 10
EXAMPLES = 5
BAD_ROWS = 20
OTHERS = ""
"""Name of what is counted together: symbols that are none, and those beyond the most that are told apart."""
# Columns of `Tally.counts`, behind those of `Reason`.
TRADES, QUOTES, LOCKED, NO_TRADE_SIZE, NO_QUOTE_SIZE, AGAIN, CONFIRMATIONS, GAPS, SKIPS, SKIPPED_NUMBERS, CAME_LATE = (
    range(11)
)
_FIRST = len(Reason)
COUNTS = _FIRST + 11
_NS_PER_MS = 1e6
_BPS = 1e4


@dataclass(frozen=True, slots=True)
class Example:
    """A row that was rejected."""

    line: int
    symbol: str
    why: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Time between two accepted ticks of a symbol, the second on `line`."""

    line: int
    symbol: str
    begin_ns: int
    end_ns: int


@dataclass(slots=True)
class Jump:
    """A trade that was held back: its log return, and whether the next one confirmed it."""

    line: int
    symbol: str
    log_return: float
    stamp_ns: int
    row: int
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """Numbers of the feed that were not there when the one on `line` came."""

    line: int
    symbol: str
    sequence: int
    missing: int


@dataclass(slots=True)
class Sessions:
    """Sessions of one symbol: those with an accepted tick, and those between them without.

    Attributes:
        calendar: Whose they are.
        first, last: Numbers of the first and the last; -1: no tick was accepted.
        seen: How many had a tick.
        silences: Silences over the session gap that began and ended in one session.
    """

    calendar: SessionCalendar
    first: int = -1
    last: int = -1
    seen: int = 0
    silences: int = 0


class OfSymbol:
    """What is kept of a symbol beside counts: stamps of its first and last accepted tick, and distributions."""

    __slots__ = ("first_ns", "last_ns", "longest_ns", "sessions", "spreads", "steps")

    def __init__(self, calendar: SessionCalendar | None) -> None:
        self.first_ns = self.last_ns = 0
        self.longest_ns = -1
        self.spreads = Sketch()
        self.steps = Sketch()
        self.sessions = None if calendar is None else Sessions(calendar)


class Tally:
    """Counts screened pieces.

    Attributes:
        names: Symbols in the order of the counts' rows; the first is `OTHERS`.
        counts: int64 [symbols, COUNTS]: rows by `Reason`, then as the columns' names say.
        of_symbol: By the same rows.
        examples: First rejected rows by reason.
        bad_rows, bad: Rows that are no ticks, and the first of them.
        silences, jumps, skips: The greatest.
        steps, delays, spreads: In all: milliseconds that OUT_OF_ORDER stamps stepped back, milliseconds from exchange
            to arrival, and spreads of accepted quotes in basis points of the mid.
        timed: Rows whose arrival was known.
        over_time: Accepted and rejected rows.

    Args:
        symbols: Most symbols told apart.
        session_gap_ns: Silence that counts as a gap; 0: none does.
        calendars: By symbol, where an instrument names one that is not round the clock.
    """

    def __init__(self, symbols: int, session_gap_ns: int, calendars: dict[str, SessionCalendar]) -> None:
        self._limit = symbols + 1
        self._gap_ns = session_gap_ns
        self._calendars = calendars
        self._places: dict[str, int] = {OTHERS: 0}
        self.counts = np.zeros((1, COUNTS), np.int64)
        self.of_symbol: list[OfSymbol] = [OfSymbol(None)]
        self.examples: dict[Reason, list[Example]] = {reason: [] for reason in Reason if reason}
        self.bad_rows = 0
        self.bad: list[BadRow] = []
        self.silences: Largest[Silence] = Largest(LARGEST)
        self.jumps: Largest[Jump] = Largest(LARGEST)
        self.skips: Largest[Skip] = Largest(LARGEST)
        self.steps, self.delays, self.spreads = Sketch(), Sketch(), Sketch()
        self.timed = 0
        self.over_time = Timeline(2)

    @property
    def names(self) -> list[str]:
        """See the class."""
        return list(self._places)

    def take(self, screened: Screened) -> None:
        """Count the next piece."""
        piece = screened.piece
        self.bad_rows += len(piece.bad)
        self.bad += piece.bad[: BAD_ROWS - len(self.bad)]
        if not piece.symbols:
            return
        places = self._places_of(piece.symbols)
        accepted = screened.reasons == Reason.ACCEPTED
        self._count(screened, places, accepted)
        self._list_examples(screened)
        self._take_silences(screened, places)
        self._take_jumps(screened, places)
        self._take_spreads(screened, places, accepted)
        stamped = piece.stamps_ns > 0
        self.over_time.take(piece.stamps_ns[stamped], (~accepted[stamped]).astype(np.int64))
        late = screened.timed
        self.timed += int(late.sum())
        self.delays.take(np.maximum(screened.delays_ns[late], 0) / _NS_PER_MS)

    def _places_of(self, symbols: Sequence[str]) -> NDArray[np.int64]:
        for symbol in dict.fromkeys(symbols):
            if (
                symbol not in self._places
                and len(self._places) < self._limit
                and 0 < len(symbol.encode()) <= SYMBOL_BYTES
            ):
                self._places[symbol] = len(self._places)
                self.of_symbol.append(OfSymbol(self._calendars.get(symbol)))
        if len(self.counts) < len(self._places):
            grown = np.zeros((max(len(self._places), 2 * len(self.counts)), COUNTS), np.int64)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        return np.array([self._places.get(symbol, 0) for symbol in symbols], np.int64)

    def _count(self, screened: Screened, places: NDArray[np.int64], accepted: NDArray[np.bool_]) -> None:
        piece, facts = screened.piece, screened.verdicts.facts
        values = piece.values
        trades, quotes = piece.kinds & market.TRADE != 0, piece.kinds & market.QUOTE != 0
        quoted = accepted & quotes
        confirmed = facts[:, CONFIRMED] >= 0
        columns = (
            (TRADES, accepted & trades),
            (QUOTES, quoted),
            (LOCKED, quoted & (values[:, 2] == values[:, 3])),
            (NO_TRADE_SIZE, accepted & trades & (values[:, 1] == 0.0)),
            (NO_QUOTE_SIZE, quoted & ((values[:, 4] == 0.0) | (values[:, 5] == 0.0))),
            (AGAIN, screened.again),
            (CONFIRMATIONS, confirmed),
            (GAPS, (facts[:, SILENCE_NS] > self._gap_ns) & (self._gap_ns > 0)),
            (SKIPS, facts[:, SKIPPED] > 0),
            (CAME_LATE, facts[:, LATE] > 0),
        )
        flat = places * COUNTS + screened.reasons
        found = np.bincount(flat, minlength=self.counts.size)
        for column, holds in columns:
            found += np.bincount(places[holds] * COUNTS + _FIRST + column, minlength=self.counts.size)
        self.counts += found.reshape(self.counts.shape)
        np.add.at(self.counts[:, _FIRST + SKIPPED_NUMBERS], places, facts[:, SKIPPED])
        for at in np.flatnonzero(facts[:, SKIPPED] > max(self.skips.floor, 0)).tolist():
            missing = int(facts[at, SKIPPED])
            self.skips.offer(missing, Skip(int(piece.lines[at]), piece.symbols[at], int(piece.sequences[at]), missing))

    def _list_examples(self, screened: Screened) -> None:
        for reason, listed in self.examples.items():
            if len(listed) == EXAMPLES:
                continue
            for at in np.flatnonzero(screened.reasons == reason)[: EXAMPLES - len(listed)].tolist():
                piece = screened.piece
                listed.append(Example(int(piece.lines[at]), piece.symbols[at][:40], _why(screened, at, reason)))

    def _take_silences(self, screened: Screened, places: NDArray[np.int64]) -> None:
        piece, facts = screened.piece, screened.verdicts.facts
        applied = np.flatnonzero(screened.reasons == Reason.ACCEPTED)
        for place, rows in _by_place(places, applied):
            kept = self.of_symbol[place]
            stamps_ns, silences_ns = piece.stamps_ns[rows], facts[rows, SILENCE_NS]
            kept.first_ns = kept.first_ns or int(stamps_ns[0])
            kept.last_ns = int(stamps_ns[-1])
            kept.longest_ns = max(kept.longest_ns, int(silences_ns.max()))
            if kept.sessions is not None:
                _take_sessions(kept.sessions, stamps_ns, silences_ns, self._gap_ns)
        for at in applied[facts[applied, SILENCE_NS] > max(self.silences.floor, 0)].tolist():
            silent_ns, end_ns = int(facts[at, SILENCE_NS]), int(piece.stamps_ns[at])
            found = Silence(int(piece.lines[at]), piece.symbols[at], end_ns - silent_ns, end_ns)
            self.silences.offer(silent_ns, found)

    def _take_jumps(self, screened: Screened, places: NDArray[np.int64]) -> None:
        piece, verdicts = screened.piece, screened.verdicts
        events = (screened.reasons == Reason.PRICE_JUMP) | (verdicts.facts[:, CONFIRMED] >= 0)
        for at in np.flatnonzero(events).tolist():
            confirmed = int(verdicts.facts[at, CONFIRMED])
            if confirmed >= 0:
                for jump in self.jumps.items():
                    jump.confirmed |= jump.row == confirmed
                continue
            move = float(verdicts.moves[at])
            row = screened.first + at
            found = Jump(int(piece.lines[at]), piece.symbols[at], move, int(piece.stamps_ns[at]), row)
            self.jumps.offer(abs(move), found)
        stepped = screened.reasons == Reason.OUT_OF_ORDER
        steps_ms = verdicts.facts[:, STEP_NS] / _NS_PER_MS
        self.steps.take(steps_ms[stepped])
        for place, rows in _by_place(places, np.flatnonzero(stepped)):
            self.of_symbol[place].steps.take(steps_ms[rows])

    def _take_spreads(self, screened: Screened, places: NDArray[np.int64], accepted: NDArray[np.bool_]) -> None:
        piece = screened.piece
        bids, asks = piece.values[:, 2], piece.values[:, 3]
        spreads_bps = _BPS * (asks - bids) / (bids / 2.0 + asks / 2.0)
        quoted = np.flatnonzero(accepted & (piece.kinds & market.QUOTE != 0))
        self.spreads.take(spreads_bps[quoted])
        for place, rows in _by_place(places, quoted):
            self.of_symbol[place].spreads.take(spreads_bps[rows])


def _by_place(places: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Some rows, by the place that each has, in their order."""
    order = rows[np.argsort(places[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(places[order], prepend=-1, append=-1)) if rows.size else np.zeros(0, np.int64)
    for begin, end in pairwise(borders.tolist()):
        yield int(places[order[begin]]), order[begin:end]


def _take_sessions(
    sessions: Sessions, stamps_ns: NDArray[np.int64], silences_ns: NDArray[np.int64], gap_ns: int
) -> None:
    numbers = sessions.calendar.session_of(stamps_ns)
    before = np.concatenate(([sessions.last if sessions.seen else numbers[0] - 1], numbers[:-1]))
    sessions.seen += int((numbers != before).sum())
    sessions.silences += int(((numbers == before) & (silences_ns > gap_ns) & (gap_ns > 0)).sum())
    if sessions.first < 0:
        sessions.first = int(numbers[0])
    sessions.last = int(numbers[-1])


def _why(screened: Screened, at: int, reason: Reason) -> str:
    """What is said of a rejected row."""
    piece, verdicts, delay_ms = screened.piece, screened.verdicts, screened.delays_ns[at] / _NS_PER_MS
    again = ", the symbol's latest tick once more" if screened.again[at] else ""
    if reason == Reason.INVALID_VALUE:
        return fault_text(piece, at)
    return {
        Reason.UNKNOWN_SYMBOL: "not among the instruments",
        Reason.SYMBOL_TABLE_FULL: "no room for another symbol",
        Reason.DUPLICATE: f"sequence {piece.sequences[at]}{again}",
        Reason.OUT_OF_ORDER: f"{verdicts.facts[at, STEP_NS] / _NS_PER_MS:g} ms before the symbol's last",
        Reason.FROM_FUTURE: f"{-delay_ms:g} ms ahead of its arrival",
        Reason.STALE: f"{delay_ms:g} ms before its arrival",
        Reason.CROSSED_QUOTE: f"bid {piece.values[at, 2]:g} above ask {piece.values[at, 3]:g}",
        Reason.PRICE_JUMP: f"price {piece.values[at, 0]:g}, a log return of {verdicts.moves[at]:+.4f}",
    }[reason]
