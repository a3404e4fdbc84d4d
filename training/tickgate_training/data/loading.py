"""From a configured source to the canonical table."""

import polars as pl

from tickgate_training.data.binance import read_capture
from tickgate_training.data.binance_dump import read_dump
from tickgate_training.data.config import (
    BinanceData,
    BinanceDumpData,
    DailyData,
    DatabentoData,
    DataConfig,
    FileData,
    PanelData,
)
from tickgate_training.data.daily import read_bars
from tickgate_training.data.databento import read_databento
from tickgate_training.data.feeds import Feed
from tickgate_training.data.mapped import read_mapped
from tickgate_training.data.panels import read_panel
from tickgate_training.data.simulator import simulate
from tickgate_training.data.tick_rules import Judged, judge


def load(config: DataConfig) -> pl.DataFrame:
    """The canonical table of a source; errors as in `read`."""
    return read(config).frame


def read(config: DataConfig) -> Judged:
    """The canonical table of a source, and how many of its ticks were left out as the server would reject them.

    Raises:
        DataError: The source cannot be read, or has something that it must not have; the reader's docstring says what.
        TooFewRows: No tick is left.
    """
    if isinstance(config, BinanceData):
        capture = read_capture(config.path, config.rules)
        return Judged(capture.frame, capture.rejected)
    if isinstance(config, BinanceDumpData | DatabentoData | FileData):
        return judge(_feeds(config), config.rules)
    if isinstance(config, DailyData):
        frame = read_bars(config.source)
    elif isinstance(config, PanelData):
        frame = read_panel(config.source)
    else:
        frame = simulate(config.trades, config.seed, config.edge)
    return Judged(frame, {})


def _feeds(config: BinanceDumpData | DatabentoData | FileData) -> list[Feed]:
    if isinstance(config, BinanceDumpData):
        return read_dump(config)
    if isinstance(config, DatabentoData):
        return read_databento(config)
    return read_mapped(config)
