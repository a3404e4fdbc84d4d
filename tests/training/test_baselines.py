import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest, Market, run
from tickgate_training.baselines import last_sign, measure_baselines, random_timing, turned
from tickgate_training.costs import Costs
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid
from tickgate_training.metrics import measure

CAPITAL = 1000.0
COSTS = Costs(fee=1e-4)


def market(marks: NDArray[np.float64]) -> Market:
    flat = np.ones(marks.size)
    return Market(marks, 1e-4 * flat, 50.0 * flat, 0.01 * flat)


def wandering(rows: int, seed: int = 0) -> Market:
    return market(100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, 0.01, rows))))


def now_and_then(rows: int, seed: int = 0) -> NDArray[np.float64]:
    """Held for three rows of ten, long or short, flat at both ends."""
    rng = np.random.default_rng(seed)
    positions = np.zeros(rows)
    for first in range(2, rows - 8, 10):
        positions[first : first + 3] = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 2.0)
    return positions


def held(positions: NDArray[np.float64], somewhere: Market, lag: int = 1) -> Backtest:
    return run(positions, somewhere, 0, CAPITAL, COSTS, lag)


def changes(positions: NDArray[np.float64]) -> int:
    around = np.concatenate(([0.0], positions, [0.0]))
    return int((np.diff(around) != 0.0).sum())


positions_lists = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, -2.0]), min_size=2, max_size=30)


@given(positions_lists, st.integers(0, 100), st.integers(0, 99))
def test_turned_positions_are_as_long_in_the_market_in_each_direction(
    positions: list[float], shift: int, seed: int
) -> None:
    model = np.array(positions)
    marks = np.random.default_rng(seed).uniform(50.0, 150.0, model.size)
    found = turned(model, marks, shift % model.size)
    np.testing.assert_array_equal(np.sign(found), np.sign(np.roll(model, shift)))
    assert abs(changes(found) - changes(model)) <= 2


@given(positions_lists, st.integers(0, 29), st.integers(0, 99))
def test_turned_at_a_flat_place_every_run_is_there_once_and_worth_the_same_at_its_entry(
    inside: list[float], at: int, seed: int
) -> None:
    model = np.array([0.0, *inside, 0.0])
    flat = np.flatnonzero((model == 0.0) & (np.roll(model, 1) == 0.0))
    marks = np.random.default_rng(seed).uniform(50.0, 150.0, model.size)
    found = turned(model, marks, int(-flat[at % flat.size] % model.size))
    assert changes(found) == changes(model)

    def entries(positions: NDArray[np.float64]) -> list[tuple[float, int]]:
        begins = np.flatnonzero(np.diff(positions, prepend=np.nan) != 0.0)
        lengths = np.diff(np.append(begins, positions.size))
        runs = zip(begins, lengths, strict=True)
        return sorted((round(positions[k] * marks[k], 6), int(length)) for k, length in runs if positions[k] != 0.0)

    assert entries(found) == entries(model)


def test_not_turned_they_are_the_models() -> None:
    model = now_and_then(50)
    np.testing.assert_array_equal(turned(model, np.linspace(90.0, 110.0, 50), 0), model)
    with pytest.raises(SeriesInvalid, match="there are 50 positions"):
        turned(model, np.ones(49), 3)


