"""Calibrations: Platt's, isotonic, none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_training import calibration
from tickgate_training.calibration import LOGIT_LIMIT, SLOPE_LIMIT, Isotonic, Platt, Uncalibrated, sigmoid
from tickgate_training.calibration.isotonic import KNOTS_LIMIT, bounded
from tickgate_training.fit_weights import WeightsInvalid

Floats = NDArray[np.float64]


def distorted(rows: int, seed: int) -> tuple[Floats, NDArray[np.int8]]:
    """Scores whose own probability p is in truth one of p^2."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.02, 0.98, rows)
    return np.log(p / (1.0 - p)), (rng.random(rows) < p * p).astype(np.int8)


def test_platt_scaling_minimises_the_cross_entropy_of_the_smoothed_targets() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=500) * 3
    labels = (rng.random(500) < sigmoid(0.4 * scores - 0.7)).astype(np.int8)
    fitted = calibration.fit("platt", scores, labels)
    assert isinstance(fitted, Platt)
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
    fitted = calibration.fit("platt", scores, np.array(labels, np.int8))
    assert isinstance(fitted, Platt)
    assert (fitted.slope, fitted.intercept) == (1.0, 0.0)
    assert why in fitted.identity_because


@given(st.lists(st.floats(-1e300, 1e300), min_size=1), st.floats(0.0, 20.0), st.floats(-30.0, 30.0))
def test_calibrated_scores_are_probabilities(scores: list[float], slope: float, intercept: float) -> None:
    p = Platt(slope, intercept).apply(np.array(scores))
    assert ((p >= 0.0) & (p <= 1.0)).all()


def test_the_clip_is_that_of_probabilities_at_a_millionth() -> None:
    np.testing.assert_allclose(Platt(1.0, 0.0).apply(np.array([-99.0, 99.0])), [1e-6, 1 - 1e-6], rtol=1e-9)
    assert math.isclose(LOGIT_LIMIT, 13.815509557963774)


def test_weights_count_as_shares_of_the_loss() -> None:
    scores, labels = distorted(300, 1)
    weights = np.random.default_rng(2).uniform(0.1, 5.0, 300)
    fitted = calibration.fit("platt", scores, labels, weights)
    assert isinstance(fitted, Platt)
    shares = weights / weights.mean()
    up, down = shares[labels == 1].sum(), shares[labels == 0].sum()
    targets = np.where(labels == 1, (up + 1) / (up + 2), 1 / (down + 2))

    def loss(slope: float, intercept: float) -> float:
        p = sigmoid(slope * scores + intercept)
        return float(-(shares * (targets * np.log(p) + (1 - targets) * np.log(1 - p))).sum())

    best = loss(fitted.slope, fitted.intercept)
    for d_slope, d_intercept in ((1e-4, 0), (-1e-4, 0), (0, 1e-4), (0, -1e-4)):
        assert loss(fitted.slope + d_slope, fitted.intercept + d_intercept) > best
    assert fitted != calibration.fit("platt", scores, labels)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_row_that_weighs_nothing_is_as_good_as_absent(kind: calibration.Kind) -> None:
    scores, labels = distorted(400, 3)
    weights = np.random.default_rng(4).choice([0.0, 1.0, 2.0], 400)
    kept = weights > 0
    at = np.linspace(-5, 5, 101)
    whole = calibration.fit(kind, scores, np.where(kept, labels, 1 - labels).astype(np.int8), weights)
    parts = calibration.fit(kind, scores[kept], labels[kept], weights[kept])
    assert whole.apply(at).tobytes() == parts.apply(at).tobytes()


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ([1.0] * 19, r"shape \(19,\)"),
        ([1.0] * 5 + [-1.0] + [1.0] * 14, "row 5: found -1.0"),
        ([math.nan] * 20, "row 0: found nan"),
        ([1.0, math.inf] + [1.0] * 18, "row 1: found inf"),
        ([0.0] * 20, "one at least must be above 0"),
    ],
)
def test_weights_that_are_none_are_refused(kind: calibration.Kind, weights: list[float], why: str) -> None:
    scores, labels = distorted(20, 5)
    with pytest.raises(WeightsInvalid, match=why):
        calibration.fit(kind, scores, labels, np.array(weights))


def test_isotonic_calibration_undoes_a_distortion_that_platt_cannot() -> None:
    rng = np.random.default_rng(6)
    p = rng.uniform(0.02, 0.98, 20_000)
    truth = np.where(p < 0.5, 0.3, 0.7)
    scores, labels = np.log(p / (1 - p)), (rng.random(20_000) < truth).astype(np.int8)
    kinds: tuple[calibration.Kind, ...] = ("isotonic", "platt", "none")
    isotonic, platt, none = (np.abs(calibration.fit(k, scores, labels).apply(scores) - truth).mean() for k in kinds)
    assert isotonic < 0.02
    assert 2 * isotonic < platt < none


def pooled(y: Floats) -> Floats:
    """The isotonic fit by its min-max formula (Barlow et al., 1972): slow, and nothing to get wrong."""
    n = y.size
    return np.array([max(min(y[j : k + 1].mean() for k in range(i, n)) for j in range(i + 1)) for i in range(n)])


def test_in_the_midst_of_a_pool_the_value_is_the_share_of_ups_there() -> None:
    """By hand: 40 scores of four levels with 1, 3, 2 and 9 ups in ten; the middle two violate the order and pool."""
    levels = np.repeat([0.2, 0.4, 0.6, 0.8], 10)
    labels = np.concatenate([np.arange(10) < ups for ups in (1, 3, 2, 9)]).astype(np.int8)
    fitted = calibration.fit("isotonic", np.log(levels / (1 - levels)), labels)
    at = np.array([0.2, 0.4, 0.5, 0.6, 0.8])
    np.testing.assert_allclose(fitted.apply(np.log(at / (1 - at))), [0.1, 0.25, 0.25, 0.25, 0.9], atol=1e-12)
    middle = np.array([0.3, 0.7])  # halfway along the lines between pools
    np.testing.assert_allclose(fitted.apply(np.log(middle / (1 - middle))), [0.175, 0.575], atol=1e-12)


