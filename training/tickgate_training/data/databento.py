"""CSV in Databento's layout: schemas `trades`, `tbbo` and `mbp-1` (databento.com/docs/schemas).

What the files mean, and where they mislead:
- Of `mbp-1` the rows with action `T` are the trades; adds, cancels and other changes of the book are passed over. The
  book in a trade's row, `bid_px_00` to `ask_sz_00`, is the one just before its effect: what the canonical table wants.
- `side` is the aggressor's: `A` sold, `B` bought, `N` unknown.
- `ts_event` is the matching engine's time, as nanoseconds or as ISO text with an offset. Files are sorted by
  `ts_recv`: where several venues are in one file, `ts_event` may step back, which is OUT_OF_ORDER.
- Prices are integers of 1e-9, or decimals where pretty prices were asked for. A column is one or the other: decimals
  always have a point, and a column where some have one and some not is refused. 2^63 - 1, or an empty cell, stands for
  no price; a book with one side only is no quote.
- `sequence` numbers the venue's messages, and one message may carry several trades: by the server's rules the second
  would be a duplicate. So it is taken only if `venue_sequences` says that this venue sends one trade a message.
"""

from pathlib import Path

import numpy as np
import polars as pl

from tickgate_training.data import cells as read
from tickgate_training.data.config import DatabentoData, SideColumn, StampColumn
from tickgate_training.data.feeds import Feed, feed_of
from tickgate_training.data.files import Cells, read_cells
from tickgate_training.data.table import QUOTE_COLUMNS
from tickgate_training.errors import SourceUnreadable

_NO_PRICE = 2**63 - 1
_UNITS_PER_PRICE = 1_000_000_000
_SIDE = SideColumn(name="side", buy="B", sell="A", unknown="N")
_BOOK = dict(zip(QUOTE_COLUMNS, ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00"), strict=True))
_ACTIONS = ["A", "C", "M", "R", "T", "F", "N"]  # add, cancel, modify, clear, trade, fill, none


def read_databento(config: DatabentoData) -> list[Feed]:
    """Read files in Databento's layout.

    Raises:
        SourceUnreadable: A file cannot be read, or has no trade.
        ColumnInvalid: A column is absent.
        CellInvalid: A cell is not what its column holds.
    """
    return [_read(path, config) for path in config.paths]


def _read(path: Path, config: DatabentoData) -> Feed:
    cells = read_cells(path)
    actions = read.texts(cells, "action")
    cells.require("action", actions.is_in(_ACTIONS), f"an action is one of {', '.join(_ACTIONS)}")
    cells = cells.where(actions == "T")
    if cells.frame.height == 0:
        raise SourceUnreadable(str(path), "has no trade (action T)")
    columns: dict[str, pl.Series | str] = {
        "symbol": config.symbol or read.texts(cells, "symbol"),
        "exchange_ts_ns": _stamps_ns(cells),
        "price": _prices(cells, "price"),
        "size": read.numbers(cells, "size"),
        "aggressor": read.sides(cells, _SIDE),
    }
    if config.venue_sequences:
        columns["sequence"] = read.sequences(cells, "sequence")
    if any(name in cells.frame.columns for name in _BOOK.values()):
        columns |= _quotes(cells)
    return feed_of(cells, columns)


def _stamps_ns(cells: Cells) -> pl.Series:
    column = cells.column("ts_event")
    plain = column.dtype.is_integer() or (column.dtype == pl.String and bool(column.str.contains(r"^\d+$").all()))
    return read.stamps_ns(cells, StampColumn(name="ts_event", unit="ns" if plain else "iso"))


def _quotes(cells: Cells) -> dict[str, pl.Series]:
    quote = pl.DataFrame(
        {
            "bid": _prices(cells, _BOOK["bid"]),
            "ask": _prices(cells, _BOOK["ask"]),
            "bid_size": read.numbers(cells, _BOOK["bid_size"], optional=True),
            "ask_size": read.numbers(cells, _BOOK["ask_size"], optional=True),
        }
    )
    one_sided = pl.col("bid").is_nan() | pl.col("ask").is_nan()
    return quote.select(pl.when(one_sided).then(float("nan")).otherwise(pl.all()).name.keep()).to_dict()


def _prices(cells: Cells, name: str) -> pl.Series:
    """Prices as Float64, NaN where there is none."""
    found = read.numbers(cells, name, optional=True)
    column = cells.column(name)
    if column.dtype == pl.String:
        pointed = column.str.contains(".", literal=True)
        if pointed.any():
            cells.require(
                name, pointed | column.is_null(), "prices are decimals with a point, or whole numbers of 1e-9"
            )
            return found
        column = column.cast(pl.Int64, strict=False)
        cells.require(name, column.is_not_null() | cells.frame[name].is_null(), "a price is a whole number of 1e-9")
    if column.dtype.is_integer():
        units = column.fill_null(_NO_PRICE).to_numpy()
        # numpy's division is rounded once: 16900000000 gives the 16.9 that its text would, polars' does not.
        return pl.Series(np.where(units == _NO_PRICE, np.nan, units / _UNITS_PER_PRICE))
    return found
