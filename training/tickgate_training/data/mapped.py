"""CSV and Parquet files of any layout, by a map of their columns; see `data.config.ColumnMap` and docs/data.md."""

from pathlib import Path

import polars as pl

from tickgate_training.data import cells as read
from tickgate_training.data.config import BuyerIsMakerColumn, FileData, SideColumn, SignColumn
from tickgate_training.data.feeds import Feed, feed_of
from tickgate_training.data.files import Cells, read_cells


def read_mapped(config: FileData) -> list[Feed]:
    """Read files by the map of their columns.

    Raises:
        SourceUnreadable: A file cannot be read, or has no row.
        ColumnInvalid: A column of the map is absent, or of a type that does not hold it.
        CellInvalid: A cell is not what its column holds.
    """
    return [_read(path, config) for path in config.paths]


def _read(path: Path, config: FileData) -> Feed:
    cells = read_cells(path)
    chosen = config.columns
    columns: dict[str, pl.Series | str] = {
        "symbol": config.symbol if isinstance(config.symbol, str) else read.texts(cells, config.symbol.name),
        "exchange_ts_ns": read.stamps_ns(cells, chosen.stamp),
        "price": read.numbers(cells, chosen.price),
        "size": read.numbers(cells, chosen.size),
    }
    if chosen.sequence is not None:
        columns["sequence"] = read.sequences(cells, chosen.sequence, optional=True)
    if chosen.aggressor is not None:
        columns["aggressor"] = _aggressors(cells, chosen.aggressor)
    if chosen.quote is not None:
        columns |= {name: read.numbers(cells, column, optional=True) for name, column in chosen.quote}
    return feed_of(cells, columns)


def _aggressors(cells: Cells, spec: SignColumn | BuyerIsMakerColumn | SideColumn) -> pl.Series:
    if isinstance(spec, SignColumn):
        return read.signs(cells, spec)
    if isinstance(spec, BuyerIsMakerColumn):
        return read.buyer_is_maker(cells, spec.name)
    return read.sides(cells, spec)
