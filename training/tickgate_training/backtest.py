"""From probabilities to returns, gross and net of costs, with the server's own sizing.

Conventions. A decision that reads row i is executed at row i + lag, lag = `execution_lag_rows` >= 1: the position it
asks for earns the change of the mark from i + lag to i + lag + 1, and so on until the next decision takes effect. A
label of that lag (`labels.fixed_horizon`) speaks of the same entry. Decisions fall on every `decide_every`-th row of
the range, counted from its first; between them the position stands. It is a position only where the confidence
max(p, 1 - p) is at least the threshold and the sizing gives a number; else it is flat: what is not known is not traded.
Marks are mids where there are quotes, so that the bounce between bid and ask is no profit. Each change of position pays
`costs.Costs` on its notional at the mark where it is executed, and what stands at the end of the range is closed and
paid for. Returns are fractions of a fixed capital: profits are not reinvested, losses not made good. Several symbols
that share the capital are added up by time: `portfolio.combine`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.risk.sizing import target_positions
from tickgate_training.costs import Costs
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid, TooFewRows

IMPACT_SPAN_ROWS = 100


@dataclass(frozen=True, slots=True)
class Sizing:
    """How large positions are: arguments of `tickgate_server.risk.sizing.target_position`.

    Attributes:
        capital: What returns are fractions of, in currency.
        risk_budget: One standard deviation over the horizon in currency at an edge of 1.
        horizon_trades: The model's horizon.
        volatility_floor: Least volatility over the horizon, as a fraction.
        lot: Size step.
    """

    capital: float
    risk_budget: float
    horizon_trades: int
    volatility_floor: float
    lot: float


@dataclass(frozen=True, slots=True)
class Market:
    """What the backtest reads of the ticks, one value a row.

    Attributes:
        marks: float64 [n], prices that positions are valued and executed at.
        half_spreads: float64 [n], as fractions of the mark.
        volumes: float64 [n], size traded in the `IMPACT_SPAN_ROWS` rows up to this one.
        trade_volatilities: float64 [n], the server's EWMA volatility a trade; NaN until warm.
    """

    marks: NDArray[np.float64]
    half_spreads: NDArray[np.float64]
    volumes: NDArray[np.float64]
    trade_volatilities: NDArray[np.float64]

    def until(self, stop: int) -> "Market":
        """The rows before `stop`, as views."""
        return Market(self.marks[:stop], self.half_spreads[:stop], self.volumes[:stop], self.trade_volatilities[:stop])


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a series of positions earned over rows [start, stop).

    Attributes:
        start: First row with a decision.
        positions: float64 [m], position asked for by the decision in force at each row.
        gross: float64 [m], its return before costs; `net` after them.
        net: float64 [m].
        traded: float64 [m], notional traded at each row's execution as a fraction of capital.
        leverage: float64 [m], absolute notional held as a fraction of capital.
        trip_gross: float64 [k], sum of gross returns of each round trip; `trip_net` after costs.
        trip_net: float64 [k].
        execution_lag_rows: Rows from a decision to its execution.
    """

    start: int
    positions: NDArray[np.float64]
    gross: NDArray[np.float64]
    net: NDArray[np.float64]
    traded: NDArray[np.float64]
    leverage: NDArray[np.float64]
    trip_gross: NDArray[np.float64]
    trip_net: NDArray[np.float64]
    execution_lag_rows: int = 1

    @property
    def held(self) -> NDArray[np.bool_]:
        """Rows with a position, bool [m]."""
        return np.asarray(self.positions != 0.0)


def decide(
    probabilities: NDArray[np.float64],
    threshold: float,
    market: Market,
    start: int,
    sizing: Sizing,
    decide_every: int = 1,
) -> NDArray[np.float64]:
    """Positions that a model's probabilities ask for on rows [start, start + m).

    Args:
        probabilities: Calibrated P(up), float64 [m]; NaN where the features are not ready.
        threshold: Least confidence max(p, 1 - p) for a position.
        market: The whole series.
        start: Row of the first probability.
        sizing: How large.
        decide_every: Rows from one decision to the next, at least 1.

    Returns:
        float64 [m], signed, in units of the instrument; 0 where there is to be no position.
    """
    rows = slice(start, start + probabilities.size)
    targets = target_positions(
        2.0 * probabilities - 1.0,
        market.marks[rows],
        market.trade_volatilities[rows],
        sizing.horizon_trades,
        sizing.risk_budget,
        sizing.volatility_floor,
        lot=sizing.lot,
    )
    # Written so that NaN fails it.
    wanted = (np.maximum(probabilities, 1.0 - probabilities) >= threshold) & np.isfinite(targets)
    targets = np.where(wanted, targets, 0.0)
    held = np.arange(targets.size) // decide_every * decide_every
    return targets[held]


