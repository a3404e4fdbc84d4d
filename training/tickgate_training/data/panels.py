"""Daily closes of several symbols from the data sets in the wheel of `skfolio`, and of both indices of `arch`'s.

    sp500         20 stocks of the S&P 500, 1990-2022
    factors       five factor funds (MTUM, QUAL, SIZE, USMV, VLUE), 2014-2022
    sp500_index   the S&P 500 index alone (symbol SP500), 1990-2022
    indices       SPX and IXIC of `data.daily`, 1999-2018, with their volumes

A row is one trade of one symbol at the session's close, stamped as in `data.daily`; a symbol's sequence is 1 ... n over
the whole set. There are no quotes.

What the sets mean, and where they mislead:
- Volume is unknown in skfolio's: the size is 0, which is no claim. Features made of sizes (vwap_dev, flow_imbalance,
  volume_z) are then 0 throughout, and with costs of market impact a trade costs infinitely much.
- Prices are adjusted for later splits and dividends: returns are those that a holder had, levels never stood on a
  screen, so that lots and limits in currency mean little.
- The 20 stocks were chosen by what they are today. What they earned says nothing about picking stocks then.
"""

from typing import Any

import numpy as np
import polars as pl

from tickgate_training.data import daily
from tickgate_training.data.table import UNKNOWN, check, ticks_table
from tickgate_training.data.years import chosen, named

_INDICES = "indices"
# Names of the functions that load them: skfolio itself is imported when one is asked for.
_SETS = {"sp500": "load_sp500_dataset", "factors": "load_factors_dataset", "sp500_index": "load_sp500_index"}
NAMES = (*_SETS, _INDICES)


def read_panel(source: str) -> pl.DataFrame:
    """Read a set, or a range of years of it.

    Args:
        source: One of `NAMES`, optionally with years as in `data.daily`: `sp500:2010-2015`.

    Returns:
        The canonical table, one row a symbol and session, by session and then symbol.

    Raises:
        SourceUnreadable: There is no such set, the range is not one, or it has no session.
    """
    name, years = named(source, NAMES)
    frame = _indices() if name == _INDICES else _closes(_prices(name))
    return chosen(check(frame.sort("exchange_ts_ns", "symbol")), source, years)


def _indices() -> pl.DataFrame:
    return pl.concat([daily.read_bars(name) for name in daily.NAMES])


def _prices(name: str) -> Any:
    from skfolio import datasets  # noqa: PLC0415 - a second of imports that few runs need

    return getattr(datasets, _SETS[name])()


def _closes(prices: Any) -> pl.DataFrame:
    """A table of a pandas frame of prices with days down and symbols across."""
    sessions, symbols = prices.shape
    return ticks_table(
        {
            "symbol": np.repeat(np.array(prices.columns, str), sessions).tolist(),
            "exchange_ts_ns": np.tile(daily.closes_ns([day.date() for day in prices.index]), symbols),
            "sequence": np.tile(np.arange(1, sessions + 1, dtype=np.uint64), symbols),
            "price": prices.to_numpy(np.float64).T.ravel(),
            "size": np.zeros(sessions * symbols),
            "aggressor": np.full(sessions * symbols, UNKNOWN, np.int8),
        }
    )
