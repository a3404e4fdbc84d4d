import math
from dataclasses import replace
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter  # type: ignore[import-untyped]
from skfolio import measures

from tickgate_server.observer.health_checks import dispersion, sharpe_below
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid, TooFewRows
from tickgate_training.metrics import sharpe_ratio
from tickgate_training.overfitting.pbo import backtest_overfitting
from tickgate_training.overfitting.sharpe import (
    SharpeSample,
    deflated_sharpe_2014,
    deflated_sharpe_2025,
    expected_maximum_sharpe,
    minimum_track_record_2012,
    minimum_track_record_2025,
    probabilistic_sharpe_2012,
    probabilistic_sharpe_2025,
    sample_of,
    sharpe_variance_2025,
    trial_sharpes,
    variance_of_maximum,
)

# Two years of a hedge fund's months, the example of both papers on the probabilistic Sharpe ratio.
FUND = SharpeSample(0.036 / 0.079, 24, -2.448, 10.164)
PHI = NormalDist().cdf

seeds = st.integers(0, 2**32 - 1)


def returns_of(seed: int, periods: int = 60, mean: float = 0.1) -> NDArray[np.float64]:
    """Skewed and heavy-tailed."""
    rng = np.random.default_rng(seed)
    return np.asarray(mean + rng.standard_t(6, periods) + 0.3 * (rng.exponential(1.0, periods) - 1.0))


def spread_out(sharpes: int, variance: float) -> NDArray[np.float64]:
    """So many Sharpe ratios of that variance (ddof 1)."""
    values = np.arange(sharpes, dtype=np.float64)
    return np.asarray((values - values.mean()) * math.sqrt(variance) / values.std(ddof=1))


# Probabilistic Sharpe ratio and minimum track record


def test_the_2012_form_gives_the_papers_figures() -> None:
    assert probabilistic_sharpe_2012(FUND, 0.0) == pytest.approx(0.913, abs=5e-4)
    # The paper's 0.982 is of the unrounded mean and deviation.
    assert probabilistic_sharpe_2012(SharpeSample(FUND.sharpe, 24), 0.0) == pytest.approx(0.982, abs=1e-3)


