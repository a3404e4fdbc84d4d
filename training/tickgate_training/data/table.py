"""The canonical table of ticks: what every reader gives and every later stage takes.

One row a trade, in the venue's order, with the quote in force just before it. A table may hold several symbols; then
the readers order it by stamp, and trades of one stamp by symbol. It is a polars DataFrame: its columns are
typed Arrow buffers, so that numpy gets them as they are and the fingerprint hashes what is really there, a missing
column is an error instead of an index alignment, and a filter over a million rows stays on one line. Pandas is needed
only inside the reader of `arch`'s data sets, which come as pandas frames.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_training.errors import ColumnInvalid, RowInvalid, TooFewRows

SYMBOL_BYTES_MAXIMUM = 32
BUY, SELL, UNKNOWN = 1, -1, 0

SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "exchange_ts_ns": pl.Int64(),
    "sequence": pl.UInt64(),  # the feed's number of the trade; 0: it has none
    "price": pl.Float64(),
    "size": pl.Float64(),
    "aggressor": pl.Int8(),  # 1 bought, -1 sold, 0 unknown
    "bid": pl.Float64(),  # this and the next three: NaN where no quote was in force
    "ask": pl.Float64(),
    "bid_size": pl.Float64(),
    "ask_size": pl.Float64(),
}
QUOTE_COLUMNS = ("bid", "ask", "bid_size", "ask_size")


@dataclass(frozen=True, slots=True)
class RowRule:
    """What holds in each row of a table.

    Attributes:
        column: The column that is at fault where it does not.
        holds: Expression over the canonical columns, bool.
        text: The rule in words.
    """

    column: str
    holds: pl.Expr
    text: str


_UNQUOTED = pl.col("bid").is_nan()


def _of_quote(name: str) -> RowRule:
    value = pl.col(name)
    in_range = value.is_finite() & (value > 0 if name in {"bid", "ask"} else value >= 0)
    return RowRule(
        name,
        pl.when(_UNQUOTED).then(value.is_nan()).otherwise(in_range),
        "a quote is whole or absent, its prices finite and above 0, its sizes finite and not below 0",
    )


# The values that the server takes from a tick; what it refuses otherwise is INVALID_VALUE.
VALUE_RULES = (
    RowRule(
        "symbol",
        pl.col("symbol").str.len_bytes().is_between(1, SYMBOL_BYTES_MAXIMUM),
        f"a symbol has 1 to {SYMBOL_BYTES_MAXIMUM} bytes",
    ),
    RowRule("exchange_ts_ns", pl.col("exchange_ts_ns") > 0, "a stamp is above 0"),
    RowRule("price", pl.col("price").is_finite() & (pl.col("price") > 0), "a price is finite and above 0"),
    RowRule("size", pl.col("size").is_finite() & (pl.col("size") >= 0), "a size is finite and not below 0"),
    *(_of_quote(name) for name in QUOTE_COLUMNS),
)
AGGRESSOR_RULE = RowRule("aggressor", pl.col("aggressor").is_between(SELL, BUY), "an aggressor is 1, 0 or -1")
CROSSED_RULE = RowRule("bid", _UNQUOTED | (pl.col("bid") <= pl.col("ask")), "a bid is not above its ask")
ORDER_RULE = "the stamps of a symbol do not decrease"


def ticks_table(columns: dict[str, Any]) -> pl.DataFrame:
    """Build a table from columns and check it; see `check`.

    Args:
        columns: One sequence or array [n] for each name in `SCHEMA`; the quote's may be left out together.
    """
    absent = [name for name in SCHEMA if name not in columns]
    if tuple(absent) == QUOTE_COLUMNS:
        rows = len(columns["exchange_ts_ns"])
        columns = columns | {name: np.full(rows, np.nan) for name in QUOTE_COLUMNS}
    elif absent:
        raise ColumnInvalid(absent[0], "none", str(SCHEMA[absent[0]]))
    frame = pl.DataFrame({name: pl.Series(name, columns[name], dtype=SCHEMA[name]) for name in SCHEMA})
    return check(frame)


def check(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with the canonical columns in order, or say which column and row is wrong.

    Raises:
        ColumnInvalid: A column is absent or of another type.
        RowInvalid: A value is null, not finite, out of range, or a symbol's stamps decrease.
        TooFewRows: The table is empty.
    """
    frame = typed(frame)
    for rule in (*VALUE_RULES, AGGRESSOR_RULE, CROSSED_RULE):
        require(frame, rule.column, frame.select(rule.holds).to_series(), rule.text)
    before = frame.select(pl.col("exchange_ts_ns").shift(1).over("symbol")).to_series()
    ordered = (frame["exchange_ts_ns"] >= before).fill_null(value=True)
    require(frame, "exchange_ts_ns", ordered, ORDER_RULE)
    return frame


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with the canonical columns in order, of their types and without nulls, values not yet judged.

    Raises:
        ColumnInvalid: A column is absent or of another type.
        RowInvalid: A value is null.
        TooFewRows: The table is empty.
    """
    for name, dtype in SCHEMA.items():
        if name not in frame.columns:
            raise ColumnInvalid(name, "none", str(dtype))
        if frame.schema[name] != dtype:
            raise ColumnInvalid(name, str(frame.schema[name]), str(dtype))
    if frame.height == 0:
        raise TooFewRows("table of ticks", 0, 1)
    frame = frame.select(*SCHEMA)
    for name in SCHEMA:
        require(frame, name, frame[name].is_not_null(), "no value may be null")
    return frame


def require(frame: pl.DataFrame, column: str, holds: pl.Series, rule: str) -> None:
    """Refuse the first row where `holds`, bool [n] without nulls, is false.

    Raises:
        RowInvalid: There is one.
    """
    if not holds.all():
        row = int((~holds).arg_true()[0])
        raise RowInvalid(column, row, repr(frame[column][row]), rule)


def values(frame: pl.DataFrame, column: str) -> NDArray[Any]:
    """A numeric column as a contiguous numpy array [n] of its own dtype: a copy, as kernels take no read-only views."""
    return frame[column].to_numpy(writable=True)


def mid(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Middle of the quote in force just before each trade, float64 [n]; the trade's price where there was no quote."""
    middle = (values(frame, "bid") + values(frame, "ask")) / 2.0
    return np.where(np.isnan(middle), values(frame, "price"), middle)


def half_spread(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Half the quoted spread as a fraction of mid, float64 [n]; NaN where there was no quote."""
    bid, ask = values(frame, "bid"), values(frame, "ask")
    return np.asarray((ask - bid) / (ask + bid))


def fingerprint(frame: pl.DataFrame, schema: Mapping[str, pl.DataType] = SCHEMA) -> str:
    """SHA-256, in hexadecimal, over the little-endian bytes of a schema's columns, each after its name and length.

    Equal for equal rows in equal order, whatever file they came from: the readers put several symbols in one order (by
    stamp, then symbol, then the file's), so that the order of the files does not count. Text counts as the lengths of
    its values in UTF-8, unsigned 32 bits each, and then the values: no two columns of text run into each other.
    """
    digest = hashlib.sha256()
    for name, dtype in schema.items():
        if dtype == pl.String:
            lengths = frame[name].str.len_bytes().to_numpy().astype("<u4").tobytes()
            data = lengths + str(frame[name].str.join("").item()).encode()
        else:
            column = values(frame, name)
            data = column.astype(column.dtype.newbyteorder("<")).tobytes()
        digest.update(f"{name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
