"""Risk data from bars: regimes side by side, what a first file is worth, and no look ahead from ticks to risk data."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.risk.test_hidden_markov import PARAMETERS

from tickgate_server.risk.bars import Bar, Bars
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings
from tickgate_server.risk.hidden_markov import HiddenMarkovInvalid
from tickgate_server.risk.regimes import Regime

BAR_NS = 60_000_000_000
START_NS = 28_333_334 * BAR_NS  # a bar begins


def file_of(names: str, as_of: int, regime: Regime) -> RiskData:
    n = len(names)
    scenarios = np.random.default_rng(5).normal(0.0, 0.02, (250, n))
    return RiskData(as_of, tuple(names), 4e-4 * np.eye(n), scenarios, np.full(n, regime, np.int8))


WINDOWS = RiskValueSettings(
    bars_minimum=2,
    bars_a_day=100.0,
    window_bars=4,
    rules={"windows_minimum": 3, "windows": 20, "dwell": 2, "correlation_bars": 6},  # type: ignore[arg-type]
)


def bar(number: int, returns: list[float]) -> Bar:
    return Bar(START_NS + number * BAR_NS, np.ones(len(returns)), np.array(returns))


def estimated(
    returns: NDArray[np.float64], settings: RiskValueSettings = WINDOWS, first: RiskData | None = None
) -> RiskEstimates:
    estimates = RiskEstimates(settings, first)
    for number, row in enumerate(returns.tolist()):
        estimates.update(bar(number, row), "ABCDEFGH"[: len(row)])
    return estimates


def test_a_market_that_grows_wild_is_of_high_volatility_after_the_dwell() -> None:
    random = np.random.default_rng(3)
    calm, wild = random.normal(0.0, 1e-3, (80, 2)), random.normal(0.0, 2e-2, (8, 2))
    # Nothing else is judged here: a trend of four bars is easily had by chance.
    settings = WINDOWS.model_copy(update={"rules": WINDOWS.rules.model_copy(update={"trend_limit": 1.0})})

    def regimes(returns: NDArray[np.float64]) -> list[int]:
        data = estimated(returns, settings).data()
        assert data is not None
        return data.regimes.tolist()

    assert regimes(calm) == [Regime.NORMAL] * 2
    assert regimes(np.concatenate((calm, wild[:4]))) == [Regime.NORMAL] * 2
    assert regimes(np.concatenate((calm, wild))) == [Regime.HIGH_VOLATILITY] * 2


def test_a_basket_that_moves_as_one_is_risk_off_and_one_of_four_is_not() -> None:
    moves = np.tile([1e-3, -1e-3, 1.1e-3, -0.9e-3], 20)[:, None]
    for symbols, expected in ((5, Regime.RISK_OFF), (4, Regime.NORMAL)):
        data = estimated(np.repeat(moves, symbols, axis=1)).data()
        assert data is not None
        assert set(data.regimes.tolist()) == {expected}


def test_a_symbol_without_returns_for_half_a_window_is_unknown() -> None:
    returns = np.random.default_rng(4).normal(0.0, 1e-3, (44, 2))
    returns[40:43, 1] = math.nan
    known, missing = estimated(returns[:40]).data(), estimated(returns).data()
    assert known is not None
    assert missing is not None
    assert Regime.UNKNOWN not in known.regimes.tolist()
    assert missing.regimes[1] == Regime.UNKNOWN != missing.regimes[0]


def test_the_regime_of_the_file_holds_until_own_windows_are_enough_and_for_those_that_are_there() -> None:
    first = file_of("ABZ", START_NS - BAR_NS, regime=Regime.RISK_OFF)
    returns = np.random.default_rng(4).normal(0.0, 1e-3, (60, 2))
    seen = []
    for bars in (1, 4, 12, 60):
        data = estimated(returns[:bars], first=first).data()
        assert data is not None
        seen.append([Regime(regime).name for regime in data.regimes[:3]])
    assert seen[0] == ["RISK_OFF"] * 3
    assert seen[1] == seen[2] == ["RISK_OFF", "RISK_OFF", "UNKNOWN"]  # Z had no bar for a window
    assert "RISK_OFF" not in seen[3]


@pytest.fixture
def hidden_markov(tmp_path: Path) -> Callable[..., RiskValueSettings]:
    def make(**changes: Any) -> RiskValueSettings:
        path = tmp_path / "hmm.json"
        path.write_text(json.dumps(PARAMETERS | {"window_bars": 4, "means": [[0, -7], [0, -4], [0, -7.5]]}))
        return WINDOWS.model_copy(update={"hmm_file": path} | changes)

    return make


def test_rules_and_model_run_side_by_side_and_a_setting_says_which_decides(
    hidden_markov: Callable[..., RiskValueSettings],
) -> None:
    random = np.random.default_rng(3)
    early = random.normal(0.0, 2e-2, (12, 1))  # the model knows after its dwell, the rules only later
    late = np.concatenate((early, random.normal(0.0, 2e-2, (16, 1))))
    found = {}
    for source in ("rules", "hmm", "strictest"):
        for name, returns in (("early", early), ("late", late)):
            symbol = estimated(returns, hidden_markov(regime_source=source)).regimes["A"]
            found[source, name] = symbol.regime
            assert symbol.by_model == Regime.HIGH_VOLATILITY
    assert found["hmm", "early"] == found["hmm", "late"] == Regime.HIGH_VOLATILITY
    assert found["rules", "early"] == found["strictest", "early"] == Regime.UNKNOWN
    assert found["rules", "late"] in {Regime.NORMAL, Regime.TRENDING}
    assert found["strictest", "late"] == Regime.HIGH_VOLATILITY


def test_a_model_fitted_on_other_windows_is_refused(hidden_markov: Callable[..., RiskValueSettings]) -> None:
    with pytest.raises(HiddenMarkovInvalid, match=r"expected windows of 5 bars of 60 s.* found 4 of 60 s"):
        RiskEstimates(hidden_markov(window_bars=5))


def test_a_source_without_a_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="regime_source strictest needs hmm_file"):
        RiskValueSettings(regime_source="strictest")


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 4), st.integers(0, 1000))
def test_what_comes_later_changes_nothing_that_was_known(bars: int, later: int, symbols: int, seed: int) -> None:
    """From ticks to risk data: all that follow, and how they are batched, change nothing of what was known."""
    random = np.random.default_rng(seed)
    count = bars + later
    names = np.array([b"A", b"B", b"C", b"D"])[random.integers(0, symbols, count)]
    stamps_ns = START_NS + random.integers(0, 2 * BAR_NS, count).cumsum()
    prices = np.exp(random.normal(0.0, 0.01, count))

    def known(end: int, step: int) -> RiskData | None:
        grid, estimates = Bars(60.0, 120.0), RiskEstimates(WINDOWS)
        found = None
        for begin in range(0, end, step):
            piece = slice(begin, min(begin + step, end))
            for closed in grid.add(names[piece], stamps_ns[piece], prices[piece]):
                if closed.as_of_ns < stamps_ns[bars - 1]:  # closed by then: its tick is behind the bar
                    estimates.update(closed, grid.symbols)
                    found = estimates.data()
        return found

    alone, both = known(bars, 1), known(count, 7)
    if alone is None or both is None:
        assert alone is both
        return
    assert alone.as_of_ns == both.as_of_ns
    assert alone.symbols == both.symbols
    np.testing.assert_array_equal(alone.covariance, both.covariance)
    np.testing.assert_array_equal(alone.scenarios, both.scenarios)
    np.testing.assert_array_equal(alone.regimes, both.regimes)
