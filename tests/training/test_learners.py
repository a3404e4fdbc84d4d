"""Learners: what is true of each kind, and what is each one's own."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from tickgate_training.calibration import Platt, sigmoid
from tickgate_training.errors import FeatureUndefined, NotConverged, OneClassOnly, TooFewRows
from tickgate_training.export import export
from tickgate_training.fit_weights import WeightsInvalid, WeightsRefused
from tickgate_training.float32 import exact_unit, round_down_to_float32
from tickgate_training.learners import (
    GradientBoostingConfig,
    Learner,
    LightGBMConfig,
    LogisticConfig,
    PerceptronConfig,
    RandomForestConfig,
    SgdLogisticConfig,
    probabilities,
)

LIGHTGBM = LightGBMConfig(trees=30, leaves=7, leaf_rows_minimum=5)
FOREST = RandomForestConfig(trees=20, depth=4, leaf_rows_minimum=5)
BOOSTING = GradientBoostingConfig(trees=30, leaf_rows_minimum=5, row_share=0.7)
LOGISTIC, SGD, PERCEPTRON = LogisticConfig(), SgdLogisticConfig(), PerceptronConfig(units=4)
LEARNERS = [LIGHTGBM, LOGISTIC, FOREST, BOOSTING, PERCEPTRON, SGD]
each = pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
Rows = tuple[NDArray[np.float32], NDArray[np.int8]]


def sample(rows: int = 400, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 4)).astype(np.float32)
    return features, (features[:, 0] + rng.normal(size=rows) > 0).astype(np.int8)


@each
def test_the_same_rows_weights_and_seed_give_the_same_bytes(learner: Learner) -> None:
    x, y = sample()
    weights = np.random.default_rng(5).uniform(0.0, 2.0, y.size)
    for given_weights in (None, weights):
        first, second = (learner.fit(x, y, 7, given_weights) for _ in range(2))
        assert export(first, Platt(1.0, 0.1)) == export(second, Platt(1.0, 0.1))


@each
def test_a_learner_foresees_what_it_was_shown(learner: Learner) -> None:
    model = learner.fit(*sample(), 7)
    x, y = sample(seed=2)
    p = probabilities(model, x)
    assert model.width == 4
    assert p.dtype == np.float64
    assert ((p > 0.5) == y).mean() > 0.65


@each
def test_a_model_that_was_sent_to_another_process_scores_the_same(learner: Learner) -> None:
    x, y = sample()
    model = learner.fit(x, y, 7)
    assert pickle.loads(pickle.dumps(model)).raw_scores(x).tobytes() == model.raw_scores(x).tobytes()  # noqa: S301 - own bytes


@each
def test_rows_that_nothing_can_be_learned_from_are_refused(learner: Learner) -> None:
    x, y = sample()
    with pytest.raises(OneClassOnly, match="all 400 labels are 1"):
        learner.fit(x, np.ones_like(y), 1)
    with pytest.raises(TooFewRows, match="fit: 5 rows, at least 20 needed"):
        learner.fit(x[:5], y[:5], 1)
    holed = x.copy()
    holed[3, 2] = np.nan
    with pytest.raises(FeatureUndefined, match=r"column 2.*row 3"):
        learner.fit(holed, y, 1)
    holed[:, 1] = np.nan
    with pytest.raises(FeatureUndefined, match=r"column 1.*in every row"):
        learner.fit(holed, y, 1)


@each
def test_rows_that_weigh_nothing_teach_nothing(learner: Learner) -> None:
    """Each row stands there twice, once with the other label; the weights say which of the two counts."""
    x, y = sample()
    twice, labels = np.tile(x, (2, 1)), np.r_[y, 1 - y].astype(np.int8)
    unseen, truth = sample(seed=2)
    true_counts, false_counts = np.repeat([1.0, 0.0], 400), np.repeat([0.0, 1.0], 400)
    for weights, right in ((true_counts, True), (false_counts, False)):
        p = probabilities(learner.fit(twice, labels, 7, weights), unseen)
        assert (((p > 0.5) == truth).mean() > 0.65) == right
        assert (((p > 0.5) != truth).mean() > 0.65) != right


@each
def test_of_weights_only_the_proportions_count(learner: Learner) -> None:
    x, y = sample()
    weights = np.random.default_rng(5).integers(1, 5, y.size).astype(np.float64)
    first, second = learner.fit(x, y, 7, weights), learner.fit(x, y, 7, weights * 2.0**-40)
    assert first.raw_scores(x).tobytes() == second.raw_scores(x).tobytes()
    assert first.raw_scores(x).tobytes() != learner.fit(x, y, 7).raw_scores(x).tobytes()


@each
def test_weights_that_are_none_are_refused(learner: Learner) -> None:
    x, y = sample()
    weights = np.ones(400)
    with pytest.raises(WeightsInvalid, match=r"shape \(399,\)"):
        learner.fit(x, y, 1, weights[1:])
    weights[9] = np.nan
    with pytest.raises(WeightsInvalid, match="row 9: found nan") as caught:
        learner.fit(x, y, 1, weights)
    assert caught.value.row == 9
    with pytest.raises(OneClassOnly, match="labels are 0"):
        learner.fit(x, y, 1, np.where(y == 0, 1.0, 0.0))


def test_a_library_that_cannot_weigh_rows_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample()
    monkeypatch.setattr("tickgate_training.learners.perceptron.has_fit_parameter", lambda *_: False)
    with pytest.raises(WeightsRefused, match="'mlp' cannot weigh rows"):
        PERCEPTRON.fit(x, y, 1, np.ones(400))
    assert PERCEPTRON.fit(x, y, 1).width == 4


@each
def test_importance_is_greatest_where_the_signal_is(learner: Learner) -> None:
    model = learner.fit(*sample(), 7)
    found = model.importance()
    if learner is PERCEPTRON:
        assert found is None
        return
    assert found is not None
    assert (found.dtype, found.shape) == (np.float64, (4,))
    assert found.argmax() == 0
    assert (found >= 0).all()


@pytest.mark.parametrize("learner", [LOGISTIC, SGD, FOREST, BOOSTING], ids=lambda learner: learner.kind)
def test_the_unit_of_a_feature_changes_neither_scores_nor_importance(learner: Learner) -> None:
    """Powers of two, which multiply exactly; scikit-learn's own trees take values within 1e-7 for one."""
    x, y = sample()
    units = np.float32(2.0) ** np.array([-40, 12, 0, -3], np.float32)
    model, other = learner.fit(x, y, 7), learner.fit(x * units, y, 7)
    np.testing.assert_array_equal(other.raw_scores(x * units), model.raw_scores(x))
    np.testing.assert_array_equal(other.importance(), model.importance())


