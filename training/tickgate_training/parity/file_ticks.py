"""The ticks of a file that the server's rules let through, as the batch kernels take them, found again by the journal.

Unlike in `data.table`, rows may be quotes alone: what was published or asked about tick by tick is compared as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features import batch
from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.features.schema import FeatureSet
from tickgate_server.ticks import market
from tickgate_training.data import table
from tickgate_training.data.binance import read_capture
from tickgate_training.data.daily import read_bars
from tickgate_training.data.rule_loop import CONFIRMED, INVALID, NUMBERS, RuleLoop, faults
from tickgate_training.data_check.canonical import CanonicalFile
from tickgate_training.data_check.recording import Piece

FORMATS = ("csv", "binance", "daily")
ABSENT, REJECTED = -1, -2
"""In place of a row: the file has no such tick; it has one, and the rules reject it."""


@dataclass(slots=True)
class OfSymbol:
    """One symbol's accepted ticks, in order.

    Attributes:
        lines, kinds, stamps_ns: int64 [n].
        sequences: uint64 [n].
        values: float64 [n, 6] in the order of `rule_loop.NUMBERS`.
        by_sequence: Row of each number; REJECTED where the rules reject every tick that has it.
        by_stamp: Rows of the ticks without a number that have a stamp, in order.
    """

    lines: NDArray[np.int64]
    kinds: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    sequences: NDArray[np.uint64]
    values: NDArray[np.float64]
    by_sequence: dict[int, int]
    by_stamp: dict[int, list[int]] = field(default_factory=dict)

    def compute(
        self, schema: FeatureSet, begin: int, known: FundamentalsTable | None, symbol: str
    ) -> NDArray[np.float32]:
        """Training's features of the ticks from a row on, whose windows begin there; float32 [n - begin, width]."""
        columns: dict[str, Any] = {name: self.values[begin:, k].copy() for k, name in enumerate(NUMBERS)}
        columns |= {"exchange_ts_ns": self.stamps_ns[begin:], "kind": self.kinds[begin:]}
        return batch.compute(schema, known=known, symbol=symbol, **columns)

    def trades_in_window(self, session_gap_ns: int, begin: int) -> NDArray[np.int64]:
        """Trades since the windows began anew, at each tick from a row on, int64 [n - begin]; see `features.store`."""
        trades = self.kinds[begin:] & market.TRADE != 0
        number = np.cumsum(trades)
        stamps_ns = self.stamps_ns[begin:][trades]
        after_gap = np.diff(stamps_ns, prepend=stamps_ns[:1]) > session_gap_ns
        if session_gap_ns == 0:
            after_gap[:] = False
        before = np.maximum.accumulate(np.where(after_gap, np.arange(stamps_ns.size), 0))
        counts = np.concatenate((np.zeros(1, np.int64), np.arange(1, stamps_ns.size + 1) - before))
        return np.asarray(counts[number])


@dataclass(frozen=True, slots=True)
class FileTicks:
    """A file's ticks.

    Attributes:
        symbols: By name.
        rows: Ticks of the file.
        accepted: Those that the rules let through.
        unreadable: Rows that are no ticks.
    """

    symbols: dict[str, OfSymbol]
    rows: int
    accepted: int
    unreadable: int


def read(source: str, kind: str) -> FileTicks:
    """Read a file of one of `FORMATS`: what `replay-ticks` sends of it, in its order.

    Raises:
        DataError: It cannot be read.
    """
    if kind == "csv":
        pieces = list(CanonicalFile(Path(source)).pieces())
    else:
        frame = read_capture(Path(source), "drop").frame if kind == "binance" else read_bars(source)
        pieces = [_piece(frame)]
    return _gathered(pieces)


def _piece(frame: pl.DataFrame) -> Piece:
    """Rows of a canonical table; a row's place stands for its line."""
    unquoted = frame["bid"].is_nan().to_numpy()
    return Piece(
        symbols=frame["symbol"].to_list(),
        lines=np.arange(1, frame.height + 1),
        kinds=np.where(unquoted, market.TRADE, market.TRADE | market.QUOTE),
        stamps_ns=table.values(frame, "exchange_ts_ns"),
        sequences=table.values(frame, "sequence"),
        values=np.column_stack([table.values(frame, name) for name in NUMBERS]),
        arrivals_ns=np.zeros(frame.height, np.int64),
        bad=[],
    )


def _gathered(pieces: list[Piece]) -> FileTicks:
    names = [name for piece in pieces for name in piece.symbols]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    rows = np.array([places[name] for name in names], np.int64)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("lines", "kinds", "stamps_ns", "sequences", "values")
    }
    accepted = _accepted(rows, len(places), columns)
    symbols = {
        name: _of_symbol({column: array[own] for column, array in columns.items()}, accepted[own])
        for name, own in _rows_of(places, rows)
    }
    return FileTicks(symbols, rows.size, int(accepted.sum()), sum(len(piece.bad) for piece in pieces))


def _rows_of(places: dict[str, int], rows: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    order = np.argsort(rows, kind="stable")
    parts = np.split(order, np.searchsorted(rows[order], np.arange(1, len(places))))
    yield from zip(places, parts, strict=False)  # a file without a tick has one empty part and no symbol


def _accepted(rows: NDArray[np.int64], symbols: int, columns: dict[str, Any]) -> NDArray[np.bool_]:
    broken = faults(columns["kinds"], columns["stamps_ns"], columns["values"]) > 0
    found = RuleLoop(max(symbols, 1)).judge(
        np.where(broken, -1, rows), columns["kinds"], columns["stamps_ns"], columns["sequences"], columns["values"]
    )
    kept = (found.codes != INVALID) & np.isin(found.codes, (market.ACCEPTED_NEW, market.ACCEPTED_BOTH))
    confirmed = found.facts[:, CONFIRMED]
    kept[confirmed[confirmed >= 0]] = True
    return np.asarray(kept)


def _of_symbol(columns: dict[str, Any], accepted: NDArray[np.bool_]) -> OfSymbol:
    rejected = columns["sequences"][~accepted]
    by_sequence = dict.fromkeys(rejected[rejected > 0].tolist(), REJECTED)
    kept: dict[str, Any] = {name: np.ascontiguousarray(array[accepted]) for name, array in columns.items()}
    by_sequence |= {number: row for row, number in enumerate(kept["sequences"].tolist()) if number}
    found = OfSymbol(by_sequence=by_sequence, **kept)
    for row in np.flatnonzero(found.sequences == 0).tolist():
        found.by_stamp.setdefault(int(found.stamps_ns[row]), []).append(row)
    return found
