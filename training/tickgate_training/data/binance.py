"""Raw captures of Binance's public websocket streams, spot and USD-M futures.

A capture is text, gzip or plain: `<local receive time, ns> <raw JSON of one message>` a line. Of the streams, `@trade`
and `@bookTicker` are read, everything else (depth updates, depth snapshots without a stream's name) is passed over.

What the feed means, and where it misleads:
- A trade's order is the file's order: several share a millisecond. Its `T` is in milliseconds of the exchange's clock.
- `m` says whether the buyer was the maker: then the aggressor sold.
- Futures trades whose `X` is not `MARKET` (insurance fund, auto-deleveraging) are no market trades: skipped, counted.
- The quote in force is the last one strictly before the trade: by `T` where every quote has one (futures), else by the
  order of the file (spot book tickers carry no exchange time). Receive times are not compared with exchange times: the
  two clocks differ.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_training.data.binance_messages import MARKET, BookTicker, LineInvalid, Trade, read_line
from tickgate_training.data.config import Rules
from tickgate_training.data.feeds import Feed
from tickgate_training.data.table import BUY, QUOTE_COLUMNS, SELL
from tickgate_training.data.tick_rules import Reason, judge
from tickgate_training.errors import MalformedLine, SourceUnreadable

_NS_PER_MS = 1_000_000
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Capture:
    """What one file held.

    Attributes:
        frame: Canonical table, one row a market trade; of one symbol in the file's order.
        quotes: Book tickers read.
        skipped_trades: Trades left out, by their `X`.
        rejected: Trades left out as the server would reject them, by symbol and reason.
    """

    frame: pl.DataFrame
    quotes: int
    skipped_trades: dict[str, int]
    rejected: dict[tuple[str, Reason], int]


@dataclass(slots=True)
class _Messages:
    """Trades and quotes of a file in its order, with the number of quotes of the symbol seen before each trade."""

    trades: list[Trade] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of the trades, from 0
    quotes_before: list[int] = field(default_factory=list)
    quotes: dict[str, list[BookTicker]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def read_capture(path: Path, rules: Rules = "refuse") -> Capture:
    """Read one capture.

    Args:
        path: The file.
        rules: What becomes of a trade that the server would reject; see `data.tick_rules`.

    Raises:
        SourceUnreadable: The file is absent, cannot be decompressed to its end, or has no market trade.
        MalformedLine: A line has no receive time, is not JSON, or a trade or book ticker lacks a field.
        TickRejected: The server would reject a trade; its row is its line less 1.
    """
    messages = _read_messages(path)
    if not messages.trades:
        raise SourceUnreadable(str(path), "has no market trade")
    trades = messages.trades
    joined = _quotes_in_force(messages)
    frame = pl.DataFrame(
        {
            "symbol": [trade.symbol for trade in trades],
            "exchange_ts_ns": np.array([trade.time_ms for trade in trades], np.int64) * _NS_PER_MS,
            "sequence": np.array([trade.trade_id for trade in trades], np.uint64),
            "price": np.array([trade.price for trade in trades]),
            "size": np.array([trade.size for trade in trades]),
            "aggressor": np.array([SELL if trade.buyer_is_maker else BUY for trade in trades], np.int8),
            **{name: joined[:, k] for k, name in enumerate(QUOTE_COLUMNS)},
        }
    )
    judged = judge([Feed(str(path), frame, np.array(messages.lines))], rules)
    quotes = sum(len(of_symbol) for of_symbol in messages.quotes.values())
    return Capture(judged.frame, quotes, messages.skipped, judged.rejected)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            file: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw
            yield from enumerate(file, start=1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceUnreadable(str(path), f"cannot be read ({error})") from error


def _read_messages(path: Path) -> _Messages:
    messages = _Messages()
    for number, line in _lines(path):
        try:
            _, message = read_line(line)
        except LineInvalid as error:
            raise MalformedLine(path, number, error.found, error.expected) from error
        if isinstance(message, Trade):
            _take_trade(messages, message, number - 1)
        elif message is not None:
            messages.quotes.setdefault(message.symbol, []).append(message)
    return messages


def _take_trade(messages: _Messages, trade: Trade, line: int) -> None:
    if trade.execution != MARKET:
        messages.skipped[trade.execution] = messages.skipped.get(trade.execution, 0) + 1
        return
    messages.trades.append(trade)
    messages.lines.append(line)
    messages.quotes_before.append(len(messages.quotes.get(trade.symbol, ())))


def _quotes_in_force(messages: _Messages) -> NDArray[np.float64]:
    """Bid, ask and their sizes just before each trade, float64 [trades, 4]; NaN where there was no quote."""
    joined = np.full((len(messages.trades), 4), np.nan)
    symbols = np.array([trade.symbol for trade in messages.trades])
    stamps_ms = np.array([trade.time_ms for trade in messages.trades])
    before = np.array(messages.quotes_before)
    for symbol, quotes in messages.quotes.items():
        rows = np.flatnonzero(symbols == symbol)
        book = np.array([(quote.bid, quote.ask, quote.bid_size, quote.ask_size) for quote in quotes])
        quote_ms = np.array([-1 if quote.time_ms is None else quote.time_ms for quote in quotes])
        if (quote_ms >= 0).all():
            order = np.argsort(quote_ms, kind="stable")  # of one millisecond the last in the file holds
            last = np.searchsorted(quote_ms[order], stamps_ms[rows], side="left") - 1
            at = order[last]
        else:
            at = last = before[rows] - 1
        known = last >= 0
        joined[rows[known]] = book[at[known]]
    return joined