def test_random_draws_trade_as_often_and_as_much_as_the_model() -> None:
    somewhere = market(np.full(302, 100.0))  # at one price, so that sizes are worth the same anywhere
    model = held(now_and_then(300), somewhere)
    own = measure(model, 1.0)
    drawn = random_timing(model, somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=20)
    assert len(drawn.draws) == drawn.net_returns.size == 20
    for draw in drawn.draws:
        assert draw.exposure == own.exposure
        assert draw.round_trips == own.round_trips
        assert draw.turnover == pytest.approx(own.turnover)
        assert draw.total_return_summed == pytest.approx(own.total_return_summed)
    assert drawn.p_value == 1.0  # nothing can be timed where nothing moves


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    somewhere = wandering(302)
    model = held(now_and_then(300), somewhere)
    one, same, other = (random_timing(model, somewhere, CAPITAL, COSTS, 1.0, seed=seed, draws=9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.net_returns, same.net_returns)
    assert (one.net_returns != other.net_returns).any()


def test_the_p_value_counts_the_draws_that_earned_at_least_as_much() -> None:
    somewhere = wandering(302)
    model = held(now_and_then(300), somewhere)
    drawn = random_timing(model, somewhere, CAPITAL, COSTS, 1.0, seed=3, draws=49)
    assert drawn.p_value == (1 + sum(total >= model.net.sum() for total in drawn.net_returns)) / 50


def test_foresight_has_a_small_p_value_and_chance_has_not() -> None:
    somewhere = wandering(602)
    ahead = np.sign(np.diff(somewhere.marks))[1:601]
    timing = np.where(now_and_then(600) != 0.0, ahead, 0.0)
    assert random_timing(held(timing, somewhere), somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=99).p_value <= 0.03
    chances = [
        random_timing(
            held(now_and_then(600, seed), somewhere), somewhere, CAPITAL, COSTS, 1.0, seed=seed, draws=19
        ).p_value
        for seed in range(20)
    ]
    assert 0.25 < np.mean(chances) < 0.75


@pytest.mark.parametrize("positions", [[0.0] * 8, [1.0] * 8])
def test_a_model_that_never_trades_or_never_stops_is_no_better_than_chance(positions: list[float]) -> None:
    somewhere = market(np.full(10, 100.0))
    drawn = random_timing(held(np.array(positions), somewhere), somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=9)
    assert drawn.p_value == 1.0


def test_where_there_are_few_other_times_the_p_value_is_not_small() -> None:
    # A rise of ten rows that the model held from end to end; it is flat for so few others that there are three cuts.
    somewhere = market(np.concatenate(([100.0], 100.0 * 1.01 ** np.arange(12), np.full(3, 90.0))))
    model = held(np.array([0.0] + [1.0] * 10 + [0.0, 0.0, 0.0]), somewhere)
    drawn = random_timing(model, somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=999)
    assert len(set(drawn.net_returns.round(12))) == 3
    assert drawn.p_value > 0.15


def test_a_single_row_is_drawn_as_it_is() -> None:
    somewhere = wandering(3)
    model = held(np.ones(1), somewhere)
    drawn = random_timing(model, somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=3)
    np.testing.assert_array_equal(drawn.net_returns, np.repeat(model.net, 3))


def test_a_return_that_is_not_known_leaves_no_p_value() -> None:
    somewhere = wandering(52)
    somewhere.half_spreads[3] = math.nan
    drawn = random_timing(held(now_and_then(50), somewhere), somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=5)
    assert math.isnan(drawn.p_value)


def test_the_last_sign_follows_the_last_change_of_the_mark() -> None:
    somewhere = market(np.array([100.0, 101.0, 101.0, 99.0, 103.0, 103.0, 104.0]))
    size = CAPITAL / 101.0  # the mark of the first execution
    found = last_sign(somewhere, 0, 5, CAPITAL)
    np.testing.assert_allclose(found, np.array([0.0, 1.0, 0.0, -1.0, 1.0]) * size)
    np.testing.assert_allclose(last_sign(somewhere, 0, 5, CAPITAL, 3), np.array([0.0, 0.0, 0.0, -1.0, -1.0]) * size)
    np.testing.assert_allclose(last_sign(somewhere, 3, 2, CAPITAL), np.array([-1.0, 1.0]) * CAPITAL / 103.0)


@given(st.integers(0, 99), st.integers(2, 30), st.integers(0, 10))
def test_the_last_sign_knows_no_later_mark(seed: int, rows: int, start: int) -> None:
    somewhere = wandering(start + rows + 2, seed)
    whole = last_sign(somewhere, start, rows, CAPITAL)
    part = last_sign(somewhere.until(start + rows), start, rows - 1, CAPITAL)
    np.testing.assert_array_equal(part, whole[:-1])


@pytest.mark.parametrize("lag", [1, 3])
def test_all_baselines_run_over_the_models_rows_with_its_lag_and_costs(lag: int) -> None:
    somewhere = wandering(200)
    model = run(now_and_then(150), somewhere, 20, CAPITAL, COSTS, lag)
    found = measure_baselines(model, somewhere, CAPITAL, COSTS, 252.0, seed=1, draws=5)
    for metrics in (found.always_long, found.last_sign, *found.random.draws):
        assert metrics.periods == 150
        assert metrics.periods_per_year == 252.0
    marks = somewhere.marks
    first, last = 20 + lag, 20 + lag + 150
    size = CAPITAL / marks[first]
    paid = 2e-4 * size * (marks[first] + marks[last]) / CAPITAL
    expected = size * (marks[last] - marks[first]) / CAPITAL - paid
    assert found.always_long.total_return_summed == pytest.approx(expected)
    assert found.always_long.round_trips == 1
    assert found.always_long.exposure == 1.0
    assert found.last_sign.round_trips > 30


def test_no_draws_or_no_decisions_are_refused() -> None:
    somewhere = wandering(52)
    model = held(now_and_then(50), somewhere)
    with pytest.raises(ArgumentInvalid, match="draws"):
        measure_baselines(model, somewhere, CAPITAL, COSTS, 1.0, seed=1, draws=0)
    with pytest.raises(ArgumentInvalid, match="decide_every"):
        measure_baselines(model, somewhere, CAPITAL, COSTS, 1.0, seed=1, decide_every=0)


def test_the_models_own_timing_is_drawn_too_where_its_ends_are_held() -> None:
    # It holds the rise at both ends and leaves out the fall between: one other place to cut, and that loses.
    marks = np.concatenate((100.0 * 1.01 ** np.arange(7), [100.0], 100.0 * 1.01 ** np.arange(8)))
    model = held(np.array([1.0] * 5 + [0.0, 0.0] + [1.0] * 7), market(marks))
    drawn = random_timing(model, market(marks), CAPITAL, COSTS, 1.0, seed=1, draws=199)
    assert len(set(drawn.net_returns.round(12))) == 2
    assert drawn.net_returns.max() == pytest.approx(model.net.sum())
    assert 0.35 < drawn.p_value < 0.65


def test_what_stood_at_the_end_is_another_run_than_what_stood_at_the_beginning() -> None:
    marks = np.array([100.0, 101.0, 50.0, 51.0])
    found = turned(np.ones(4), marks, 2)
    # The last two rows come first, worth 50 at their entry; then the first two, worth 100 at theirs.
    np.testing.assert_allclose(found, [0.5, 0.5, 2.0, 2.0])
