"""What a regime model is fitted on: windows of bars, observed as the server's filter will observe them.

The bars and the windows are the server's own, recorded where it would hand them to the filter, so that there is one
definition of both. Causal: a window knows of its own bars alone, and appended trades change none that has ended.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.risk.bars import Bars
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings, SymbolRegime
from tickgate_server.risk.hidden_markov import Feature, observe
from tickgate_server.risk.regime_rules import Window
from tickgate_training.data import table


class _Recorder(SymbolRegime):
    """Stands where the server keeps a symbol's regime, and keeps the windows that it is given."""

    def __init__(self, settings: RiskValueSettings) -> None:
        super().__init__(settings, None)
        self.windows: list[Window | None] = []

    def update(self, window: Window | None, mean_correlation: float) -> None:  # noqa: ARG002 - the rules' business
        self.windows.append(window)


def observe_windows(
    frame: pl.DataFrame, settings: RiskValueSettings, features: tuple[Feature, ...]
) -> dict[str, NDArray[np.float64]]:
    """What the server's filters would observe of a table's trades.

    Args:
        frame: The canonical table, of one or several symbols.
        settings: Bars and windows.
        features: What an observation is.

    Returns:
        For each symbol, in the order in which they came, float64 [windows, d]; NaN where there is none. The newest
        trade's bar is taken as closed; a window that has not ended is left out.

    Raises:
        DataError: The table is not canonical; see `data.table.check`.
    """
    stream = table.check(frame).sort("exchange_ts_ns", maintain_order=True)
    plain = settings.model_copy(update={"regime_source": "rules", "hmm_file": None})
    bars, estimates = Bars(plain.bar_s, plain.carry_age_s), RiskEstimates(plain)
    recorders: dict[str, _Recorder] = {}
    symbols = np.array([symbol.encode() for symbol in stream["symbol"]], np.bytes_)
    closed = bars.add(symbols, table.values(stream, "exchange_ts_ns"), table.values(stream, "price"))
    for bar in [*closed, bars.finish()]:
        if bar is not None:
            estimates.update(bar, bars.symbols)
            # A symbol has no return in its first bar, so no window of it has ended by now.
            for symbol in list(estimates.regimes)[len(recorders) :]:
                estimates.regimes[symbol] = recorders[symbol] = _Recorder(plain)
    missing = np.full(len(features), np.nan)
    return {
        symbol: np.array(
            [missing if window is None else observe(features, window) for window in recorder.windows]
        ).reshape(-1, len(features))
        for symbol, recorder in recorders.items()
    }


def sequences_of(observed: Mapping[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Runs of windows of one symbol without a missing one, float64 [windows, d] each, oldest first.

    hmmlearn knows no missing values: a window without a value (half of its bars missing, or a volatility of zero, which
    has no logarithm) ends a sequence, and the next window begins another.
    """
    found = []
    for windows in observed.values():
        present = np.isfinite(windows).all(axis=1)
        edges = np.flatnonzero(np.diff(present, prepend=False, append=False))
        found += [windows[begin:end] for begin, end in edges.reshape(-1, 2).tolist()]
    return found
