"""The threshold that is chosen on validation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_training import threshold
from tickgate_training.backtest import Backtest


def traded(p: NDArray[np.float64], profits: NDArray[np.float64]) -> Callable[[float], Backtest]:
    """A market where each row acted on is a round trip with its own profit."""

    def trade(at: float) -> Backtest:
        acts = np.maximum(p, 1 - p) >= at
        net = np.where(acts, profits, 0.0)
        return Backtest(0, acts.astype(float), net, net, net, net, net[acts], net[acts])

    return trade


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=60))
def test_candidates_lie_strictly_between_distinct_scores(chances: list[float]) -> None:
    p = np.array(chances)
    scores = np.maximum(p, 1 - p)
    found = threshold.candidates(p)
    assert found.size <= threshold.CANDIDATES_MAXIMUM
    for at in found:
        assert 0.5 <= at <= 1.0
        below, above = scores[scores < at], scores[scores > at]
        assert below.size + above.size == scores.size
        assert at - below.max() == pytest.approx(above.min() - at, abs=1e-15)


def test_a_threshold_whose_return_is_not_known_is_never_chosen() -> None:
    p = np.array([0.55, 0.60, 0.65, 0.70, 0.20])
    profits = np.array([-1.0, math.nan, 2.0, 1.0, 3.0])  # known only where the second row is not acted on
    choice = threshold.choose(p, traded(p, profits), 2)
    assert (choice.threshold, choice.validation_net_return) == (pytest.approx(0.625), 6.0)
    unknown = threshold.choose(p, traded(p, np.full(5, math.nan)), 2)
    assert "known return" in unknown.fallback_because


def test_scores_too_close_for_the_exported_model_to_tell_apart_are_not_parted() -> None:
    np.testing.assert_allclose(threshold.candidates(np.array([0.6, 0.60001, 0.7])), [0.650005])


def test_the_threshold_with_the_largest_net_return_wins() -> None:
    p = np.array([0.55, 0.60, 0.65, 0.70, 0.20])
    choice = threshold.choose(p, traded(p, np.array([-1.0, -1.0, 2.0, 1.0, 3.0])), 2)
    assert (choice.threshold, choice.validation_net_return) == (pytest.approx(0.625), 6.0)
    assert (choice.validation_round_trips, choice.fallback_because) == (3, "")
    assert choice.candidates == pytest.approx((0.575, 0.625, 0.675, 0.75))
    assert len(choice.candidate_net_returns) == 4


def test_too_few_round_trips_speak_for_nothing() -> None:
    p = np.array([0.55, 0.60, 0.65, 0.90])
    choice = threshold.choose(p, traded(p, np.array([-1.0, 1.0, -1.0, 5.0])), 2)
    assert choice.threshold == pytest.approx(0.575)
    choice = threshold.choose(p, traded(p, np.array([1.0, 1.0, 1.0, 1.0])), 9)
    assert "no threshold gives 9 round trips" in choice.fallback_because


def test_without_a_profit_the_strongest_tenth_is_acted_on_and_it_is_said() -> None:
    p = np.linspace(0.5, 0.9, 21)
    choice = threshold.choose(p, traded(p, np.full(21, -1.0)), 1)
    assert choice.fallback_because == "no threshold is profitable on validation net of costs"
    assert (p >= choice.threshold).sum() in {2, 3}
    assert choice.validation_net_return == -choice.validation_round_trips


def test_scores_that_are_all_the_same_give_the_stated_threshold() -> None:
    p = np.full(10, 0.6)
    choice = threshold.choose(p, traded(p, np.ones(10)), 1)
    assert choice.threshold == 0.55
    assert "the same" in choice.fallback_because
