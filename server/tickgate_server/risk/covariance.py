"""Covariance of simple bar returns, exponentially weighted, and the returns that scenarios are made of.

J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed. 1996, 5.2-5.3: mean taken as zero, lambda = 0.94 a day;
here rescaled to the bar, and a bar's covariance times the bars a day is a day's.

Each pair of symbols has a sum of products and a sum of weights, over the bars in which both have a return; both decay
with every bar, and their quotient is the pair's covariance. So the first values are means of what was seen, a missing
return neither lowers a variance nor draws a correlation to zero, and a symbol that came later is not measured by bars
before it. Where all pairs have one history, the matrix is a sum of r r' with weights above 0: positive semidefinite.
Where histories differ it need not be; what is handed out then is made so by the spectral decomposition of Rebonato and
Jaeckel ("The most general methodology to create a valid correlation matrix", J. of Risk 2(2), 1999): negative
eigenvalues of the correlation matrix become zero and its diagonal one again, so that variances stay as measured.
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.bars import decay_a_bar
from tickgate_server.risk.data import SYMBOLS_LIMIT, RiskData

_ROUNDING = 1e-12
_SAME_HISTORY = 1e-9  # relative difference between weights that rounding may make


class EwmaCovariance:
    """Covariances and scenarios of a growing set of symbols.

    Attributes:
        symbols: Those of `first`, then others in the order they were added.

    Args:
        bars_a_day: How many bars a day there are.
        decay_a_day: Of weights, between 0 and 1.
        bars_minimum: Bars with a return of both that a pair needs.
        scenarios: Bar returns kept.
        first: Where to begin; its covariance counts as a full history, its scenarios as the oldest.
    """

    def __init__(
        self, bars_a_day: float, decay_a_day: float, bars_minimum: int, scenarios: int, first: RiskData | None = None
    ) -> None:
        self.symbols: list[str] = []
        self._bars_a_day = bars_a_day
        self._decay = decay_a_bar(decay_a_day, bars_a_day)
        self._bars_minimum = bars_minimum
        self._rows: dict[str, int] = {}
        # float64 [n, n] each, n of `symbols`: sums of products and of weights a pair, and bars with both.
        self._products, self._weights, self._joint = (np.zeros((0, 0)) for _ in range(3))
        self._scenarios: deque[NDArray[np.float64]] = deque(maxlen=scenarios)
        self._first = 0
        self._present = np.zeros(0, np.bool_)
        if first is not None:
            self.add_symbols(first.symbols)
            self._first = len(first.symbols)
            self._products[:] = first.covariance / bars_a_day
            self._weights[:] = 1.0
            self._joint[:] = bars_minimum
            self._scenarios.extend(first.scenarios)

    def add_symbols(self, symbols: Iterable[str]) -> NDArray[np.int64]:
        """Rows of symbols here, int64; those that are new get one."""
        rows = []
        for symbol in symbols:
            if symbol not in self._rows:
                self._rows[symbol] = len(self.symbols)
                self.symbols.append(symbol)
            rows.append(self._rows[symbol])
        more = len(self.symbols) - len(self._joint)
        if more:
            grown = (np.pad(sums, (0, more)) for sums in (self._products, self._weights, self._joint))
            self._products, self._weights, self._joint = grown
            self._present = np.pad(self._present, (0, more))
        return np.array(rows, np.int64)

    def update(self, rows: NDArray[np.int64], returns: NDArray[np.float64], *, in_first: bool = False) -> None:
        """Take one bar; one in which no symbol has a return changes nothing.

        Args:
            rows: Where the symbols are, int64 [m], each once.
            returns: Simple returns, float64 [m]; NaN where there is none.
            in_first: The bar is no newer than what `first` was made of: it tells only of symbols that are not in it.
        """
        moves = np.full(len(self.symbols), np.nan)
        moves[rows] = returns
        present = np.isfinite(moves)
        if not present.any():
            return
        self._present = present
        size = self._first if in_first else 0
        kept = [sums[:size, :size].copy() for sums in (self._products, self._weights, self._joint)]
        known = np.where(present, moves, 0.0)
        fresh = 1.0 - self._decay
        self._products *= self._decay
        self._products += np.outer(fresh * known, known)
        pairs = np.outer(present, present)
        self._weights *= self._decay
        self._weights += fresh * pairs
        self._joint += pairs
        for sums, before in zip((self._products, self._weights, self._joint), kept, strict=True):
            sums[:size, :size] = before
        if not in_first:
            self._scenarios.append(moves * math.sqrt(self._bars_a_day))

    def forget_first(self) -> None:
        """Drop what came from `first`: its covariances and all scenarios; its symbols begin anew."""
        for sums in (self._products, self._weights, self._joint):
            sums[: self._first, : self._first] = 0.0
        self._scenarios.clear()
        self._first = 0

    def get(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """What is known of a day.

        A symbol is handed out when it has moved, every pair that it makes with those handed out has `bars_minimum`
        bars with a return of both, and so many scenarios are its own (of fewer, all). Symbols with a return in the
        newest bar are asked first, so that one that has gone keeps none out. Scenarios that a symbol was not there for
        repeat its own, oldest first: they keep its distribution, and say nothing of its correlation.

        Returns:
            Rows of the symbols, int64 [m], ascending, m <= SYMBOLS_LIMIT; covariance of simple returns over a day,
            float64 [m, m], positive semidefinite; scenarios over a day, float64 [T, m], oldest first.
        """
        scenarios = self._scenarios_of_all()
        rows = self._members(np.isfinite(scenarios).sum(axis=0) >= min(self._bars_minimum, len(scenarios)))
        weights = self._weights[np.ix_(rows, rows)]
        found = self._products[np.ix_(rows, rows)] / weights if rows.size else np.zeros((0, 0))
        if rows.size and np.ptp(weights) > _SAME_HISTORY * weights.max():
            found = positive_semidefinite(found)
        found = (found + found.T) * (0.5 * self._bars_a_day)
        return rows, found, np.ascontiguousarray(_filled(scenarios[:, rows]))

    def _members(self, told: NDArray[np.bool_]) -> NDArray[np.int64]:
        possible = told & (np.diag(self._joint) >= self._bars_minimum) & (np.diag(self._products) > 0.0)
        chosen: list[int] = []
        order = np.concatenate((np.flatnonzero(self._present), np.flatnonzero(~self._present)))
        for row in order.tolist():
            if possible[row]:
                chosen.append(row)
                possible &= self._joint[row] >= self._bars_minimum
                if len(chosen) == SYMBOLS_LIMIT:
                    break
        return np.array(sorted(chosen), np.int64)

    def _scenarios_of_all(self) -> NDArray[np.float64]:
        """float64 [T, n]; NaN where a symbol was not there."""
        found = np.full((len(self._scenarios), len(self.symbols)), np.nan)
        for row, returns in zip(found, self._scenarios, strict=True):
            row[: returns.size] = returns
        return found


def positive_semidefinite(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix itself where it is positive semidefinite, else one near it that is, with the same diagonal.

    Args:
        covariance: float64 [n, n], symmetric, its diagonal above 0.
    """
    deviations = np.sqrt(np.diag(covariance))
    scale = np.outer(deviations, deviations)
    correlation = covariance / scale
    try:
        np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(correlation)
        if values[0] >= -_ROUNDING * len(values):
            return covariance
        roots = vectors * np.sqrt(np.maximum(values, 0.0))
        roots /= np.sqrt((roots * roots).sum(axis=1, keepdims=True))
        return np.asarray(roots @ roots.T * scale)
    return covariance


def _filled(scenarios: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a symbol was not there for, from what it was: in turn, oldest first."""
    missing = np.isnan(scenarios)
    for column in np.flatnonzero(missing.any(axis=0)).tolist():
        gaps = missing[:, column]
        scenarios[gaps, column] = np.resize(scenarios[~gaps, column], int(gaps.sum()))
    return scenarios
