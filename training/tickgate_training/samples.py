"""From a source of ticks to what is fitted and traded: features, labels and markets of one or several symbols."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import structlog
from numpy.typing import NDArray

from tickgate_server.features import batch
from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.features.schema import FeatureSet
from tickgate_server.ticks import volatility
from tickgate_training.backtest import IMPACT_SPAN_ROWS, Market
from tickgate_training.config import TrainingConfig
from tickgate_training.data import fundamentals, loading, table
from tickgate_training.data.sessions import session_numbers
from tickgate_training.errors import ColumnInvalid, FeatureUndefined
from tickgate_training.labels import Labels, meta_labels, panel_labels
from tickgate_training.trading import Book

FEATURE_COLUMNS = ("exchange_ts_ns", "price", "size", *table.QUOTE_COLUMNS)
"""What features are computed from."""
QUOTED = frozenset({"micro32"})
"""Feature sets that are never ready without quotes."""
_BPS = 1e-4
_LOG = structlog.get_logger()


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
        fingerprint: Of the canonical table, and of the fundamentals that the feature set has.
        known: These fundamentals; None: it has none.
        rows_without: Of each fundamental, how many rows are not ready for want of it though all else is there: no value
            was known yet, or it was too old.
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
    known: FundamentalsTable | None = None
    rows_without: Mapping[str, int] = field(default_factory=dict)

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
        FeatureUndefined: A feature is finite in no row of a symbol, a fundamental in no row at all.
        ConfigInvalid: The primary's feature is not in the feature set.
        SourceUnreadable, ColumnInvalid, CellInvalid: The file of fundamentals is not what it must be.
        FundamentalUnknown: It has no value of a name.
    """
    frame = table.check(frame)
    names = tuple(frame["symbol"].unique().sort().to_list())
    symbol = np.searchsorted(np.array(names), frame["symbol"].to_numpy().astype(str)).astype(np.int64)
    if len(names) > 1:  # of one symbol the order is the venue's, also within a stamp
        order = np.lexsort((np.arange(frame.height), symbol, table.values(frame, "exchange_ts_ns")))
        frame, symbol = frame[order], symbol[order]
    stamps_ns = table.values(frame, "exchange_ts_ns")
    schema = config.features.as_set()
    slow = _read_fundamentals(config, schema)
    known = None if slow is None else fundamentals.table_of(slow)
    features = np.full((frame.height, schema.width), np.nan, np.float32)
    books = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(symbol == number)
        own = frame[rows]
        features[rows] = _features(own, name, schema, known)
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
        fingerprint=_fingerprint(frame, slow),
        known=known,
        rows_without=_rows_without(features, schema),
    )


def _read_fundamentals(config: TrainingConfig, schema: FeatureSet) -> pl.DataFrame | None:
    """What the file says of the names that the set has."""
    if config.fundamentals is None:
        return None
    found = fundamentals.read(config.fundamentals)
    names = [fundamental.name for fundamental in schema.fundamentals]
    fundamentals.require_known(found, names)
    return found.filter(pl.col("name").is_in(names))


def _fingerprint(frame: pl.DataFrame, slow: pl.DataFrame | None) -> str:
    found = table.fingerprint(frame)
    if slow is None:
        return found
    of_symbols = slow.filter(pl.col("symbol").is_in(frame["symbol"].unique().to_list()))
    return hashlib.sha256(f"{found}\n{fundamentals.fingerprint(of_symbols)}".encode()).hexdigest()


def _rows_without(features: NDArray[np.float32], schema: FeatureSet) -> dict[str, int]:
    """See `Samples.rows_without`; raises FeatureUndefined."""
    first = schema.of_ticks.width
    of_ticks = np.asarray(np.isfinite(features[:, :first]).all(axis=1))
    missing = ~np.isfinite(features[of_ticks, first:])
    found = {fundamental.name: int(missing[:, k].sum()) for k, fundamental in enumerate(schema.fundamentals)}
    for k, name in enumerate(found):
        if not np.isfinite(features[:, first + k]).any():
            raise FeatureUndefined(name, None)
    if found:
        _LOG.info("fundamentals joined", rows=len(features), rows_not_ready_for_want_of=found)
    return found


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


def compute_features(
    columns: Mapping[str, NDArray[Any]], schema: FeatureSet, known: FundamentalsTable | None = None, symbol: str = ""
) -> NDArray[np.float32]:
    """One symbol's features by the server's kernel, float32 [n, width]; NaN in rows that are not ready.

    Args:
        columns: `exchange_ts_ns`, `price`, `size` and the quote's columns of the canonical table, each [n].
        schema: The feature set.
        known: Fundamentals, where it has some.
        symbol: The symbol's name among these.
    """
    return batch.compute(schema, known=known, symbol=symbol, **dict[str, Any](columns))


def _features(
    frame: pl.DataFrame, name: str, schema: FeatureSet, known: FundamentalsTable | None
) -> NDArray[np.float32]:
    columns = {column: table.values(frame, column) for column in FEATURE_COLUMNS}
    found = compute_features(columns, schema, known, name)
    finite = np.isfinite(found)
    if not finite.any() and frame["bid"].is_nan().all() and schema.of_ticks.name in QUOTED:
        raise ColumnInvalid("bid", f"no quote in any row of {name}", f"quotes, which {schema.name} is made of")
    for k, feature in enumerate(schema.of_ticks.features):
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
