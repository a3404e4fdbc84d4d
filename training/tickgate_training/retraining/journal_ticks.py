"""The journal as data: trades that servers applied, asked about or published, with the features that they served.

Ticks that were accepted go through a `FeatureStore` as they went through the server's, beginning with empty windows
where a server began: so each trade's vector is the served one, bit for bit, quotes between trades included. What a
label may not span is told by `part`: a server's start, and records that were lost, begin a new one.

Memory is bounded: the newest `rows_maximum` trades are kept, and windows of `SYMBOLS` symbols.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features.schema import FeatureSet
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.entries import ControlAssembler, ControlEntry
from tickgate_server.journal.errors import RecordDamaged, RecordsRemoved
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.published import published_of
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows, last_sequence
from tickgate_server.records import TICK
from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.data.table import QUOTE_COLUMNS, SCHEMA, UNKNOWN

SYMBOLS = 4096
_BATCH = 4096
_WANTED = [ControlKind.SETTINGS, ControlKind.TICK, ControlKind.STARTED]
_NUMBERS = ("price", "size", *QUOTE_COLUMNS)
_DECISION = ["sequence", "symbol", "tick_kind", "exchange_ts_ns", "tick_sequence", *_NUMBERS]
_TRADE = np.dtype(
    [
        ("symbol", "<i4"),
        ("part", "<i4"),
        ("exchange_ts_ns", "<i8"),
        ("sequence", "<u8"),
        *((name, "<f8") for name in _NUMBERS),
    ]
)
_NO_QUOTE = (float("nan"),) * 4

Tick = tuple[int, str, int, int, int, tuple[float, ...]]
"""Sequence of the record, symbol, kind, stamp, the feed's sequence, numbers in the order of `_NUMBERS`."""


@dataclass(frozen=True, slots=True)
class JournalTicks:
    """Trades of journals, by stamp, then symbol, then the order in which they were applied.

    Attributes:
        frame: Canonical columns [n]; there may be no row. The aggressor is unknown.
        features: What the server computed, float32 [n, width]; NaN where it was not ready.
        part: int64 [n]: rows of one symbol and one part have nothing missing between them.
        lost: Records that retention removed or damage took.
        older: Trades left out, not newer than their symbol's last before a server's start.
        beyond: Ticks left out, of symbols for which there was no room.
    """

    frame: pl.DataFrame
    features: NDArray[np.float32]
    part: NDArray[np.int64]
    lost: int
    older: int
    beyond: int


def read_journals(
    folders: Sequence[Path], symbols: Sequence[str], schema: FeatureSet, rows_maximum: int
) -> JournalTicks:
    """Read what is in some journals now: one server's, or its workers', each with symbols of its own.

    Args:
        folders: Of the journals.
        symbols: Those wanted; none named: all.
        schema: The features to compute.
        rows_maximum: Most trades, of all journals together.

    Raises:
        JournalError: A journal is not there, or a segment is none.
    """
    wanted = frozenset(symbols)
    found = [_Journal(folder, wanted, schema, rows_maximum) for folder in folders]
    for journal in found:
        journal.read()
    names = sorted({name for journal in found for name in journal.names})
    place = {name: number for number, name in enumerate(names)}
    pieces, vectors, first_part = [], [], 0
    for journal in found:
        rows, own = journal.kept()
        rows["symbol"] = np.array([place[name] for name in journal.names] or [0], np.int32)[rows["symbol"]]
        rows["part"] += first_part
        first_part += journal.parts
        pieces.append(rows)
        vectors.append(own)
    rows = np.concatenate(pieces)
    order = np.lexsort((np.arange(rows.size), rows["symbol"], rows["exchange_ts_ns"]))[-rows_maximum:]
    rows = rows[order]
    named = np.array(names or [""])[rows["symbol"]].tolist()
    columns: dict[str, Any] = {name: rows[name].copy() for name in ("exchange_ts_ns", "sequence", *_NUMBERS)}
    columns |= {"symbol": named, "aggressor": np.full(rows.size, UNKNOWN, np.int8)}
    return JournalTicks(
        frame=pl.DataFrame({name: pl.Series(name, columns[name], dtype=SCHEMA[name]) for name in SCHEMA}),
        features=np.concatenate(vectors)[order],
        part=rows["part"].astype(np.int64),
        lost=sum(journal.lost for journal in found),
        older=sum(journal.older for journal in found),
        beyond=sum(journal.beyond for journal in found),
    )


class _Quotes:
    """The quote in force of each symbol, by the rules of `features.quotes`: of one that comes alone, the next stamp."""

    def __init__(self, session_gap_ns: int) -> None:
        self._gap_ns = session_gap_ns
        self._in_force: dict[int, tuple[int, tuple[float, ...]]] = {}
        self._waiting: dict[int, tuple[int, tuple[float, ...]]] = {}

    def take(self, row: int, kind: int, stamp_ns: int, quote: tuple[float, ...]) -> tuple[float, ...]:
        """Take a tick in; the quote that its trade joins, NaN where there is none."""
        waiting = self._waiting.get(row)
        if waiting is not None and waiting[0] < stamp_ns:
            self._in_force[row] = self._waiting.pop(row)
        if kind == QUOTE:
            self._waiting[row] = (stamp_ns, quote)
        elif kind & QUOTE:
            self._waiting.pop(row, None)
            self._in_force[row] = (stamp_ns, quote)
        stated_ns, found = self._in_force.get(row, (0, _NO_QUOTE))
        holds = stated_ns != 0 and (self._gap_ns == 0 or stamp_ns - stated_ns <= self._gap_ns)
        return found if holds else _NO_QUOTE


