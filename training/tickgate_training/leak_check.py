"""The leak check of a run: its own features and labels, computed again on rows that are cut short or replaced."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.ticks import volatility
from tickgate_training.config import TrainingConfig
from tickgate_training.data.table import values
from tickgate_training.labels import Labels
from tickgate_training.leaks import check_features, check_labels
from tickgate_training.samples import FEATURE_COLUMNS, Samples, compute_features, label_prices, sides_of

ROWS_MAXIMUM = 50_000
"""Rows of each symbol that are looked at, the newest: what leaks on every row leaks on these."""


def check(frame: pl.DataFrame, config: TrainingConfig, samples: Samples) -> None:
    """Check the features and the labels of every symbol.

    Args:
        frame: The canonical table.
        config: Of the run.
        samples: Made of both.

    Raises:
        LeakFound: A row depends on one that it must not know.
        TooFewRows: A symbol has fewer than two rows.
    """
    schema = samples.feature_set
    for name in samples.symbols:
        own = frame.filter(pl.col("symbol") == name).tail(ROWS_MAXIMUM)
        columns = {column: values(own, column) for column in FEATURE_COLUMNS}

        def features(found: Mapping[str, NDArray[Any]], symbol: str = name) -> NDArray[np.float32]:
            return compute_features(found, schema, samples.known, symbol)

        check_features(features, columns, what=f"features of {name}", cuts=config.leaks.cuts, seed=config.seed)

        def labels(found: Mapping[str, NDArray[Any]]) -> Labels:
            return config.label.apply(
                found["price"],
                found["volatility"],
                found["exchange_ts_ns"],
                schema.session_gap_ns,
                np.sign(found["side"]).astype(np.int8) if "side" in found else None,
            )

        given = {
            "exchange_ts_ns": columns["exchange_ts_ns"],
            "price": label_prices(own, config),
            "volatility": volatility.batch(columns["price"]),
        }
        sides = sides_of(features(columns), config, schema)
        if sides is not None:
            given["side"] = sides.astype(np.float64)
        check_labels(
            labels, given, forward=("price",), what=f"labels of {name}", cuts=config.leaks.cuts, seed=config.seed
        )
