"""Risk data from bars, one bar at a time: the observer keeps them up to date so, training makes the first file so.

One definition for both. Causal: what is known after a bar depends on that bar and those before it.
"""

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tickgate_server.risk.bars import Bar
from tickgate_server.risk.covariance import EwmaCovariance
from tickgate_server.risk.data import SCENARIOS_LIMIT, SYMBOLS_LIMIT, RiskData
from tickgate_server.risk.hidden_markov import (
    HiddenMarkovFilter,
    HiddenMarkovInvalid,
    HiddenMarkovParameters,
    load,
    observe,
)
from tickgate_server.risk.regime_rules import Dwell, RegimeRules, RuleSettings, Window, mean_pairwise_correlation
from tickgate_server.risk.regimes import Regime

RegimeSource = Literal["rules", "hmm", "strictest"]
_NS_PER_S = 1_000_000_000


class RiskValueSettings(BaseModel):
    """How risk data are made of ticks."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bar_s: float = Field(default=60.0, ge=1e-3, le=31 * 86_400)
    """Length of a bar in seconds."""
    bars_a_day: float = Field(default=1440.0, gt=0.0)
    """Bars that a day of the market has, the one over the night among them: 1440 of a minute around the clock, 391 for
    a session of six and a half hours, 1 for daily bars. Too many overstates risk."""
    carry_age_s: float = Field(default=600.0, ge=0.0)
    """How old a symbol's last price may be when a bar begins; older, the symbol is missing in it."""
    decay_a_day: float = Field(default=0.94, gt=0.0, lt=1.0)
    """RiskMetrics' lambda."""
    bars_minimum: int = Field(default=20, ge=2)
    """Bars with a return of both that each pair of symbols needs before it is handed out."""
    scenarios: int = Field(default=250, ge=2, le=SCENARIOS_LIMIT)
    """Bar returns kept for scenarios."""
    first_age_limit_s: float = Field(default=7 * 86_400.0, ge=0.0)
    """A first file whose newest observation is longer before the next bar than this is not begun with."""
    window_bars: int = Field(default=15, ge=2)
    """Bars a window of the regime's: it is judged when one ends; windows do not overlap."""
    rules: RuleSettings = RuleSettings()
    regime_source: RegimeSource = "rules"
    """Which decides: the rules, the hidden Markov model, or of both the one that outranks (UNKNOWN above all)."""
    hmm_file: Path | None = None
    """Parameters of the hidden Markov model; with them both are computed, whichever decides."""

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> "RiskValueSettings":
        if self.regime_source != "rules" and self.hmm_file is None:
            raise ValueError(f"regime_source {self.regime_source} needs hmm_file")
        return self

    def hidden_markov(self) -> HiddenMarkovParameters | None:
        """The parameters in `hmm_file`; None without one.

        Raises:
            HiddenMarkovInvalid: The file cannot be used, or was fitted on other windows than these.
        """
        if self.hmm_file is None:
            return None
        found = load(self.hmm_file)
        if (found.bar_s, found.window_bars) != (self.bar_s, self.window_bars):
            raise HiddenMarkovInvalid(
                self.hmm_file,
                f"expected windows of {self.window_bars} bars of {self.bar_s:g} s, as risk data are made with,"
                f" found {found.window_bars} of {found.bar_s:g} s",
            )
        return found


class SymbolRegime:
    """One symbol's regime, by rule and, with parameters, by model.

    Args:
        settings: Which decides, and the rules' parameters.
        parameters: Of the model; None: rules alone.
    """

    def __init__(self, settings: RiskValueSettings, parameters: HiddenMarkovParameters | None) -> None:
        self._settings = settings
        self._rules = RegimeRules(settings.rules)
        self._parameters = parameters
        self._filter = HiddenMarkovFilter(parameters) if parameters is not None else None
        self._dwell = Dwell(settings.rules.dwell)

    @property
    def by_rules(self) -> Regime:
        """What the rules say."""
        return self._rules.regime

    @property
    def by_model(self) -> Regime:
        """What the model says; UNKNOWN without one."""
        return self._dwell.regime

    @property
    def regime(self) -> Regime:
        """What decides."""
        if self._settings.regime_source == "rules":
            return self.by_rules
        if self._settings.regime_source == "hmm":
            return self.by_model
        both = (self.by_rules, self.by_model)
        return Regime.UNKNOWN if Regime.UNKNOWN in both else max(both)

    def inherit(self, regime: Regime) -> None:
        """Begin with a regime from a file."""
        self._rules.inherit(regime)
        if self._filter is not None and self._dwell.regime == Regime.UNKNOWN:
            self._dwell = Dwell(self._settings.rules.dwell, regime)

    def update(self, window: Window | None, mean_correlation: float) -> None:
        """Take one window that has ended; None where the symbol had too few returns in it."""
        self._rules.update(window, mean_correlation)
        if self._filter is None or self._parameters is None:
            return
        features = self._parameters.features
        missing = np.full(len(features), np.nan)
        self._filter.update(missing if window is None else observe(features, window))
        self._dwell.update(Regime.UNKNOWN if window is None else self._filter.regime)