class _Journal:
    """One journal read from its oldest record to what is its newest at the beginning."""

    def __init__(self, folder: Path, wanted: frozenset[str], schema: FeatureSet, rows_maximum: int) -> None:
        self.names: list[str] = []
        self.parts = 1
        self.lost = self.older = self.beyond = 0
        self._folder = folder
        self._wanted = wanted
        self._schema = schema
        self._limit = rows_maximum
        self._rows: dict[str, int] = {}
        self._kept: deque[tuple[NDArray[np.void], NDArray[np.float32]]] = deque()
        self._total = 0
        self._assembler = ControlAssembler()
        self._last_ns: dict[int, int] = {}
        self._restart()
        self._floor_ns: dict[int, int] = {}

    def read(self) -> None:
        """Read it all."""
        newest = last_sequence(self._folder)
        with JournalReader(self._folder) as reader:
            while reader.next_sequence <= newest and newest:
                try:
                    rows = reader.poll(_BATCH)
                except (RecordsRemoved, RecordDamaged) as error:
                    self.lost += error.last - error.first + 1
                    self._begin_part()
                    continue
                if not rows.size:
                    break
                self._take(rows, reader.symbols)

    def kept(self) -> tuple[NDArray[np.void], NDArray[np.float32]]:
        """Trades of dtype _TRADE [n] with their vectors."""
        if not self._kept:
            return np.empty(0, _TRADE), np.empty((0, self._schema.width), np.float32)
        rows, vectors = zip(*self._kept, strict=True)
        return np.concatenate(rows)[-self._limit :], np.concatenate(vectors)[-self._limit :]

    def _restart(self) -> None:
        self._store = FeatureStore(self._schema, SYMBOLS)
        self._quotes = _Quotes(self._schema.session_gap_ns)
        self._sequences: dict[int, int] = {}

    def _begin_part(self) -> None:
        """A server begins, its windows empty; or what they held is not known."""
        self._restart()
        self.parts += 1
        self._floor_ns = dict(self._last_ns)

    def _take(self, rows: Rows, symbols: Mapping[int, str]) -> None:
        trades: list[tuple[Any, ...]] = []
        vectors: list[NDArray[np.float32]] = []
        for event in self._events(rows, symbols):
            if isinstance(event, ControlEntry):
                self._begin_part()
                continue
            trade = self._apply(event)
            if trade is not None:
                trades.append(trade)
                vectors.append(self._store.vectors[trade[0]].copy())
        if trades:
            self._kept.append((np.array(trades, _TRADE), np.array(vectors)))
            self._total += len(trades)
        while self._kept and self._total - len(self._kept[0][0]) >= self._limit:
            self._total -= len(self._kept.popleft()[0])

    def _events(self, rows: Rows, symbols: Mapping[int, str]) -> Iterator[Tick | ControlEntry]:
        """Ticks that were applied, and servers' starts, in order."""
        kinds = rows["kind"]
        # A decision with a ticket had its tick applied where its STARTED control stands.
        applied = (kinds == RecordKind.DECISION) & (rows["input"] == TICK) & rows["applied"] & (rows["ticket"] == 0)
        found: list[tuple[int, Tick | ControlEntry]] = []
        for row in rows[_DECISION][applied].tolist():
            sequence, symbol, kind, stamp_ns, number, *numbers = row
            found.append((sequence, (sequence, symbol.decode(), kind, stamp_ns, number, tuple(numbers))))
        published = published_of(rows, symbols).applied()
        columns = [published.ticks[name].tolist() for name in ("kind", "exchange_ts_ns", "tick_sequence", *_NUMBERS)]
        for sequence, symbol, kind, stamp_ns, number, *numbers in zip(
            published.sequences.tolist(), published.symbols.tolist(), *columns, strict=True
        ):
            found.append((sequence, (sequence, symbol.decode(), kind, stamp_ns, number, tuple(numbers))))
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], _WANTED)
        for record in controls[wanted]:
            entry = self._assembler.feed(record)
            if entry is None or entry.restated:
                continue
            if entry.code == ControlKind.SETTINGS:
                found.append((entry.sequence, entry))
            elif (tick := _stated(entry)) is not None:
                found.append((entry.sequence, tick))
        return (event for _, event in sorted(found, key=lambda one: one[0]))

    def _apply(self, tick: Tick) -> tuple[Any, ...] | None:
        """Take a tick in as the server did; a row of _TRADE where it has a trade that is wanted."""
        _, symbol, kind, stamp_ns, number, numbers = tick
        if self._wanted and symbol not in self._wanted:
            return None
        row = self._rows.get(symbol, -1)
        if row < 0:
            if len(self._rows) == SYMBOLS:
                self.beyond += 1
                return None
            row = self._rows[symbol] = len(self._rows)
            self.names.append(symbol)
        if number and self._sequences.get(row) == number:  # asked about again, and not applied
            return None
        self._sequences[row] = number
        price, size, *quote = numbers
        self._store.take(row, kind, stamp_ns, price, size, *quote)
        joined = self._quotes.take(row, kind, stamp_ns, tuple(quote))
        if not kind & TRADE:
            return None
        if stamp_ns <= self._floor_ns.get(row, 0):
            self.older += 1
            return None
        self._last_ns[row] = stamp_ns
        return (row, self.parts - 1, stamp_ns, number, price, size, *joined)


def _stated(entry: ControlEntry) -> Tick | None:
    """The tick of a TICK or STARTED control; None where the request brought none."""
    said = entry.payload if entry.code == ControlKind.TICK else entry.payload["request"]
    if entry.code == ControlKind.STARTED and said["input"] != TICK:
        return None
    numbers = tuple(float(said.get(name, 0.0)) for name in _NUMBERS)
    return (
        entry.sequence,
        str(said["symbol"]),
        int(said["kind"]),
        int(said["exchange_ts_ns"]),
        int(said.get("sequence", 0)),
        numbers,
    )
