"""One symbol's whole kernel state, taken out of the arrays that kernels work on and put back into them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.store import FeatureStore
from tickgate_server.ticks import market
from tickgate_server.ticks.market import MarketState


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A symbol's row of one `FeatureStore`.

    Attributes:
        schema_id: Of the feature set.
        ready: Of ticks.
        count: Trades since the windows started anew.
        prices, sizes: float64 [RING].
        stamps_ns: int64 [RING].
        carried: float64 [columns], none where the set has none.
        marks: int64 [columns], likewise.
        vector: float32 [features of ticks]; fundamentals are not part of it.
    """

    schema_id: str
    ready: bool
    count: int
    prices: NDArray[np.float64]
    sizes: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]
    carried: NDArray[np.float64]
    marks: NDArray[np.int64]
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SymbolState:
    """Everything that a symbol's ticks left behind.

    Attributes:
        symbol: Whose it is.
        journal_sequence: Record of the last tick in it, in the journal that it was followed in.
        ticks: Taken in since its state began; numbers the vectors of a feed without sequences.
        quotes_trades, volatilities, stamps, sequences: Its row of `MarketState`.
        windows: Its row of each feature set.
    """

    symbol: str
    journal_sequence: int
    ticks: int
    quotes_trades: NDArray[np.float64]
    volatilities: NDArray[np.float64]
    stamps: NDArray[np.int64]
    sequences: NDArray[np.uint64]
    windows: tuple[Windows, ...]

    @property
    def last_sequence(self) -> int:
        """The highest that the feed gave an accepted tick; 0: it gave none."""
        return int(self.sequences[market.HIGHEST])

    @property
    def last_stamp_ns(self) -> int:
        """Venue time of the last accepted tick."""
        return int(self.stamps[market.LAST_TICK_NS])


def copy_state(
    symbol: str, row: int, state: MarketState, stores: Sequence[FeatureStore], *, journal_sequence: int, ticks: int
) -> SymbolState:
    """A symbol's state as it is now; later ticks do not change it."""
    return SymbolState(
        symbol,
        journal_sequence,
        ticks,
        state.quotes_trades[row].copy(),
        state.volatilities[row].copy(),
        state.stamps[row].copy(),
        state.sequences[row].copy(),
        tuple(_copy_windows(row, store) for store in stores),
    )


def _copy_windows(row: int, store: FeatureStore) -> Windows:
    of_ticks = store.feature_set.of_ticks.width
    return Windows(
        store.feature_set.schema_id,
        bool(store.ready[row]),
        int(store.counts[row]),
        store.prices[row].copy(),
        store.sizes[row].copy(),
        store.stamps_ns[row].copy(),
        store.carried[row].copy() if store.with_quotes else store.carried[0].copy(),
        store.marks[row].copy() if store.with_quotes else store.marks[0].copy(),
        store.vectors[row, :of_ticks].copy(),
    )


def put_state(found: SymbolState, row: int, state: MarketState, stores: Sequence[FeatureStore]) -> None:
    """Write a state into a row. Windows of a feature set that it lacks begin anew, as those of a new set do.

    Args:
        found: As `copy_state` gave it, of the sizes that these arrays have.
        row: Its symbol's row here.
        state: Of the market.
        stores: Of the feature sets that are kept.
    """
    state.quotes_trades[row] = found.quotes_trades
    state.volatilities[row] = found.volatilities
    state.stamps[row] = found.stamps
    state.sequences[row] = found.sequences
    windows = {one.schema_id: one for one in found.windows}
    for store in stores:
        one = windows.get(store.feature_set.schema_id)
        if one is None:
            _blank_windows(row, store)
            continue
        store.ready[row] = one.ready
        store.counts[row] = one.count
        store.prices[row] = one.prices
        store.sizes[row] = one.sizes
        store.stamps_ns[row] = one.stamps_ns
        if store.with_quotes:
            store.carried[row] = one.carried
            store.marks[row] = one.marks
        store.vectors[row, : one.vector.size] = one.vector
        store.vectors[row, one.vector.size :] = np.nan


def blank(row: int, state: MarketState, stores: Sequence[FeatureStore]) -> None:
    """Have a row as before its symbol's first tick."""
    state.quotes_trades[row] = np.nan
    state.volatilities[row] = 0.0
    state.stamps[row] = 0
    state.sequences[row] = 0
    for store in stores:
        _blank_windows(row, store)


def _blank_windows(row: int, store: FeatureStore) -> None:
    store.ready[row] = False
    store.counts[row] = 0
    store.prices[row] = 0.0
    store.sizes[row] = 0.0
    store.stamps_ns[row] = 0
    if store.with_quotes:
        store.carried[row] = 0.0
        store.marks[row] = 0
    store.vectors[row] = np.nan