class RiskEstimates:
    """Covariance, scenarios and regimes of the symbols of one stream of bars.

    Attributes:
        as_of_ns: Of the newest bar that is not in `first` already; 0 before one.
        regimes: By symbol, those that had a bar.

    Args:
        settings: How.
        first: Where to begin. Bars no newer than it move the regimes and nothing else of its symbols.

    Raises:
        HiddenMarkovInvalid: The file of parameters cannot be used.
    """

    def __init__(self, settings: RiskValueSettings, first: RiskData | None = None) -> None:
        self.as_of_ns = 0
        self.regimes: dict[str, SymbolRegime] = {}
        self._settings = settings
        self._parameters = settings.hidden_markov()
        self._first = first  # until a newer bar came
        self._inherited: dict[str, Regime] = {}
        self._covariance = EwmaCovariance(
            settings.bars_a_day, settings.decay_a_day, settings.bars_minimum, settings.scenarios, first
        )
        self._rows = np.zeros(0, np.int64)  # of the bars' symbols in the covariance
        self._known = 0  # symbols that were there when the open window began
        self._windows = _Windows(settings.rules.correlation_bars)

    def update(self, bar: Bar, symbols: Sequence[str]) -> bool:
        """Take one bar.

        Args:
            bar: Newer than those before it.
            symbols: Of the bars so far, in their order; only added to from call to call.

        Returns:
            Whether there was a first file that is too old to begin with, and has been dropped now.
        """
        count = bar.returns.size
        if count > self._rows.size:
            new = symbols[self._rows.size : count]
            self._rows = np.append(self._rows, self._covariance.add_symbols(new))
            self.regimes.update((symbol, SymbolRegime(self._settings, self._parameters)) for symbol in new)
        in_first = self._first is not None and bar.as_of_ns <= self._first.as_of_ns
        dropped = False if in_first else self._begin(bar.as_of_ns)
        self._covariance.update(self._rows, bar.returns, in_first=in_first)
        if not in_first:
            self.as_of_ns = bar.as_of_ns
        self._windows.add(bar.returns)
        if self._windows.bars == self._settings.window_bars:
            self._end_window()
        return dropped

    def data(self) -> RiskData | None:
        """What is known now; None before a bar that is not in the first file, and while no symbol has enough."""
        if not self.as_of_ns:
            return None
        rows, covariance, scenarios = self._covariance.get()
        if not rows.size:
            return None
        symbols = tuple(self._covariance.symbols[row] for row in rows)
        regimes = np.array([self._regime(symbol) for symbol in symbols], np.int8)
        return RiskData(self.as_of_ns, symbols, covariance, scenarios, regimes)

    def _regime(self, symbol: str) -> Regime:
        found = self.regimes.get(symbol)
        return self._inherited.get(symbol, Regime.UNKNOWN) if found is None else found.regime

    def _begin(self, as_of_ns: int) -> bool:
        """The first bar that is newer than the first file: begin with it, or drop it; whether it was dropped."""
        first, self._first = self._first, None
        if first is not None:
            if as_of_ns - first.as_of_ns > self._settings.first_age_limit_s * _NS_PER_S:
                self._covariance.forget_first()
                return True
            self._inherited = {
                symbol: Regime(regime) for symbol, regime in zip(first.symbols, first.regimes.tolist(), strict=True)
            }
        # A symbol inherits what the file says when its first bar comes, or now where that was before.
        for symbol in self._inherited.keys() & self.regimes.keys():
            self.regimes[symbol].inherit(self._inherited.pop(symbol))
        return False

    def _end_window(self) -> None:
        correlation = self._windows.mean_correlation(self._settings.rules.basket_minimum)
        windows = self._windows.take(len(self.regimes))
        for row, (regime, window) in enumerate(zip(self.regimes.values(), windows, strict=True)):
            if window is not None or row < self._known:  # one that came late in its first window is not missing
                regime.update(window, correlation)
        self._known = len(self.regimes)
        if self._first is None:
            self._inherited.clear()  # a symbol without a bar for so long: its regime is not known any more


class _Windows:
    """Sums over the bars of the window that is open, by the bars' symbols; and the last returns, for correlation."""

    def __init__(self, correlation_bars: int) -> None:
        self.bars = 0
        # Returns seen, their sum, that of their absolute values, and that of their squares; all as log returns.
        self._sums = np.zeros((4, SYMBOLS_LIMIT))
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=correlation_bars)

    def add(self, returns: NDArray[np.float64]) -> None:
        """Take one bar's simple returns, float64 [n]."""
        self.bars += 1
        self._recent.append(returns)
        present = np.isfinite(returns)
        moves = np.log1p(np.where(present, returns, 0.0))
        self._sums[:, : returns.size] += present, moves, np.abs(moves), moves * moves

    def take(self, count: int) -> list[Window | None]:
        """The window of each of the first `count` symbols, None where fewer than half of its bars have a return."""
        found = []
        for seen, net, path, squares in self._sums[:, :count].T.tolist():
            enough = 2.0 * seen >= self.bars
            found.append(Window(net, path, math.sqrt(squares / seen)) if enough else None)
        self.bars = 0
        self._sums[:] = 0.0
        return found

    def mean_correlation(self, basket_minimum: int) -> float:
        """Over the last bars; NaN before there are so many."""
        if len(self._recent) < (self._recent.maxlen or 0):
            return math.nan
        returns = np.full((len(self._recent), self._recent[-1].size), np.nan)
        for row, one in zip(returns, self._recent, strict=True):
            row[: one.size] = one
        return mean_pairwise_correlation(returns, basket_minimum)