def test_a_fit_that_stops_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(**arguments: float) -> LogisticRegression:
        return LogisticRegression(**(arguments | {"max_iter": 1}))

    monkeypatch.setattr("tickgate_training.learners.linear.LogisticRegression", impatient)
    with pytest.raises(NotConverged, match="logistic"):
        LogisticConfig().fit(*sample(), 1)


def test_a_perceptron_that_ends_by_its_number_of_steps_is_a_model() -> None:
    x, y = sample()
    early, late = (PerceptronConfig(iterations=steps).fit(x, y, 1) for steps in (2, 100))
    assert early.pipeline["classify"].n_iter_ == 2
    assert early.raw_scores(x).tobytes() != late.raw_scores(x).tobytes()


def test_a_perceptron_that_never_left_its_random_start_is_none() -> None:
    with pytest.raises(NotConverged, match="'mlp' did not converge: no step lowers the loss"):
        PerceptronConfig(l2=1e300).fit(*sample(), 1)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_perceptrons_score_is_the_log_odds_of_scikit_learns_probability(activation: str, layers: int) -> None:
    x, y = sample()
    config = PerceptronConfig.model_validate({"activation": activation, "layers": layers})
    model = config.fit(x, y, 1)
    expected = model.pipeline.predict_proba(x.astype(np.float64))[:, 1]
    np.testing.assert_allclose(sigmoid(model.raw_scores(x)), expected, rtol=1e-12)


