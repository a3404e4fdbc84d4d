"""The paired test, the deflated Sharpe ratio of rounds, and the stability index: against hand, simulation and twins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.models.package import FeatureStatistics
from tickgate_server.models.stability import stability_index
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid
from tickgate_training.overfitting.sharpe import (
    deflated_sharpe_2014,
    probabilistic_sharpe_2012,
    probabilistic_sharpe_2025,
    sample_of,
)
from tickgate_training.publishing import feature_statistics
from tickgate_training.retraining.comparison import deflated_sharpe
from tickgate_training.retraining.drift import null_quantiles
from tickgate_training.retraining.paired import paired_test
from tickgate_training.stability import deciles_of, psi_of


def test_by_hand() -> None:
    """Sums (2, 4, 6, 4) and (1, 3, 2, 2): means 4 and 2, deviations sqrt(8/3) and sqrt(2/3)."""
    ours = np.array([9.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 2.0, 2.0])  # the oldest return fills no block of two
    theirs = np.array([9.0, 0.5, 0.5, 1.0, 2.0, 1.0, 1.0, 2.0, 0.0])
    found = paired_test(ours, theirs, 2)
    s1, s2 = 4.0 / math.sqrt(8.0 / 3.0), 2.0 / math.sqrt(2.0 / 3.0)
    r = (0.0 * 0.0 + 2.0 * 0.0 + -2.0 * -1.0 + 0.0 * 1.0) / 3.0 / math.sqrt(8.0 / 3.0 * 2.0 / 3.0)
    variance = 2.0 - 2.0 * r + 0.5 * (s1**2 + s2**2 - 2.0 * s1 * s2 * r**2)  # Memmel's
    assert (found.blocks, found.block_periods, found.mean_difference) == (4, 2, 2.0)
    assert found.sharpe_challenger == pytest.approx(s1)
    assert found.sharpe_champion == pytest.approx(s2)
    assert found.statistic == pytest.approx((s1 - s2) / math.sqrt(variance / 4))
    assert found.p_value == pytest.approx(0.5 * math.erfc(found.statistic / math.sqrt(2.0)))


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("champion", [0.5, -0.4])
def test_where_the_null_hypothesis_just_holds_it_is_rejected_as_often_as_is_said(
    margin: float, champion: float
) -> None:
    rng = np.random.default_rng(7)
    wanted = champion + margin * abs(champion)
    rejected, runs, rows = 0, 1500, 300
    for _ in range(runs):
        shared, own = rng.standard_normal((2, rows, 2))
        returns = math.sqrt(0.6) * shared[:, :1] + math.sqrt(0.4) * own  # correlation 0.6
        found = paired_test(wanted + returns[:, 0], champion + returns[:, 1], 1, margin=margin)
        rejected += found.p_value <= 0.05
    # Four standard errors of a share of 5 %.
    assert abs(rejected / runs - 0.05) < 4.0 * math.sqrt(0.05 * 0.95 / runs)


@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_betting_more_wins_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(0.1, 1.0, (2, 60))
    one, other = paired_test(ours, theirs, 2), paired_test(scale * ours, theirs, 2)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (np.arange(4.0), np.ones(4) * 0.5, "2 blocks of 2 returns, at least 3 needed"),
        (np.array([1.0, np.nan, 2.0, 3.0, 1.0, 1.0]), np.arange(6.0), "a return is not finite"),
        (np.ones(8), np.arange(8.0), "the challenger's returns do not vary"),
        (np.arange(8.0), np.ones(8), "the champion's returns do not vary"),
        (np.arange(8.0), np.arange(8.0), "both earned the same"),
        (np.arange(8.0), 2.0 * np.arange(8.0), "both earn in proportion"),
        (np.zeros(8), np.zeros(8), "the challenger's returns do not vary"),
        (np.empty(0), np.empty(0), "0 blocks of 2 returns, at least 3 needed"),
    ],
)
def test_where_nothing_can_be_told_the_test_says_why_and_gives_no_number(
    ours: np.ndarray, theirs: np.ndarray, why: str
) -> None:
    found = paired_test(ours, theirs, 2)
    assert found.why == why
    assert math.isnan(found.p_value)


def test_against_a_champion_that_never_trades_the_challengers_own_ratio_counts() -> None:
    ours = np.array([0.1, 0.3, -0.1, 0.2, 0.2, 0.1])
    found = paired_test(ours, np.zeros(6), 1, margin=0.2)
    s1 = ours.mean() / ours.std(ddof=1)
    assert found.sharpe_champion == 0.0
    assert found.statistic == pytest.approx(s1 / math.sqrt((1.0 + s1**2 / 2.0) / 6.0))


def test_arguments_out_of_range_are_named() -> None:
    series = np.arange(6.0)
    with pytest.raises(SeriesInvalid):
        paired_test(series, series[1:], 1)
    for arguments in (
        {"block_periods": 0},
        {"block_periods": 1, "blocks_minimum": 2},
        {"block_periods": 1, "margin": 1.0},
    ):
        with pytest.raises(ArgumentInvalid):
            paired_test(series, series, **arguments)  # type: ignore[arg-type]


def test_a_deflated_ratio_of_one_try_is_the_probabilistic_one_and_more_tries_lower_it() -> None:
    sample = sample_of(np.random.default_rng(3).normal(0.1, 1.0, 500))
    assert deflated_sharpe(sample, 1)[0] == probabilistic_sharpe_2012(sample, 0.0)
    assert deflated_sharpe(sample, 1)[1] == pytest.approx(probabilistic_sharpe_2025(sample, 0.0), rel=1e-12)
    for form in (0, 1):
        found = [deflated_sharpe(sample, trials)[form] for trials in (2, 10, 1000)]
        assert found == sorted(found, reverse=True)


def test_a_deflated_ratio_agrees_with_that_of_trials_whose_spread_is_chance() -> None:
    """Of many tries without skill on as many rows, the variance in the data is what the null hypothesis says."""
    rng = np.random.default_rng(5)
    returns = rng.standard_normal((500, 400))
    sharpes = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
    sample = sample_of(returns[:, int(sharpes.argmax())])
    assert deflated_sharpe(sample, 400)[0] == pytest.approx(deflated_sharpe_2014(sample, sharpes), abs=0.1)


def test_the_best_of_rounds_without_skill_hardly_ever_passes() -> None:
    rng = np.random.default_rng(6)
    passed = 0
    for _ in range(200):
        returns = rng.standard_normal((250, 20))
        best = returns[:, int((returns.mean(axis=0) / returns.std(axis=0, ddof=1)).argmax())]
        passed += deflated_sharpe(sample_of(best), 20)[0] > 0.95
    assert passed <= 6  # 3 %; alone the best of 20 would pass in 64


def statistics(quantiles: tuple[float, ...], most: float) -> FeatureStatistics:
    return FeatureStatistics(mean=0.0, std=1.0, min=-9.0, max=most, quantiles=quantiles)


def test_the_stability_index_is_that_of_the_rows_where_deciles_are_distinct() -> None:
    rng = np.random.default_rng(8)
    train = rng.normal(0.0, 1.0, (100_000, 1)).astype(np.float32)
    later = rng.normal(0.5, 1.2, (3000, 1)).astype(np.float32)
    trained = feature_statistics(("x",), train)["x"]
    known = float(psi_of(deciles_of(train), train, later)[0])
    assert stability_index(trained, later[:, 0]) == pytest.approx(known, rel=1e-3)


def test_the_stability_index_by_hand_with_quantiles_that_coincide() -> None:
    """Quartiles (0, 0, 1): half the rows up to 0, a quarter up to 1, a quarter above; of (0, 0, 0), maximum 0, all."""
    values = np.array([0.0, 0.0, 0.5, 2.0, 2.0, 2.0], np.float32)
    expected = np.array([0.5, 0.25, 0.25])
    actual = (np.array([2, 1, 3]) + 0.5) / 7.5
    by_hand = float(((actual - expected) * np.log(actual / expected)).sum())
    assert stability_index(statistics((0.0, 0.0, 1.0), 3.0), values) == pytest.approx(by_hand)
    assert stability_index(statistics((0.0, 0.0, 0.0), 0.0), values) == 0.0


def test_a_stability_index_of_nothing_is_nan_and_bad_quantiles_are_refused() -> None:
    assert math.isnan(stability_index(statistics((0.0,), 1.0), np.empty(0, np.float32)))
    for quantiles in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match="ascending"):
            stability_index(statistics(quantiles, 2.0), np.ones(3, np.float32))


def test_where_nothing_changed_the_index_stays_below_its_null_quantile_ties_and_all() -> None:
    """Ten features that remember, half of them in steps: at a chance of 1 % over all, at most 4 of 100 looks."""
    rng = np.random.default_rng(9)
    noise = rng.standard_normal((40_000, 10))
    for row in range(1, len(noise)):
        noise[row] += 0.8 * noise[row - 1]
    noise[:, 5:] = np.round(noise[:, 5:])
    rows = noise.astype(np.float32)
    names = tuple(f"x{k}" for k in range(10))
    train, later = rows[:10_000], rows[10_000:]
    trained = feature_statistics(names, train)
    null = null_quantiles(trained, train, 300, seed=1)
    looks = [
        any(stability_index(trained[name], part[:, k]) > null[name] for k, name in enumerate(names))
        for part in np.split(later, 100)
    ]
    assert sum(looks) <= 4
    moved = later[:300] + np.float32(4.0)
    assert all(stability_index(trained[name], moved[:, k]) > null[name] for k, name in enumerate(names))
