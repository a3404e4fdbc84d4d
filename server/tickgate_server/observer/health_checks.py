"""Is a model version still what its manifest says? One-sided tests on outcomes that do not overlap.

Each test asks whether the true figure lies below a bar that is itself below what was expected, so it judges in the
model's favour until the data speak. A version is degraded once a test says so at its share of the false-alarm budget.

The budget, 1 % a day and version, is split evenly over the four checks, and each share over its looks (Bonferroni: no
dependence between looks or checks can raise the sum). Sharpe ratio, win rate and accuracy are looked at with the first
outcome in each of the `LOOKS_A_DAY` slots of the venue's day. A losing streak is looked at with every trade: the k-th
doubling of the day's number of trades gets a share of 2**-k.

    sharpe, win_rate   the last `window_trades` trades since the statistics began, as many as find a Sharpe ratio of 0
                       in 95 of 100 cases
    accuracy           predictions whose outcome fell in the last 24 hours of the venue's time
    losing_streak      the run that each symbol is in

Outcomes need not be independent: symbols move together. The tests' sample size is divided by how much more batches of
consecutive outcomes vary than independent ones would (`dispersion`), and never multiplied.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.models.package import Manifest
from tickgate_server.observer.outcomes import Chain, Outcomes

FALSE_ALARMS_A_DAY = 0.01
LOOKS_A_DAY = 48
MINIMUM_COUNT = 30
SHARPE_SHARE = 0.5
WIN_RATE_SHARE = 0.7
ACCURACY_SHARE = 0.8
STREAK_LEAST = 10

POWER = 0.95
WINDOW_LEAST, WINDOW_MOST = 1024, 262_144

DAY_NS = 86_400_000_000_000
SLOT_NS = DAY_NS // LOOKS_A_DAY
ACCURACY_SLICES = 288
ACCURACY_SLICE_NS = DAY_NS // ACCURACY_SLICES

_FIRST_TRADES = 1024
_LAST_DOUBLING = 14  # 16.8 million trades a day; the streak's bar stays where it is beyond
_CARRIED = 64  # trades of earlier days that a run of today can have begun with, a symbol
_NORMAL = NormalDist()
_TINY = 1e-300


class Check(StrEnum):
    """What a version can be degraded for."""

    SHARPE = "sharpe"
    WIN_RATE = "win_rate"
    ACCURACY = "accuracy"
    LOSING_STREAK = "losing_streak"


class Measure(NamedTuple):
    """What a check measured, whatever follows from it.

    Attributes:
        check: Which.
        measured: A Sharpe ratio a trade, or a share.
        bar: Of the test.
    """

    check: Check
    measured: float
    bar: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What a version's validation promises, before costs; NaN where it does not say, and the check is off.

    Attributes:
        sharpe: Mean over standard deviation of a trade's profit, > 0.
        win_rate: Share of trades with a profit above 0, in (0, 1).
        accuracy: Share of predictions with the right direction among those whose price moved, in (0, 1).
        majority_accuracy: What always saying the commoner direction would have had, in [0.5, 1).
    """

    sharpe: float = math.nan
    win_rate: float = math.nan
    accuracy: float = math.nan
    majority_accuracy: float = math.nan

    @property
    def sharpe_bar(self) -> float:
        """Half the expected Sharpe ratio."""
        return SHARPE_SHARE * self.sharpe

    @property
    def win_rate_bar(self) -> float:
        """0.7 of the expected win rate."""
        return WIN_RATE_SHARE * self.win_rate

    @property
    def accuracy_bar(self) -> float:
        """0.8 of the expected accuracy, or the majority's where that is more; but never above the expected one.

        A model that is no better than the majority's class foresees nothing, whatever 0.8 of its accuracy may be. One
        that promised less than the majority's is held to what it promised: another bar would call it degraded at once.
        """
        return min(max(ACCURACY_SHARE * self.accuracy, self.majority_accuracy), self.accuracy)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check that a version did not stand.

    Attributes:
        check: Which.
        measured: What was measured: a Sharpe ratio a trade, a share, or a number of trades.
        bar: What it was held against: the bar of the test, or the shortest streak that is too long.
        expected: What the manifest promises: the Sharpe ratio a trade, the accuracy, else the win rate.
        p_value: Largest chance of such a result, or a worse one, where the true figure is at the bar or above it; of a
            streak, where the win rate is as expected.
        level: That the chance had to be at most.
        count: Trades, or predictions, that were looked at; for a streak, those of the day.
    """

    check: Check
    measured: float
    bar: float
    expected: float
    p_value: float
    level: float
    count: int


def expected_of(manifest: Manifest) -> tuple[Expected, dict[Check, str]]:
    """What a manifest promises, and why which checks are off.

    Profits are measured here before costs, because a server does not know them, so the expected ones are the `gross_`
    metrics. Their Sharpe ratio is a row's, times sqrt(periods_per_year), and counts rows without a position as zeros.
    A trade of h rows that is in the market `exposure` of the time has sqrt(h / exposure) times a row's: mean and
    variance add up over rows (Lo, "The statistics of Sharpe ratios", Financial Analysts Journal 58, 2002, for returns
    without autocorrelation), and the zeros take the share `exposure` of both.
    """
    metrics = manifest.validation.metrics

    def number(name: str) -> float:
        value = metrics.get(name)
        return math.nan if value is None else float(value)

    off: dict[Check, str] = {}
    row_sharpe, exposure = number("gross_sharpe"), number("exposure")
    sharpe = win_rate = accuracy = majority = math.nan
    if row_sharpe > 0.0 and 0.0 < exposure <= 1.0 and number("periods_per_year") > 0.0:
        row_sharpe /= math.sqrt(number("periods_per_year"))
        sharpe = row_sharpe * math.sqrt(manifest.output.horizon_trades / exposure)
    else:
        off[Check.SHARPE] = "gross_sharpe, exposure and periods_per_year above 0 are needed"
    if 0.0 < number("gross_win_rate") < 1.0:
        win_rate = number("gross_win_rate")
    else:
        off |= dict.fromkeys((Check.WIN_RATE, Check.LOSING_STREAK), "gross_win_rate between 0 and 1 is needed")
    if 0.0 < number("accuracy") < 1.0 and 0.0 < number("majority_accuracy") < 1.0:
        accuracy, majority = number("accuracy"), number("majority_accuracy")
    else:
        off[Check.ACCURACY] = "accuracy and majority_accuracy between 0 and 1 are needed"
    return Expected(sharpe, win_rate, accuracy, majority), off


def beta_ratio(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), a and b above 0, x in [0, 1].

    Continued fraction 8.17.22 of the NIST Digital Library of Mathematical Functions, evaluated as Lentz does
    (Thompson and Barnett, J. of Computational Physics 64, 1986), on the side of the mean where it converges fast.
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_ratio(b, a, 1.0 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for numerator in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + numerator * d)
            c = _away_from_zero(1.0 + numerator / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(logarithm) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def binomial_at_most(successes: float, trials: float, rate: float) -> float:
    """P(X <= successes) for X binomial(trials, rate), exact: I_{1-rate}(trials - successes, successes + 1).

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934; NIST DLMF 8.17.5. Numbers that are not whole, as `dispersion` leaves them, are interpolated.
    """
    if successes >= trials:
        return 1.0
    return beta_ratio(trials - successes, successes + 1.0, 1.0 - rate)


def dispersion(values: NDArray[np.float64], variance: float) -> float:
    """How much more batches of consecutive values vary than those of independent values would; at least 1.

    Batch means, batches of ceil(sqrt(n)) (Flegal and Jones, "Batch means and spectral variance estimators in Markov
    chain Monte Carlo", Annals of Statistics 38, 2010), over the variance that independence gives. A sample of n counts
    as one of n / dispersion.

    Args:
        values: float64 [n], in order; the oldest that fill no batch are left out.
        variance: Of one value, > 0.
    """
    size = math.isqrt(max(values.size - 1, 0)) + 1
    batches = values.size // size
    if batches < 2:
        return 1.0
    means = values[values.size - batches * size :].reshape(batches, size).mean(axis=1)
    return max(1.0, float(means.var(ddof=1)) * size / variance)


def share_below(hits: NDArray[np.bool_], bar: float) -> float:
    """Chance of so few hits, or fewer, where the true share is at least `bar`: binomial, n over `dispersion`."""
    count = hits.size
    values = hits.astype(np.float64)
    share = float(values.mean())
    inflation = dispersion(values, share * (1.0 - share)) if 0.0 < share < 1.0 else 1.0
    return binomial_at_most(share * count / inflation, count / inflation, bar)


def sharpe_below(returns: NDArray[np.float64], bar: float) -> tuple[float, float]:
    """The Sharpe ratio, and the chance of so low a one or lower where the true one is at least `bar`.

    The chance is the probabilistic Sharpe ratio

        PSR(bar) = Phi((SR - bar) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR**2))

    with skewness g3 and raw kurtosis g4, 3 for a normal (Bailey and López de Prado, "The Sharpe ratio efficient
    frontier", J. of Risk 15, 2012, eq. 11; the variance is Mertens', 2002). The root is the standard deviation of
    x - SR / 2 (x**2 - 1), x the standardised returns; with autocorrelation its long-run variance takes the place of
    the variance (Lo, "The statistics of Sharpe ratios", Financial Analysts Journal 58, 2002), here by `dispersion`.

    Args:
        returns: float64 [n], one a trade, in order.
        bar: Sharpe ratio a trade; nothing here is annualised.

    Returns:
        Both NaN where the returns do not vary, or there are fewer than two.
    """
    if returns.size < 2 or returns.max() == returns.min():
        return math.nan, math.nan
    sharpe = float(returns.mean() / returns.std(ddof=1))
    x = (returns - returns.mean()) / returns.std()
    influence = x - 0.5 * sharpe * (x * x - 1.0)
    variance = max(float(influence.var()), 1e-12)  # = 1 - g3 SR + (g4 - 1) / 4 SR**2
    error = math.sqrt(variance * dispersion(influence, variance) / (returns.size - 1))
    return sharpe, _NORMAL.cdf((sharpe - bar) / error)


@kernel("float64(int64, int64, float64)")
def longest_run_at_least(trials: int, length: int, rate: float) -> float:
    """P(some run of `length` or more among so many Bernoulli trials), exact; `rate` is that of what the run is of.

    f(n) = f(n-1) + (1 - f(n-length-1)) (1 - rate) rate**length: the first such run ends at trial n (Feller, "An
    introduction to probability theory and its applications" 1, 3rd ed., 1968, XIII.7; Schilling, "The longest run of
    heads", College Mathematics Journal 21, 1990). O(trials).

    Args:
        trials: At least 0.
        length: At least 1.
        rate: In [0, 1].
    """
    if trials < length:
        return 0.0
    whole = rate**length
    remembered = np.zeros(length + 1)
    now = whole
    remembered[length] = now  # f(n) stands at n % (length + 1)
    for n in range(length + 1, trials + 1):
        place = n % (length + 1)
        now += (1.0 - remembered[place]) * (1.0 - rate) * whole
        remembered[place] = now
    return now


@lru_cache(maxsize=4096)
def streak_bar(trials: int, win_rate: float, level: float, least: int = STREAK_LEAST) -> int:
    """The shortest losing streak beyond the (1 - level) quantile of the longest one in so many trades.

    Args:
        trials: Trades.
        win_rate: Expected, in (0, 1).
        level: Chance of such a streak, or a longer one, at that rate.
        least: No shorter one is too long.
    """
    rate = 1.0 - win_rate
    # P <= trials x rate**length: a start at or below the answer by this bound's slack, which is less than 1 / win_rate.
    guess = math.log(max(trials, 1) * win_rate * win_rate / level) / -math.log(rate)
    length = max(least, int(guess) - 2)
    while length > least and longest_run_at_least(trials, length - 1, rate) <= level:
        length -= 1
    while longest_run_at_least(trials, length, rate) > level:
        length += 1
    return length


def window_trades(sharpe: float, level: float) -> int:
    """Trades after which a Sharpe ratio of 0 is found to lie below half of `sharpe` in POWER of all cases.

    ((z_level + z_power) / (sharpe / 2))**2, the sample size of a one-sided test on a mean, between WINDOW_LEAST and
    WINDOW_MOST; WINDOW_LEAST times 8 where there is no Sharpe ratio to test.
    """
    if math.isnan(sharpe):
        return WINDOW_LEAST * 8
    needed = ((_NORMAL.inv_cdf(POWER) - _NORMAL.inv_cdf(level)) / (SHARPE_SHARE * sharpe)) ** 2
    return int(min(max(math.ceil(needed), WINDOW_LEAST), WINDOW_MOST))


class TradeWindow:
    """Profits of the last trades, in order; the oldest goes where there is no room.

    Args:
        capacity: Most of them.
    """

    def __init__(self, capacity: int) -> None:
        self._profits = np.zeros(capacity)
        self._count = 0

    def update(self, profit: float) -> None:
        """Add one."""
        self._profits[self._count % self._profits.size] = profit
        self._count += 1

    def get(self) -> NDArray[np.float64]:
        """Those in the window, float64 [n], the oldest first; a copy."""
        if self._count <= self._profits.size:
            return self._profits[: self._count].copy()
        first = self._count % self._profits.size
        return np.concatenate((self._profits[first:], self._profits[:first]))


class DayShare:
    """Hits and counts over the last 24 hours in slices of five minutes: up to a slice less than a day."""

    def __init__(self) -> None:
        self._hits = np.zeros(ACCURACY_SLICES)
        self._counts = np.zeros(ACCURACY_SLICES)
        self._numbers = np.full(ACCURACY_SLICES, -1, np.int64)  # which slice of time each place holds

    def update(self, at_ns: int, hit: bool) -> None:  # noqa: FBT001 - the value itself
        """Add one outcome; what is older than what its place holds is left out."""
        number = at_ns // ACCURACY_SLICE_NS
        place = number % ACCURACY_SLICES
        if self._numbers[place] < number:
            self._numbers[place] = number
            self._hits[place] = self._counts[place] = 0.0
        if self._numbers[place] == number:
            self._hits[place] += hit
            self._counts[place] += 1.0

    def get(self, now_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hits and counts of each slice of the last 24 hours that has any, float64 [slices]."""
        now = now_ns // ACCURACY_SLICE_NS
        held = (self._numbers > now - ACCURACY_SLICES) & (self._numbers <= now) & (self._counts > 0.0)
        return self._hits[held], self._counts[held]


def sliced_share_below(hits: NDArray[np.float64], counts: NDArray[np.float64], bar: float) -> float:
    """As `share_below` where only sums over slices of time are kept.

    The dispersion is Pearson's chi-squared over its degrees of freedom, at least 1 (McCullagh and Nelder, "Generalized
    linear models", 2nd ed., 1989, 4.5).
    """
    total, share = float(counts.sum()), float(hits.sum() / counts.sum())
    inflation = 1.0
    if counts.size > 1 and 0.0 < share < 1.0:
        excess = (hits - counts * share) ** 2 / (counts * share * (1.0 - share))
        inflation = max(1.0, float(excess.sum()) / (counts.size - 1))
    return binomial_at_most(share * total / inflation, total / inflation, bar)


class HealthChecks:
    """The checks of one version since it began, or was reopened.

    Attributes:
        expected: What it is held against.
        level: That one look at one check is allowed, of Sharpe ratio, win rate and accuracy.
        window: Trades that Sharpe ratio and win rate are taken over, at most.
        trades: Trades so far.
        predictions: Predictions so far whose price moved.

    Args:
        expected: What the manifest promises.
        false_alarms_a_day: The budget of all checks and looks.
    """

    def __init__(self, expected: Expected, false_alarms_a_day: float = FALSE_ALARMS_A_DAY) -> None:
        self.expected = expected
        self._share = false_alarms_a_day / len(Check)
        self.level = self._share / LOOKS_A_DAY
        self.window = window_trades(expected.sharpe, self.level)
        self.restart()

    def restart(self) -> None:
        """Begin anew: a person reopened the version."""
        self.trades = 0
        self.predictions = 0
        self._window = TradeWindow(self.window)
        self._accuracy = DayShare()
        self._now_ns = 0
        self._slot = -1
        self._streaks: dict[int, int] = {}
        self._day = -1
        self._day_trades = 0
        self._day_symbols: set[int] = set()

    def update(self, outcomes: Outcomes) -> list[Finding]:
        """Take in outcomes of this version in order, and look where it is time to.

        Returns:
            What the first look that found anything found, the strongest first; what comes behind it is not taken in.
        """
        columns = (outcomes[name].tolist() for name in ("chain", "symbol", "end_ns", "value", "move", "profit"))
        for chain, symbol, end_ns, value, move, profit in zip(*columns, strict=True):
            self._now_ns = max(self._now_ns, end_ns)
            found: list[Finding] = []
            if chain == Chain.TRADE:
                found = self._add_trade(symbol, profit)
            elif move != 0.0:  # a price that came back speaks for neither direction
                self.predictions += 1
                self._accuracy.update(end_ns, (value >= 0.0) == (move > 0.0))
            slot = self._now_ns // SLOT_NS
            if slot != self._slot:
                self._slot = slot
                found += self._look()
            if found:
                return sorted(found, key=lambda finding: finding.p_value / finding.level)
        return []

    def measure(self) -> list[Measure]:
        """What Sharpe ratio, win rate and accuracy are now, of the checks that are on and have MINIMUM_COUNT outcomes.

        It is no look: nothing is tested, so it may be asked for at any time.
        """
        found, expected = [], self.expected
        profits = self._window.get() if self.trades >= MINIMUM_COUNT else np.empty(0)
        if profits.size and not math.isnan(expected.sharpe):
            sharpe, _ = sharpe_below(profits, expected.sharpe_bar)
            found.append(Measure(Check.SHARPE, sharpe, expected.sharpe_bar))
        if profits.size and not math.isnan(expected.win_rate):
            found.append(Measure(Check.WIN_RATE, float((profits > 0.0).mean()), expected.win_rate_bar))
        if self.predictions >= MINIMUM_COUNT and not math.isnan(expected.accuracy):
            hits, counts = self._accuracy.get(self._now_ns)
            if counts.sum() >= MINIMUM_COUNT:
                found.append(Measure(Check.ACCURACY, float(hits.sum() / counts.sum()), expected.accuracy_bar))
        return found

    def forget_symbols(self) -> None:
        """Symbols have other numbers from here on: what streaks they were in is not known."""
        self._streaks.clear()
        self._day_symbols.clear()

    def _add_trade(self, symbol: int, profit: float) -> list[Finding]:
        self.trades += 1
        self._window.update(profit)
        day = self._now_ns // DAY_NS
        if day != self._day:
            self._day = day
            self._day_trades = 0
            self._day_symbols.clear()
        self._day_trades += 1
        self._day_symbols.add(symbol)
        streak = 0 if profit > 0.0 else self._streaks.get(symbol, 0) + 1
        self._streaks[symbol] = streak
        win_rate = self.expected.win_rate
        if streak < STREAK_LEAST or self.trades < MINIMUM_COUNT or math.isnan(win_rate):
            return []
        # A run of today lies in today's trades and, for each symbol, in some of the days before.
        trials = self._day_trades + _CARRIED * len(self._day_symbols)
        doubling = min(max(math.ceil(math.log2(trials / _FIRST_TRADES)), 0), _LAST_DOUBLING)
        trials, level = _FIRST_TRADES << doubling, self._share / 2.0 ** (doubling + 1)
        bar = streak_bar(trials, win_rate, level)
        if streak < bar:
            return []
        chance = float(longest_run_at_least(trials, streak, 1.0 - win_rate))
        return [Finding(Check.LOSING_STREAK, streak, bar, win_rate, chance, level, self._day_trades)]

    def _look(self) -> list[Finding]:
        found = []
        expected = self.expected
        if self.trades >= MINIMUM_COUNT and not (math.isnan(expected.sharpe) and math.isnan(expected.win_rate)):
            profits = self._window.get()
            if not math.isnan(expected.sharpe):
                sharpe, chance = sharpe_below(profits, expected.sharpe_bar)
                if chance <= self.level:
                    found.append(self._finding(Check.SHARPE, sharpe, expected.sharpe_bar, chance, profits.size))
            if not math.isnan(expected.win_rate):
                wins = profits > 0.0
                chance = share_below(wins, expected.win_rate_bar)
                if chance <= self.level:
                    measured = float(wins.mean())
                    found.append(self._finding(Check.WIN_RATE, measured, expected.win_rate_bar, chance, wins.size))
        if self.predictions >= MINIMUM_COUNT and not math.isnan(expected.accuracy):
            hits, counts = self._accuracy.get(self._now_ns)
            total = int(counts.sum())
            if total >= MINIMUM_COUNT:
                chance = sliced_share_below(hits, counts, expected.accuracy_bar)
                if chance <= self.level:
                    measured = float(hits.sum() / total)
                    found.append(self._finding(Check.ACCURACY, measured, expected.accuracy_bar, chance, total))
        return found

    def _finding(self, check: Check, measured: float, bar: float, chance: float, count: int) -> Finding:
        promised = {
            Check.SHARPE: self.expected.sharpe,
            Check.WIN_RATE: self.expected.win_rate,
            Check.ACCURACY: self.expected.accuracy,
        }
        return Finding(check, measured, bar, promised[check], chance, self.level, count)
