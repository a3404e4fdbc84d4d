"""Markets whose regimes are known: one trade a bar, whose volatility and drift are those of a hidden chain's state."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_training.data.table import UNKNOWN, ticks_table

BAR_NS = 60_000_000_000
START_NS = 28_333_334 * BAR_NS  # a bar begins
MINUTES = RiskValueSettings(window_bars=10)


@dataclass(frozen=True, slots=True)
class Planted:
    """A market and its truth: the state of each window, int64 [windows]."""

    frame: pl.DataFrame
    states: NDArray[np.int64]


def chain(transition: NDArray[np.float64], windows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    state, found = 0, []
    for _ in range(windows):
        found.append(state)
        state = int(rng.choice(len(transition), p=transition[state]))
    return np.array(found)


def planted(
    volatilities: list[float], drifts: list[float], *, stay: float = 0.95, windows: int = 600, seed: int = 1
) -> Planted:
    """Bars with normal log returns; each window of ten in one state."""
    rng = np.random.default_rng(seed)
    k = len(volatilities)
    transition = np.full((k, k), (1.0 - stay) / max(k - 1, 1))
    np.fill_diagonal(transition, stay if k > 1 else 1.0)
    states = chain(transition, windows, rng)
    bars = np.repeat(states, MINUTES.window_bars)
    moves = rng.normal(np.array(drifts)[bars], np.array(volatilities)[bars])
    return Planted(trades(100.0 * np.exp(np.cumsum(moves))), states)


def trades(prices: NDArray[np.float64], bars: NDArray[np.int64] | None = None, symbol: str = "SIM") -> pl.DataFrame:
    """One trade in each of the bars, by default in all, ten seconds into it."""
    numbers = np.arange(len(prices)) if bars is None else bars
    return ticks_table(
        {
            "symbol": [symbol] * len(prices),
            "exchange_ts_ns": START_NS + numbers * BAR_NS + 10_000_000_000,
            "sequence": np.arange(1, len(prices) + 1, dtype=np.uint64),
            "price": prices,
            "size": np.ones(len(prices)),
            "aggressor": np.full(len(prices), UNKNOWN, np.int8),
        }
    )
