"""Fundamentals: slow values of a symbol (earnings, shares, a rating), joined to ticks as they were known then.

The table has a row a value: `symbol`, `name`, `as_of_ns`, `value`. `as_of_ns` is when the value became **known**, not
the period it speaks of: earnings of a quarter that ended in March and were reported on 28 April are as of 28 April. A
correction is one more row, as of when it was made. So a join never sees a value before its day, and rows appended later
change nothing in the past.

The canonical order is by symbol, name and as-of time; a symbol has at most one value of a name at a time. What counts
at a tick is found by the server's own kernel, `tickgate_server.features.fundamentals`.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features.fundamentals import batch
from tickgate_server.features.fundamentals_table import FLOAT32_MAXIMUM, NAME_BYTES, FundamentalsTable, build
from tickgate_training.data import cells as read_as
from tickgate_training.data import table
from tickgate_training.data.config import FundamentalsData
from tickgate_training.data.files import read_cells
from tickgate_training.errors import ColumnInvalid, FundamentalUnknown, TooFewRows

SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "name": pl.String(),
    "as_of_ns": pl.Int64(),
    "value": pl.Float64(),
}
_KEY = ("symbol", "name", "as_of_ns")
_ONE_VALUE = "a symbol has one value of a name at a time"
_FINITE = "a value is finite, in float32 too"


def read(config: FundamentalsData) -> pl.DataFrame:
    """Read a CSV or Parquet file, in whatever order its rows are.

    Returns:
        The table of fundamentals.

    Raises:
        SourceUnreadable: The file cannot be read, or has no row.
        ColumnInvalid: A column is absent, or of a type that does not hold it.
        CellInvalid: A cell is not what its column holds, or a symbol has two values of a name at a time.
    """
    cells = read_cells(config.path)
    frame = pl.DataFrame(
        {
            "symbol": read_as.texts(cells, config.symbol),
            "name": read_as.texts(cells, config.name),
            "as_of_ns": read_as.stamps_ns(cells, config.as_of),
            "value": read_as.numbers(cells, config.value),
        }
    )
    for canonical, column, length in (
        ("symbol", config.symbol, table.SYMBOL_BYTES_MAXIMUM),
        ("name", config.name, NAME_BYTES),
    ):
        fits = frame[canonical].str.len_bytes() <= length
        cells.require(column, fits, f"this is text of 1 to {length} bytes")
    cells.require(config.value, frame["value"].abs() <= FLOAT32_MAXIMUM, _FINITE)
    cells.require(config.as_of.name, frame.select(pl.struct(_KEY).is_first_distinct()).to_series(), _ONE_VALUE)
    return check(frame.sort(_KEY))


def check(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with the canonical columns in order, or say which column and row is wrong.

    Raises:
        ColumnInvalid: A column is absent or of another type.
        RowInvalid: A value is null, not finite or out of range, or a row is not after the one before it.
        TooFewRows: The table is empty.
    """
    for name, dtype in SCHEMA.items():
        if name not in frame.columns:
            raise ColumnInvalid(name, "none", str(dtype))
        if frame.schema[name] != dtype:
            raise ColumnInvalid(name, str(frame.schema[name]), str(dtype))
    if frame.height == 0:
        raise TooFewRows("table of fundamentals", 0, 1)
    frame = frame.select(*SCHEMA)
    for name in SCHEMA:
        table.require(frame, name, frame[name].is_not_null(), "no value may be null")
    for name, length in (("symbol", table.SYMBOL_BYTES_MAXIMUM), ("name", NAME_BYTES)):
        fits = frame[name].str.len_bytes().is_between(1, length)
        table.require(frame, name, fits, f"this is text of 1 to {length} bytes")
    table.require(frame, "as_of_ns", frame["as_of_ns"] > 0, "a stamp is above 0")
    table.require(frame, "value", frame["value"].abs() <= FLOAT32_MAXIMUM, _FINITE)
    table.require(frame, "as_of_ns", _ascending(frame), f"rows ascend by symbol, name and as-of time, and {_ONE_VALUE}")
    return frame


def join(
    frame: pl.DataFrame, fundamentals: pl.DataFrame, names: Sequence[str], maximum_age_ns: int | Sequence[int]
) -> NDArray[np.float64]:
    """What was known of each symbol at each of its ticks.

    Args:
        frame: Canonical table of ticks, n rows.
        fundamentals: Table of fundamentals.
        names: The k to join.
        maximum_age_ns: How old a value may be at the tick, for all names or one for each; at least 0.

    Returns:
        float64 [n, k]: the symbol's latest value with `as_of_ns` <= the tick's stamp; NaN where there is none, or it is
        older than its maximum age (just as old is not too old).

    Raises:
        FundamentalUnknown: No symbol has a value of that name.
        ValueError: The ages are not one for each name, or below 0.
        ColumnInvalid, RowInvalid, TooFewRows: One of the tables is not what it must be.
    """
    ages_ns = [maximum_age_ns] * len(names) if isinstance(maximum_age_ns, int) else list(maximum_age_ns)
    if len(ages_ns) != len(names) or any(age < 0 for age in ages_ns):
        raise ValueError(f"maximum_age_ns must be one age >= 0, or one for each of {len(names)} names, got {ages_ns}")
    frame, fundamentals = table.check(frame), check(fundamentals)
    require_known(fundamentals, names)
    histories = fundamentals.filter(pl.col("name").is_in(list(names))).partition_by("symbol", "name", as_dict=True)
    stamps_ns = table.values(frame, "exchange_ts_ns")
    joined = np.full((frame.height, len(names)), np.nan)
    rows_of = frame.select("symbol").with_row_index("row").group_by("symbol").agg("row")
    for symbol, of_symbol in rows_of.iter_rows():
        rows = np.array(of_symbol)
        for k, name in enumerate(names):
            history = histories.get((symbol, name))
            if history is not None:
                joined[rows, k] = _in_force(stamps_ns[rows], history, ages_ns[k])
    return joined


def require_known(fundamentals: pl.DataFrame, names: Sequence[str]) -> None:
    """Refuse names that no symbol has a value of; raises FundamentalUnknown."""
    known = tuple(fundamentals["name"].unique().sort())
    for name in names:
        if name not in known:
            raise FundamentalUnknown(name, known)


def table_of(fundamentals: pl.DataFrame) -> FundamentalsTable:
    """A table of fundamentals as the server has it in force."""
    frame = check(fundamentals)
    symbols, names = (frame[column].to_list() for column in ("symbol", "name"))
    return build(symbols, names, table.values(frame, "as_of_ns"), table.values(frame, "value"))


def fingerprint(frame: pl.DataFrame) -> str:
    """As `table.fingerprint`, of a table of fundamentals."""
    return table.fingerprint(frame, SCHEMA)


def _ascending(frame: pl.DataFrame) -> pl.Series:
    """Whether each row comes after the one before it, by symbol, then name, then as-of time; bool [n]."""
    symbol, name, as_of = (pl.col(column) for column in _KEY)
    of_names = (name > name.shift(1)) | ((name == name.shift(1)) & (as_of > as_of.shift(1)))
    after = (symbol > symbol.shift(1)) | ((symbol == symbol.shift(1)) & of_names)
    return frame.select(after.fill_null(value=True)).to_series()


def _in_force(stamps_ns: NDArray[np.int64], history: pl.DataFrame, maximum_age_ns: int) -> NDArray[np.float64]:
    """One symbol's values of one name at its ticks, float64 [n]."""
    return batch(table.values(history, "as_of_ns"), table.values(history, "value"), stamps_ns, maximum_age_ns)
