"""Daily bars of two US indices, 1999-2018, from the data sets in the wheel of `arch`.

A bar is one trade at the session's close: its price is `Close` (`Adj Close` equals it in every row, for an index pays
no dividend and is never split, and the unadjusted price is the one that the market showed), its size the session's
volume. It is stamped 16:00 New York time in UTC, also on the few days when the session ended at 13:00. The sequence
is 1 ... n over the whole set, so that a range of years keeps its numbers. There are no quotes. The silence
between sessions is no gap: features of daily bars take `session_gap_ns = 0`.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import arch.data.nasdaq
import arch.data.sp500
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_training.data.table import UNKNOWN, ticks_table
from tickgate_training.data.years import chosen, named

_NEW_YORK = ZoneInfo("America/New_York")
_CLOSE = time(16)
_EPOCH = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))
_SETS: dict[str, tuple[str, Callable[[], Any]]] = {
    "sp500": ("SPX", arch.data.sp500.load),
    "nasdaq": ("IXIC", arch.data.nasdaq.load),
}
NAMES = tuple(_SETS)


def read_bars(source: str) -> pl.DataFrame:
    """Read a set, or a range of years of it.

    Args:
        source: `sp500` (symbol SPX) or `nasdaq` (IXIC), optionally with years: `sp500:2018`, `nasdaq:2003-2007`; both
            ends belong to the range.

    Returns:
        The canonical table, one row a session.

    Raises:
        SourceUnreadable: There is no such set, the range is not one, or it has no session.
    """
    name, years = named(source, NAMES)
    symbol, load = _SETS[name]
    bars = load()
    frame = ticks_table(
        {
            "symbol": [symbol] * len(bars),
            "exchange_ts_ns": closes_ns([day.date() for day in bars.index]),
            "sequence": np.arange(1, len(bars) + 1, dtype=np.uint64),
            "price": bars["Close"].to_numpy(np.float64),
            "size": bars["Volume"].to_numpy(np.float64),
            "aggressor": np.full(len(bars), UNKNOWN, np.int8),
        }
    )
    return chosen(frame, source, years)


def closes_ns(days: Sequence[date]) -> NDArray[np.int64]:
    """16:00 in New York on each day, int64 [n] nanoseconds since the epoch."""
    closes = (datetime.combine(day, _CLOSE, tzinfo=_NEW_YORK) for day in days)
    # Whole seconds, so integer arithmetic: a float of nanoseconds has no room for the last hundred.
    return np.array([(close - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 for close in closes], np.int64)
