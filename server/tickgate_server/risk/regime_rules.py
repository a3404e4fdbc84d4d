"""Regimes by rule: volatility against its own past, trend strength, correlation across a basket; and how they change.

All of it streams: an update takes one window of bars that has ended and knows of nothing after it. Windows do not
overlap, so that volatilities of two windows share no return.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tickgate_server.risk.regimes import Regime


class RuleSettings(BaseModel):
    """Parameters of the rules."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    windows_minimum: int = Field(default=20, ge=2)
    """Earlier windows that a volatility is compared with at least; before that a regime is unknown."""
    windows: int = Field(default=252, ge=2, le=10_000)
    """Earlier windows that it is compared with at most."""
    z_limit: float = Field(default=2.0, gt=0.0)
    """Standard deviations of log realised volatility above its mean, beyond which it is high."""
    trend_limit: float = Field(default=0.7, gt=0.0, le=1.0)
    """Trend strength beyond which a symbol is trending."""
    correlation_limit: float = Field(default=0.8, gt=0.0, le=1.0)
    """Mean pairwise correlation beyond which the market is risk-off."""
    correlation_bars: int = Field(default=60, ge=3, le=10_000)
    """Bars that it is taken over."""
    basket_minimum: int = Field(default=5, ge=2)
    """Symbols with a return in each of these bars, below which it is not evaluated."""
    dwell: int = Field(default=3, ge=1)
    """Updates in a row that must agree before a regime changes."""

    @model_validator(mode="after")
    def _can_be_known(self) -> "RuleSettings":
        if self.windows < self.windows_minimum:
            raise ValueError(f"windows is {self.windows}, must be at least windows_minimum, {self.windows_minimum}")
        return self


@dataclass(frozen=True, slots=True)
class Window:
    """One symbol's returns over one window.

    Attributes:
        log_return: Their sum, as log returns: the net move.
        path: Sum of their absolute values.
        realised_volatility: Root of their mean square: a bar's volatility.
    """

    log_return: float
    path: float
    realised_volatility: float


class Dwell:
    """Lets a regime change only when `updates` candidates in a row agree; to UNKNOWN it changes at once.

    Attributes:
        regime: In force.
    """

    def __init__(self, updates: int, regime: Regime = Regime.UNKNOWN) -> None:
        self.regime = regime
        self._updates = updates
        self._candidate = regime
        self._count = 0

    def update(self, candidate: Regime) -> Regime:
        """Take what one update points to; the regime in force after it.

        >>> dwell = Dwell(2, Regime.NORMAL)
        >>> [dwell.update(Regime.TRENDING).name for _ in range(2)]
        ['NORMAL', 'TRENDING']
        >>> dwell.update(Regime.UNKNOWN).name
        'UNKNOWN'
        """
        self._count = self._count + 1 if candidate == self._candidate else 1
        self._candidate = candidate
        if candidate == Regime.UNKNOWN or self._count >= self._updates:
            self.regime = candidate
        return self.regime


class RegimeRules:
    """One symbol's regime by rule.

    Attributes:
        settings: Parameters.
    """

    def __init__(self, settings: RuleSettings) -> None:
        self.settings = settings
        self._volatilities: deque[float] = deque(maxlen=settings.windows)  # logs, oldest first
        self._dwell = Dwell(settings.dwell)

    @property
    def regime(self) -> Regime:
        """In force."""
        return self._dwell.regime

    def inherit(self, regime: Regime) -> None:
        """Begin with a regime found elsewhere; kept until this symbol's own windows are enough, or one is missing."""
        if len(self._volatilities) < self.settings.windows_minimum:
            self._dwell = Dwell(self.settings.dwell, regime)

    def update(self, window: Window | None, mean_correlation: float) -> Regime:
        """Take one window that has ended.

        Args:
            window: None where the symbol had too few returns in it: UNKNOWN at once.
            mean_correlation: Of the basket, `mean_pairwise_correlation`; NaN: not evaluated.

        Returns:
            The regime in force.
        """
        if window is None:
            return self._dwell.update(Regime.UNKNOWN)
        enough = len(self._volatilities) >= self.settings.windows_minimum
        candidate = self._judge(window, mean_correlation) if enough else self.regime
        if window.realised_volatility > 0.0:
            self._volatilities.append(math.log(window.realised_volatility))
        return self._dwell.update(candidate)

    def _judge(self, window: Window, mean_correlation: float) -> Regime:
        """What one window points to: a later rule outranks those before it."""
        settings = self.settings
        found = Regime.NORMAL
        if abs(window.log_return) > settings.trend_limit * window.path:
            found = Regime.TRENDING
        if mean_correlation > settings.correlation_limit:
            found = Regime.RISK_OFF
        if window.realised_volatility > 0.0:
            earlier = np.fromiter(self._volatilities, np.float64)
            excess = math.log(window.realised_volatility) - float(earlier.mean())
            if excess > max(settings.z_limit * float(earlier.std(ddof=1)), 1e-9):  # rounding is no excess
                found = Regime.HIGH_VOLATILITY
        return found


def mean_pairwise_correlation(returns: NDArray[np.float64], basket_minimum: int) -> float:
    """Mean of the correlations between all pairs of a basket.

    With standardised columns z of n symbols, the sum's variance is n + n (n - 1) x the mean: no matrix is needed.

    Args:
        returns: float64 [bars, symbols]; NaN where there is none. The basket is the symbols that have all, and moved.
        basket_minimum: Below so many it is not evaluated.

    Returns:
        NaN where it is not evaluated.
    """
    complete = returns[:, np.isfinite(returns).all(axis=0)]
    if not complete.size:
        return math.nan
    deviations = complete.std(axis=0)
    moved = deviations > 1e-12 * np.abs(complete).max(axis=0)
    n = int(moved.sum())
    if n < basket_minimum:
        return math.nan
    standardised = (complete[:, moved] - complete[:, moved].mean(axis=0)) / deviations[moved]
    return (float(standardised.sum(axis=1).var()) - n) / (n * (n - 1))
