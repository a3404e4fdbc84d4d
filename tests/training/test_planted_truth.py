"""What the simulator plants is what it says, and where it plants nothing, nothing is found: what pipelines are held to.

Bounds are four standard errors; seeds are fixed, so a test that passes goes on passing.
"""

import math

import numpy as np
import polars as pl
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tickgate_server.features import micro10
from tickgate_server.features.schema import TICK_SESSION_GAP_NS
from tickgate_training.data import table
from tickgate_training.data.simulator import EDGE_LIMIT, MOMENTUM_TRADES, simulate

SIGMA = 2e-4
TRADES = 100_000
BURN_IN = 500
"""Trades until the zeros before the first are forgotten."""
EDGES = (0.0, 0.1, 0.3)


def returns_of(edge: float, seed: int = 1) -> NDArray[np.float64]:
    """True mid's log returns in units of sigma: ticks are so fine that quotes stand where the mid is."""
    frame = simulate(TRADES, seed, edge, trade_volatility=SIGMA, tick_size=1e-6)
    return np.diff(np.log(table.mid(frame)))[BURN_IN:] / SIGMA


def leans(returns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each return that has five before it, and u: their sum over the root of five."""
    sums = sliding_window_view(returns, MOMENTUM_TRADES).sum(axis=1) / math.sqrt(MOMENTUM_TRADES)
    return returns[MOMENTUM_TRADES:], sums[:-1]


def stationary(edge: float) -> tuple[float, float]:
    """Variance of r and of u in the long run, from the autoregression's discrete Lyapunov equation."""
    companion = np.eye(MOMENTUM_TRADES, k=-1)
    companion[0] = edge / math.sqrt(MOMENTUM_TRADES)
    noise = np.zeros((MOMENTUM_TRADES, MOMENTUM_TRADES))
    noise[0, 0] = 1.0 - edge * edge
    covariance = solve_discrete_lyapunov(companion, noise)
    return float(covariance[0, 0]), float(covariance.sum()) / MOMENTUM_TRADES


def bayes_accuracy(edge: float) -> float:
    """How often the sign of u is that of r: two normal numbers of correlation c agree with probability 1/2 + asin(c)/pi
    (Sheppard, Phil. Trans. R. Soc. A 192, 1899)."""
    variance, of_u = stationary(edge)
    return 0.5 + math.asin(edge * math.sqrt(of_u / variance)) / math.pi


@pytest.mark.parametrize("edge", EDGES)
def test_the_next_return_leans_by_edge_and_what_is_left_is_noise_of_the_stated_size(edge: float) -> None:
    r, u = leans(returns_of(edge))
    slope = float(r @ u / (u @ u))
    left = r - slope * u
    assert slope == pytest.approx(edge, abs=4.0 / math.sqrt(u @ u))
    assert left.std() == pytest.approx(math.sqrt(1.0 - edge * edge), abs=4.0 / math.sqrt(2.0 * r.size))
    assert (left[1:] * left[:-1]).mean() == pytest.approx(0.0, abs=4.0 / math.sqrt(r.size))


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_but_the_last_five_returns_and_each_alike_foretells_the_next(edge: float) -> None:
    returns = returns_of(edge)
    lags = 12
    before = sliding_window_view(returns, lags)[:-1, ::-1]  # the newest first
    found = np.linalg.lstsq(before, returns[lags:], rcond=None)[0]
    expected = np.where(np.arange(lags) < MOMENTUM_TRADES, edge / math.sqrt(MOMENTUM_TRADES), 0.0)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=4.0 / math.sqrt(returns.size))


@pytest.mark.parametrize("edge", EDGES)
def test_who_knows_the_relation_is_right_as_often_as_two_normal_numbers_agree(edge: float) -> None:
    r, u = leans(returns_of(edge))
    right = float((np.sign(r) == np.sign(u)).mean())
    assert right == pytest.approx(bayes_accuracy(edge), abs=4.0 * 0.5 / math.sqrt(r.size))
    assert right > 0.5 + 0.25 * edge or edge == 0.0


def test_a_small_edge_is_the_correlation_of_the_next_return_with_the_last_five() -> None:
    r, u = leans(returns_of(0.05))
    assert float(np.corrcoef(r, u)[0, 1]) == pytest.approx(0.05, abs=0.1 * 0.05 + 4.0 / math.sqrt(r.size))
    variance, of_u = stationary(1e-3)
    assert 1e-3 * math.sqrt(of_u / variance) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("edge", [*EDGES, EDGE_LIMIT])
