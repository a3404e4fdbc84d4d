"""From a source of ticks to what is fitted and traded: one symbol's features, labels and market, row by row."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features import micro10
from tickgate_server.features.schema import FeatureSet
from tickgate_server.features.schema import micro10 as micro10_set
from tickgate_server.ticks import volatility
from tickgate_training.backtest import IMPACT_SPAN_ROWS, Market
from tickgate_training.config import BinanceData, DailyData, TrainingConfig
from tickgate_training.data import table
from tickgate_training.data.binance import read_capture
from tickgate_training.data.daily import read_bars
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import FeatureUndefined, RowInvalid
from tickgate_training.labels import Labels, fixed_horizon

_BPS = 1e-4


@dataclass(frozen=True, slots=True)
class Samples:
    """One symbol's ticks, a row each.

    Attributes:
        symbol: Its name.
        stamps_ns: Venue times, int64 [n].
        feature_set: What the columns of `features` are.
        features: float32 [n, width]; NaN in rows that are not ready.
        ready: bool [n].
        labels: See `labels.Labels`.
        market: What the backtest reads.
        fingerprint: Of the canonical table.
    """

    symbol: str
    stamps_ns: NDArray[np.int64]
    feature_set: FeatureSet
    features: NDArray[np.float32]
    ready: NDArray[np.bool_]
    labels: Labels
    market: Market
    fingerprint: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.stamps_ns.size)

    @property
    def fit_rows(self) -> NDArray[np.bool_]:
        """Rows with features and a label, bool [n]."""
        return self.ready & self.labels.labelled


def load_table(config: TrainingConfig) -> pl.DataFrame:
    """The canonical table of the configured source."""
    data = config.data
    if isinstance(data, BinanceData):
        return read_capture(data.path).frame
    if isinstance(data, DailyData):
        return read_bars(data.source)
    return simulate(data.trades, data.seed, data.edge)


def prepare(frame: pl.DataFrame, config: TrainingConfig) -> Samples:
    """Compute features with the server's kernel, labels, and what the backtest reads.

    Raises:
        ColumnInvalid: The frame is no canonical table.
        RowInvalid: Likewise, or it has more than one symbol.
        FeatureUndefined: A feature is finite in no row.
    """
    frame = table.check(frame)
    symbol = str(frame["symbol"][0])
    others = (frame["symbol"] != symbol).arg_true()
    if others.len():
        row = int(others[0])
        raise RowInvalid("symbol", row, repr(frame["symbol"][row]), f"a run takes one symbol, here {symbol!r}")
    stamps_ns, prices, sizes = (table.values(frame, name) for name in ("exchange_ts_ns", "price", "size"))
    feature_set = micro10_set(config.features.session_gap_ns)
    features = micro10.batch(stamps_ns, prices, sizes, feature_set.session_gap_ns)
    finite = np.isfinite(features)
    for k, name in enumerate(feature_set.features):
        if not finite[:, k].any():
            raise FeatureUndefined(name, None)
    marks = table.mid(frame)
    labels = fixed_horizon(
        marks if config.label.price == "mid" else prices,
        config.label.horizon_trades,
        config.label.lag_trades,
        stamps_ns=stamps_ns,
        session_gap_ns=feature_set.session_gap_ns,
    )
    quoted = table.half_spread(frame)
    market = Market(
        marks=marks,
        half_spreads=np.where(np.isnan(quoted), config.costs.half_spread_bps * _BPS, quoted),
        volumes=_trailing_sum(sizes, IMPACT_SPAN_ROWS),
        trade_volatilities=volatility.batch(prices),
    )
    return Samples(
        symbol,
        stamps_ns,
        feature_set,
        features,
        np.asarray(finite.all(axis=1)),
        labels,
        market,
        table.fingerprint(frame),
    )


def _trailing_sum(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
    """Sum of the last `span` values up to each, float64 [n]; of fewer at the start."""
    total = np.concatenate((np.zeros(1), np.cumsum(values)))
    last = np.arange(1, values.size + 1)
    return total[last] - total[np.maximum(last - span, 0)]
