"""Covariances and scenarios of bar returns: against plain numpy, positive semidefinite whatever is missing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.risk.covariance import EwmaCovariance, positive_semidefinite
from tickgate_server.risk.data import SYMBOLS_LIMIT, RiskData
from tickgate_server.risk.regimes import Regime

NAN = math.nan
NAMES = tuple("ABCDEFGHIJ")


def covariance(
    bars_a_day: float = 4.0, bars_minimum: int = 3, scenarios: int = 250, first: RiskData | None = None
) -> EwmaCovariance:
    return EwmaCovariance(bars_a_day, 0.94, bars_minimum, scenarios, first)


def feed(found: EwmaCovariance, returns: NDArray[np.float64]) -> EwmaCovariance:
    rows = found.add_symbols(NAMES[: returns.shape[1]])
    for one in returns:
        found.update(rows, one)
    return found


def correlated(bars: int, symbols: int, seed: int, common: float = 1.0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    return random.normal(0.0, 0.01, (bars, symbols)) + common * random.normal(0.0, 0.01, (bars, 1))


def weighted_mean(returns: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """RiskMetrics 1996: sum of decay^age r r', over the sum of the weights."""
    weights = decay ** np.arange(len(returns))[::-1]
    return np.asarray((returns.T * weights) @ returns / weights.sum())


def file_of(symbols: int, seed: int = 1, scenarios: int = 30) -> RiskData:
    returns = correlated(max(scenarios, 30), symbols, seed)
    return RiskData(
        10**18,
        NAMES[:symbols],
        returns.T @ returns / len(returns),
        returns[:scenarios],
        np.full(symbols, Regime.NORMAL, np.int8),
    )


def least_eigenvalue(matrix: NDArray[np.float64]) -> float:
    """Of the correlation matrix."""
    deviations = np.sqrt(np.diag(matrix))
    return float(np.linalg.eigvalsh(matrix / np.outer(deviations, deviations)).min())


@pytest.mark.parametrize("bars_a_day", [1.0, 26.0, 1440.0])
def test_it_is_the_weighted_mean_of_products_of_a_day(bars_a_day: float) -> None:
    returns = correlated(300, 5, seed=1)
    rows, found, scenarios = feed(covariance(bars_a_day), returns).get()
    assert rows.tolist() == [0, 1, 2, 3, 4]
    expected = weighted_mean(returns, 0.94 ** (1.0 / bars_a_day)) * bars_a_day
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(scenarios, returns[-250:] * math.sqrt(bars_a_day), rtol=1e-12)


def test_after_a_days_bars_an_observation_weighs_094_of_what_it_did() -> None:
    one = np.array([[0.02]])
    still = np.full((1440, 1), 1e-9)
    recent, old = feed(covariance(1440.0), one), feed(covariance(1440.0), np.concatenate((one, still)))
    assert old._products[0, 0] / recent._products[0, 0] == pytest.approx(0.94, rel=1e-6)


def test_it_goes_on_from_a_file() -> None:
    first = file_of(3)
    returns = correlated(50, 3, seed=2)
    expected = first.covariance / 4.0
    decay = 0.94**0.25
    for one in returns:
        expected = decay * expected + (1.0 - decay) * np.outer(one, one)
    rows, found, scenarios = feed(covariance(first=first), returns).get()
    assert rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found, expected * 4.0, rtol=1e-10)
    np.testing.assert_allclose(scenarios, np.concatenate((first.scenarios, returns * 2.0)))


def test_a_file_alone_is_what_it_says_with_and_without_scenarios() -> None:
    for scenarios in (30, 0):
        first = file_of(4, scenarios=scenarios)
        _, found, rows = covariance(first=first).get()
        np.testing.assert_allclose(found, first.covariance, rtol=1e-12)
        np.testing.assert_array_equal(rows, first.scenarios)


def test_bars_that_the_file_was_made_of_tell_only_of_other_symbols() -> None:
    first = file_of(2)
    returns = correlated(30, 3, seed=3)
    found = covariance(first=first)
    rows = found.add_symbols("ABC")
    for one in returns:
        found.update(rows, one, in_first=True)
    kept, matrix, _ = found.get()
    assert kept.tolist() == [0, 1]  # C has no scenario of its own yet
    np.testing.assert_allclose(matrix, first.covariance, rtol=1e-12)
    for one in returns[:3]:
        found.update(rows, one)
    assert found.get()[0].tolist() == [0, 1, 2]


def test_a_file_that_is_forgotten_leaves_nothing() -> None:
    found = covariance(first=file_of(2))
    found.forget_first()
    assert found.get()[0].size == 0
    returns = correlated(30, 2, seed=3)
    np.testing.assert_allclose(feed(found, returns).get()[1], weighted_mean(returns, 0.94**0.25) * 4.0)


def test_a_new_symbol_is_handed_out_once_each_of_its_pairs_has_enough_bars() -> None:
    returns = correlated(40, 3, seed=4)
    returns[:30, 2] = NAN
    found = covariance(bars_minimum=8)
    rows = found.add_symbols("ABC")
    handed_out = []
    for one in returns:
        found.update(rows, one)
        handed_out.append(found.get()[0].size)
    assert handed_out == [0] * 7 + [2] * 30 + [3] * 3
    _, matrix, scenarios = found.get()
    # Its variance and its covariances are those of the bars that it was there for; the others' are their own.
    expected = weighted_mean(returns[:, :2], 0.94**0.25) * 4.0
    np.testing.assert_allclose(matrix[:2, :2], expected, rtol=1e-10)
    np.testing.assert_allclose(matrix[2], weighted_mean(returns[30:], 0.94**0.25)[2] * 4.0, rtol=1e-10)
    own = returns[30:, 2] * 2.0
    np.testing.assert_allclose(scenarios[30:, 2], own)
    np.testing.assert_allclose(scenarios[:30, 2], np.tile(own, 3))