def test_returns_have_the_autoregressions_variance_and_stay_bounded(edge: float) -> None:
    variance, of_u = stationary(edge)
    r, u = leans(returns_of(edge))
    # Near the limit u hardly forgets: so many fewer numbers are independent of each other.
    independent = r.size * (1.0 - edge / EDGE_LIMIT * 0.99) / MOMENTUM_TRADES
    assert r.var() == pytest.approx(variance, rel=4.0 * math.sqrt(2.0 / independent))
    assert u.var() == pytest.approx(of_u, rel=4.0 * math.sqrt(2.0 / independent))


@pytest.mark.parametrize("edge", [0.0, 0.3])
def test_who_was_aggressor_is_a_fair_coin_that_knows_nothing(edge: float) -> None:
    frame = simulate(TRADES, 3, edge, tick_size=1e-6)
    side = table.values(frame, "aggressor").astype(np.float64)
    moves = np.diff(np.log(table.mid(frame))) / SIGMA
    bound = 4.0 / math.sqrt(TRADES)
    assert side.mean() == pytest.approx(0.0, abs=bound)
    assert (side[1:] * side[:-1]).mean() == pytest.approx(0.0, abs=bound)
    for others in (side[:-1], side[1:]):  # of the move that follows, and of the one before
        assert np.corrcoef(others, moves)[0, 1] == pytest.approx(0.0, abs=bound)


def test_trades_bounce_by_the_half_spread_squared_as_roll_has_it() -> None:
    frame = simulate(TRADES, 4, tick_size=0.001, spread_ticks=20)
    moves = np.diff(table.values(frame, "price"))
    bound = 4.0 * float(moves.var()) / math.sqrt(moves.size)
    assert np.mean(moves[1:] * moves[:-1]) == pytest.approx(-(0.01**2), abs=bound)
    assert bound < 0.2 * 0.01**2  # or it would show nothing


def features_and_direction(frame: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """micro10 after each trade, and whether the mid's next move is up; rows that are ready."""
    values = micro10.batch(
        table.values(frame, "exchange_ts_ns"),
        table.values(frame, "price"),
        table.values(frame, "size"),
        TICK_SESSION_GAP_NS,
    )[:-1]
    ready = np.isfinite(values).all(axis=1)
    return values[ready], (np.diff(table.mid(frame)) > 0.0)[ready]


def out_of_sample(frame: pl.DataFrame) -> tuple[float, float]:
    """AUC of a logistic regression fitted on the first half, on the second; and its standard error where nothing can be
    known (Hanley and McNeil, Radiology 143(1), 1982): that of Mann and Whitney's statistic."""
    features, up = features_and_direction(frame)
    half = up.size // 2
    scaler = StandardScaler().fit(features[:half])
    model = LogisticRegression(C=1.0).fit(scaler.transform(features[:half]), up[:half])
    scores = model.decision_function(scaler.transform(features[half:]))
    ups = int(up[half:].sum())
    downs = up.size - half - ups
    return float(roc_auc_score(up[half:], scores)), math.sqrt((ups + downs + 1) / (12.0 * ups * downs))


def excesses(edge: float, seeds: int) -> NDArray[np.float64]:
    """AUC above a half in standard errors, float64 [seeds]. Fine ticks: a rounded mid comes back by itself."""
    found = [out_of_sample(simulate(3_000, seed, edge, tick_size=1e-4)) for seed in range(seeds)]
    return np.array([(auc - 0.5) / error for auc, error in found])


def test_without_an_edge_micro10_foretells_nothing_of_the_mid_over_twenty_seeds() -> None:
    found = excesses(0.0, 20)
    assert abs(found.mean()) < 4.0 / math.sqrt(20)
    assert np.abs(found).max() < 4.0
    assert (found**2).sum() < 45.3  # chi squared of 20 degrees of freedom: one in a thousand is above


def test_with_an_edge_the_same_procedure_finds_it_in_every_seed() -> None:
    assert (excesses(0.3, 5) > 4.0).all()


def test_without_an_edge_no_single_feature_of_micro10_is_ahead_of_the_mid() -> None:
    frames = [simulate(3_000, seed, 0.0, tick_size=1e-4) for seed in range(20)]
    pairs = [features_and_direction(frame) for frame in frames]
    features, up = np.concatenate([one for one, _ in pairs]), np.concatenate([one for _, one in pairs])
    error = math.sqrt((up.size + 1) / (12.0 * up.sum() * (~up).sum()))
    found = [(float(roc_auc_score(up, features[:, k])) - 0.5) / error for k in range(features.shape[1])]
    assert np.abs(found).max() < 4.0
