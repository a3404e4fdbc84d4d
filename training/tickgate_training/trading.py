"""What decisions on the rows of one or several symbols earn: each symbol traded on its own rows, the capital shared.

With one symbol a period is a row, stamped with its decision. With several, returns that were complete at the same time
are one period, stamped with that time; see `portfolio.combine`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training import backtest
from tickgate_training.backtest import Backtest, Market, Sizing
from tickgate_training.baselines import DRAWS, Baselines, RandomTiming, last_sign, measure_baselines, turned
from tickgate_training.config import TrainingConfig
from tickgate_training.costs import Costs
from tickgate_training.errors import TooFewRows
from tickgate_training.metrics import Metrics, measure
from tickgate_training.portfolio import Portfolio, combine

_BPS = 1e-4


@dataclass(frozen=True, slots=True)
class Book:
    """One symbol's market, and where its rows are in the table of all.

    Attributes:
        symbol: Its name.
        rows: Row numbers in the table, int64 [m], ascending.
        market: Of these rows alone, in this order.
    """

    symbol: str
    rows: NDArray[np.int64]
    market: Market

    def own(self, start: int, stop: int) -> slice:
        """The book's own rows among rows [start, stop) of the table."""
        first, last = np.searchsorted(self.rows, (start, stop))
        return slice(int(first), int(last))


@dataclass(frozen=True, slots=True)
class Traded:
    """A backtest over rows of the table, and when its periods were.

    Attributes:
        result: A value a period.
        stamps_ns: Venue time of each period, int64 [periods], ascending.
    """

    result: Backtest | Portfolio
    stamps_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Part:
    """A symbol's rows in a range: the book, their numbers there, and their places in the range, int64."""

    book: Book
    own: slice
    here: NDArray[np.int64]


