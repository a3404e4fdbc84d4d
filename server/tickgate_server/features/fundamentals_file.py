"""Files of fundamentals, CSV, JSON or Parquet, to the table; as a program it writes the table's file to its output.

A row a value: `symbol`, `name`, when it became known, `value`, in whatever order. The rules are those of training
(`tickgate_training.data.fundamentals`), which reads the same files: a test holds both to the same tables and refusals.
Text is taken apart row by row, seconds for a million of them: so a server has it done by a process of its own, and
its own interpreter stays free. Rows count from 0 below the header; blank lines count, and are passed over.
"""

import csv
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np

from tickgate_server.features.fundamentals_json import JsonInvalid, rows_of
from tickgate_server.features.fundamentals_table import (
    FLOAT32_MAXIMUM,
    NAME_BYTES,
    ROWS_LIMIT,
    SYMBOL_BYTES,
    FundamentalsInvalid,
    FundamentalsTable,
    ValueTwice,
    build,
    pack,
)

REFUSED = 3
"""Exit status of the program where the file is refused; standard error says why."""
_NICER = 10
_GZIP = b"\x1f\x8b"
_PARQUET, _JSON = ".parquet", ".json"
_DIGITS = {"ns": 0, "us": 3, "ms": 6, "s": 9}  # decimal places to a nanosecond
_FIRST_YEAR, _LAST_YEAR = 1970, 2261  # of int64 nanoseconds
_LAST_NS = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)

