"""The canonical file of ticks: CSV in UTF-8, gzipped if its name ends in `.gz`.

    symbol,exchange_ts_ns,sequence,price,size,aggressor,bid,ask,bid_size,ask_size
    BTCUSDT,1700000000000000000,17,37000.5,0.01,buy,,,,

One row a tick, in the order in which the venue sent them. A row has a trade (price, size, and an aggressor that may
be empty: `buy` or `sell`), a quote (bid, ask, bid_size, ask_size), or both; the fields of what it has not are empty.
Prices are in the instrument's currency, sizes in units of the instrument; `exchange_ts_ns` is nanoseconds since the
Unix epoch on the venue's clock, `sequence` the feed's number or 0. Blank lines are passed over.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from tickgate.v1 import market_pb2
from tickgate_client.errors import BadTickFile

COLUMNS = ("symbol", "exchange_ts_ns", "sequence", "price", "size", "aggressor", "bid", "ask", "bid_size", "ask_size")

AGGRESSOR_SIDES: Mapping[str, market_pb2.AggressorSide.ValueType] = MappingProxyType(
    {
        "": market_pb2.AGGRESSOR_SIDE_UNSPECIFIED,
        "buy": market_pb2.AGGRESSOR_SIDE_BUY,
        "sell": market_pb2.AGGRESSOR_SIDE_SELL,
    }
)
_NAME_OF_SIDE = {side: name for name, side in AGGRESSOR_SIDES.items()}

_TRADE = ("price", "size")
_QUOTE = ("bid", "ask", "bid_size", "ask_size")
_SYMBOL_BYTES_MAX = 32
_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1


def read_csv(path: Path | str) -> Iterator[market_pb2.Tick]:
    """The file's ticks, read as they are asked for.

    Raises BadTickFile, with line and column, at the first row that is not one; OSError if the file cannot be opened.
    """
    path = Path(path)
    with _opened_to_read(path) as file:
        rows = csv.reader(file, strict=True)
        header = _next_row(rows, path, 1)
        if header is None or tuple(header) != COLUMNS:
            found = "an empty file" if header is None else repr(",".join(header))
            raise BadTickFile(path, 1, "", found=found, expected=f"the header {','.join(COLUMNS)!r}")
        line = rows.line_num + 1
        while (row := _next_row(rows, path, line)) is not None:
            if row:
                yield _tick_of_row(path, line, row)
            line = rows.line_num + 1


def write_csv(path: Path | str, ticks: Iterable[market_pb2.Tick]) -> int:
    """Write ticks to a file, replacing it, and give their number. The same ticks give the same bytes.

    Raises BadTickFile at a tick that `read_csv` would refuse; those before it are in the file.
    """
    path = Path(path)
    count = 0
    with _opened_to_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        # The writer does not see that a lone carriage return in a symbol has to be quoted.
        quoted_rows = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        rows.writerow(COLUMNS)
        for count, tick in enumerate(ticks, start=1):
            row = fields_of(tick)
            _tick_of_row(path, count + 1, row)
            (quoted_rows if "\r" in tick.symbol else rows).writerow(row)
    return count


class TickFields:
    """One tick as texts by column, checked field by field.

    Args:
        of: Every column of COLUMNS; those of what the tick has not are empty.
        bad: Makes the error to raise, from the column at fault (empty: the tick as a whole), what was found there, and
            what was expected.
    """

    def __init__(self, of: Mapping[str, str], bad: Callable[[str, str, str], Exception]) -> None:
        self._of = of
        self._bad = bad

    def tick(self) -> market_pb2.Tick:
        """The tick; raises what `bad` makes."""
        tick = market_pb2.Tick(
            symbol=self._symbol(),
            exchange_ts_ns=self._integer("exchange_ts_ns", 1, _INT64_MAX),
            sequence=self._integer("sequence", 0, _UINT64_MAX) if self._of["sequence"] else 0,
        )
        aggressor = self._aggressor()
        if self._has(_TRADE):
            price, size = self._price("price"), self._size("size")
            tick.trade.CopyFrom(market_pb2.Trade(price=price, size=size, aggressor=aggressor))
        elif aggressor != market_pb2.AGGRESSOR_SIDE_UNSPECIFIED:
            raise self._bad("aggressor", repr(self._of["aggressor"]), "nothing where there is no trade")
        if self._has(_QUOTE):
            tick.quote.CopyFrom(
                market_pb2.Quote(
                    bid=self._price("bid"),
                    ask=self._price("ask"),
                    bid_size=self._size("bid_size"),
                    ask_size=self._size("ask_size"),
                )
            )
        if not (tick.HasField("trade") or tick.HasField("quote")):
            raise self._bad("", "neither trade nor quote", "a trade, a quote or both")
        return tick

    def _has(self, columns: Sequence[str]) -> bool:
        empty = [column for column in columns if not self._of[column]]
        if empty and len(empty) < len(columns):
            raise self._bad(empty[0], "nothing", f"a number beside {', '.join(c for c in columns if c not in empty)}")
        return not empty

    def _symbol(self) -> str:
        symbol = self._of["symbol"]
        size = len(symbol.encode())
        if not 1 <= size <= _SYMBOL_BYTES_MAX:
            raise self._bad("symbol", f"{size} bytes", f"1 to {_SYMBOL_BYTES_MAX} bytes of UTF-8")
        return symbol

    def _aggressor(self) -> market_pb2.AggressorSide.ValueType:
        text = self._of["aggressor"]
        if text not in AGGRESSOR_SIDES:
            raise self._bad("aggressor", repr(text), "'buy', 'sell' or nothing")
        return AGGRESSOR_SIDES[text]

    def _integer(self, column: str, least: int, most: int) -> int:
        text = self._of[column]
        if text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most:
            return int(text)
        raise self._bad(column, repr(text), f"an integer from {least} to {most}")

    def _price(self, column: str) -> float:
        price = self._number(column)
        if price > 0:
            return price
        raise self._bad(column, repr(self._of[column]), "a finite number above 0")

    def _size(self, column: str) -> float:
        size = self._number(column)
        if size >= 0:
            return size
        raise self._bad(column, repr(self._of[column]), "a finite number, 0 or above")

    def _number(self, column: str) -> float:
        text = self._of[column]
        try:
            # float() would take Python's 1_000 too.
            number = math.nan if "_" in text else float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        raise self._bad(column, repr(text), "a finite number")


def _tick_of_row(path: Path, line: int, row: Sequence[str]) -> market_pb2.Tick:
    def bad(column: str, found: str, expected: str) -> BadTickFile:
        return BadTickFile(path, line, column, found=found, expected=expected)

    if len(row) != len(COLUMNS):
        raise bad("", f"{len(row)} fields", f"{len(COLUMNS)} fields")
    return TickFields(dict(zip(COLUMNS, row, strict=True)), bad).tick()


def fields_of(tick: market_pb2.Tick) -> list[str]:
    """A tick as texts in the order of COLUMNS; what `TickFields` would refuse is written as it is."""
    fields = [tick.symbol, str(tick.exchange_ts_ns), str(tick.sequence)]
    if tick.HasField("trade"):
        trade = tick.trade
        # A side that this version does not know is written as its number, which the check on the row refuses.
        fields += [repr(trade.price), repr(trade.size), _NAME_OF_SIDE.get(trade.aggressor, str(trade.aggressor))]
    else:
        fields += ["", "", ""]
    if tick.HasField("quote"):
        quote = tick.quote
        fields += [repr(quote.bid), repr(quote.ask), repr(quote.bid_size), repr(quote.ask_size)]
    else:
        fields += ["", "", "", ""]
    return fields


def _next_row(rows: Iterator[list[str]], path: Path, line: int) -> list[str] | None:
    try:
        return next(rows, None)
    except UnicodeDecodeError as error:
        raise BadTickFile(
            path, line, "", found=f"bytes that are not UTF-8 ({error.reason})", expected="text"
        ) from error
    except csv.Error as error:
        raise BadTickFile(
            path, line, "", found=f"a malformed row ({error})", expected="comma-separated values"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadTickFile(path, line, "", found=f"damaged gzip data ({error})", expected="a whole .gz file") from error


@contextmanager
def _opened_to_read(path: Path) -> Iterator[TextIO]:
    # utf-8-sig: spreadsheets put a byte order mark before the header.
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file


@contextmanager
def _opened_to_write(path: Path) -> Iterator[TextIO]:
    if path.suffix == ".gz":
        # Neither name nor time in gzip's header: equal ticks, equal bytes.
        with (
            path.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
        ):
            yield file
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
