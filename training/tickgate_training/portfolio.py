"""Several symbols on one capital: their backtests added up by time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest
from tickgate_training.errors import SeriesInvalid, TooFewRows


@dataclass(frozen=True, slots=True)
class Portfolio:
    """What several symbols earned together on one capital, by time.

    Attributes:
        stamps_ns: int64 [t], ascending: when a return was complete, for any of the symbols.
        gross: float64 [t], sum of the symbols' returns that were complete then; `net` after costs.
        net: float64 [t].
        traded: float64 [t], notional traded for those returns, as a fraction of capital.
        leverage: float64 [t], absolute notional that all symbols held up to then, as a fraction of capital.
        held: bool [t], whether any symbol held a position up to then.
        trip_gross: float64 [k], the symbols' round trips one after the other, by name; `trip_net` after costs.
        trip_net: float64 [k].
    """

    stamps_ns: NDArray[np.int64]
    gross: NDArray[np.float64]
    net: NDArray[np.float64]
    traded: NDArray[np.float64]
    leverage: NDArray[np.float64]
    held: NDArray[np.bool_]
    trip_gross: NDArray[np.float64]
    trip_net: NDArray[np.float64]


def combine(parts: Mapping[str, tuple[NDArray[np.int64], Backtest]]) -> Portfolio:
    """Add up what several symbols earned on one capital: returns that were complete at the same time are summed.

    A return is complete at the mark that it ends with, `execution_lag_rows` + 1 rows after its decision, so symbols
    whose rows lie apart are still added when the money was made. Between two of its own rows a symbol's position
    counts as held. A symbol without a row at a time adds nothing to that time's return; what it earned meanwhile is in
    its next one.

    Args:
        parts: By symbol: int64 [n], ascending, the times of its market's rows; and its backtest. All backtests have
            the same capital. The order of the symbols does not matter: they are added by name.

    Raises:
        TooFewRows: There is no symbol.
        SeriesInvalid: A symbol's times descend, or are fewer than its backtest's rows need.
    """
    if not parts:
        raise TooFewRows("portfolio, symbols", 0, 1)
    ordered = sorted(parts.items())
    ends = [_ends_ns(symbol, stamps, result) for symbol, (stamps, result) in ordered]
    results = [result for _, (_, result) in ordered]
    stamps_ns = np.unique(np.concatenate(ends))
    gross, net, traded, leverage = (np.zeros(stamps_ns.size) for _ in range(4))
    held = np.zeros(stamps_ns.size, np.bool_)
    for (_, (stamps, result)), own in zip(ordered, ends, strict=True):
        place = np.searchsorted(stamps_ns, own)
        gross += _by_place(place, result.gross, stamps_ns.size)
        net += _by_place(place, result.net, stamps_ns.size)
        traded += _by_place(place, result.traded, stamps_ns.size)
        # In force at a time: the first own period that ends there or later, if it has begun.
        begun = stamps_ns > stamps[result.start + result.execution_lag_rows]
        at = np.searchsorted(own, stamps_ns)
        inside = (begun | np.isin(stamps_ns, own)) & (at < own.size)
        leverage[inside] += result.leverage[at[inside]]
        held[inside] |= result.held[at[inside]]
    trip_gross = np.concatenate([result.trip_gross for result in results])
    trip_net = np.concatenate([result.trip_net for result in results])
    return Portfolio(stamps_ns, gross, net, traded, leverage, held, trip_gross, trip_net)


def _ends_ns(symbol: str, stamps_ns: NDArray[np.int64], result: Backtest) -> NDArray[np.int64]:
    """When each return of a backtest was complete, int64 [m]."""
    first = result.start + result.execution_lag_rows + 1
    if stamps_ns.size < first + result.positions.size:
        found, needed = f"{stamps_ns.size} of them", f"the backtest needs {first + result.positions.size}"
        raise SeriesInvalid(f"times of {symbol!r}", None, found, needed)
    falling = np.flatnonzero(np.diff(stamps_ns) < 0)
    if falling.size:
        row = int(falling[0]) + 1
        found = f"{stamps_ns[row]} after {stamps_ns[row - 1]}"
        raise SeriesInvalid(f"times of {symbol!r}", row, found, "they must ascend")
    return stamps_ns[first : first + result.positions.size]


def _by_place(place: NDArray[np.int64], values: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(place, values, minlength=places), np.float64)