@pytest.mark.parametrize(("periods_a_year", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_the_2012_track_record_gives_the_papers_years(periods_a_year: int, years: float) -> None:
    # Normal returns, an annual Sharpe ratio of 2 against one of 1, 95 %.
    one = 1.0 / math.sqrt(periods_a_year)
    found = minimum_track_record_2012(SharpeSample(2.0 * one, 10), one) / periods_a_year
    assert found == pytest.approx(years, abs=5e-3)


def test_the_2025_form_gives_its_authors_figures() -> None:
    assert probabilistic_sharpe_2025(FUND, 0.0) == pytest.approx(0.987, abs=5e-4)
    assert probabilistic_sharpe_2025(FUND, 0.1) == pytest.approx(0.939, abs=5e-4)
    assert math.sqrt(sharpe_variance_2025(FUND, FUND.sharpe)) == pytest.approx(0.329, abs=5e-4)
    normal = SharpeSample(FUND.sharpe, 24)
    assert math.sqrt(sharpe_variance_2025(normal, FUND.sharpe)) == pytest.approx(0.214, abs=5e-4)
    assert minimum_track_record_2025(FUND, 0.0) == pytest.approx(13.029, abs=5e-4)


def test_autocorrelation_enters_by_hand() -> None:
    # r = 0.2: r/(1-r) = 1/4, r^2/(1-r^2) = 1/24, so a = 3/2, b = 31/24, c = 13/12.
    sample = SharpeSample(0.4, 50, -0.5, 4.0, 0.2)
    expected = (3 / 2 - 31 / 24 * -0.5 * 0.1 + 13 / 12 * 3 / 4 * 0.01) / 50
    assert sharpe_variance_2025(sample, 0.1) == pytest.approx(expected, rel=1e-12)
    assert probabilistic_sharpe_2025(sample, 0.1) == pytest.approx(PHI(0.3 / math.sqrt(expected)))


@pytest.mark.parametrize("r", [-0.4, 0.0, 0.5])
@pytest.mark.parametrize("sharpe", [0.0, 0.4])
def test_the_2025_variance_is_that_of_simulated_autoregressions(r: float, sharpe: float) -> None:
    rng, periods = np.random.default_rng(3), 1000
    shocks = rng.standard_normal((4000, periods + 50)) * math.sqrt(1.0 - r * r)
    series = lfilter([1.0], [1.0, -r], shocks, axis=1)[:, 50:] + sharpe
    found = (series.mean(axis=1) / series.std(axis=1, ddof=1)).var()
    expected = sharpe_variance_2025(SharpeSample(sharpe, periods, autocorrelation=r), sharpe)
    assert found == pytest.approx(expected, rel=0.08)


def test_of_normal_returns_the_error_is_los() -> None:
    # Kurtosis is raw: with an excess kurtosis of 0 in its place the last term would be -SR^2/4.
    sample = SharpeSample(0.5, 101)
    assert probabilistic_sharpe_2012(sample, 0.4) == pytest.approx(PHI(0.1 * 10.0 / math.sqrt(1.0 + 0.5 * 0.25)))
    assert sharpe_variance_2025(sample, 0.5) == pytest.approx((1.0 + 0.5 * 0.25) / 101)


@pytest.mark.parametrize(("skewness", "kurtosis"), [(0.0, 0.0), (-2.448, 10.164 - 3.0 - 0.2), (1.0, 1.9)])
def test_an_excess_kurtosis_is_refused_where_it_can_be_told(skewness: float, kurtosis: float) -> None:
    with pytest.raises(ArgumentInvalid, match="raw kurtosis, 3 for a normal") as refused:
        SharpeSample(0.1, 100, skewness, kurtosis)
    assert refused.value.argument == "kurtosis"


@pytest.mark.parametrize("r", [1.0, -1.0, 1.5])
def test_an_autocorrelation_that_cannot_be_is_refused(r: float) -> None:
    with pytest.raises(ArgumentInvalid, match="autocorrelation"):
        SharpeSample(0.1, 100, autocorrelation=r)


@given(seeds, st.integers(3, 80), st.floats(-0.3, 0.3))
def test_the_2012_form_agrees_with_skfolio(seed: int, periods: int, benchmark: float) -> None:
    returns = returns_of(seed, periods)
    expected = measures.probabilistic_sharpe_ratio(returns, benchmark_sharpe_ratio=benchmark)
    assert probabilistic_sharpe_2012(sample_of(returns), benchmark) == pytest.approx(expected, abs=1e-9)


@given(seeds, st.integers(5, 120), st.floats(-0.3, 0.3))
def test_the_servers_health_check_judges_by_the_same_form(seed: int, periods: int, bar: float) -> None:
    returns = returns_of(seed, periods)
    sharpe, chance = sharpe_below(returns, bar)
    sample = sample_of(returns)
    assert sample.sharpe == pytest.approx(sharpe, rel=1e-12)
    # Its error is wider by how much batches of the influence vary more than independent ones would.
    x = (returns - returns.mean()) / returns.std()
    influence = x - 0.5 * sharpe * (x * x - 1.0)
    wider = math.sqrt(dispersion(influence, float(influence.var())))
    mine = NormalDist().inv_cdf(min(max(probabilistic_sharpe_2012(sample, bar), 1e-12), 1 - 1e-12))
    assert PHI(mine / wider) == pytest.approx(chance, abs=1e-6)


@given(seeds, st.floats(0.01, 100.0))
def test_neither_scale_nor_calendar_enters(seed: int, scale: float) -> None:
    returns = returns_of(seed)
    one, other = sample_of(returns), sample_of(returns * scale)
    assert one.sharpe == sharpe_ratio(returns, 1.0)[0]
    for form in (probabilistic_sharpe_2012, probabilistic_sharpe_2025):
        assert form(other, 0.05) == pytest.approx(form(one, 0.05), abs=1e-9)


@given(seeds, st.floats(-0.2, 0.2), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_probability_reaches_the_confidence_at_the_minimum_track_record_and_not_before(
    seed: int, benchmark: float, confidence: float
) -> None:
    found = sample_of(returns_of(seed, mean=0.4))
    for length_of, chance_of in (
        (minimum_track_record_2012, probabilistic_sharpe_2012),
        (minimum_track_record_2025, probabilistic_sharpe_2025),
    ):
        length = length_of(found, benchmark, confidence)
        if found.sharpe <= benchmark:
            assert length == math.inf
            continue
        enough = max(math.ceil(length + 1e-9), 2)
        assert chance_of(replace(found, periods=enough), benchmark) >= confidence
        if enough > 2:
            assert chance_of(replace(found, periods=enough - 1), benchmark) < confidence + 1e-9


def test_no_length_is_enough_where_the_sharpe_ratio_is_not_above_the_benchmark() -> None:
    for form in (minimum_track_record_2012, minimum_track_record_2025):
        assert form(SharpeSample(0.1, 50), 0.1) == math.inf
        assert form(SharpeSample(0.1, 50), 0.2) == math.inf
        assert math.isnan(form(SharpeSample(math.nan, 50), 0.0))
        for confidence in (0.5, 1.0, math.nan):
            with pytest.raises(ArgumentInvalid, match="confidence"):
                form(SharpeSample(0.1, 50), 0.0, confidence)


@pytest.mark.parametrize("returns", [[], [0.1], [0.1] * 5, [0.0] * 5, [0.1, math.nan, 0.2], [0.1, math.inf, 0.2]])
def test_without_a_sharpe_ratio_every_form_is_nan(returns: list[float]) -> None:
    sample = sample_of(np.array(returns))
    assert sample.periods == len(returns)
    sharpes = np.array([0.1, 0.2, 0.3])
    assert math.isnan(probabilistic_sharpe_2012(sample, 0.0))
    assert math.isnan(probabilistic_sharpe_2025(sample, 0.0))
    assert math.isnan(deflated_sharpe_2014(sample, sharpes))
    assert math.isnan(deflated_sharpe_2025(sample, sharpes))
    assert math.isnan(minimum_track_record_2012(sample, 0.0))
    assert math.isnan(minimum_track_record_2025(sample, 0.0))


def test_an_error_of_zero_leaves_the_probability_undefined() -> None:
    # Skewness 2 and kurtosis 5, the least it can be: the root is |1 - SR|.
    assert math.isnan(probabilistic_sharpe_2012(SharpeSample(1.0, 50, 2.0, 5.0), 0.0))
    assert math.isnan(probabilistic_sharpe_2025(SharpeSample(0.5, 50, 2.0, 5.0), 1.0))


# Deflated Sharpe ratio


def test_the_2014_form_gives_the_papers_figures() -> None:
    # Five years of 250 days, annual Sharpe ratio 2.5, annual variance across trials 1/2, skewness -3, kurtosis 10.
    strategy = SharpeSample(2.5 / math.sqrt(250), 1250, -3.0, 10.0)
    assert expected_maximum_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_2014(strategy, spread_out(100, 0.5 / 250)) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe_2014(strategy, spread_out(46, 0.5 / 250)) == pytest.approx(0.9505, abs=5e-5)


def test_the_2025_form_holds_the_best_of_many_against_the_error_of_the_best() -> None:
    # Ten trials with variance 0.1 across them, as in the authors' numeric example.
    null = expected_maximum_sharpe(10, 0.1)
    assert null == pytest.approx(math.sqrt(0.1) * 1.5746, abs=1e-4)
    error = math.sqrt((1.0 + 2.448 * null + 9.164 / 4.0 * null**2) / 24 * 0.34434)
    expected = PHI((FUND.sharpe - null) / error)
    assert deflated_sharpe_2025(FUND, spread_out(10, 0.1)) == pytest.approx(expected, abs=1e-5)


@given(seeds, st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=20))
def test_the_2014_form_agrees_with_skfolio(seed: int, sharpes: list[float]) -> None:
    returns, trials = returns_of(seed), np.array(sharpes)
    expected = measures.deflated_sharpe_ratio(returns, trials)
    assert deflated_sharpe_2014(sample_of(returns), trials) == pytest.approx(expected, abs=1e-9)


@given(seeds)
def test_a_single_trial_is_not_deflated(seed: int) -> None:
    sample = sample_of(returns_of(seed))
    only = np.array([sample.sharpe])
    assert deflated_sharpe_2014(sample, only) == probabilistic_sharpe_2012(sample, 0.0)
    assert deflated_sharpe_2025(sample, only) == pytest.approx(probabilistic_sharpe_2025(sample, 0.0), abs=1e-9)


@given(st.integers(1, 10_000), st.floats(0.0, 1.0))
def test_more_trials_or_more_spread_among_them_raise_the_bar(trials: int, variance: float) -> None:
    assert expected_maximum_sharpe(trials + 1, variance) >= expected_maximum_sharpe(trials, variance)
    assert expected_maximum_sharpe(trials, 4.0 * variance) == pytest.approx(
        2.0 * expected_maximum_sharpe(trials, variance)
    )


@pytest.mark.parametrize("trials", [2, 3, 10, 50, 400])
def test_the_expected_maximum_and_its_variance_are_those_of_simulated_normals(trials: int) -> None:
    largest = np.random.default_rng(4).standard_normal((20_000, trials)).max(axis=1)
    assert expected_maximum_sharpe(trials, 1.0) == pytest.approx(largest.mean(), abs=0.06)
    assert variance_of_maximum(trials) == pytest.approx(largest.var(), rel=0.04)


def test_the_variance_of_the_maximum_is_exact_where_it_is_known() -> None:
    assert variance_of_maximum(1) == pytest.approx(1.0, abs=1e-8)
    assert variance_of_maximum(2) == pytest.approx(1.0 - 1.0 / math.pi, abs=1e-8)
    mean = 1.5 / math.sqrt(math.pi)  # of three
    assert variance_of_maximum(3) == pytest.approx(1.0 + math.sqrt(3.0) / (2.0 * math.pi) - mean**2, abs=1e-8)
    assert 0.05 < variance_of_maximum(10**6) < variance_of_maximum(1000)


def test_what_no_search_can_have_is_refused_and_what_is_unknown_is_nan() -> None:
    for trials, variance in ((0.0, 0.1), (math.nan, 0.1), (5.0, -0.1)):
        with pytest.raises(ArgumentInvalid):
            expected_maximum_sharpe(trials, variance)
    with pytest.raises(ArgumentInvalid):
        variance_of_maximum(0)
    assert math.isnan(expected_maximum_sharpe(5, math.nan))
    unknown = np.array([0.1, math.nan, 0.2])
    assert math.isnan(deflated_sharpe_2014(FUND, unknown))
    assert math.isnan(deflated_sharpe_2025(FUND, unknown))
    with pytest.raises(ArgumentInvalid, match="trials"):
        deflated_sharpe_2014(FUND, np.empty(0))


def test_trials_have_the_sharpe_ratios_of_their_columns_and_one_that_never_traded_has_none_to_show() -> None:
    trials = np.array([[0.1, 0.0, 0.2], [0.3, 0.0, 0.2], [-0.1, 0.0, 0.2]])
    found = trial_sharpes(trials)
    assert found[0] == pytest.approx(0.1 / 0.2)
    assert found[1] == 0.0
    assert math.isnan(found[2])
    trials[2, 1] = math.nan
    with pytest.raises(SeriesInvalid, match="returns of trial 1, row 2: found nan"):
        trial_sharpes(trials)


def test_of_pure_noise_the_best_of_fifty_is_rarely_promoted_and_a_planted_edge_is() -> None:
    early = late = found = 0
    for seed in range(40):
        trials = np.random.default_rng(seed).standard_t(5, (1000, 50)) * 0.01
        sharpes = trial_sharpes(trials)
        best = sample_of(trials[:, int(np.argmax(sharpes))])
        early += deflated_sharpe_2014(best, sharpes) > 0.95
        late += deflated_sharpe_2025(best, sharpes) > 0.95
        assert probabilistic_sharpe_2012(best, 0.0) > 0.9  # without deflation nearly all would pass
        trials[:, 7] += 0.2 * trials[:, 7].std()
        sharpes = trial_sharpes(trials)
        planted = sample_of(trials[:, 7])
        found += deflated_sharpe_2014(planted, sharpes) > 0.95 and deflated_sharpe_2025(planted, sharpes) > 0.95
    assert early <= 1
    assert late <= 6
    assert found >= 38


# Combinatorially symmetric cross-validation


def slow_ratio(values: NDArray[np.float64]) -> float:
    if values.max() == values.min():
        return 0.0 if values[0] == 0.0 else math.copysign(math.inf, values[0])
    return float(values.mean() / values.std(ddof=1))


def slow_splits(returns: NDArray[np.float64], blocks: int) -> list[tuple[float, float, float]]:
    """In-sample and out-of-sample ratio of the chosen trial, and the logit, of each split: straight from the rows."""
    length = len(returns) // blocks
    kept = returns[len(returns) - length * blocks :]
    found = []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([kept[b * length : (b + 1) * length] for b in half])
        rest = [b for b in range(blocks) if b not in half]
        outside = np.concatenate([kept[b * length : (b + 1) * length] for b in rest])
        train = [slow_ratio(column) for column in inside.T]
        test = [slow_ratio(column) for column in outside.T]
        worst = min(test[n] for n in range(len(train)) if train[n] == max(train))
        below, equal = sum(t < worst for t in test), sum(t == worst for t in test)
        omega = (below + (1 + equal) / 2) / (len(test) + 1)
        found.append((max(train), worst, math.log(omega / (1 - omega))))
    return found


@given(seeds, st.sampled_from([2, 4, 6]), st.integers(1, 6), st.integers(0, 7))
def test_block_sums_agree_with_the_rows_themselves(seed: int, blocks: int, trials: int, spare: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.normal(0.1, 1.0, (blocks * 3 + spare, trials)) * rng.uniform(1e-4, 10.0, trials)
    returns[:, 0] *= rng.random(len(returns)) < 0.3  # mostly flat, some halves entirely
    found, expected = backtest_overfitting(returns, blocks), slow_splits(returns, blocks)
    assert found.logits.size == math.comb(blocks, blocks // 2)
    np.testing.assert_allclose(found.in_sample, [row[0] for row in expected], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.out_of_sample, [row[1] for row in expected], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.logits, [row[2] for row in expected], atol=1e-12)
    assert found.probability_of_loss == pytest.approx(np.mean([row[1] < 0 for row in expected]))
    if trials > 1:
        assert found.pbo == pytest.approx(np.mean([row[2] <= 0 for row in expected]))


def test_two_blocks_and_two_trials_by_hand() -> None:
    # First half: Sharpe 2/sqrt(2) and 0; second half: 0 and 3/sqrt(2). Each half's best is the other's worst.
    returns = np.array([[1.0, -1.0], [3.0, 1.0], [1.0, 2.0], [-1.0, 4.0]])
    found = backtest_overfitting(returns, 2)
    assert found.chosen.tolist() == [0, 1]
    np.testing.assert_allclose(found.in_sample, [math.sqrt(2.0), 3.0 / math.sqrt(2.0)])
    np.testing.assert_allclose(found.out_of_sample, [0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(found.logits, [math.log(0.5)] * 2)  # rank 1 of 2: omega = 1/3
    assert found.pbo == 1.0
    assert found.probability_of_loss == 0.0
    assert found.degradation_slope == pytest.approx(0.0, abs=1e-12)
    assert found.degradation_intercept == pytest.approx(0.0, abs=1e-12)


def test_the_slope_is_that_of_the_least_squares_line() -> None:
    found = backtest_overfitting(np.random.default_rng(6).standard_normal((120, 5)), 6)
    slope, intercept = np.polyfit(found.in_sample, found.out_of_sample, 1)
    assert found.degradation_slope == pytest.approx(slope)
    assert found.degradation_intercept == pytest.approx(intercept)


def test_of_noise_it_is_about_a_half_and_of_a_planted_edge_about_nothing() -> None:
    noise, planted, losses = [], [], []
    for seed in range(20):
        returns = np.random.default_rng(seed).standard_normal((800, 20))
        noise.append(backtest_overfitting(returns, 10).pbo)
        returns[:, 3] += 0.25
        found = backtest_overfitting(returns, 10)
        planted.append(found.pbo)
        losses.append(found.probability_of_loss)
    assert np.mean(noise) == pytest.approx(0.5, abs=0.15)
    assert max(planted) < 0.05
    assert max(losses) < 0.05


def test_trials_that_each_fit_one_stretch_of_time_are_overfitted_for_certain() -> None:
    # Trial n earns in block n and loses elsewhere: what looked best is the worst, wherever it is not looked at.
    returns = np.random.default_rng(7).normal(-0.2, 0.1, (80, 8))
    for n in range(8):
        returns[n * 10 : (n + 1) * 10, n] += 2.0
    found = backtest_overfitting(returns, 8)
    assert found.pbo == 1.0
    assert found.probability_of_loss == 1.0


@given(seeds, st.permutations(range(5)))
def test_neither_the_order_nor_the_size_of_trials_matters(seed: int, order: list[int]) -> None:
    returns = np.random.default_rng(seed).standard_normal((24, 5))
    one, other = backtest_overfitting(returns, 4), backtest_overfitting(returns[:, order] * 0.25, 4)
    np.testing.assert_array_equal(one.logits, other.logits)
    np.testing.assert_array_equal(one.chosen, np.array(order)[other.chosen])


@given(seeds, st.integers(2, 6))
def test_a_trial_given_twice_shares_its_rank(seed: int, copies: int) -> None:
    returns = np.random.default_rng(seed).standard_normal((40, 1))
    same = backtest_overfitting(np.repeat(returns, copies, axis=1), 4)
    assert (same.logits == 0.0).all()  # in the middle of its equals: no better than the median
    assert same.pbo == 1.0
    assert (same.chosen == 0).all()


def test_of_equally_good_trials_the_one_that_does_worst_later_is_chosen() -> None:
    first = np.tile([1.0, 2.0], 3)
    returns = np.stack([np.concatenate((first, later)) for later in (first, -first, 3.0 + first)], axis=1)
    found = backtest_overfitting(returns, 2)
    assert found.chosen[0] == 1
    assert found.out_of_sample[0] < 0.0
    assert found.logits[0] == pytest.approx(math.log(1 / 3))


def test_a_trial_that_does_not_trade_beats_those_that_lose() -> None:
    rng = np.random.default_rng(8)
    returns = np.stack([np.zeros(40), rng.normal(-1.0, 0.1, 40), rng.normal(-2.0, 0.1, 40)], axis=1)
    found = backtest_overfitting(returns, 4)
    assert (found.chosen == 0).all()
    assert (found.in_sample == 0.0).all()
    assert found.pbo == found.probability_of_loss == 0.0
    assert math.isnan(found.degradation_slope)
    assert "do not vary" in found.undefined["degradation_slope"]


def test_returns_that_do_not_vary_count_as_the_limit_and_leave_no_line() -> None:
    rng = np.random.default_rng(9)
    returns = np.stack([np.full(40, 0.1), rng.normal(0.0, 1.0, 40), np.full(40, -0.1)], axis=1)
    found = backtest_overfitting(returns, 4)
    assert np.isposinf(found.in_sample).all()
    assert np.isposinf(found.out_of_sample).all()
    np.testing.assert_allclose(found.logits, math.log(3.0))
    assert found.undefined["degradation_intercept"] == "a Sharpe ratio is infinite"


def test_a_single_trial_leaves_nothing_to_judge() -> None:
    found = backtest_overfitting(np.random.default_rng(10).standard_normal((40, 1)), 4)
    assert math.isnan(found.pbo)
    assert found.undefined == {"pbo": "a single trial leaves nothing to choose"}


@given(seeds, st.integers(1, 3))
def test_rows_that_fill_no_block_are_the_first_ones(seed: int, spare: int) -> None:
    returns = np.random.default_rng(seed).standard_normal((16 + spare, 3))
    one, other = backtest_overfitting(returns, 4), backtest_overfitting(returns[spare:], 4)
    np.testing.assert_array_equal(one.logits, other.logits)


@pytest.mark.parametrize("blocks", [0, 1, 3, -2, 22])
def test_blocks_that_cannot_be_halved_or_counted_are_refused(blocks: int) -> None:
    with pytest.raises(ArgumentInvalid, match="blocks"):
        backtest_overfitting(np.random.default_rng(0).standard_normal((100, 3)), blocks)


def test_too_few_rows_and_what_is_no_number_are_refused() -> None:
    returns = np.random.default_rng(0).standard_normal((31, 3))
    with pytest.raises(TooFewRows) as few:
        backtest_overfitting(returns, 16)
    assert (few.value.found, few.value.needed) == (31, 32)
    with pytest.raises(SeriesInvalid, match="shape"):
        backtest_overfitting(returns[:, 0], 4)
    with pytest.raises(SeriesInvalid, match="shape"):
        backtest_overfitting(returns[:, :0], 4)
    returns[17, 2] = math.nan
    with pytest.raises(SeriesInvalid, match="returns of trial 2, row 17"):
        backtest_overfitting(returns, 4)


def test_in_sixteen_blocks_there_are_as_many_splits_as_the_paper_says() -> None:
    found = backtest_overfitting(np.random.default_rng(11).standard_normal((160, 6)))
    assert found.logits.size == 12_870
    assert found.blocks == 16
    assert found.trials == 6
