"""Recorded ticks as the messages that the server takes: the readers behind `replay-ticks --format NAME`."""

import math
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tickgate.v1 import AggressorSide, Quote, Tick, Trade
from tickgate_training.data.binance import read_capture
from tickgate_training.data.daily import read_bars

_SIDES: dict[int, AggressorSide.ValueType] = {
    1: AggressorSide.AGGRESSOR_SIDE_BUY,
    -1: AggressorSide.AGGRESSOR_SIDE_SELL,
    0: AggressorSide.AGGRESSOR_SIDE_UNSPECIFIED,
}


def read_binance(path: str) -> Iterator[Tick]:
    """Ticks of a raw Binance capture, one a market trade; errors as in `tickgate_training.data.binance`."""
    return to_messages(read_capture(Path(path)).frame)


def read_daily(path: str) -> Iterator[Tick]:
    """Ticks of a set of daily bars: `sp500`, `nasdaq`, or with years as in `sp500:2018`; no file is read."""
    return to_messages(read_bars(path))


def to_messages(frame: pl.DataFrame) -> Iterator[Tick]:
    """The rows of a canonical table as ticks, in order: a trade each, with its quote where there is one."""
    for symbol, stamp_ns, sequence, price, size, aggressor, bid, ask, bid_size, ask_size in frame.iter_rows():
        yield Tick(
            symbol=symbol,
            exchange_ts_ns=stamp_ns,
            sequence=sequence,
            trade=Trade(price=price, size=size, aggressor=_SIDES[aggressor]),
            quote=None if math.isnan(bid) else Quote(bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size),
        )