def test_a_missing_return_lowers_no_variance_and_draws_no_correlation_to_zero() -> None:
    found = feed(covariance(), returns := correlated(60, 3, seed=5))
    before = found.get()[1]
    gone = returns.copy()
    gone[:, 0] = NAN
    after = feed(found, gone[:5]).get()[1]
    assert after[0, 0] == pytest.approx(before[0, 0], rel=1e-12)
    assert after[0, 1] == pytest.approx(before[0, 1], rel=1e-12)
    assert after[1, 1] != pytest.approx(before[1, 1])


def test_a_symbol_that_never_moved_has_no_risk_that_is_known() -> None:
    returns = correlated(30, 2, seed=6)
    returns[:, 0] = 0.0
    assert feed(covariance(), returns).get()[0].tolist() == [1]


def test_a_symbol_that_is_gone_keeps_none_out() -> None:
    found = covariance(first=file_of(2), scenarios=20)  # A and B, of which none trades here
    rows = found.add_symbols("CD")
    returns = correlated(30, 2, seed=7)
    for number, one in enumerate(returns, 1):
        found.update(rows, one)
        handed_out = "".join(found.symbols[row] for row in found.get()[0])
        assert handed_out == ("AB" if number < 3 else "CD")


def test_a_symbol_without_a_scenario_of_its_own_left_is_not_handed_out() -> None:
    returns = correlated(60, 2, seed=8)
    returns[30:, 0] = NAN
    found = covariance(scenarios=20)
    feed(found, returns[:45])
    assert found.get()[0].tolist() == [0, 1]
    feed(found, returns[45:])
    assert found.get()[0].tolist() == [1]


def test_no_more_symbols_are_handed_out_than_risk_data_hold() -> None:
    found = covariance(bars_minimum=2)
    rows = found.add_symbols(f"S{k}" for k in range(SYMBOLS_LIMIT + 3))
    for one in np.random.default_rng(1).normal(0.0, 0.01, (2, rows.size)):
        found.update(rows, one)
    assert found.get()[0].size == SYMBOLS_LIMIT


@given(st.integers(1, 8), st.integers(0, 60), st.floats(0.0, 0.8), st.integers(0, 10_000), st.booleans())
def test_it_is_positive_semidefinite_and_finite_whatever_is_missing(
    symbols: int,
    bars: int,
    missing: float,
    seed: int,
    begun: bool,  # noqa: FBT001 - hypothesis passes by position
) -> None:
    random = np.random.default_rng(seed)
    returns = correlated(bars, symbols, seed, common=random.choice([0.0, 1.0, 100.0]))
    returns[random.random(returns.shape) < missing] = NAN
    returns[:, 0] *= 1e4  # scales far apart
    found = covariance(first=file_of(max(symbols - 2, 0), seed) if begun else None)
    feed(found, returns)
    rows, matrix, scenarios = found.get()
    assert matrix.shape == (rows.size, rows.size)
    assert scenarios.shape[1] == rows.size
    assert np.isfinite(matrix).all()
    assert np.isfinite(scenarios).all()
    np.testing.assert_array_equal(matrix, matrix.T)
    if rows.size:
        assert least_eigenvalue(matrix) > -1e-10
        own = found._products[rows, rows] / found._weights[rows, rows] * 4.0
        np.testing.assert_allclose(np.diag(matrix), own, rtol=1e-9)  # variances are as measured


@given(st.integers(2, 7), st.integers(0, 10_000))
def test_a_correlation_matrix_that_cannot_be_becomes_one_that_can(symbols: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    guess = np.clip(random.uniform(-1.5, 1.5, (symbols, symbols)), -1.0, 1.0)
    guess = np.tril(guess, -1)
    guess = guess + guess.T + np.eye(symbols)
    deviations = 10.0 ** random.uniform(-4.0, 0.0, symbols)
    matrix = guess * np.outer(deviations, deviations)
    found = positive_semidefinite(matrix)
    assert least_eigenvalue(found) > -1e-12 * symbols
    np.testing.assert_allclose(np.diag(found), np.diag(matrix), rtol=1e-12)
    if least_eigenvalue(matrix) >= 0.0:
        np.testing.assert_array_equal(found, matrix)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 1000))
def test_what_comes_later_changes_nothing_before(bars: int, later: int, seed: int) -> None:
    returns = correlated(bars + later, 3, seed)
    returns[np.random.default_rng(seed).random(returns.shape) < 0.2] = NAN
    alone, first_part = covariance(), []
    feed(alone, returns[:bars])
    both = covariance()
    rows = both.add_symbols("ABC")
    for number, one in enumerate(returns):
        if number == bars:
            first_part = [*both.get()]
        both.update(rows, one)
    first_part = first_part or [*both.get()]
    for expected, found in zip(alone.get(), first_part, strict=True):
        np.testing.assert_array_equal(found, expected)
