"""What a series of returns was worth. Each convention stands at its field; what is undefined is NaN, with its reason.

Returns are fractions of a fixed capital, one a row. Round trips are runs of rows with a position of one sign. A return
that is not finite leaves everything that is made of it undefined: nothing here skips a row.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest
from tickgate_training.errors import ArgumentInvalid
from tickgate_training.portfolio import Portfolio


@dataclass(frozen=True, slots=True)
class Metrics:
    """One series, measured once.

    Attributes:
        sharpe: Mean over standard deviation (ddof 1) of the returns, times sqrt(periods_per_year); risk-free rate 0
            (Sharpe, "The Sharpe ratio", J. of Portfolio Management 21, 1994). Rows without a position count as zeros.
        t_statistic: Mean over its standard error, the deviation (ddof 1) over sqrt(n): the Sharpe ratio a period times
            sqrt(n). Returns are taken as uncorrelated.
        total_return_compounded: Product of (1 + r), less 1; undefined once a return is -1 or below.
        total_return_summed: Sum of returns: profit over the fixed capital.
        max_drawdown: Largest fall of the compounded equity from its running peak, as a positive fraction of the peak;
            the initial equity is a peak. Undefined once a return is -1 or below.
        skewness: Third central moment over the deviation's cube, both the population's (ddof 0).
        kurtosis: Fourth central moment over the variance's square, likewise; raw: 3 for a normal.
        autocorrelation: Of each return with the next: the sum of products of deviations from the one mean over the sum
            of their squares (Box and Jenkins, "Time series analysis", 1970, 2.1), so it lies inside (-1, 1).
        round_trips: Their number; one still open at the end is closed there.
        win_rate: Share of round trips with a return above 0.
        mean_trip_return: Mean return of a round trip.
        profit_factor: Sum of the winning round trips' returns over the losing ones' absolute sum.
        turnover: Notional traded over capital, mean a period; buying and selling both count.
        exposure: Share of periods with a position.
        mean_leverage: Mean absolute notional over capital, flat periods included.
        periods: Number of returns.
        periods_per_year: What the Sharpe ratio was annualised with; 1: not at all.
        undefined: Why a metric is NaN, by its name.
    """

    sharpe: float
    t_statistic: float
    total_return_compounded: float
    total_return_summed: float
    max_drawdown: float
    skewness: float
    kurtosis: float
    autocorrelation: float
    round_trips: int
    win_rate: float
    mean_trip_return: float
    profit_factor: float
    turnover: float
    exposure: float
    mean_leverage: float
    periods: int
    periods_per_year: float
    undefined: dict[str, str]


Outcome = tuple[float, str]


def measure(result: Backtest | Portfolio, periods_per_year: float, *, net: bool = True) -> Metrics:
    """Measure a backtest, net of costs or gross.

    Args:
        result: What was held and earned, by one symbol or by several.
        periods_per_year: Rows in a year, 252 for daily bars; 1 leaves the Sharpe ratio a period's.
        net: Whether costs are taken off.

    Raises:
        ArgumentInvalid: `periods_per_year` is not a number above 0.
    """
    if not (periods_per_year > 0.0 and math.isfinite(periods_per_year)):
        raise ArgumentInvalid("periods_per_year", periods_per_year, "it must be a number above 0")
    returns = result.net if net else result.gross
    trips = result.trip_net if net else result.trip_gross
    undefined: dict[str, str] = {}

    def value(name: str, outcome: Outcome) -> float:
        if outcome[1]:
            undefined[name] = outcome[1]
        return outcome[0]

    sharpe, why = sharpe_ratio(returns, periods_per_year)
    return Metrics(
        sharpe=value("sharpe", (sharpe, why)),
        t_statistic=value("t_statistic", (sharpe / math.sqrt(periods_per_year) * math.sqrt(returns.size), why)),
        total_return_compounded=value("total_return_compounded", _compounded(returns)),
        total_return_summed=value("total_return_summed", _summed(returns)),
        max_drawdown=value("max_drawdown", _drawdown(returns)),
        skewness=value("skewness", skewness(returns)),
        kurtosis=value("kurtosis", kurtosis(returns)),
        autocorrelation=value("autocorrelation", autocorrelation(returns)),
        round_trips=int(trips.size),
        win_rate=value("win_rate", _win_rate(trips)),
        mean_trip_return=value("mean_trip_return", _mean_trip(trips)),
        profit_factor=value("profit_factor", _profit_factor(trips)),
        turnover=value("turnover", _mean(result.traded)),
        exposure=value("exposure", _mean(result.held)),
        mean_leverage=value("mean_leverage", _mean(result.leverage)),
        periods=int(returns.size),
        periods_per_year=periods_per_year,
        undefined=undefined,
    )


def sharpe_ratio(returns: NDArray[np.float64], periods_per_year: float) -> Outcome:
    """The Sharpe ratio as in `Metrics.sharpe`, and why it is NaN; the reason is empty where it is defined."""
    why = _not_varying(returns)
    if why:
        return math.nan, why
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(periods_per_year)), ""


def skewness(returns: NDArray[np.float64]) -> Outcome:
    """Skewness as in `Metrics.skewness`, and why it is NaN."""
    why = _not_varying(returns)
    return (math.nan, why) if why else (float((_standardised(returns) ** 3).mean()), "")


def kurtosis(returns: NDArray[np.float64]) -> Outcome:
    """Raw kurtosis as in `Metrics.kurtosis`, 3 for a normal, and why it is NaN."""
    why = _not_varying(returns)
    return (math.nan, why) if why else (float((_standardised(returns) ** 4).mean()), "")


def autocorrelation(returns: NDArray[np.float64]) -> Outcome:
    """Autocorrelation at lag 1 as in `Metrics.autocorrelation`, and why it is NaN."""
    why = _not_varying(returns)
    if why:
        return math.nan, why
    x = _standardised(returns)
    return float((x[:-1] * x[1:]).sum() / (x * x).sum()), ""


def max_drawdown(returns: NDArray[np.float64]) -> float:
    """Largest fall from a peak as in `Metrics.max_drawdown`, at least 0; every return must be above -1."""
    equity = np.concatenate(([1.0], np.cumprod(1.0 + returns)))
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def _standardised(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((returns - returns.mean()) / returns.std())


def _unusable(values: NDArray[np.float64], what: str = "return") -> str:
    """Why nothing can be made of the values; empty where something can."""
    if values.size == 0:
        return f"no {what}"
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        return f"{what} {first} of {values.size} is {values[first]}"
    return ""


def _not_varying(returns: NDArray[np.float64]) -> str:
    """Why moments beyond the mean are undefined; empty where they are defined."""
    if returns.size < 2:
        return "fewer than two returns"
    why = _unusable(returns)
    if why:
        return why
    # Of equal numbers a rounded deviation need not be zero, and dividing by it gives 1e16; of others it can be.
    if returns.max() == returns.min() or returns.std() == 0.0:
        return "the returns do not vary"
    return ""


def _compounded(returns: NDArray[np.float64]) -> Outcome:
    why = _unusable(returns) or _gone(returns)
    return (math.nan, why) if why else (float(np.prod(1.0 + returns)) - 1.0, "")


def _drawdown(returns: NDArray[np.float64]) -> Outcome:
    why = _unusable(returns) or _gone(returns)
    return (math.nan, why) if why else (max_drawdown(returns), "")


def _gone(returns: NDArray[np.float64]) -> str:
    return "" if (returns > -1.0).all() else "a return is -1 or below: capital is gone"


def _summed(returns: NDArray[np.float64]) -> Outcome:
    why = _unusable(returns)
    return (math.nan, why) if why else (float(returns.sum()), "")


def _win_rate(trips: NDArray[np.float64]) -> Outcome:
    why = _unusable(trips, "round trip")
    return (math.nan, why) if why else (float((trips > 0.0).mean()), "")


def _mean_trip(trips: NDArray[np.float64]) -> Outcome:
    why = _unusable(trips, "round trip")
    return (math.nan, why) if why else (float(trips.mean()), "")


def _profit_factor(trips: NDArray[np.float64]) -> Outcome:
    why = _unusable(trips, "round trip")
    lost = -float(trips[trips < 0.0].sum())
    if not why and lost == 0.0:
        why = "no losing round trip"
    return (math.nan, why) if why else (float(trips[trips > 0.0].sum()) / lost, "")


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> Outcome:
    why = _unusable(np.asarray(values, np.float64), "period")
    return (math.nan, why) if why else (float(values.mean()), "")
