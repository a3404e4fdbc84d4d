"""The canonical CSV file of ticks (`tickgate_client.ticks` says what it is), bad rows included.

A row that the client's reader takes is here the same tick; a test holds both to it. What it refuses is told apart:
numbers out of range make a tick that the server rejects as INVALID_VALUE, and what is no number, or not as many cells
as the header, makes a row that is no tick.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.data_check.recording import Piece, PieceBuilder, lines_of
from tickgate_training.errors import SourceUnreadable

COLUMNS = ("symbol", "exchange_ts_ns", "sequence", "price", "size", "aggressor", "bid", "ask", "bid_size", "ask_size")
_SIDES = frozenset({"", "buy", "sell"})
_NONE = math.nan
_SHOWN_CHARACTERS = 80
_INTEGER_DIGITS = 20


class CanonicalFile:
    """A canonical file, plain or gzip; see `recording.Recording`."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self.passed_over: dict[str, int] = {}
        self._path = path

    def pieces(self) -> Iterator[Piece]:
        """See `recording.Recording.pieces`."""
        rows = csv.reader(self._texts(), strict=True)
        self._check_header(rows)
        builder = PieceBuilder()
        while True:
            line = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                builder.refuse(rows.line_num, f"a malformed row ({error})")
                continue
            if row:
                _add(builder, line, row)
            if builder.full:
                yield builder.take()
        yield builder.take()

    def _texts(self) -> Iterator[str]:
        first = True
        for line in lines_of(self._path):
            # What is not UTF-8 becomes lone surrogates, which no field may have: the row is bad, not the file.
            yield line.decode("utf-8-sig" if first else "utf-8", "surrogateescape")
            first = False

    def _check_header(self, rows: Iterator[list[str]]) -> None:
        try:
            header = next(rows, None)
        except csv.Error as error:
            raise SourceUnreadable(self.source, f"line 1: a malformed header ({error})") from error
        if header is None or tuple(header) != COLUMNS:
            found = "an empty file" if header is None else _shown(",".join(header))
            raise SourceUnreadable(self.source, f"line 1: found {found}, expected the header {','.join(COLUMNS)!r}")


class _CellInvalid(Exception):
    """Why a row is no tick."""


def _add(builder: PieceBuilder, line: int, row: list[str]) -> None:
    try:
        builder.add(line, *_tick(row), arrival_ns=0)
    except _CellInvalid as error:
        builder.refuse(line, str(error))


def _tick(row: list[str]) -> tuple[str, int, int, int, tuple[float, ...]]:
    """Symbol, kind, stamp, sequence and values of a row."""
    if len(row) != len(COLUMNS):
        raise _CellInvalid(f"{len(row)} cells; expected {len(COLUMNS)}")
    symbol, stamp, number, price, size, side, bid, ask, bid_size, ask_size = row
    if not symbol.isascii() and any("\ud800" <= letter <= "\udfff" for letter in symbol):
        raise _CellInvalid("symbol: bytes that are not UTF-8; expected text")
    trade = _numbers(COLUMNS[3:5], (price, size))
    quote = _numbers(COLUMNS[6:], (bid, ask, bid_size, ask_size))
    if side not in _SIDES or (side and not trade):
        raise _CellInvalid(f"aggressor: {_shown(side)}; expected 'buy', 'sell' or nothing, and nothing but a trade's")
    kind = (TRADE if trade else 0) | (QUOTE if quote else 0)
    values = (trade or (_NONE,) * 2) + (quote or (_NONE,) * 4)
    return symbol, kind, _integer("exchange_ts_ns", stamp), _integer("sequence", number or "0"), values


def _numbers(columns: tuple[str, ...], cells: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers of a trade or a quote; none where all cells are empty."""
    if not any(cells):
        return ()
    if not all(cells):
        raise _CellInvalid(f"{columns[cells.index('')]}: nothing; expected a number, as the others beside it have")
    try:
        found = tuple(map(float, cells))
    except ValueError:
        found = ()
    if not found or "_" in "".join(cells):  # float() would take Python's 1_000 too
        column = next(name for name, cell in zip(columns, cells, strict=True) if not _is_number(cell))
        raise _CellInvalid(f"{column}: {_shown(cells[columns.index(column)])}; expected a number")
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _integer(column: str, cell: str) -> int:
    digits = cell.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _INTEGER_DIGITS):
        raise _CellInvalid(f"{column}: {_shown(cell)}; expected a whole number")
    return int(cell)


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= _SHOWN_CHARACTERS else cell[:_SHOWN_CHARACTERS] + "…")
