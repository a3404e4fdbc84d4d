"""What a reader of files gives: trades with the canonical columns, not yet judged."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_training.data.files import Cells
from tickgate_training.data.table import QUOTE_COLUMNS, SCHEMA, UNKNOWN


@dataclass(frozen=True, slots=True)
class Feed:
    """Trades of one file before they are judged.

    Attributes:
        source: The file's name as errors say it.
        frame: The canonical columns, without nulls.
        rows: Each row's number in the file, int64 [n].
    """

    source: str
    frame: pl.DataFrame
    rows: NDArray[np.int64]


_WITHOUT: dict[str, int | float] = {"sequence": 0, "aggressor": UNKNOWN, **dict.fromkeys(QUOTE_COLUMNS, float("nan"))}


def feed_of(cells: Cells, columns: dict[str, pl.Series | str]) -> Feed:
    """Put a file's columns in their canonical places.

    Args:
        cells: The file.
        columns: A series [n] or a constant text for each canonical column. A feed need have no sequence, no aggressor
            and no quote: then they are 0, unknown and NaN.
    """
    given = {name: pl.lit(column) if isinstance(column, str) else column for name, column in columns.items()}
    absent = {name: pl.lit(value) for name, value in _WITHOUT.items() if name not in given}
    frame = cells.frame.select(
        **{name: column.alias(name).cast(SCHEMA[name]) for name, column in (given | absent).items()}
    )
    return Feed(cells.source, frame.select(*SCHEMA), cells.rows)
