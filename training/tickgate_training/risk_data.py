"""The first risk data: what the server begins with, made of the data that models were trained on.

A run has one symbol, and a covariance needs several on the same bars. So beside `risk-data.npz` a repository keeps the
bars that it was made of, `risk-bars.parquet`: the last trade of each symbol in each bar. A run puts its symbol's bars
in place of older ones, and risk data are computed anew from all that fit together: bars of the same length that end at
the same time, to the age that prices are carried. Symbols whose bars do not fit are dropped: a correlation with the
others would be a guess, and no guess is conservative for long and for short books alike. Without risk data the gate
lets nobody trade them.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tickgate_server.risk import data as risk_data
from tickgate_server.risk.bars import Bars
from tickgate_server.risk.data import FILE_NAME, SYMBOLS_LIMIT, RiskData
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings
from tickgate_training.config import DailyData, TrainingConfig
from tickgate_training.data import table

BARS_FILE = "risk-bars.parquet"
BARS_LIMIT = 5_000
"""Bars kept of each symbol, the newest."""
DAILY = RiskValueSettings(bar_s=86_400.0, bars_a_day=1.0, carry_age_s=4 * 86_400.0, window_bars=5)
"""One bar a session, carried over a long weekend; a regime's window is a week."""

_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "exchange_ts_ns": pl.Int64(),
    "price": pl.Float64(),
    "bar_s": pl.Float64(),
}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the risk data.

    Attributes:
        path: The file; None where the bars are too few for one. What was there before stays then.
        symbols: In it.
        dropped: Symbols of earlier runs that do not fit this run's bars.
    """

    path: Path | None
    symbols: tuple[str, ...]
    dropped: tuple[str, ...]


def settings_of(config: TrainingConfig) -> RiskValueSettings:
    """How risk data are made of a run's data: daily bars, or the server's defaults for ticks."""
    return DAILY if isinstance(config.data, DailyData) else RiskValueSettings()


def risk_data_of(frame: pl.DataFrame, settings: RiskValueSettings) -> RiskData | None:
    """Risk data from trades of one or several symbols, by the same definitions as the server's.

    Args:
        frame: With `symbol`, `exchange_ts_ns` and `price`, as the canonical table; rows of one symbol and stamp in the
            order in which they happened.
        settings: How.

    Returns:
        As of the newest trade, whose bar is taken as closed. None where no symbol has enough bars.

    Raises:
        HiddenMarkovInvalid: The settings' file of parameters cannot be used.
    """
    frame = frame.sort("exchange_ts_ns", maintain_order=True)
    bars = Bars(settings.bar_s, settings.carry_age_s)
    symbols = np.array([symbol.encode() for symbol in frame["symbol"]], np.bytes_)
    stamps_ns, prices = table.values(frame, "exchange_ts_ns"), table.values(frame, "price")
    estimates = RiskEstimates(settings)
    for bar in [*bars.add(symbols, stamps_ns, prices), bars.finish()]:
        if bar is not None:
            estimates.update(bar, bars.symbols)
    return estimates.data()


def write_first(repository: Path, frame: pl.DataFrame, settings: RiskValueSettings) -> Written:
    """Write the repository's risk data with this run's symbols in it; runs at the same time take turns.

    Args:
        repository: A folder; made if it is not there.
        frame: As for `risk_data_of`.
        settings: How.

    Raises:
        OSError: The repository cannot be written.
        RiskDataInvalid: Prices are such that no covariance is finite.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with _alone(repository):
        own = _bars_of(frame, settings)
        others, dropped = _fitting(_read_bars(repository / BARS_FILE), own, settings)
        bars = pl.concat([own, others])
        found = risk_data_of(bars, settings)
        if found is None:
            return Written(None, (), dropped)
        _write_bars(repository / BARS_FILE, bars)
        risk_data.write(repository / FILE_NAME, found)
    return Written(repository / FILE_NAME, found.symbols, dropped)


def _bars_of(frame: pl.DataFrame, settings: RiskValueSettings) -> pl.DataFrame:
    """The newest bars of each symbol: in each its last trade."""
    bar_ns = round(settings.bar_s * 1e9)
    return (
        frame.select("symbol", "exchange_ts_ns", "price", pl.lit(settings.bar_s).alias("bar_s"))
        .sort("exchange_ts_ns", maintain_order=True)
        .group_by("symbol", pl.col("exchange_ts_ns") // bar_ns, maintain_order=True)
        .agg(pl.col("exchange_ts_ns").last().alias("last_ns"), pl.col("price").last(), pl.col("bar_s").last())
        .select("symbol", pl.col("last_ns").alias("exchange_ts_ns"), "price", "bar_s")
        .group_by("symbol", maintain_order=True)
        .tail(BARS_LIMIT)
        .select(*_SCHEMA)
    )


def _fitting(
    bars: pl.DataFrame, own: pl.DataFrame, settings: RiskValueSettings
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Earlier bars of other symbols that fit a run's; and the symbols that do not.

    They fit if they are as long, and if neither symbol's end lies further behind the other's than a price is carried.
    """
    others = bars.filter(~pl.col("symbol").is_in(own["symbol"].unique().implode()))
    end = own.select(pl.col("exchange_ts_ns").max()).item()
    carry_ns = round(settings.carry_age_s * 1e9)
    ends = others.group_by("symbol", maintain_order=True).agg(
        fits=(pl.col("bar_s") == settings.bar_s).all() & ((pl.col("exchange_ts_ns").max() - end).abs() <= carry_ns)
    )
    room = max(SYMBOLS_LIMIT - own["symbol"].n_unique(), 0)
    kept = ends.filter("fits")["symbol"][:room]
    fits = pl.col("symbol").is_in(kept.implode())
    return others.filter(fits), tuple(sorted(ends.filter(~fits)["symbol"]))


def _read_bars(path: Path) -> pl.DataFrame:
    """The bars of earlier runs; none where the file is not there, or is not one of these: then all are dropped."""
    try:
        found = pl.read_parquet(path)
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return pl.DataFrame(schema=_SCHEMA)
    return found.select(*_SCHEMA) if _SCHEMA.items() <= found.schema.items() else pl.DataFrame(schema=_SCHEMA)


def _write_bars(path: Path, bars: pl.DataFrame) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    bars.write_parquet(unfinished)
    unfinished.rename(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; another run waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
