"""What a model must be better than to be worth its trouble: always long, the last sign, its own positions at random.

Each gives positions for `backtest.run`, so it pays the same costs and waits for the same lag as the model.

The random baseline is the model's own series of positions, turned round in time by a random number of rows: as long in
the market, as often changed, of the same sizes and holding times, but no longer at the rows that the model chose. It is
cut where it is flat for two rows; a series that nowhere is, or that begins or ends with a position, may be changed up
to two times more or fewer. How many of the turns earn at least what the model did is a p-value for its timing
(randomisation test; Edgington and Onghena, "Randomization tests", 4th ed., 2007; the one added to both counts after
Phipson and Smyth, "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular
Biology 9, 2010).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest, Market, constant_position, run
from tickgate_training.costs import Costs
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid
from tickgate_training.metrics import Metrics, measure

DRAWS = 99


@dataclass(frozen=True, slots=True)
class RandomTiming:
    """The model's positions at random times.

    Attributes:
        net_returns: float64 [draws], sum of net returns of each draw.
        draws: Each, measured net.
        p_value: Chance of earning at least what the model did net, by timing at random: (1 + draws that did) over
            (1 + draws); NaN where a return is undefined.
    """

    net_returns: NDArray[np.float64]
    draws: tuple[Metrics, ...]
    p_value: float


@dataclass(frozen=True, slots=True)
class Baselines:
    """The simple strategies over the model's rows, net of costs.

    Attributes:
        always_long: The whole capital bought at the first execution and held.
        last_sign: The same size, long after a rise and short after a fall of the mark.
        random: The model's own positions at random times.
    """

    always_long: Metrics
    last_sign: Metrics
    random: RandomTiming


def measure_baselines(
    model: Backtest,
    market: Market,
    capital: float,
    costs: Costs,
    periods_per_year: float,
    *,
    seed: int,
    draws: int = DRAWS,
    decide_every: int = 1,
) -> Baselines:
    """Run every baseline over the rows of a model's backtest, with its lag.

    Args:
        model: What the model held and earned.
        market: The whole series.
        capital: What returns are fractions of.
        costs: What changes of position cost.
        periods_per_year: As in `metrics.measure`.
        seed: Of the random draws; the same gives the same.
        draws: How many; 99 make 0.01 the least p-value.
        decide_every: Rows from one decision of the last sign to the next, as the model's.

    Raises:
        ArgumentInvalid: `draws` or `decide_every` is below 1.
    """
    start, rows, lag = model.start, model.positions.size, model.execution_lag_rows

    def earned(positions: NDArray[np.float64]) -> Metrics:
        return measure(run(positions, market, start, capital, costs, lag), periods_per_year)

    return Baselines(
        always_long=earned(constant_position(market, start, rows, capital, 1.0, lag)),
        last_sign=earned(last_sign(market, start, rows, capital, decide_every, lag)),
        random=random_timing(model, market, capital, costs, periods_per_year, seed=seed, draws=draws),
    )


def last_sign(
    market: Market, start: int, rows: int, capital: float, decide_every: int = 1, execution_lag_rows: int = 1
) -> NDArray[np.float64]:
    """Positions with the sign of the mark's last change, float64 [rows]; 0 where it did not change, or is the first.

    Their size is that of `constant_position` at a leverage of 1.

    Raises:
        ArgumentInvalid: `decide_every` is below 1.
    """
    if decide_every < 1:
        raise ArgumentInvalid("decide_every", decide_every, "it must be at least 1")
    size = constant_position(market, start, rows, capital, 1.0, execution_lag_rows)
    signs = np.sign(np.diff(market.marks[: start + rows], prepend=market.marks[0]))[start:]
    decided = np.arange(rows) // decide_every * decide_every
    return np.asarray(size * signs[decided])


def random_timing(
    model: Backtest,
    market: Market,
    capital: float,
    costs: Costs,
    periods_per_year: float,
    *,
    seed: int,
    draws: int = DRAWS,
) -> RandomTiming:
    """Trade the model's positions at random times, again and again; arguments as in `measure_baselines`."""
    if draws < 1:
        raise ArgumentInvalid("draws", draws, "it must be at least 1")
    shifts = np.random.default_rng(seed).choice(_turns(model.positions), size=draws)
    executed = market.marks[model.start + model.execution_lag_rows :][: model.positions.size]
    measured = []
    for shift in shifts:
        positions = turned(model.positions, executed, int(shift))
        result = run(positions, market, model.start, capital, costs, model.execution_lag_rows)
        measured.append(measure(result, periods_per_year))
    totals = np.array([metrics.total_return_summed for metrics in measured])
    own = float(model.net.sum())
    if not (np.isfinite(totals).all() and math.isfinite(own)):
        return RandomTiming(totals, tuple(measured), math.nan)
    # Sums of the same numbers in another order differ in their last bits: a draw that earned as much counts.
    as_much = totals >= own - 1e-12 * float(np.abs(model.net).sum())
    return RandomTiming(totals, tuple(measured), (1.0 + float(as_much.sum())) / (1.0 + draws))


def turned(positions: NDArray[np.float64], marks: NDArray[np.float64], shift: int) -> NDArray[np.float64]:
    """The positions `shift` rows later, the last ones first, each run of equal ones worth at its entry what it was.

    Args:
        positions: float64 [m].
        marks: float64 [m], > 0, at each one's execution; a run's size is scaled by the mark where it was entered over
            that where it is now, since a size is a notional over a price.
        shift: Rows, 0 <= shift < m; 0 gives the positions themselves.

    Raises:
        SeriesInvalid: The lengths differ.
    """
    if marks.size != positions.size:
        raise SeriesInvalid("marks", None, f"{marks.size} of them", f"there are {positions.size} positions")
    moved, paid = np.roll(positions, shift), np.roll(marks, shift)
    begins = np.concatenate(([True], moved[1:] != moved[:-1]))
    begins[shift % positions.size] = True  # the model's first row: what stands before it is its last
    entry = np.maximum.accumulate(np.where(begins, np.arange(positions.size), 0))
    return np.asarray(moved * (paid[entry] / marks[entry]))


def _turns(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Shifts to draw from: those that cut the series where it is flat, so that no run is cut; else all.

    No shift is among them always: where few others are, few draws can differ, and the p-value must say so.
    """
    cuts = np.flatnonzero((positions == 0.0) & (np.roll(positions, 1) == 0.0))
    if cuts.size == 0:
        return np.arange(positions.size)
    return np.union1d(0, -cuts % positions.size)
