"""The tests of a model's health: equal to references, quiet on a healthy model, and soon on one without an edge.

Rates are those of simulated days. A false alarm is a degradation of a healthy model; the version is then reopened at
once, so each day can have one. Run with `-s` to see what was measured.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats
from tests.support.packages import make_manifest

from tickgate_server.features.schema import micro10
from tickgate_server.models.package import Manifest, Output, Validation
from tickgate_server.observer.health_checks import (
    DAY_NS,
    FALSE_ALARMS_A_DAY,
    LOOKS_A_DAY,
    MINIMUM_COUNT,
    STREAK_LEAST,
    WINDOW_LEAST,
    WINDOW_MOST,
    Check,
    DayShare,
    Expected,
    Finding,
    HealthChecks,
    TradeWindow,
    beta_ratio,
    binomial_at_most,
    dispersion,
    expected_of,
    longest_run_at_least,
    share_below,
    sharpe_below,
    sliced_share_below,
    streak_bar,
    window_trades,
)
from tickgate_server.observer.outcomes import OUTCOME, Chain, Outcomes

DAY = 20_000 * DAY_NS
WEEKS_DAYS = 20
METRICS: dict[str, float | int | None] = {
    "accuracy": 0.56,
    "majority_accuracy": 0.51,
    "gross_sharpe": 0.02,
    "gross_win_rate": 0.55,
    "exposure": 0.25,
    "periods_per_year": 1.0,
}


def manifest_with(**metrics: float | None) -> Manifest:
    rows = np.zeros((64, 10), np.float32)
    return make_manifest(
        b"",
        micro10(),
        rows,
        np.full(64, 0.5),
        output=Output(horizon_trades=4),
        validation=Validation(trials=1, metrics=METRICS | metrics),
    )


# -- statistics ------------------------------------------------------------------------------------------------------


@given(a=st.floats(0.01, 1e5), b=st.floats(0.01, 1e5), x=st.floats(0.0, 1.0))
def test_the_incomplete_beta_function_is_scipys(a: float, b: float, x: float) -> None:
    assert beta_ratio(a, b, x) == pytest.approx(float(special.betainc(a, b, x)), rel=1e-8, abs=1e-13)


@given(trials=st.integers(1, 300_000), share=st.floats(0.0, 1.0), rate=st.floats(0.01, 0.99))
def test_the_binomial_tail_is_scipys(trials: int, share: float, rate: float) -> None:
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials, rate, alternative="less").pvalue
    assert binomial_at_most(successes, trials, rate) == pytest.approx(expected, rel=1e-7, abs=1e-13)


@pytest.mark.parametrize(("trials", "rate"), [(1, 0.5), (2, 0.3), (5, 0.5), (9, 0.62), (12, 0.45)])
def test_the_longest_run_has_the_distribution_of_all_sequences(trials: int, rate: float) -> None:
    for length in range(1, trials + 2):
        expected = 0.0
        for sequence in product((False, True), repeat=trials):
            text = "".join("x" if hit else "." for hit in sequence)
            if "x" * length in text:
                hits = sum(sequence)
                expected += rate**hits * (1.0 - rate) ** (trials - hits)
        assert longest_run_at_least(trials, length, rate) == pytest.approx(expected, rel=1e-12)


@given(
    trials=st.integers(1, 2_000),
    win_rate=st.floats(0.05, 0.95),
    level=st.sampled_from([1e-1, 1e-3, 1e-5]),
    least=st.sampled_from([1, STREAK_LEAST]),
)
def test_the_streaks_bar_is_the_shortest_length_beyond_the_quantile(
    trials: int, win_rate: float, level: float, least: int
) -> None:
    bar = streak_bar(trials, win_rate, level, least)
    assert bar >= least
    assert longest_run_at_least(trials, bar, 1.0 - win_rate) <= level
    assert bar == least or longest_run_at_least(trials, bar - 1, 1.0 - win_rate) > level


def psr(returns: NDArray[np.float64], bar: float) -> float:
    """Bailey and López de Prado's formula, term by term; scipy's kurtosis with fisher=False is the raw one."""
    sharpe = returns.mean() / returns.std(ddof=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    variance = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    return float(stats.norm.cdf((sharpe - bar) * math.sqrt(returns.size - 1) / math.sqrt(variance)))


@pytest.mark.parametrize("seed", range(5))
def test_without_autocorrelation_the_sharpe_test_is_the_probabilistic_sharpe_ratio(seed: int) -> None:
    random = np.random.default_rng(seed)
    returns = random.standard_t(4, 400) - 0.1 + random.exponential(0.3, 400)
    x = (returns - returns.mean()) / returns.std()
    sharpe, chance = sharpe_below(returns, 0.1)
    assert sharpe == pytest.approx(returns.mean() / returns.std(ddof=1), rel=1e-12)
    influence = x - 0.5 * sharpe * (x**2 - 1.0)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    assert influence.var() == pytest.approx(1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2, rel=1e-9)
    inflation = dispersion(influence, float(influence.var()))
    z = stats.norm.ppf(psr(returns, 0.1)) / math.sqrt(inflation)
    assert chance == pytest.approx(float(stats.norm.cdf(z)), rel=1e-9)


def test_what_does_not_vary_has_no_sharpe_ratio() -> None:
    for returns in (np.empty(0), np.ones(1), np.full(50, 0.1)):
        assert all(math.isnan(found) for found in sharpe_below(returns, 0.0))


def test_dispersion_is_near_one_where_values_are_independent_and_the_long_run_variance_where_not() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(size=40_000)
    assert 1.0 <= dispersion(noise, 1.0) < 1.3
    followed = np.empty_like(noise)
    followed[0] = 0.0
    for k, (before, now) in enumerate(pairwise(noise), 1):
        followed[k] = 0.5 * followed[k - 1] + now + 0.0 * before
    # Of an AR(1), (1 + r) / (1 - r) times the variance.
    assert dispersion(followed, float(followed.var())) == pytest.approx(3.0, rel=0.3)
    assert dispersion(np.repeat(random.normal(size=2_000), 10), 1.0) == pytest.approx(10.0, rel=0.3)
    assert dispersion(np.ones(3), 1.0) == 1.0


def test_a_share_of_independent_hits_is_tested_by_the_binomial_and_a_dependent_one_by_fewer() -> None:
    alternating = np.arange(400) % 2 == 0  # varies less than independent hits do: that is not held against anyone
    assert share_below(alternating, 0.55) == pytest.approx(stats.binomtest(200, 400, 0.55, "less").pvalue, rel=1e-9)
    in_blocks = np.arange(400) // 20 % 2 == 0
    assert share_below(in_blocks, 0.55) > 10 * share_below(alternating, 0.55)
    assert share_below(np.zeros(40, bool), 0.4) == pytest.approx(0.6**40)
    assert share_below(np.ones(40, bool), 0.4) == 1.0


def test_slices_of_time_are_tested_as_their_sums_or_as_fewer_where_they_differ() -> None:
    even = sliced_share_below(np.full(20, 5.0), np.full(20, 10.0), 0.6)
    assert even == pytest.approx(stats.binomtest(100, 200, 0.6, "less").pvalue, rel=1e-9)
    uneven = sliced_share_below(np.tile([0.0, 10.0], 10), np.full(20, 10.0), 0.6)
    assert uneven > 10 * even
    assert sliced_share_below(np.array([5.0]), np.array([10.0]), 0.6) == pytest.approx(stats.binom.cdf(5, 10, 0.6))


# -- windows ---------------------------------------------------------------------------------------------------------


@given(count=st.integers(0, 40), capacity=st.integers(1, 12))
def test_a_window_holds_the_last_trades_in_order(count: int, capacity: int) -> None:
    window = TradeWindow(capacity)
    for k in range(count):
        window.update(float(k))
    assert window.get().tolist() == [float(k) for k in range(count)][-capacity:]


def test_a_day_holds_24_hours_and_not_what_is_older() -> None:
    share = DayShare()
    minute = DAY_NS // 1440
    for k in range(3 * 1440):
        share.update(DAY + k * minute, k % 2 == 0)
    now_ns = DAY + 3 * DAY_NS - minute
    hits, counts = share.get(now_ns)
    assert (hits.sum(), counts.sum()) == (720.0, 1440.0)
    assert share.get(now_ns + 12 * 60 * minute)[1].sum() == 720.0
    share.update(DAY, hit=True)  # a stamp of three days ago
    assert share.get(now_ns)[1].sum() == 1440.0
    assert share.get(now_ns + 2 * DAY_NS)[1].size == 0


def test_the_window_is_what_finds_a_sharpe_ratio_of_zero_in_most_cases() -> None:
    level = FALSE_ALARMS_A_DAY / len(Check) / LOOKS_A_DAY
    needed = window_trades(0.1, level)
    noise = 1.0 / math.sqrt(needed)
    threshold = 0.05 + noise * stats.norm.ppf(level)
    assert stats.norm.cdf(threshold / noise) == pytest.approx(0.95, abs=1e-3)
    assert window_trades(10.0, level) == WINDOW_LEAST
    assert window_trades(1e-4, level) == WINDOW_MOST
    assert WINDOW_LEAST < window_trades(math.nan, level) < WINDOW_MOST


# -- what is expected ------------------------------------------------------------------------------------------------


def test_the_manifests_sharpe_ratio_becomes_a_trades() -> None:
    expected, off = expected_of(manifest_with())
    assert off == {}
    assert expected.sharpe == pytest.approx(0.02 * math.sqrt(4 / 0.25))
    assert (expected.win_rate, expected.accuracy, expected.majority_accuracy) == (0.55, 0.56, 0.51)
    annual, _ = expected_of(manifest_with(gross_sharpe=0.02 * math.sqrt(252), periods_per_year=252.0))
    assert annual.sharpe == pytest.approx(expected.sharpe)


def test_a_trades_sharpe_ratio_is_that_of_trades_in_a_backtest() -> None:
    """Positions held for h rows a quarter of the time: rows and trades are the same profit."""
    random = np.random.default_rng(11)
    trades = random.normal(0.02, 1.0, (100_000, 4))
    rows = np.concatenate((trades, np.zeros((100_000, 12))), axis=1).ravel()
    expected, _ = expected_of(manifest_with(gross_sharpe=float(rows.mean() / rows.std(ddof=1))))
    profits = trades.sum(axis=1)
    assert expected.sharpe == pytest.approx(profits.mean() / profits.std(ddof=1), rel=0.01)


@pytest.mark.parametrize(
    ("changes", "off"),
    [
        ({"gross_sharpe": None}, {Check.SHARPE}),
        ({"gross_sharpe": -0.1}, {Check.SHARPE}),
        ({"exposure": 0.0}, {Check.SHARPE}),
        ({"periods_per_year": None}, {Check.SHARPE}),
        ({"gross_win_rate": None}, {Check.WIN_RATE, Check.LOSING_STREAK}),
        ({"gross_win_rate": 1.0}, {Check.WIN_RATE, Check.LOSING_STREAK}),
        ({"accuracy": None}, {Check.ACCURACY}),
        ({"majority_accuracy": None}, {Check.ACCURACY}),
    ],
)
def test_a_check_without_its_metric_is_off_and_says_so(changes: dict[str, float | None], off: set[Check]) -> None:
    expected, found = expected_of(manifest_with(**changes))
    assert set(found) == off
    assert math.isnan(expected.sharpe) == (Check.SHARPE in off)
    assert math.isnan(expected.win_rate) == (Check.WIN_RATE in off)
    assert math.isnan(expected.accuracy) == (Check.ACCURACY in off)


@pytest.mark.parametrize(
    ("accuracy", "majority", "bar"),
    [(0.75, 0.52, 0.6), (0.56, 0.52, 0.52), (0.51, 0.55, 0.51)],
    ids=["0.8 of the expected", "the majority's where that is more", "what was expected where the majority has more"],
)
def test_the_bar_of_accuracy_is_never_below_the_majority_nor_above_the_promise(
    accuracy: float, majority: float, bar: float
) -> None:
    assert Expected(accuracy=accuracy, majority_accuracy=majority).accuracy_bar == pytest.approx(bar)


# -- checks ----------------------------------------------------------------------------------------------------------


def trades(profits: list[float], *, symbols: list[int] | None = None, step_ns: int = 10**9) -> Outcomes:
    found = np.zeros(len(profits), OUTCOME)
    found["chain"] = Chain.TRADE
    found["profit"] = profits
    found["symbol"] = 0 if symbols is None else symbols
    found["end_ns"] = DAY + step_ns * np.arange(len(profits))
    return found


def predictions(right: list[bool], *, step_ns: int = 10**9) -> Outcomes:
    found = np.zeros(len(right), OUTCOME)
    found["value"] = 0.1
    found["move"] = np.where(right, 1e-3, -1e-3)
    found["end_ns"] = DAY + step_ns * np.arange(len(right))
    return found


HOUR_NS = DAY_NS // 24
ONLY_SHARPE = Expected(sharpe=0.2)
ONLY_WINS = Expected(win_rate=0.6)
ONLY_ACCURACY = Expected(accuracy=0.6, majority_accuracy=0.52)


def first_count(expected: Expected, outcomes: Outcomes) -> int:
    """After how many outcomes, fed one by one, there is a finding; 0 where there is none."""
    checks = HealthChecks(expected)
    for k in range(outcomes.size):
        if checks.update(outcomes[k : k + 1]):
            return k + 1
    return 0


@pytest.mark.parametrize(
    ("expected", "outcomes"),
    [
        (ONLY_SHARPE, trades([-1.0, -1.1] * 40, step_ns=HOUR_NS)),
        (ONLY_WINS, trades([-1.0, -1.1] * 40, step_ns=HOUR_NS)),
        (ONLY_ACCURACY, predictions([False] * 80, step_ns=HOUR_NS // 4)),
    ],
    ids=["sharpe", "win rate", "accuracy"],
)
def test_nothing_is_judged_before_the_minimum_count(expected: Expected, outcomes: Outcomes) -> None:
    assert MINIMUM_COUNT <= first_count(expected, outcomes) <= MINIMUM_COUNT + 2


def test_a_losing_streak_is_found_with_the_trade_that_makes_it_too_long() -> None:
    wins_before = [1.0] * MINIMUM_COUNT
    outcomes = trades([*wins_before, *[-1.0] * 30])
    bar = streak_bar(1024, 0.6, FALSE_ALARMS_A_DAY / len(Check) / 2.0)
    assert bar > STREAK_LEAST
    assert first_count(ONLY_WINS, outcomes) == MINIMUM_COUNT + bar
    (finding,) = HealthChecks(ONLY_WINS).update(outcomes)
    assert (finding.check, finding.measured, finding.bar, finding.expected) == (Check.LOSING_STREAK, bar, bar, 0.6)


def test_a_streak_shorter_than_ten_is_never_too_long() -> None:
    sure = Expected(win_rate=0.99)
    assert streak_bar(1024, 0.99, 1e-3) == STREAK_LEAST
    assert first_count(sure, trades([*[1.0] * 3000, *[-1.0] * (STREAK_LEAST - 1)], step_ns=1)) == 0


def test_symbols_have_streaks_of_their_own_and_a_trade_without_a_gain_is_no_win() -> None:
    before = [1.0] * MINIMUM_COUNT
    lost = trades([*before, *[-1.0, 0.0] * 14], symbols=[*range(MINIMUM_COUNT), *[0, 1] * 14])
    assert first_count(ONLY_WINS, lost) == 0
    lost["symbol"] = 0
    assert first_count(ONLY_WINS, lost) > 0


def test_a_check_that_is_off_finds_nothing() -> None:
    outcomes = np.concatenate((trades([-1.0, -1.1] * 200, step_ns=HOUR_NS), predictions([False] * 400)))
    assert first_count(Expected(), outcomes) == 0


def test_a_price_that_came_back_is_no_prediction_and_even_odds_say_up() -> None:
    checks = HealthChecks(ONLY_ACCURACY)
    outcomes = predictions([True] * 100)
    outcomes["move"][:40] = 0.0
    outcomes["value"][40:] = 0.0
    checks.update(outcomes)
    assert checks.predictions == 60
    hits, counts = checks._accuracy.get(int(outcomes["end_ns"][-1]))
    assert (hits.sum(), counts.sum()) == (60.0, 60.0)


def test_there_are_no_more_looks_than_the_budget_was_split_over(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = HealthChecks(Expected(sharpe=0.1, win_rate=0.55))
    looks: Counter[int] = Counter()

    def looked() -> list[Finding]:
        looks[checks._now_ns // DAY_NS] += 1
        return []

    monkeypatch.setattr(checks, "_look", looked)
    random = np.random.default_rng(5)
    outcomes = trades(random.normal(size=20_000).tolist())
    stamps = np.sort(random.integers(0, 10 * DAY_NS, outcomes.size))
    stamps[::3] -= DAY_NS // 48  # venue times of different symbols are not in order
    outcomes["end_ns"] = DAY + np.maximum(stamps, 0)
    checks.update(outcomes)
    assert max(looks.values()) == LOOKS_A_DAY
    assert len(looks) == 10


def test_what_is_measured_is_the_mean_over_deviation_the_wins_and_the_hits_and_asking_is_no_look() -> None:
    expected = Expected(sharpe=0.1, win_rate=0.55, accuracy=0.6, majority_accuracy=0.5)
    checks = HealthChecks(expected)
    assert checks.measure() == []
    profits = [2.0, -1.0, 0.0, 1.0] * 10
    checks.update(trades(profits))
    checks.update(predictions([True, True, False, True] * 10))
    found = {measure.check: measure for measure in checks.measure()}
    assert found[Check.SHARPE].measured == pytest.approx(np.mean(profits) / np.std(profits, ddof=1), rel=0.02)
    assert found[Check.WIN_RATE].measured == 0.5  # a profit of 0 is no win
    assert found[Check.ACCURACY].measured == 0.75
    bars = (expected.sharpe_bar, expected.win_rate_bar, expected.accuracy_bar)
    assert tuple(measure.bar for measure in found.values()) == bars
    assert checks.measure() == list(found.values())


def test_after_a_restart_nothing_of_before_counts() -> None:
    checks = HealthChecks(ONLY_WINS)
    bad = trades([-1.0, -1.1] * 7, step_ns=HOUR_NS)
    assert not checks.update(np.concatenate((trades([1.0] * 20), bad)))
    checks.restart()
    assert (checks.trades, checks.predictions) == (0, 0)
    assert not checks.update(np.concatenate((trades([1.0] * 20), bad)))


# -- rates and detection ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Market:
    """A simulated model: its chance to be right, and how its outcomes hang together.

    Attributes:
        right: Chance of each prediction and trade to have the right direction.
        tails: Sizes of moves: absolute Student t with so many degrees of freedom; 0: all the same.
        symbols: Trades at a time, one a symbol.
        correlation: Of their directions, by a Gaussian copula.
        trades_a_day: Trades; there are as many predictions beside them.
    """

    right: float
    tails: int = 0
    symbols: int = 1
    correlation: float = 0.0
    trades_a_day: int = 500

    def day(self, random: np.random.Generator, number: int) -> Outcomes:
        times = self.trades_a_day // self.symbols
        count = times * self.symbols
        found = np.zeros(2 * count, OUTCOME)
        stamps = np.sort(random.integers(0, DAY_NS, times)) + DAY + number * DAY_NS
        found["end_ns"] = np.repeat(stamps, 2 * self.symbols)
        found["symbol"] = np.tile(np.repeat(np.arange(self.symbols), 2), times)
        found["chain"] = np.tile([Chain.TRADE, Chain.PREDICTION], count)
        found["value"] = 0.1
        found["profit"] = np.repeat(self._signs(random, times) * self._sizes(random, times), 2)
        found["move"] = np.repeat(self._signs(random, times), 2)
        return found

    def sharpe(self) -> float:
        """True Sharpe ratio of a trade."""
        edge = 2.0 * self.right - 1.0
        size, square = 1.0, 1.0
        if self.tails:
            size = float(2.0 * stats.t.expect(lambda x: x, (self.tails,), lb=0.0))
            square = float(stats.t.var(self.tails))
        return edge * size / math.sqrt(square - (edge * size) ** 2)

    def _sizes(self, random: np.random.Generator, times: int) -> NDArray[np.float64]:
        if not self.tails:
            return np.ones(times * self.symbols)
        return np.repeat(np.abs(random.standard_t(self.tails, times)), self.symbols)

    def _signs(self, random: np.random.Generator, times: int) -> NDArray[np.float64]:
        common = np.repeat(random.normal(size=times), self.symbols)
        own = random.normal(size=times * self.symbols)
        level = math.sqrt(self.correlation) * common + math.sqrt(1.0 - self.correlation) * own
        return np.where(level < NormalDist().inv_cdf(self.right), 1.0, -1.0)


def promised(market: Market) -> Expected:
    """What a manifest of this model says."""
    return Expected(market.sharpe(), market.right, market.right, 0.52)


def alarms(market: Market, expected: Expected, days: int, seed: int = 1) -> Counter[Check]:
    """Degradations over so many days, each reopened at once."""
    random = np.random.default_rng(seed)
    checks = HealthChecks(expected)
    found: Counter[Check] = Counter()
    for number in range(days):
        findings = checks.update(market.day(random, number))
        if findings:
            found[findings[0].check] += 1
            checks.restart()
    return found


def until_found(market: Market, expected: Expected, seed: int, before: Market | None = None) -> tuple[int, Check]:
    """Trades until a degradation, and which check it was; after WEEKS_DAYS of `before` where there are such."""
    random = np.random.default_rng(seed)
    checks = HealthChecks(expected)
    healthy = 0 if before is None else WEEKS_DAYS
    for number in range(10_000):
        good = number < healthy
        findings = checks.update((before if before is not None and good else market).day(random, number))
        if findings and good:
            checks.restart()
        elif findings:
            return checks.trades - healthy * market.trades_a_day, findings[0].check
    raise AssertionError("never found")


HEALTHY = {
    "independent": Market(0.55),
    "heavy tails": Market(0.55, tails=5),
    "ten symbols that move together": Market(0.55, tails=5, symbols=10, correlation=0.5),
    "a few trades a day": Market(0.58, trades_a_day=20),
}


@pytest.mark.parametrize("market", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_model_is_degraded_on_at_most_one_day_in_a_hundred(
    market: Market, soak: Callable[[int, int], int]
) -> None:
    days = soak(200, 2_000)
    found = alarms(market, promised(market), days)
    print(f"\nfalse alarms: {found.total()} on {days} days {dict(found)} {market}")  # noqa: T201 - asked for with -s
    assert found.total() <= FALSE_ALARMS_A_DAY * days


AT_THE_BAR = {
    "sharpe": (Market(0.525), Expected(sharpe=2.0 * Market(0.525).sharpe())),
    "sharpe, dependent": (
        Market(0.525, symbols=10, correlation=0.5),
        Expected(sharpe=2.0 * Market(0.525).sharpe()),
    ),
    "accuracy": (Market(0.52), Expected(accuracy=0.55, majority_accuracy=0.52)),
    "accuracy, dependent": (
        Market(0.52, symbols=10, correlation=0.5),
        Expected(accuracy=0.55, majority_accuracy=0.52),
    ),
    "streak": (Market(0.55), Expected(win_rate=0.55)),
}


@pytest.mark.parametrize(("market", "expected"), AT_THE_BAR.values(), ids=AT_THE_BAR)
def test_one_exactly_at_the_bar_is_not_found_more_often_either(
    market: Market, expected: Expected, soak: Callable[[int, int], int]
) -> None:
    """The worst of what each test takes for healthy: one check's share of the budget, 0.25 % a day."""
    days = soak(200, 2_000)
    found = alarms(market, expected, days, seed=2)
    print(f"\nat the bar: {found.total()} on {days} days {dict(found)}")  # noqa: T201
    assert found.total() <= FALSE_ALARMS_A_DAY * days


