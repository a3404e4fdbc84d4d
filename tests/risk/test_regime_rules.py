"""Regimes by rule: each rule at its limit, rank, dwell, and no look ahead; a slow reference in plain numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from tickgate_server.risk.regime_rules import Dwell, RegimeRules, RuleSettings, Window, mean_pairwise_correlation
from tickgate_server.risk.regimes import Regime

PROMPT = RuleSettings(windows_minimum=3, windows=5, dwell=1)
QUIET = Window(0.0, 1.0, 0.01)
NAN = math.nan

WINDOWS = st.lists(
    st.none()
    | st.builds(
        lambda net, path, volatility: Window(net * path, path, volatility),
        st.floats(-1.0, 1.0),
        st.floats(0.0, 1.0),
        st.sampled_from([0.0, 0.01, 0.0100001, 0.011, 0.02, 0.5, 1e-300, 1e3]),
    ),
    max_size=40,
)
CORRELATIONS = st.sampled_from([NAN, 0.0, 0.8, 0.81, 1.0])


def run(rules: RegimeRules, *windows: Window | None, correlation: float = NAN) -> list[str]:
    return [rules.update(window, correlation).name for window in windows]


def settled(settings: RuleSettings = PROMPT) -> RegimeRules:
    """Rules that have seen windows of volatilities around 1 per cent."""
    rules = RegimeRules(settings)
    for k in range(settings.windows):
        rules.update(Window(0.0, 1.0, 0.01 * math.exp(0.1 * (-1) ** k)), NAN)
    return rules


def test_a_regime_is_unknown_before_there_are_enough_windows() -> None:
    rules = RegimeRules(PROMPT)
    assert run(rules, QUIET, QUIET, QUIET, QUIET) == ["UNKNOWN", "UNKNOWN", "UNKNOWN", "NORMAL"]
    default = RegimeRules(RuleSettings())
    assert run(default, *[QUIET] * 23) == ["UNKNOWN"] * 22 + ["NORMAL"]  # twenty, and a dwell of three


def test_volatility_is_high_beyond_two_deviations_of_its_log() -> None:
    logs = np.log([0.01 * math.exp(0.1 * (-1) ** k) for k in range(5)])
    limit = math.exp(logs.mean() + 2.0 * logs.std(ddof=1))
    assert run(settled(), Window(0.0, 1.0, limit * 0.999)) == ["NORMAL"]
    assert run(settled(), Window(0.0, 1.0, limit * 1.001)) == ["HIGH_VOLATILITY"]


def test_volatility_that_never_changed_is_high_when_it_rises_and_not_by_rounding() -> None:
    rules = RegimeRules(PROMPT)
    run(rules, *[QUIET] * 5)
    assert run(rules, Window(0.0, 1.0, 0.01 * (1 + 1e-15))) == ["NORMAL"]
    assert run(rules, Window(0.0, 1.0, 0.02)) == ["HIGH_VOLATILITY"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trend_is_a_net_move_of_more_than_seven_tenths_of_the_path(sign: float) -> None:
    assert run(settled(), Window(0.70 * sign, 1.0, 0.01)) == ["NORMAL"]
    assert run(settled(), Window(0.71 * sign, 1.0, 0.01)) == ["TRENDING"]


def test_a_later_rule_outranks_those_before_it() -> None:
    trending = Window(0.9, 1.0, 0.01)
    assert run(settled(), trending, correlation=0.8) == ["TRENDING"]
    assert run(settled(), trending, correlation=0.81) == ["RISK_OFF"]
    assert run(settled(), Window(0.9, 1.0, 0.5), correlation=0.81) == ["HIGH_VOLATILITY"]


def test_a_window_without_a_move_is_normal_and_no_value_to_compare_with() -> None:
    rules = RegimeRules(PROMPT)
    still = Window(0.0, 0.0, 0.0)
    assert run(rules, still, still, still, still) == ["UNKNOWN"] * 4
    assert run(settled(), still) == ["NORMAL"]


def test_a_missing_window_is_unknown_at_once_and_the_regime_returns_after_the_dwell() -> None:
    rules = settled(RuleSettings(windows_minimum=3, windows=8, dwell=3))
    assert run(rules, QUIET, None, QUIET, QUIET, QUIET) == ["NORMAL", "UNKNOWN", "UNKNOWN", "UNKNOWN", "NORMAL"]


def test_a_change_has_to_hold_for_the_dwell() -> None:
    dwell = Dwell(3, Regime.NORMAL)
    asked = "TTNTTTNNHHTTT"
    names = {"N": Regime.NORMAL, "T": Regime.TRENDING, "H": Regime.HIGH_VOLATILITY}
    assert "".join(dwell.update(names[letter]).name[0] for letter in asked) == "NNNNNTTTTTTTT"


def test_an_inherited_regime_is_kept_until_own_windows_are_enough() -> None:
    rules = RegimeRules(PROMPT)
    rules.inherit(Regime.RISK_OFF)
    assert run(rules, QUIET, QUIET, QUIET, QUIET) == ["RISK_OFF", "RISK_OFF", "RISK_OFF", "NORMAL"]
    rules.inherit(Regime.RISK_OFF)  # it has its own by now
    assert rules.regime == Regime.NORMAL
    gone = RegimeRules(PROMPT)
    gone.inherit(Regime.NORMAL)
    assert run(gone, QUIET, None, QUIET) == ["NORMAL", "UNKNOWN", "UNKNOWN"]


def reference(windows: list[tuple[Window | None, float]], settings: RuleSettings) -> list[Regime]:
    """Candidates and dwell by whole histories."""
    candidates: list[Regime] = []
    found: list[Regime] = []
    for index, (window, correlation) in enumerate(windows):
        earlier = [w.realised_volatility for w, _ in windows[:index] if w is not None and w.realised_volatility > 0.0]
        in_force = found[-1] if found else Regime.UNKNOWN
        candidate = Regime.NORMAL
        if window is None:
            candidate = Regime.UNKNOWN
        elif len(earlier) < settings.windows_minimum:
            candidate = in_force
        else:
            if window.path > 0 and abs(window.log_return) / window.path > settings.trend_limit:
                candidate = Regime.TRENDING
            if correlation > settings.correlation_limit:
                candidate = Regime.RISK_OFF
            logs = np.log(earlier[-settings.windows :])
            if window.realised_volatility > 0.0:
                excess = math.log(window.realised_volatility) - logs.mean()
                if excess > 1e-9 and excess > settings.z_limit * logs.std(ddof=1):
                    candidate = Regime.HIGH_VOLATILITY
        candidates.append(candidate)
        held = candidates[-settings.dwell :] == [candidate] * settings.dwell
        found.append(candidate if held or candidate == Regime.UNKNOWN else in_force)
    return found


@given(st.lists(st.tuples(WINDOWS.map(lambda found: found[0] if found else QUIET), CORRELATIONS), max_size=40))
def test_the_stream_is_the_reference(windows: list[tuple[Window | None, float]]) -> None:
    settings = RuleSettings(windows_minimum=3, windows=6, dwell=2)
    rules = RegimeRules(settings)
    assert [rules.update(*one) for one in windows] == reference(windows, settings)


@given(WINDOWS, WINDOWS, CORRELATIONS)
def test_what_comes_later_changes_no_regime_before(
    windows: list[Window | None], later: list[Window | None], correlation: float
) -> None:
    alone = run(RegimeRules(PROMPT), *windows, correlation=correlation)
    assert run(RegimeRules(PROMPT), *windows, *later, correlation=correlation)[: len(windows)] == alone


@given(st.integers(2, 9), st.integers(3, 40), st.integers(0, 1000))
def test_mean_pairwise_correlation_is_the_mean_of_the_matrix(symbols: int, bars: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    returns = random.normal(0.0, 0.01, (bars, symbols)) + random.normal(0.0, 0.01, (bars, 1))
    matrix = np.corrcoef(returns.T)
    expected = (matrix.sum() - symbols) / (symbols * (symbols - 1))
    assert mean_pairwise_correlation(returns, 2) == pytest.approx(expected, abs=1e-9)


def basket(symbols: int) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0.0, 0.01, (30, symbols))


def test_a_basket_of_four_is_not_evaluated_and_those_without_all_returns_are_not_in_it() -> None:
    assert math.isnan(mean_pairwise_correlation(basket(4), 5))
    returns = basket(6)
    full = mean_pairwise_correlation(returns[:, :5], 5)
    assert math.isfinite(full)
    returns[3, 5] = NAN
    assert mean_pairwise_correlation(returns, 5) == full
    returns[:, 4] = 0.0  # did not move
    assert math.isnan(mean_pairwise_correlation(returns, 5))
    assert math.isnan(mean_pairwise_correlation(np.empty((30, 0)), 2))


def test_settings_that_could_never_know_a_regime_are_refused() -> None:
    with pytest.raises(ValidationError, match="windows is 5, must be at least windows_minimum, 20"):
        RuleSettings(windows=5)