def test_far_apart_scores_get_what_the_slow_formula_gives() -> None:
    rng = np.random.default_rng(7)
    p = np.linspace(0.02, 0.98, 20)  # so far apart that no line between two is steeper than 20
    labels = (rng.random(20) < p).astype(np.int8)
    fitted = calibration.fit("isotonic", np.log(p / (1 - p)), labels)
    np.testing.assert_allclose(
        fitted.apply(np.log(p / (1 - p))), np.clip(pooled(labels.astype(float)), 1e-6, 1 - 1e-6), atol=1e-9
    )


def test_a_step_becomes_a_ramp_around_it() -> None:
    """By hand, L = 20: low climbs from 0.40 to 0.43, high from 0.38 to 0.41, and this is their mean."""
    knots, values = bounded(np.array([0.1, 0.40, 0.41, 0.9]), np.array([0.2, 0.2, 0.8, 0.8]), 20.0)
    at = [0.1, 0.38, 0.40, 0.41, 0.43, 0.9]
    np.testing.assert_allclose(np.interp(at, knots, values), [0.2, 0.2, 0.4, 0.6, 0.8, 0.8], atol=1e-12)


@st.composite
def rising_lines(draw: st.DrawFn) -> tuple[Floats, Floats]:
    steps = draw(st.lists(st.tuples(st.floats(1e-6, 0.3), st.floats(0.0, 0.3)), min_size=1, max_size=8))
    dx, dy = np.array(steps).T
    return np.cumsum(np.r_[0.01, dx]), np.cumsum(np.r_[0.05, dy])


@given(rising_lines())
def test_the_bounded_line_is_the_mean_of_the_envelopes_of_the_slow_definition(line: tuple[Floats, Floats]) -> None:
    x, y = line
    knots, values = bounded(x, y, SLOPE_LIMIT)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(values) >= 0).all()
    # Slopes over lengths that rounding does not fill.
    grid = np.linspace(x[0] - 1.0, x[-1] + 1.0, 101)
    found = np.interp(grid, knots, values)
    assert (np.diff(found) <= SLOPE_LIMIT * np.diff(grid) + 1e-9).all()
    for at, value in zip(grid, found, strict=True):
        u = np.append(x, at)  # between its knots f is straight, so the extremes lie at knots or at x itself
        f = np.interp(u, x, y)
        low, high = (f + SLOPE_LIMIT * abs(at - u)).min(), (f - SLOPE_LIMIT * abs(at - u)).max()
        assert value == pytest.approx((low + high) / 2, abs=1e-8)


def test_of_more_knots_than_the_limit_as_many_are_kept() -> None:
    rng = np.random.default_rng(8)
    x = np.linspace(0.0, 1.0, 5001)
    y = np.cumsum(rng.uniform(0.0, 4e-4, 5001))
    knots, values = bounded(x, y, SLOPE_LIMIT)
    assert knots.size == KNOTS_LIMIT
    np.testing.assert_allclose(np.interp(x, knots, values), y, atol=4e-4 * 12)


@given(st.integers(0, 1000), st.integers(10, 200), st.floats(1e-9, 10.0))
def test_isotonic_values_rise_within_the_clip_and_no_faster_than_the_limit(seed: int, rows: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=rows) * width
    fitted = calibration.fit("isotonic", scores, rng.integers(0, 2, rows).astype(np.int8))
    at = np.sort(np.r_[scores, rng.normal(size=200) * width, -1e300, 1e300])
    p = fitted.apply(at)
    assert ((p >= 1e-6 * (1 - 1e-9)) & (p <= 1 - 1e-6 + 1e-15)).all()
    assert (np.diff(p) >= -1e-15).all()
    assert (np.diff(p) <= SLOPE_LIMIT * np.diff(sigmoid(np.clip(at, -LOGIT_LIMIT, LOGIT_LIMIT))) + 1e-9).all()


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        (np.arange(5.0), [0, 1, 0, 1, 1], "fewer than 10"),
        (np.arange(20.0), [0] * 20, "one class"),
        (np.full(20, 0.3), [0, 1] * 10, "the same"),
        (-np.arange(20.0), [0] * 10 + [1] * 10, "contradicts the ranking"),
    ],
)
def test_where_isotonic_calibration_has_nothing_to_fit_there_is_none_and_the_reason_is_kept(
    scores: Floats, labels: list[int], why: str
) -> None:
    fitted = calibration.fit("isotonic", scores, np.array(labels, np.int8))
    assert isinstance(fitted, Uncalibrated)
    assert why in fitted.identity_because
    np.testing.assert_array_equal(fitted.apply(scores), sigmoid(np.clip(scores, -LOGIT_LIMIT, LOGIT_LIMIT)))


def test_no_calibration_is_the_sigmoid_of_the_clipped_score() -> None:
    fitted = calibration.fit("none", np.arange(20.0), np.ones(20, np.int8))
    assert fitted.identity_because == "none was asked for"
    np.testing.assert_allclose(fitted.apply(np.array([-99.0, 0.0, 99.0])), [1e-6, 0.5, 1 - 1e-6], rtol=1e-9)


def test_a_fitted_isotonic_calibration_has_no_excuse() -> None:
    scores, labels = distorted(100, 9)
    fitted = calibration.fit("isotonic", scores, labels)
    assert isinstance(fitted, Isotonic)
    assert not fitted.identity_because
