"""A raw Binance capture as it was received: each trade and each book ticker a row, in the order of arrival.

What else to know of the feed stands in `data.binance`. Unlike there, nothing is joined: quotes are rows of their own.
Book tickers of spot markets carry no exchange time. They are stamped with the latest trade's of their symbol, and no
rule of the clock is asked of them; before the symbol's first trade they are passed over. Their update ids count
otherwise than trades do, so they have no sequence.
"""

from collections.abc import Iterator
from pathlib import Path

from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.data.binance_messages import MARKET, BookTicker, LineInvalid, Trade, read_line
from tickgate_training.data_check.recording import Piece, PieceBuilder, lines_of
from tickgate_training.errors import SourceUnreadable

_NS_PER_MS = 1_000_000
_NONE = float("nan")
_STAMPED_SYMBOLS = 65_536
_KINDS_PASSED_OVER = 32


class CaptureFile:
    """A capture, plain or gzip; see `recording.Recording`."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self.passed_over: dict[str, int] = {}
        self._path = path
        self._stamps_ns: dict[str, int] = {}

    def pieces(self) -> Iterator[Piece]:
        """See `recording.Recording.pieces`. A file without any line of a capture is none."""
        builder = PieceBuilder()
        messages = 0
        for number, line in enumerate(lines_of(self._path), start=1):
            try:
                received_ns, message = read_line(line)
            except LineInvalid as error:
                builder.refuse(number, str(error))
            else:
                messages += 1
                self._add(builder, number, received_ns, message)
            if builder.full:
                yield builder.take()
        if not messages:
            raise SourceUnreadable(self.source, "has no line of the form '<receive time, ns> <JSON>'")
        yield builder.take()

    def _add(self, builder: PieceBuilder, line: int, received_ns: int, message: Trade | BookTicker | None) -> None:
        if message is None:
            self._pass_over("messages of other streams")
        elif isinstance(message, Trade):
            self._add_trade(builder, line, received_ns, message)
        else:
            self._add_quote(builder, line, received_ns, message)

    def _add_trade(self, builder: PieceBuilder, line: int, received_ns: int, trade: Trade) -> None:
        if trade.execution != MARKET:
            self._pass_over(f"trades that are no market trades ({trade.execution[:32]})")
            return
        stamp_ns = trade.time_ms * _NS_PER_MS
        if trade.symbol in self._stamps_ns or len(self._stamps_ns) < _STAMPED_SYMBOLS:
            self._stamps_ns[trade.symbol] = max(stamp_ns, self._stamps_ns.get(trade.symbol, 0))
        values = (trade.price, trade.size, _NONE, _NONE, _NONE, _NONE)
        builder.add(line, trade.symbol, TRADE, stamp_ns, trade.trade_id, values, received_ns)

    def _add_quote(self, builder: PieceBuilder, line: int, received_ns: int, quote: BookTicker) -> None:
        values = (_NONE, _NONE, quote.bid, quote.ask, quote.bid_size, quote.ask_size)
        if quote.time_ms is not None:
            builder.add(line, quote.symbol, QUOTE, quote.time_ms * _NS_PER_MS, 0, values, received_ns)
        elif (stamp_ns := self._stamps_ns.get(quote.symbol)) is not None:
            builder.add(line, quote.symbol, QUOTE, stamp_ns, 0, values, 0)
        else:
            self._pass_over("quotes without an exchange time, before the first trade")

    def _pass_over(self, what: str) -> None:
        # What is in a file names it: so there is a bound on how many names there are.
        known = what in self.passed_over or len(self.passed_over) < _KINDS_PASSED_OVER
        name = what if known else "others"
        self.passed_over[name] = self.passed_over.get(name, 0) + 1