Cell = str | float | None
Unit = Literal["ns", "us", "ms", "s", "iso"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a file is what.

    Attributes:
        symbol, name, value: Names of columns.
        as_of: The column that says when a value became known.
        as_of_unit: What its numbers count from the Unix epoch; `iso`: it is ISO 8601 text, or a date-time type.
        time_zone: What an `iso` time without an offset means; None: each carries its own.
    """

    symbol: str = "symbol"
    name: str = "name"
    value: str = "value"
    as_of: str = "as_of_ns"
    as_of_unit: Unit = "ns"
    time_zone: str | None = None


class _Refused(Exception):
    """Why a file is no table; the path is added where it is known."""


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells by column, and each row's number in the file."""

    columns: dict[str, Sequence[Cell]]
    rows: Sequence[int]


def read(path: Path, columns: Columns) -> FundamentalsTable:
    """Read a Parquet or a JSON file (by its ending, `.parquet`, `.json`) or a CSV file in UTF-8 (any other).

    CSV and JSON may be gzipped; what JSON must be says `features.fundamentals_json`.

    Raises:
        FundamentalsInvalid: It is absent, cannot be read, or a cell is not what its column holds: names column, row
            and rule. Parquet where polars is not installed.
    """
    try:
        wanted = (columns.symbol, columns.name, columns.as_of, columns.value)
        if path.suffix == _PARQUET:
            return _table(_read_parquet(path, wanted, columns), columns)
        return _table(_read_json(path, wanted) if path.suffix == _JSON else _read_csv(path, wanted), columns)
    except _Refused as error:
        raise FundamentalsInvalid(path, str(error)) from error


def _table(cells: _Cells, columns: Columns) -> FundamentalsTable:
    count = len(cells.rows)
    if count == 0:
        raise _Refused("expected at least one row below the header, found none")
    if count > ROWS_LIMIT:
        raise _Refused(f"expected at most {ROWS_LIMIT} rows, found {count}")
    symbols = _each(cells, columns.symbol, _text_up_to(SYMBOL_BYTES))
    names = _each(cells, columns.name, _text_up_to(NAME_BYTES))
    stamps = _each(cells, columns.as_of, _stamp_reader(columns))
    values = _each(cells, columns.value, _number)
    try:
        table = build(symbols, names, np.array(stamps, np.int64), np.array(values, np.float64))
    except ValueTwice as error:
        raise _at(cells, columns.as_of, error.row, "a symbol has one value of a name at a time") from error
    if len(table.symbols) * len(table.names) > ROWS_LIMIT:
        raise _Refused(f"expected at most {ROWS_LIMIT} pairs of symbol and name")
    return table


def _each(cells: _Cells, column: str, of_cell: Callable[[Cell], Any]) -> list[Any]:
    """Every cell of a column as `of_cell` takes it; what it refuses with a ValueError is named with column and row."""
    found = []
    for at, cell in enumerate(cells.columns[column]):
        try:
            found.append(of_cell(cell))
        except ValueError as error:
            raise _at(cells, column, at, str(error)) from error
    return found


def _at(cells: _Cells, column: str, at: int, rule: str) -> _Refused:
    cell = cells.columns[column][at]
    found = "an empty cell" if cell is None else repr(cell)
    return _Refused(f"column {column!r}, row {cells.rows[at]}: found {found}, but {rule}")


# -- cells ---------------------------------------------------------------------------------------------------------


def _text_up_to(length: int) -> Callable[[Cell], str]:
    def text(cell: Cell) -> str:
        if not isinstance(cell, str) or not 0 < len(cell.encode()) <= length:
            raise ValueError(f"this is text of 1 to {length} bytes")
        return cell

    return text


def _number(cell: Cell) -> float:
    if not (isinstance(cell, float) or (isinstance(cell, str) and _NUMBER.fullmatch(cell))):
        raise ValueError("this is a number")
    number = float(cell)
    if not abs(number) <= FLOAT32_MAXIMUM:
        raise ValueError("a value is finite, in float32 too")
    return number


def _stamp_reader(columns: Columns) -> Callable[[Cell], int]:
    unit = columns.as_of_unit
    if unit == "iso":
        zone = None if columns.time_zone is None else ZoneInfo(columns.time_zone)
        return lambda cell: _instant_ns(cell, zone)
    digits = _DIGITS[unit]
    places = f"at most {digits} decimal places" if digits else "no decimal places"
    rule = f"a time in {unit} is a number above 0 with {places}, before {_LAST_YEAR + 1}"
    shape = re.compile(rf"(\d{{1,{19 - digits}}})" + (rf"(?:\.(\d{{1,{digits}}}))?" if digits else "()"), re.ASCII)

    def stamp_ns(cell: Cell) -> int:
        match = shape.fullmatch(str(cell))  # of a number too: one way for both
        found = int(match[1] + (match[2] or "").ljust(digits, "0")) if match else 0
        if not 0 < found <= _LAST_NS:
            raise ValueError(rule)
        return found

    return stamp_ns


def _instant_ns(cell: Cell, zone: ZoneInfo | None) -> int:
    """ISO 8601 to nanoseconds; the digits that a datetime has no room for are kept beside it."""
    if cell is not None and not isinstance(cell, str):  # a date-time type, taken apart as it was read
        return int(cell)
    match = None if cell is None else _ISO.fullmatch(cell)
    if match is None or (match[4] is None) == (zone is None):
        raise ValueError(_zone_rule(zone))
    day, time, fraction, offset = match.groups()
    if not _FIRST_YEAR <= int(day[:4]) <= _LAST_YEAR:
        raise ValueError(_year_rule())
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{offset or ''}")
    except ValueError:
        raise ValueError(_zone_rule(zone)) from None
    if zone is not None:
        moment = _once(moment, zone)
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    found = seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    if not 0 < found <= _LAST_NS:
        raise ValueError(_year_rule())
    return found


def _once(moment: datetime, zone: ZoneInfo) -> datetime:
    """A wall-clock time as an instant, if a change of clocks neither skips nor repeats it."""
    earlier = moment.replace(tzinfo=zone, fold=0)
    later = moment.replace(tzinfo=zone, fold=1)
    if earlier.utcoffset() != later.utcoffset():
        raise ValueError(f"a time happens once in {zone.key}, not never or twice")
    return earlier


def _zone_rule(zone: ZoneInfo | None) -> str:
    if zone is None:
        return "a time is ISO 8601, date and time with its offset from UTC; times without one need time_zone"
    return f"a time is ISO 8601, date and time without an offset, as time_zone says {zone.key}"


def _year_rule() -> str:
    return f"a time is ISO 8601, after the start of {_FIRST_YEAR} and before {_LAST_YEAR + 1}"


# -- files ---------------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise _Refused(f"cannot be read as UTF-8 text ({error})") from error


def _read_json(path: Path, wanted: Sequence[str]) -> _Cells:
    try:
        rows = rows_of(_unpacked(path))
    except JsonInvalid as error:
        raise _Refused(str(error)) from error
    names = list(rows[0]) if rows else list(wanted)
    for name in wanted:
        _place(names, name)
    return _Cells({name: [row[name] for row in rows] for name in wanted}, range(len(rows)))


def _read_csv(path: Path, wanted: Sequence[str]) -> _Cells:
    try:
        text = _unpacked(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused(f"cannot be read as UTF-8 text ({error})") from error
    if "\0" in text:
        raise _Refused("is no text: it has a zero byte")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next((line for line in lines if line), None)
        if header is None:
            raise _Refused("is empty")
        names = [name.strip() for name in header]
        places = [_place(names, name) for name in wanted]
        found: list[list[str | None]] = [[] for _ in wanted]
        rows = []
        for row, line in enumerate(lines):
            if not any(line):
                continue
            if len(line) != len(header):
                raise _Refused(f"row {row}: expected {len(header)} cells, as in the header, found {len(line)}")
            rows.append(row)
            for column, place in zip(found, places, strict=True):
                column.append(line[place] or None)
    except csv.Error as error:
        raise _Refused(f"cannot be read as comma-separated text (line {lines.line_num}: {error})") from error
    return _Cells(dict(zip(wanted, found, strict=True)), rows)


def _place(header: Sequence[str], name: str) -> int:
    if header.count(name) != 1:
        raise _Refused(f"expected one column {name!r}, found {header.count(name)} among {', '.join(header)}")
    return header.index(name)


def _read_parquet(path: Path, wanted: Sequence[str], columns: Columns) -> _Cells:
    try:
        import polars as pl  # noqa: PLC0415 - training's, and slow to import
    except ImportError as error:
        raise _Refused("Parquet is read by polars, which is not installed: pip install 'tickgate[training]'") from error
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _Refused(f"cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    found: dict[str, Sequence[Cell]] = {}
    for name in wanted:
        _place(frame.columns, name)
        column, dtype = frame[name], frame.schema[name]
        if name == columns.value and dtype.is_numeric():
            column = column.cast(pl.Float64)
        elif name == columns.as_of and columns.as_of_unit == "iso" and dtype != pl.String:
            column = _date_times(column, dtype, columns)
        elif name == columns.as_of and not (dtype == pl.String or dtype.is_integer()):
            raise _Refused(f"column {name!r}: found {dtype}, expected whole numbers or text, in {columns.as_of_unit}")
        found[name] = column.to_list()
    return _Cells(found, range(frame.height))


def _date_times(column: Any, dtype: Any, columns: Columns) -> Any:
    """A polars column of date-times as nanoseconds."""
    zone = _zone(columns)
    zoned = getattr(dtype, "time_zone", None) is not None
    if not hasattr(dtype, "time_zone") or zoned == (zone is not None):
        raise _Refused(f"column {columns.as_of!r}: found {dtype}, but {_zone_rule(zone)}")
    outside = ~column.dt.year().is_between(_FIRST_YEAR, _LAST_YEAR)
    if outside.any():
        row = outside.fill_null(value=False).arg_true()[0]
        raise _Refused(f"column {columns.as_of!r}, row {row}: found {str(column[row])!r}, but {_year_rule()}")
    if zone is not None:
        column = column.dt.replace_time_zone(zone.key, ambiguous="null", non_existent="null")
    return column.dt.timestamp("ns")


def _zone(columns: Columns) -> ZoneInfo | None:
    return None if columns.time_zone is None else ZoneInfo(columns.time_zone)


# -- the program ---------------------------------------------------------------------------------------------------


def command(path: Path, columns: Columns) -> list[str]:
    """The program that reads a file: the table's file comes on its standard output."""
    return [sys.executable, "-m", __name__, str(path), json.dumps(asdict(columns))]


def main(path: str, columns: str) -> int:
    """Read a file and write the table's to standard output; the exit status."""
    os.nice(_NICER)
    try:
        packed = pack(read(Path(path), Columns(**json.loads(columns))))
    except FundamentalsInvalid as error:
        sys.stderr.write(error.why)
        return REFUSED
    sys.stdout.buffer.write(packed)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
