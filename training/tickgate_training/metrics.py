"""What a series of returns was worth. Each convention stands at its field; what is undefined is NaN, with its reason.

Returns are fractions of a fixed capital, one a row. Round trips are runs of rows with a position of one sign.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest


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


def measure(result: Backtest, periods_per_year: float, *, net: bool = True) -> Metrics:
    """Measure a backtest, net of costs or gross.

    Args:
        result: What was held and earned.
        periods_per_year: Rows in a year, 252 for daily bars; 1 leaves the Sharpe ratio a period's.
        net: Whether costs are taken off.
    """
    returns = result.net if net else result.gross
    trips = result.trip_net if net else result.trip_gross
    undefined: dict[str, str] = {}
    sharpe = _defined(sharpe_ratio(returns, periods_per_year), "sharpe", undefined)
    compounded = drawdown = math.nan
    if (returns > -1.0).all():
        equity = np.cumprod(1.0 + returns)
        compounded = float(equity[-1]) - 1.0 if equity.size else 0.0
        drawdown = max_drawdown(returns)
    else:
        undefined |= dict.fromkeys(
            ("total_return_compounded", "max_drawdown"), "a return is -1 or below: capital is gone"
        )
    wins, losses = trips[trips > 0.0], trips[trips < 0.0]
    win_rate = mean_trip = profit_factor = math.nan
    if trips.size:
        win_rate, mean_trip = wins.size / trips.size, float(trips.mean())
    else:
        undefined |= dict.fromkeys(("win_rate", "mean_trip_return", "profit_factor"), "no round trip")
    if losses.size:
        profit_factor = float(wins.sum() / -losses.sum())
    elif trips.size:
        undefined["profit_factor"] = "no losing round trip"
    empty = returns.size == 0
    return Metrics(
        sharpe=sharpe,
        t_statistic=sharpe / math.sqrt(periods_per_year) * math.sqrt(returns.size),
        total_return_compounded=compounded,
        total_return_summed=float(returns.sum()),
        max_drawdown=drawdown,
        round_trips=int(trips.size),
        win_rate=win_rate,
        mean_trip_return=mean_trip,
        profit_factor=profit_factor,
        turnover=0.0 if empty else float(result.traded.mean()),
        exposure=0.0 if empty else float((result.positions != 0.0).mean()),
        mean_leverage=0.0 if empty else float(result.leverage.mean()),
        periods=int(returns.size),
        periods_per_year=periods_per_year,
        undefined=undefined | ({"t_statistic": undefined["sharpe"]} if "sharpe" in undefined else {}),
    )


def sharpe_ratio(returns: NDArray[np.float64], periods_per_year: float) -> tuple[float, str]:
    """The Sharpe ratio as in `Metrics.sharpe`, and why it is NaN; the reason is empty where it is defined."""
    if returns.size < 2:
        return math.nan, "fewer than two returns"
    # Of equal numbers a rounded deviation need not be zero, and dividing by it gives 1e16.
    if returns.max() == returns.min():
        return math.nan, "the returns do not vary"
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(periods_per_year)), ""


def max_drawdown(returns: NDArray[np.float64]) -> float:
    """Largest fall from a peak as in `Metrics.max_drawdown`, at least 0; every return must be above -1."""
    equity = np.concatenate(([1.0], np.cumprod(1.0 + returns)))
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def _defined(outcome: tuple[float, str], name: str, undefined: dict[str, str]) -> float:
    value, why = outcome
    if why:
        undefined[name] = why
    return value
