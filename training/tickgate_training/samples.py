"""From a source of ticks to what is fitted and traded: features, labels and markets of one or several symbols."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features import batch
from tickgate_server.features.schema import FeatureSet, feature_set
from tickgate_server.ticks import volatility
from tickgate_training.backtest import IMPACT_SPAN_ROWS, Market
from tickgate_training.config import TrainingConfig
from tickgate_training.data import loading, table
from tickgate_training.data.sessions import session_numbers
from tickgate_training.errors import ColumnInvalid, FeatureUndefined
from tickgate_training.labels import Labels, meta_labels, panel_labels
from tickgate_training.trading import Book

FEATURE_COLUMNS = ("exchange_ts_ns", "price", "size", *table.QUOTE_COLUMNS)
"""What features are computed from."""
QUOTED = frozenset({"micro32"})
"""Feature sets that are never ready without quotes."""
_BPS = 1e-4


@dataclass(frozen=True, slots=True)
class Samples:
    """Ticks of one or several symbols in the order of their stamps, a row each.

    Attributes:
        symbols: Their names, in the order of the books.
        symbol: Place of each row's symbol among these, int64 [n], not decreasing within a stamp of several symbols.
        stamps_ns: Venue times, int64 [n], not decreasing.
        sessions: Number of the session that each row belongs to, int64 [n], not decreasing.
        feature_set: What the columns of `features` are.
        features: float32 [n, width]; NaN in rows that are not ready.
        ready: bool [n].
        labels: Of the move, see `labels.Labels`; `interval_end` in rows of this table.
        target: What a model is fitted to foresee: the labels, or the meta-labels of the primary's sides.
        books: Each symbol's market and rows.
        fingerprint: Of the canonical table.
    """

    symbols: tuple[str, ...]
    symbol: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    sessions: NDArray[np.int64]
    feature_set: FeatureSet
    features: NDArray[np.float32]
    ready: NDArray[np.bool_]
    labels: Labels
    target: Labels
    books: tuple[Book, ...]
    fingerprint: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.stamps_ns.size)

    @property
    def fit_rows(self) -> NDArray[np.bool_]:
        """Rows with features and a label to fit on, bool [n]."""
        return self.ready & self.target.labelled


def load_table(config: TrainingConfig) -> pl.DataFrame:
    """The canonical table of the configured source."""
    return loading.load(config.data)


def prepare(frame: pl.DataFrame, config: TrainingConfig) -> Samples:
    """Compute features with the server's kernels, labels, and what the backtest reads.

    Raises:
        ColumnInvalid, RowInvalid, TooFewRows: The frame is no canonical table.
        ColumnInvalid: The feature set needs quotes, and a symbol has none.
        FeatureUndefined: A feature is finite in no row of a symbol.
        ConfigInvalid: The primary's feature is not in the feature set.
    """
    frame = table.check(frame)
    names = tuple(frame["symbol"].unique().sort().to_list())
    symbol = np.searchsorted(np.array(names), frame["symbol"].to_numpy().astype(str)).astype(np.int64)
    if len(names) > 1:  # of one symbol the order is the venue's, also within a stamp
        order = np.lexsort((np.arange(frame.height), symbol, table.values(frame, "exchange_ts_ns")))
        frame, symbol = frame[order], symbol[order]
    stamps_ns = table.values(frame, "exchange_ts_ns")
    schema = feature_set(config.features.feature_set, config.features.session_gap_ns)
    features = np.full((frame.height, schema.width), np.nan, np.float32)
    books = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(symbol == number)
        own = frame[rows]
        features[rows] = _features(own, name, schema)
        books.append(Book(name, rows, _market(own, config)))
    sides = sides_of(features, config, schema)
    labels = _labels(frame, symbol, books, config, schema.session_gap_ns, sides)
    return Samples(
        symbols=names,
        symbol=symbol,
        stamps_ns=stamps_ns,
        sessions=session_numbers(stamps_ns, config.calendar),
        feature_set=schema,
        features=features,
        ready=np.asarray(np.isfinite(features).all(axis=1)),
        labels=labels,
        target=labels if sides is None else meta_labels(labels, sides),
        books=tuple(books),
        fingerprint=table.fingerprint(frame),
    )


def _labels(
    frame: pl.DataFrame,
    symbol: NDArray[np.int64],
    books: list[Book],
    config: TrainingConfig,
    session_gap_ns: int,
    sides: NDArray[np.int8] | None,
) -> Labels:
    stamps_ns, prices = table.values(frame, "exchange_ts_ns"), label_prices(frame, config)

    def of_symbol(rows: NDArray[np.int64]) -> Labels:
        volatilities = books[symbol[rows[0]]].market.trade_volatilities
        side = None if sides is None else sides[rows]
        return config.label.apply(prices[rows], volatilities, stamps_ns[rows], session_gap_ns, side)

    # Of one symbol intervals are counted in trades; of several they are compared in time.
    return of_symbol(books[0].rows) if len(books) == 1 else panel_labels(stamps_ns, symbol, of_symbol)


def sides_of(features: NDArray[np.float32], config: TrainingConfig, schema: FeatureSet) -> NDArray[np.int8] | None:
    """The primary's side of each row, int8 [n]; None where the run has no meta-labels."""
    return None if config.meta is None else config.meta.rule(schema.features).sides(features)


def label_prices(frame: pl.DataFrame, config: TrainingConfig) -> NDArray[np.float64]:
    """The prices that labels speak of, float64 [n]."""
    return table.mid(frame) if config.label.price == "mid" else table.values(frame, "price")


def compute_features(columns: Mapping[str, NDArray[Any]], schema: FeatureSet) -> NDArray[np.float32]:
    """One symbol's features by the server's kernel, float32 [n, width]; NaN in rows that are not ready.

    Args:
        columns: `exchange_ts_ns`, `price`, `size` and the quote's columns of the canonical table, each [n].
        schema: The feature set.
    """
    return batch.compute(schema, **columns)


def _features(frame: pl.DataFrame, name: str, schema: FeatureSet) -> NDArray[np.float32]:
    found = compute_features({column: table.values(frame, column) for column in FEATURE_COLUMNS}, schema)
    finite = np.isfinite(found)
    if not finite.any() and frame["bid"].is_nan().all() and schema.name in QUOTED:
        raise ColumnInvalid("bid", f"no quote in any row of {name}", f"quotes, which {schema.name} is made of")
    for k, feature in enumerate(schema.features):
        if not finite[:, k].any():
            raise FeatureUndefined(f"{feature} of {name}", None)
    return found


def _market(frame: pl.DataFrame, config: TrainingConfig) -> Market:
    quoted = table.half_spread(frame)
    return Market(
        marks=table.mid(frame),
        half_spreads=np.where(np.isnan(quoted), config.costs.half_spread_bps * _BPS, quoted),
        volumes=_trailing_sum(table.values(frame, "size"), IMPACT_SPAN_ROWS),
        trade_volatilities=volatility.batch(table.values(frame, "price")),
    )


def _trailing_sum(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
    """Sum of the last `span` values up to each, float64 [n]; of fewer at the start."""
    total = np.concatenate((np.zeros(1), np.cumsum(values)))
    last = np.arange(1, values.size + 1)
    return total[last] - total[np.maximum(last - span, 0)]
