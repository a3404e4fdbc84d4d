"""Learners, calibration and threshold."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tickgate_training import calibration, threshold
from tickgate_training.backtest import Backtest
from tickgate_training.calibration import LOGIT_LIMIT, Platt, sigmoid
from tickgate_training.errors import FeatureUndefined, NotConverged, OneClassOnly, TooFewRows
from tickgate_training.learners import LightGBMConfig, LogisticConfig, probabilities

LEARNERS = [LightGBMConfig(trees=30, leaves=7, leaf_rows_minimum=5), LogisticConfig()]


def sample(rows: int = 400, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 4)).astype(np.float32)
    return features, (features[:, 0] + rng.normal(size=rows) > 0).astype(np.int8)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
def test_the_same_rows_and_seed_give_the_same_model(learner: LightGBMConfig | LogisticConfig) -> None:
    x, y = sample()
    first, second = learner.fit(x, y, 7).raw_scores(x), learner.fit(x, y, 7).raw_scores(x)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
def test_a_learner_foresees_what_it_was_shown(learner: LightGBMConfig | LogisticConfig) -> None:
    model = learner.fit(*sample(), 7)
    x, y = sample(seed=2)
    p = probabilities(model, x)
    assert model.width == 4
    assert p.dtype == np.float64
    assert ((p > 0.5) == y).mean() > 0.65


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
def test_rows_that_nothing_can_be_learned_from_are_refused(learner: LightGBMConfig | LogisticConfig) -> None:
    x, y = sample()
    with pytest.raises(OneClassOnly, match="all 400 labels are 1"):
        learner.fit(x, np.ones_like(y), 1)
    with pytest.raises(TooFewRows):
        learner.fit(x[:5], y[:5], 1)
    x[3, 2] = np.nan
    with pytest.raises(FeatureUndefined, match=r"column 2.*row 3"):
        learner.fit(x, y, 1)


def test_a_fit_that_stops_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(**arguments: float) -> LogisticRegression:
        return LogisticRegression(**(arguments | {"max_iter": 1}))

    monkeypatch.setattr("tickgate_training.learners.LogisticRegression", impatient)
    with pytest.raises(NotConverged, match="logistic"):
        LogisticConfig().fit(*sample(), 1)


def test_platt_scaling_minimises_the_cross_entropy_of_the_smoothed_targets() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=500) * 3
    labels = (rng.random(500) < sigmoid(0.4 * scores - 0.7)).astype(np.int8)
    fitted = calibration.fit(scores, labels)
    assert not fitted.identity_because
    up, down = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (up + 1) / (up + 2), 1 / (down + 2))

    def loss(slope: float, intercept: float) -> float:
        p = sigmoid(slope * scores + intercept)
        return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum())

    best = loss(fitted.slope, fitted.intercept)
    for d_slope, d_intercept in ((1e-4, 0), (-1e-4, 0), (0, 1e-4), (0, -1e-4)):
        assert loss(fitted.slope + d_slope, fitted.intercept + d_intercept) > best
    assert fitted.slope == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        (np.arange(5.0), [0, 1, 0, 1, 1], "fewer than 10"),
        (np.arange(20.0), [1] * 20, "one class"),
        (np.full(20, 0.3), [0, 1] * 10, "the same"),
        (-np.arange(20.0), [0] * 10 + [1] * 10, "contradicts the ranking"),
        (np.linspace(-1e-3, 1e-3, 40), [0] * 20 + [1] * 20, "above 20"),
    ],
)
def test_where_there_is_nothing_to_calibrate_the_scores_stay_and_the_reason_is_kept(
    scores: NDArray[np.float64], labels: list[int], why: str
) -> None:
    fitted = calibration.fit(scores, np.array(labels, np.int8))
    assert (fitted.slope, fitted.intercept) == (1.0, 0.0)
    assert why in fitted.identity_because


@given(st.lists(st.floats(-1e300, 1e300), min_size=1), st.floats(0.0, 20.0), st.floats(-30.0, 30.0))
def test_calibrated_scores_are_probabilities(scores: list[float], slope: float, intercept: float) -> None:
    p = Platt(slope, intercept).apply(np.array(scores))
    assert ((p >= 0.0) & (p <= 1.0)).all()


def test_the_clip_is_that_of_probabilities_at_a_millionth() -> None:
    np.testing.assert_allclose(Platt(1.0, 0.0).apply(np.array([-99.0, 99.0])), [1e-6, 1 - 1e-6], rtol=1e-9)
    assert math.isclose(LOGIT_LIMIT, 13.815509557963774)


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


def test_scores_too_close_for_the_exported_model_to_tell_apart_are_not_parted() -> None:
    np.testing.assert_allclose(threshold.candidates(np.array([0.6, 0.60001, 0.7])), [0.650005])


def test_the_threshold_with_the_largest_net_return_wins() -> None:
    p = np.array([0.55, 0.60, 0.65, 0.70, 0.20])
    choice = threshold.choose(p, traded(p, np.array([-1.0, -1.0, 2.0, 1.0, 3.0])), 2)
    assert choice == threshold.ThresholdChoice(pytest.approx(0.625), 6.0, 3, "")


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