class Trader:
    """Turns probabilities into positions and positions into returns, by one configuration's policy and costs.

    Args:
        books: Of every symbol.
        stamps_ns: Venue time of each row of the table, int64 [n], not decreasing.
        config: Policy, horizon, lag and costs.
    """

    def __init__(self, books: tuple[Book, ...], stamps_ns: NDArray[np.int64], config: TrainingConfig) -> None:
        self._books = books
        self._stamps_ns = stamps_ns
        policy = config.policy
        self._sizing = Sizing(
            policy.capital, policy.risk_budget, config.label.horizon_trades, policy.volatility_floor, policy.lot
        )
        self._costs = Costs(config.costs.fee_bps * _BPS, config.costs.impact)
        self._decide_every = policy.decide_every_rows
        self._lag = config.label.lag_trades
        self._periods_per_year = config.periods_per_year
        self._seed = config.seed

    def decide(self, probabilities: NDArray[np.float64], threshold: float, start: int) -> NDArray[np.float64]:
        """Positions on rows [start, start + m), float64 [m]; see `backtest.decide`, which each symbol goes through."""
        positions = np.zeros(probabilities.size)
        for part in self._parts(start, probabilities.size):
            positions[part.here] = backtest.decide(
                probabilities[part.here], threshold, part.book.market, part.own.start, self._sizing, self._decide_every
            )
        return positions

    def run(self, positions: NDArray[np.float64], start: int, until: int | None = None) -> Traded:
        """Hold the positions on rows [start, start + m); see `backtest.run`.

        Args:
            positions: float64 [m].
            start: First row.
            until: No mark of a row from this one on is looked at; None: all may be.

        Raises:
            TooFewRows: No symbol has a row whose position can be entered and valued.
        """
        found: dict[str, tuple[NDArray[np.int64], Backtest]] = {}
        for part in self._parts(start, positions.size):
            rows = part.book.rows
            stop = rows.size if until is None else int(np.searchsorted(rows, until))
            if part.own.start + self._lag + 1 < stop:
                result = self._run_one(positions[part.here], part.book.market.until(stop), part.own.start)
                found[part.book.symbol] = self._stamps_ns[rows[:stop]], result
        if not found:
            raise TooFewRows("backtest, rows with a later row to be valued at", 0, 1)
        if len(self._books) > 1:
            together = combine(found)
            return Traded(together, together.stamps_ns)
        ((stamps_ns, result),) = found.values()
        return Traded(result, stamps_ns[result.start : result.start + result.net.size])

    def baselines(self, positions: NDArray[np.float64], start: int, model: Traded) -> Baselines:
        """What simple strategies earn on the model's rows; see `baselines`. Several symbols share the capital equally.

        Args:
            positions: The model's on rows [start, start + m), float64 [m].
            start: First row.
            model: What they earned.
        """
        if isinstance(model.result, Backtest):
            return measure_baselines(
                model.result,
                self._books[0].market,
                self._sizing.capital,
                self._costs,
                self._periods_per_year,
                seed=self._seed,
                decide_every=self._decide_every,
            )
        parts = list(self._parts(start, positions.size))
        long, signs = np.zeros(positions.size), np.zeros(positions.size)
        share = self._sizing.capital / len(parts)
        for part in parts:
            market, first, count = part.book.market, part.own.start, part.here.size
            if first + self._lag < market.marks.size:
                long[part.here] = backtest.constant_position(market, first, count, share, 1.0, self._lag)
                signs[part.here] = last_sign(market, first, count, share, self._decide_every, self._lag)
        return Baselines(
            always_long=self._measured(long, start),
            last_sign=self._measured(signs, start),
            random=self._random(positions, start, model),
        )

    def every_side(self, sides: NDArray[np.int8], start: int) -> Metrics:
        """What it earns to act on every side, at a leverage of 1 in all: int8 [m] on rows [start, start + m)."""
        parts = list(self._parts(start, sides.size))
        positions = np.zeros(sides.size)
        share = self._sizing.capital / len(parts)
        for part in parts:
            market, first, count = part.book.market, part.own.start, part.here.size
            if first + self._lag < market.marks.size:
                size = backtest.constant_position(market, first, count, share, 1.0, self._lag)
                decided = np.arange(count) // self._decide_every * self._decide_every
                positions[part.here] = size * sides[part.here][decided]
        return self._measured(positions, start)

    def _random(self, positions: NDArray[np.float64], start: int, model: Traded) -> RandomTiming:
        """Each symbol's positions turned round in time on its own rows; see `baselines.random_timing`."""
        random = np.random.default_rng(self._seed)
        measured = []
        for _ in range(DRAWS):
            drawn = np.zeros(positions.size)
            for part in self._parts(start, positions.size):
                executed = part.book.market.marks[part.own.start + self._lag :][: part.here.size]
                here = part.here[: executed.size]
                if here.size:
                    drawn[here] = turned(positions[here], executed, int(random.integers(here.size)))
            measured.append(self._measured(drawn, start))
        totals = np.array([metrics.total_return_summed for metrics in measured])
        own = float(model.result.net.sum())
        if not (np.isfinite(totals).all() and math.isfinite(own)):
            return RandomTiming(totals, tuple(measured), math.nan)
        as_much = totals >= own - 1e-12 * float(np.abs(model.result.net).sum())
        return RandomTiming(totals, tuple(measured), (1.0 + float(as_much.sum())) / (1.0 + DRAWS))

    def _measured(self, positions: NDArray[np.float64], start: int) -> Metrics:
        return measure(self.run(positions, start).result, self._periods_per_year)

    def _run_one(self, positions: NDArray[np.float64], market: Market, start: int) -> Backtest:
        return backtest.run(positions, market, start, self._sizing.capital, self._costs, self._lag)

    def _parts(self, start: int, count: int) -> Iterator[_Part]:
        """Each symbol with rows in [start, start + count)."""
        for book in self._books:
            own = book.own(start, start + count)
            if own.stop > own.start:
                yield _Part(book, own, book.rows[own] - start)