def run(
    positions: NDArray[np.float64],
    market: Market,
    start: int,
    capital: float,
    costs: Costs,
    execution_lag_rows: int = 1,
) -> Backtest:
    """Hold the positions over rows [start, start + m) and account for them.

    Args:
        positions: float64 [m], finite; the one at k is what the decision at row start + k asks for. Cut to the rows
            for which the mark of the execution and the one after it exist.
        market: The whole series.
        start: Row of the first position.
        capital: What returns are fractions of.
        costs: What changes of position cost.
        execution_lag_rows: Rows from a decision to its execution, at least 1.

    Raises:
        ArgumentInvalid: The lag is below 1, `start` is negative, or the capital is not above 0.
        TooFewRows: Not one row has enough rows after it.
        SeriesInvalid: A position or a mark is not finite.
    """
    lag = execution_lag_rows
    if lag < 1:
        raise ArgumentInvalid("execution_lag_rows", lag, "what a row tells cannot be traded at that row: at least 1")
    if start < 0:
        raise ArgumentInvalid("start", start, "it must be a row")
    if not capital > 0.0:
        raise ArgumentInvalid("capital", capital, "it must be above 0")
    count = min(positions.size, market.marks.size - 1 - lag - start)
    if count < 1:
        raise TooFewRows(f"backtest, rows with {lag + 1} more after them", max(count, 0), 1)
    positions = positions[:count]
    _check_finite("positions", positions)
    executed = slice(start + lag, start + lag + 1 + count)  # one row more: the close of what stands at the end
    marks = market.marks[executed]
    _check_finite("marks", marks, executed.start)
    gross = positions * (marks[1:] - marks[:-1]) / capital
    before = np.concatenate(([0.0], positions))
    after = np.concatenate((positions, [0.0]))
    change = np.abs(after - before)
    span_volatilities = market.trade_volatilities[executed] * np.sqrt(IMPACT_SPAN_ROWS)
    fractions = costs.fractions(change, market.half_spreads[executed], span_volatilities, market.volumes[executed])
    traded = change * marks / capital
    paid = np.zeros(count + 1)
    np.multiply(traded, fractions, out=paid, where=change > 0.0)
    net = gross - paid[:count]
    net[-1] -= paid[count]
    folded = traded[:count].copy()
    folded[-1] += traded[count]
    trip_gross, trip_net = _round_trips(positions, gross, paid, change)
    leverage = np.abs(positions) * marks[:-1] / capital
    return Backtest(start, positions, gross, net, folded, leverage, trip_gross, trip_net, lag)


def _check_finite(series: str, values: NDArray[np.float64], first_row: int = 0) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise SeriesInvalid(series, first_row + row, str(values[row]), "each must be finite")


def _round_trips(
    positions: NDArray[np.float64], gross: NDArray[np.float64], paid: NDArray[np.float64], change: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gross and net return of each run of rows with a position of one sign.

    A trade that crosses zero closes one trip and opens the next: its cost is split by size.
    """
    sign = np.sign(positions)
    opens = (sign != 0) & (sign != np.concatenate(([0.0], sign[:-1])))
    trips = int(opens.sum())
    trip = np.cumsum(opens) - 1  # number of the trip that each row belongs to, or of the last one before it
    held = sign != 0
    trip_gross = _summed(trip[held], gross[held], trips)
    before = np.concatenate(([0.0], positions))
    after = np.concatenate((positions, [0.0]))
    # Of each change, the part that the position before pays for: all of it unless the sign changes.
    crossing = np.sign(before) * np.sign(after) < 0
    closing = np.where(
        crossing, np.abs(before), np.where((before != 0) & (np.abs(after) <= np.abs(before)), change, 0.0)
    )
    share = np.divide(closing, change, out=np.zeros_like(change), where=change > 0.0)
    exit_rows = np.flatnonzero(closing[1:] > 0.0) + 1
    entry_rows = np.flatnonzero(change[:-1] - closing[:-1] > 0.0)
    costs = _summed(trip[exit_rows - 1], (share * paid)[exit_rows], trips)
    costs += _summed(trip[entry_rows], ((1.0 - share) * paid)[entry_rows], trips)
    return trip_gross, trip_gross - costs


def _summed(trip: NDArray[np.int64], values: NDArray[np.float64], trips: int) -> NDArray[np.float64]:
    # Without values bincount counts in integers.
    return np.asarray(np.bincount(trip, values, minlength=trips), np.float64)


def constant_position(
    market: Market, start: int, rows: int, capital: float, leverage: float, execution_lag_rows: int = 1
) -> NDArray[np.float64]:
    """Positions worth `leverage` times the capital, bought at the first execution and held: float64 [rows]."""
    return np.full(rows, leverage * capital / market.marks[start + execution_lag_rows])
