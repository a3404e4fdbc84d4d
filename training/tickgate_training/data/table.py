"""The canonical table of ticks: what every reader gives and every later stage takes.

One row a trade, in the venue's order, with the quote in force just before it. It is a polars DataFrame: its columns are
typed Arrow buffers, so that numpy gets them as they are and the fingerprint hashes what is really there, a missing
column is an error instead of an index alignment, and a filter over a million rows stays on one line. Pandas is needed
only inside the reader of `arch`'s data sets, which come as pandas frames.
"""

import hashlib
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
_WHOLE_QUOTE = "a quote is whole or absent, its prices finite and above 0, its sizes finite and not below 0"


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
    for name, dtype in SCHEMA.items():
        if name not in frame.columns:
            raise ColumnInvalid(name, "none", str(dtype))
        if frame.schema[name] != dtype:
            raise ColumnInvalid(name, str(frame.schema[name]), str(dtype))
    if frame.height == 0:
        raise TooFewRows("table of ticks", 0, 1)
    frame = frame.select(*SCHEMA)
    for name in SCHEMA:
        _require(frame, name, frame[name].is_not_null(), "no value may be null")
    sized = frame["symbol"].str.len_bytes().is_between(1, SYMBOL_BYTES_MAXIMUM)
    _require(frame, "symbol", sized, f"a symbol has 1 to {SYMBOL_BYTES_MAXIMUM} bytes")
    _require(frame, "exchange_ts_ns", frame["exchange_ts_ns"] > 0, "a stamp is above 0")
    _require(frame, "price", frame["price"].is_finite() & (frame["price"] > 0), "a price is finite and above 0")
    _require(frame, "size", frame["size"].is_finite() & (frame["size"] >= 0), "a size is finite and not below 0")
    _require(frame, "aggressor", frame["aggressor"].is_between(SELL, BUY), "an aggressor is 1, 0 or -1")
    _check_quotes(frame)
    before = frame.select(pl.col("exchange_ts_ns").shift(1).over("symbol")).to_series()
    ordered = (frame["exchange_ts_ns"] >= before).fill_null(value=True)
    _require(frame, "exchange_ts_ns", ordered, "the stamps of a symbol do not decrease")
    return frame


def _check_quotes(frame: pl.DataFrame) -> None:
    unquoted = frame["bid"].is_nan()
    for name in QUOTE_COLUMNS:
        positive = frame[name] > 0 if name in {"bid", "ask"} else frame[name] >= 0
        quoted = frame[name].is_finite() & positive & ~unquoted
        _require(frame, name, quoted | (frame[name].is_nan() & unquoted), _WHOLE_QUOTE)
    _require(frame, "bid", unquoted | (frame["bid"] <= frame["ask"]), "a bid is not above its ask")


def _require(frame: pl.DataFrame, column: str, holds: pl.Series, rule: str) -> None:
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


def fingerprint(frame: pl.DataFrame) -> str:
    """SHA-256, in hexadecimal, over the canonical columns' little-endian bytes, each after its name and length.

    Equal for equal data whatever file they came from; symbols count as their UTF-8 with a newline after each.
    """
    digest = hashlib.sha256()
    for name in SCHEMA:
        if name == "symbol":
            data = "".join(f"{symbol}\n" for symbol in frame["symbol"]).encode()
        else:
            column = values(frame, name)
            data = column.astype(column.dtype.newbyteorder("<")).tobytes()
        digest.update(f"{name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