def scaled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each column by the power of two next to its standard deviation: the units that trees are fitted in."""
    _, exponents = np.frexp(features.std(axis=0, dtype=np.float64))
    return np.asarray(features * np.float32(2.0) ** -exponents, np.float32)


def test_a_forest_is_scikit_learns_but_for_the_rounding_of_its_leaves() -> None:
    x, y = sample()
    plain = RandomForestClassifier(20, max_depth=4, min_samples_leaf=5, max_features=0.5, random_state=7)
    expected = plain.fit(scaled(x), y).predict_proba(scaled(x))[:, 1]
    found = probabilities(FOREST.fit(x, y, 7), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**-20)
    assert not np.array_equal(found, expected)


def test_boosting_is_scikit_learns_but_for_the_rounding_of_its_leaves() -> None:
    x, y = sample()
    plain = GradientBoostingClassifier(
        n_estimators=30, learning_rate=0.05, min_samples_leaf=5, subsample=0.7, random_state=7
    )
    expected = plain.fit(scaled(x), y).decision_function(scaled(x))
    np.testing.assert_allclose(BOOSTING.fit(x, y, 7).raw_scores(x), expected, rtol=0, atol=30 * 2.0**-23)


@pytest.mark.parametrize("learner", [FOREST, BOOSTING], ids=lambda learner: learner.kind)
def test_every_threshold_is_a_float32(learner: RandomForestConfig | GradientBoostingConfig) -> None:
    x, y = sample()
    for tree in np.ravel(learner.fit(x, y, 7).estimator.estimators_):
        thresholds = tree.tree_.threshold
        assert (thresholds.astype(np.float32) == thresholds).all()


def test_a_certain_forest_gets_the_odds_of_half_a_row_more() -> None:
    """By hand: 3 trees of leaves of one row, n = 3, P(up) from (1/2) / 4 to 7/8: log odds of ln 7 either way."""
    x = np.repeat(np.linspace(-1, 1, 2, dtype=np.float32), 20)[:, None]
    y = np.repeat(np.array([0, 1], np.int8), 20)
    model = RandomForestConfig(trees=3, leaf_rows_minimum=1).fit(x, y, 1)
    np.testing.assert_allclose(model.raw_scores(x[[0, -1]]), [-math.log(7), math.log(7)], rtol=1e-12)


def test_an_update_follows_a_market_that_turned_and_leaves_the_old_model_alone() -> None:
    x, y = sample()
    old = SgdLogisticConfig(averaged=False, learning_rate=0.05).fit(x, y, 1)
    before = old.raw_scores(x).tobytes()
    new = old
    for _ in range(5):
        new = new.updated(x, (1 - y).astype(np.int8))
    assert old.raw_scores(x).tobytes() == before
    assert (((probabilities(old, x) > 0.5) == y).mean()) > 0.65
    assert (((probabilities(new, x) > 0.5) == y).mean()) < 0.35
    again = old.updated(x, y, np.where(y == 1, 2.0, 1.0))
    assert again.raw_scores(x).tobytes() == old.updated(x, y, np.where(y == 1, 1.0, 0.5)).raw_scores(x).tobytes()


def test_an_update_takes_one_row_and_refuses_none() -> None:
    x, y = sample()
    model = SGD.fit(x, y, 1)
    assert model.updated(x[:1], y[:1]).raw_scores(x).tobytes() != model.raw_scores(x).tobytes()
    with pytest.raises(TooFewRows, match="update: 0 rows"):
        model.updated(x[:0], y[:0])
    with pytest.raises(FeatureUndefined, match="column 0"):
        model.updated(np.full((1, 4), np.inf, np.float32), y[:1])
    with pytest.raises(WeightsInvalid):
        model.updated(x[:1], y[:1], np.array([-1.0]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(0, 1000))
def test_multiples_of_the_exact_unit_are_summed_in_float32_without_error(terms: list[float], seed: int) -> None:
    exact = np.array(terms)
    unit = exact_unit(float(np.abs(exact).sum()))
    rounded = np.round(exact / unit) * unit
    assert (np.abs(rounded - exact) <= unit / 2).all()
    mixed = np.random.default_rng(seed).permutation(rounded).tolist()
    total = np.float32(0.0)
    for term in mixed:
        assert np.float32(term) == term
        total += np.float32(term)
    assert float(total) == math.fsum(mixed)


@given(st.floats(1e-30, 1e30))
def test_the_exact_unit_is_not_much_coarser_than_a_float32_of_that_size(largest: float) -> None:
    assert exact_unit(largest) <= 2 * float(np.spacing(np.float32(largest)))


def test_where_there_is_nothing_to_add_the_unit_is_a_float32_too() -> None:
    assert exact_unit(0.0) == 2.0**-24
    assert exact_unit(1e-300) == 2.0**-149
    assert float(np.float32(exact_unit(1e-300))) == 2.0**-149


@given(st.lists(st.floats(-1e30, 1e30), min_size=1))
def test_rounding_down_gives_the_largest_float32_not_above(numbers: list[float]) -> None:
    exact = np.array(numbers)
    found = round_down_to_float32(exact)
    assert found.dtype == np.float32
    assert (found.astype(np.float64) <= exact).all()
    assert (np.nextafter(found, np.float32(np.inf)).astype(np.float64) > exact).all()
