"""Several symbols on one capital, each on its own rows."""

from pathlib import Path

import numpy as np
import pytest
from tests.training.runs import config, panel

from tickgate_training import backtest
from tickgate_training.backtest import Backtest
from tickgate_training.costs import Costs
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import TooFewRows
from tickgate_training.samples import Samples, prepare
from tickgate_training.trading import Trader


def trader(folder: Path, symbols: str) -> tuple[Trader, Samples]:
    settings = config(folder, costs={"fee_bps": 1.0, "impact": 0.5})
    frame = panel() if len(symbols) > 1 else simulate(1500, 0, 0.3, symbol=symbols)
    samples = prepare(frame, settings)
    return Trader(samples.books, samples.stamps_ns, settings), samples


def test_one_symbol_is_its_backtest(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "A")
    positions = np.random.default_rng(1).normal(size=300)
    traded = found.run(positions, 200)
    alone = backtest.run(positions, samples.books[0].market, 200, 1_000_000.0, Costs(1e-4, 0.5))
    assert isinstance(traded.result, Backtest)
    np.testing.assert_array_equal(traded.result.net, alone.net)
    np.testing.assert_array_equal(traded.stamps_ns, samples.stamps_ns[200:500])


def test_several_are_the_sum_of_each_on_its_own_rows(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "ABC")
    start, count = 2400, 900
    positions = np.random.default_rng(1).normal(size=count)
    traded = found.run(positions, start)
    total, trips = 0.0, 0
    for number, book in enumerate(samples.books):
        rows = np.flatnonzero(samples.symbol == number)
        here = (rows >= start) & (rows < start + count)
        alone = backtest.run(
            positions[rows[here] - start], book.market, int(np.argmax(here)), 1_000_000.0, Costs(1e-4, 0.5)
        )
        total += float(alone.net.sum())
        trips += alone.trip_net.size
    assert traded.result.net.sum() == pytest.approx(total)
    assert traded.result.trip_net.size == trips
    assert (np.diff(traded.stamps_ns) > 0).all()


def test_no_mark_from_the_bound_on_is_looked_at(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "ABC")
    positions = np.ones(500)
    until = 900
    bounded = found.run(positions, 400, until)
    for book in samples.books:
        book.market.marks[np.searchsorted(book.rows, until) :] *= 3.0
    again = found.run(positions, 400, until)
    np.testing.assert_array_equal(bounded.result.net, again.result.net)
    assert bounded.stamps_ns[-1] < samples.stamps_ns[until]


def test_a_symbol_without_rows_in_the_range_is_passed_over(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "ABC")
    begins = int(samples.books[1].rows[0])  # the second begins late
    early = found.run(np.ones(begins), 0)
    assert early.result.trip_net.size == 2
    np.testing.assert_array_equal(found.decide(np.full(begins, np.nan), 0.5, 0), 0.0)


def test_where_nothing_can_be_valued_there_is_no_backtest(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "A")
    with pytest.raises(TooFewRows):
        found.run(np.ones(1), samples.rows - 1)


def test_baselines_of_several_share_the_capital(tmp_path: Path) -> None:
    found, samples = trader(tmp_path, "ABC")
    probabilities = np.random.default_rng(2).uniform(size=900)
    positions = found.decide(probabilities, 0.6, 2400)
    baselines = found.baselines(positions, 2400, found.run(positions, 2400))
    assert baselines.always_long.round_trips == len(samples.books)
    assert baselines.always_long.mean_leverage == pytest.approx(1.0, abs=0.2)
    assert 0.01 <= baselines.random.p_value <= 1.0
    again = found.baselines(positions, 2400, found.run(positions, 2400))
    np.testing.assert_array_equal(baselines.random.net_returns, again.random.net_returns)
