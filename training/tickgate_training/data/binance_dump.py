"""Binance's public archive of trades (data.binance.vision), spot and USD-M futures: `trades` and `aggTrades`.

A file is CSV, as it comes in its .zip, or unpacked, or gzipped. Layouts, from the archive's own description
(github.com/binance/binance-public-data):

    trades      id, price, qty, quoteQty, time, isBuyerMaker; spot ends with isBestMatch
    aggTrades   aggregate id, price, quantity, first id, last id, time, isBuyerMaker; spot ends with isBestMatch

Spot files have no header, nor have older ones of futures; newer ones of futures have one. Their number of columns says
which market it is.

What the files mean, and where they mislead:
- Times are milliseconds, in spot's files from 2025 on microseconds. Which it is shows in each value: as milliseconds,
  anything from 1e14 on would lie after the year 5138; as microseconds, anything below it before April 1973. Seconds
  and nanoseconds are refused.
- An aggregate trade is what one order took at one price: fewer rows, and numbers of their own that are no trade ids.
- COIN-M futures count contracts and have base_qty where these have quote_qty: a header that says so is refused, a file
  without a header does not show it.
- There are no quotes, and what `X` tells in a capture (insurance fund, auto-deleveraging) is not there to be left out.
"""

import re
from pathlib import Path

import polars as pl

from tickgate_training.data import cells as read
from tickgate_training.data.config import BinanceDumpData
from tickgate_training.data.feeds import Feed, feed_of
from tickgate_training.data.files import Cells, read_rows, with_header
from tickgate_training.errors import ColumnInvalid, SourceUnreadable

_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker")
_AGGREGATES = ("id", "price", "qty", "first_id", "last_id", "time", "is_buyer_maker")
_LAYOUTS = {"trades": _TRADES, "aggTrades": _AGGREGATES}
_SPOT_ONLY = ("is_best_match",)
# As headers spell them, in lower case and without spaces and underscores; a README's, the REST API's and the files'.
_SPELLINGS = {
    "id": {"id", "tradeid", "aggtradeid", "aggregatetradeid"},
    "price": {"price"},
    "qty": {"qty", "quantity"},
    "quote_qty": {"quoteqty"},
    "first_id": {"firsttradeid"},
    "last_id": {"lasttradeid"},
    "time": {"time", "transacttime", "timestamp"},
    "is_buyer_maker": {"isbuyermaker", "wasthebuyerthemaker"},
    "is_best_match": {"isbestmatch", "wasthetradethebestpricematch"},
}
_NAMED = re.compile(r"(?P<symbol>[A-Z0-9_]+)-(?P<series>trades|aggTrades)-")
_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 10**12, 10**14, 10**17
_NS_PER_MS, _NS_PER_US = 1_000_000, 1_000


def read_dump(config: BinanceDumpData) -> list[Feed]:
    """Read files of the archive.

    Raises:
        SourceUnreadable: A file cannot be read, has another number of columns, or its name has no symbol.
        ColumnInvalid: A header names other columns than the series has.
        CellInvalid: A cell is not what its column holds.
    """
    return [_read(path, config) for path in config.paths]


def _read(path: Path, config: BinanceDumpData) -> Feed:
    named = _NAMED.match(path.name)
    if named is not None and named["series"] != config.series:
        raise SourceUnreadable(str(path), f"its name says {named['series']}, the configuration {config.series}")
    symbol = config.symbol or (named and named["symbol"])
    if symbol is None:
        raise SourceUnreadable(
            str(path),
            "its name does not begin as in BTCUSDT-trades-2024-08-08.zip; set symbol to say whose trades it has",
        )
    cells = _named(read_rows(path), _LAYOUTS[config.series])
    return feed_of(
        cells,
        {
            "symbol": symbol,
            "exchange_ts_ns": _stamps_ns(cells),
            "sequence": read.sequences(cells, "id"),
            "price": read.numbers(cells, "price"),
            "size": read.numbers(cells, "qty"),
            "aggressor": read.buyer_is_maker(cells, "is_buyer_maker"),
        },
    )


def _named(cells: Cells, layout: tuple[str, ...]) -> Cells:
    """The file with its columns named, without its header if it has one."""
    if cells.frame.width > len(layout):
        layout += _SPOT_ONLY
    first = cells.frame.row(0) if cells.frame.height else ()
    if first and first[0] is not None and not first[0].isdecimal():
        for expected, found in zip(layout, first, strict=False):
            if re.sub(r"[_ ]", "", found or "").lower() not in _SPELLINGS[expected]:
                raise ColumnInvalid(
                    expected, f"{found!r} in the header of {cells.source}", f"{expected!r} in its place"
                )
        cells = with_header(cells, None)
    if cells.frame.height == 0:
        raise SourceUnreadable(cells.source, "has no trade")
    return with_header(cells, layout)


def _stamps_ns(cells: Cells) -> pl.Series:
    time = read.sequences(cells, "time").cast(pl.Int64, strict=False)
    plausible = time.is_between(_MILLISECONDS_FROM, _NANOSECONDS_FROM - 1)
    cells.require("time", plausible, "a time is in milliseconds or microseconds, after the year 2001")
    frame = pl.DataFrame({"time": time})
    scale = pl.when(pl.col("time") < _MICROSECONDS_FROM).then(_NS_PER_MS).otherwise(_NS_PER_US)
    return frame.select(pl.col("time") * scale).to_series()