@pytest.mark.parametrize(("right", "median_most", "most"), [(0.55, 6_000, 13_000), (0.58, 2_500, 5_000)])
def test_a_model_without_an_edge_is_found(
    right: float, median_most: int, most: int, soak: Callable[[int, int], int]
) -> None:
    expected = promised(Market(right))
    runs = [until_found(Market(0.5), expected, seed) for seed in range(soak(25, 200))]
    counts = np.array([count for count, _ in runs])
    which = Counter(check for _, check in runs)
    median, high = np.quantile(counts, [0.5, 0.95])
    print(f"\nfound after {median:.0f} trades, 95 %: {high:.0f}, {dict(which)}")  # noqa: T201
    assert median <= median_most
    assert high <= most
    assert high <= HealthChecks(expected).window


def test_a_model_that_loses_its_edge_after_weeks_is_found(soak: Callable[[int, int], int]) -> None:
    market = Market(0.58)
    expected = promised(market)
    runs = [until_found(Market(0.5), expected, seed, before=market) for seed in range(soak(10, 100))]
    counts = [count for count, _ in runs]
    print(f"\nfound {np.quantile(counts, [0.5, 0.95])} trades after the edge was gone")  # noqa: T201
    assert np.quantile(counts, 0.95) <= 1.5 * HealthChecks(expected).window


def test_a_model_that_is_upside_down_is_found_at_once() -> None:
    counts = [until_found(Market(0.3), promised(Market(0.58)), seed)[0] for seed in range(20)]
    assert np.median(counts) <= 150
