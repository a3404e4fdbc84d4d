import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import HermiteE
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # ships no types

from tickgate_server.risk import exposures
from tickgate_server.risk import value_at_risk as var
from tickgate_server.risk.exposures import HELD, SIGMA_ERROR, UPDATES, VARIANCE, VARIANCE_ERROR, Exposures
from tickgate_server.risk.value_at_risk import CORNISH_FISHER, HISTORICAL, PARAMETRIC, cornish_fisher

Z99 = 2.3263478740408408
METHODS = [PARAMETRIC, HISTORICAL, CORNISH_FISHER]
NOT_NUMBERS = [math.nan, math.inf, -math.inf]
AS_IT_IS = (-1, 0.0)
Array = NDArray[np.float64]


def recompute(book: Exposures) -> None:
    exposures.recompute(book.covariance, book.scenarios, book.weights, book.sigma_w, book.scenario_pnl, book.totals)


def change(book: Exposures, member: int, delta: float) -> None:
    arrays = (book.covariance, book.scenarios, book.weights, book.sigma_w, book.scenario_pnl, book.totals)
    exposures.change_weight(member, delta, *arrays)


def risk(book: Exposures, member: int, delta: float, method: int = PARAMETRIC, z: float = Z99) -> float:
    arrays = (book.covariance, book.scenarios, book.weights, book.sigma_w, book.scenario_pnl, book.totals)
    return var.value_at_risk(method, z, member, delta, *arrays, book.scratch)


def correlation(book: Exposures, member: int, delta: float) -> float:
    return var.correlation_with_others(member, delta, book.covariance, book.weights, book.sigma_w, book.totals)


def a_book(covariance: Any, weights: Sequence[float] | Array, scenarios: Array | None = None) -> Exposures:
    """A portfolio; without scenarios it has none."""
    returns = np.zeros((len(weights), 0)) if scenarios is None else scenarios
    book = Exposures(len(weights), returns.shape[1])
    book.covariance[:] = covariance
    book.scenarios[:] = returns
    book.weights[:] = weights
    recompute(book)
    return book


def a_market(seed: int, n: int, kind: str, scenarios: int = 0) -> Exposures:
    """Members without weights whose covariance is made of random factors, and scenarios of the same factors."""
    rng = np.random.default_rng(seed)
    rank = {"full": n + 5, "low rank": min(n, 3), "ill-conditioned": n, "diagonal too": 5}[kind]
    loadings = rng.normal(size=(n, rank)) * 0.02 / math.sqrt(rank)
    if kind == "ill-conditioned":
        loadings *= np.logspace(0.0, -7.0, rank)
    own = rng.uniform(0.005, 0.03, n) if kind == "diagonal too" else np.zeros(n)
    covariance = loadings @ loadings.T + np.diag(own**2)
    book = Exposures(n, scenarios)
    book.covariance[:] = (covariance + covariance.T) / 2.0
    book.scenarios[:] = loadings @ rng.standard_t(5.0, (rank, scenarios)) + own[:, None] * rng.normal(
        size=(n, scenarios)
    )
    return book


def trade(book: Exposures, seed: int, changes: int) -> None:
    """Random changes of sizes from 1 to 1e6, three in ten of them back to 0."""
    rng = np.random.default_rng(seed)
    for member in rng.integers(0, book.weights.size, changes):
        closes = book.weights[member] != 0.0 and rng.uniform() < 0.3
        size = float(rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(0.0, 6.0))
        change(book, member, -book.weights[member] if closes else size)
        if closes:
            assert book.weights[member] == 0.0


def exact_variance(covariance: Array, weights: Array) -> tuple[float, float, float]:
    """w'Sw by the full matrix in extended precision, its scale, and what a sum of doubles may be off by."""
    exact = weights.astype(np.longdouble)
    gross = float(np.abs(weights) @ np.sqrt(np.diag(covariance))) ** 2
    return float(exact @ covariance.astype(np.longdouble) @ exact), gross, weights.size * 2.0**-52 * gross


def exact_correlation(book: Exposures, member: int, delta: float) -> tuple[float, float]:
    """From the full matrix in extended precision, and by how much a calculation in doubles may differ."""
    others = book.weights.copy()
    others[member] = 0.0
    variance, _, rounding = exact_variance(book.covariance, others)
    shared = float(book.covariance[member].astype(np.longdouble) @ others.astype(np.longdouble))
    if variance <= rounding:
        return math.nan, math.inf
    value = math.copysign(1.0, delta) * shared / math.sqrt(book.covariance[member, member] * variance)
    return value, 1e-9 + 2.0 * rounding / variance


seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["full", "low rank", "ill-conditioned", "diagonal too"])
sizes = st.one_of(st.integers(1, 12), st.sampled_from([40, 133, 500]))
orders = st.floats(-1e6, 1e6).filter(lambda size: abs(size) > 1e-3)


@settings(max_examples=150)
@given(seeds, sizes, kinds, st.integers(1, 300))
def test_after_any_changes_the_state_is_that_of_the_full_matrix(seed: int, n: int, kind: str, changes: int) -> None:
    book = a_market(seed, n, kind, scenarios=120)
    trade(book, seed, changes)
    weights = book.weights.astype(np.longdouble)
    variance, gross, _ = exact_variance(book.covariance, book.weights)
    deviations = np.sqrt(np.diag(book.covariance))
    largest = math.sqrt(book.totals[exposures.LARGEST]) + math.sqrt(gross)
    np.testing.assert_array_less(
        np.abs(book.sigma_w - book.covariance @ weights), 1e-12 * deviations * largest + 1e-300
    )
    np.testing.assert_allclose(book.scenario_pnl, (weights @ book.scenarios).astype(float), rtol=0, atol=1e-9 * largest)
    assert abs(book.totals[VARIANCE] - variance) <= 1e-9 * gross
    assert book.totals[HELD] == np.count_nonzero(book.weights)


@settings(max_examples=150)
@given(seeds, sizes, kinds, st.integers(1, 300))
def test_no_rounding_error_exceeds_its_bound(seed: int, n: int, kind: str, changes: int) -> None:
    book = a_market(seed, n, kind)
    trade(book, seed, changes)
    weights = book.weights.astype(np.longdouble)
    slack = 1.0 + 1e-6  # the bound is rounded too
    errors = np.abs(book.sigma_w - book.covariance @ weights)
    assert (errors <= slack * book.totals[SIGMA_ERROR] * np.sqrt(np.diag(book.covariance))).all()
    variance, *_ = exact_variance(book.covariance, book.weights)
    assert abs(book.totals[VARIANCE] - variance) <= slack * book.totals[VARIANCE_ERROR]


def position(book: Exposures, seed: int, shape: str) -> int:
    """Take a random portfolio of a shape; which member is the first one in it."""
    rng = np.random.default_rng(seed + 1)
    n = book.weights.size
    first = int(rng.integers(n))
    book.weights[:] = rng.normal(size=n) * 1e3
    if shape == "sparse":
        book.weights[rng.uniform(size=n) < 0.7] = 0.0
    elif shape == "dominated":
        book.weights[first] = 1e9
    elif shape == "long":
        book.weights[:] = np.abs(book.weights)
    recompute(book)
    return first


shapes = st.sampled_from(["mixed", "sparse", "dominated", "long"])


@settings(max_examples=200)
@given(seeds, sizes, kinds, shapes, st.one_of(st.none(), orders), st.integers(0, 100))
def test_parametric_value_at_risk_is_that_of_the_full_matrix(
    seed: int, n: int, kind: str, shape: str, order: float | None, changes: int
) -> None:
    book = a_market(seed, n, kind)
    first = position(book, seed, shape)
    for k in range(changes):
        change(book, (first + 1 + k) % n, 10.0 - k)
    for member in (first, (first + 1) % n):
        delta = -book.weights[member] if order is None else order  # None closes it
        after = book.weights.copy()
        after[member] += delta
        variance, gross, rounding = exact_variance(book.covariance, after)
        got = risk(book, member, delta) / Z99
        assert abs(got**2 - variance) <= 1e-9 * variance + rounding
        assert abs(got**2 - variance) <= 1e-9 * gross
        if rounding <= 1e-10 * variance:
            assert got == pytest.approx(math.sqrt(variance), rel=1e-9)


@settings(max_examples=200)
@given(seeds, sizes.filter(lambda n: n > 1), kinds, shapes, orders, st.integers(0, 100))
def test_the_correlation_is_that_of_the_full_matrix(
    seed: int, n: int, kind: str, shape: str, order: float, changes: int
) -> None:
    book = a_market(seed, n, kind)
    first = position(book, seed, shape)
    assume(np.count_nonzero(book.weights) > 2)
    for k in range(changes):
        change(book, (first + 1 + k) % n, 10.0 - k)
    for member in (first, (first + 1) % n):
        value, tolerance = exact_correlation(book, member, order)
        got = correlation(book, member, order)
        if math.isnan(got):  # only where the others hedge each other to within rounding
            assert tolerance > 0.1
        else:
            assert abs(got) <= 1.0
            assert got == pytest.approx(value, abs=tolerance) or tolerance > 0.1


@pytest.mark.parametrize("size", [1e6, 1e12])
def test_the_correlation_of_a_member_that_is_millions_of_times_the_others_is_exact_to_1e9(size: float) -> None:
    book = a_market(3, 500, "diagonal too")
    rng = np.random.default_rng(5)
    book.weights[:] = rng.uniform(0.5, 2.0, 500)
    book.weights[123] = size
    recompute(book)
    for k in range(1000):
        change(book, k % 500, float(rng.normal()))
    value, tolerance = exact_correlation(book, 123, 1.0)
    assert tolerance < 2e-9
    assert correlation(book, 123, 1.0) == pytest.approx(value, abs=1e-9)
    unaided = book.totals[VARIANCE] - book.weights[123] * (
        2.0 * book.sigma_w[123] - book.weights[123] * book.covariance[123, 123]
    )
    others = np.where(np.arange(500) == 123, 0.0, book.weights)
    assert unaided != pytest.approx(exact_variance(book.covariance, others)[0], rel=1e-6)  # so it was needed


@given(seeds, sizes, kinds, orders, st.sampled_from(METHODS))
@settings(max_examples=150)
def test_asking_for_an_order_gives_what_it_will_be_once_it_is_in(
    seed: int, n: int, kind: str, order: float, method: int
) -> None:
    book = a_market(seed, n, kind, scenarios=150)
    member = position(book, seed, "mixed")
    asked = risk(book, member, order, method)
    change(book, member, order)
    scale = math.sqrt(exact_variance(book.covariance, book.weights)[1])
    assert asked == pytest.approx(risk(book, *AS_IT_IS, method), rel=1e-9, abs=1e-7 * scale, nan_ok=True)


def test_asking_changes_nothing() -> None:
    book = a_market(1, 20, "full", scenarios=120)
    member = position(book, 1, "dominated")
    arrays = {name: getattr(book, name) for name in Exposures.__slots__ if name != "scratch"}
    before = {name: array.tobytes() for name, array in arrays.items()}
    for method in METHODS:
        risk(book, member, 5.0, method)
    correlation(book, member, 5.0)
    assert {name: array.tobytes() for name, array in arrays.items()} == before


def test_a_portfolio_that_was_closed_is_exactly_empty() -> None:
    book = a_market(2, 30, "full", scenarios=120)
    trade(book, 2, 200)
    for member in range(30):
        change(book, member, -book.weights[member])
    assert not book.weights.any()
    assert not book.sigma_w.any()
    assert not book.scenario_pnl.any()
    assert not book.totals.any()
    assert risk(book, *AS_IT_IS) == 0.0
    assert risk(book, *AS_IT_IS, HISTORICAL) == 0.0
    assert risk(book, *AS_IT_IS, CORNISH_FISHER) == 0.0


def test_no_dust_is_left_of_a_position_closed_in_steps() -> None:
    book = a_book(np.diag([4e-4, 1e-4]), [0.0, 0.0])
    for step in (0.1, 0.2, -0.3):
        change(book, 0, step)
    assert 0.1 + 0.2 - 0.3 != 0.0
    assert book.weights[0] == 0.0
    assert correlation(book, 1, 1.0) == 0.0


def test_a_position_much_smaller_than_another_is_no_dust() -> None:
    book = a_book(np.diag([4e-4, 1e-4]), [1e12, 0.0])
    change(book, 1, 1e-6)
    assert book.weights[1] == 1e-6
    assert book.totals[HELD] == 2


def test_a_dominating_position_that_was_closed_leaves_no_trace() -> None:
    book = a_market(4, 50, "diagonal too", scenarios=120)
    position(book, 4, "mixed")
    change(book, 7, -book.weights[7])
    never = a_book(book.covariance, book.weights, book.scenarios)
    change(book, 7, 1e15)
    change(book, 7, -1e15)
    np.testing.assert_array_equal(book.sigma_w, never.sigma_w)
    np.testing.assert_array_equal(book.scenario_pnl, never.scenario_pnl)
    np.testing.assert_array_equal(book.totals, never.totals)


def test_all_is_calculated_anew_after_4096_changes() -> None:
    book = a_market(5, 6, "full", scenarios=110)
    rng = np.random.default_rng(5)
    for k in range(4095):
        change(book, k % 6, float(rng.normal()))
    assert book.totals[UPDATES] == 4095
    before = a_book(book.covariance, book.weights, book.scenarios)
    assert (before.scenario_pnl != book.scenario_pnl).any()  # rounding had built up
    change(book, 0, 1.5)
    after = a_book(book.covariance, book.weights, book.scenarios)
    np.testing.assert_array_equal(book.sigma_w, after.sigma_w)
    np.testing.assert_array_equal(book.scenario_pnl, after.scenario_pnl)
    np.testing.assert_array_equal(book.totals, after.totals)
    assert book.totals[UPDATES] == 0


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.999])
def test_parametric_value_at_risk_is_the_normal_quantile_of_the_loss(confidence: float) -> None:
    book = a_market(6, 25, "diagonal too")
    position(book, 6, "mixed")
    deviation = math.sqrt(exact_variance(book.covariance, book.weights)[0])
    wanted = stats.norm(loc=0.0, scale=deviation).isf(1.0 - confidence)
    assert risk(book, *AS_IT_IS, z=float(stats.norm.ppf(confidence))) == pytest.approx(wanted, rel=1e-12)


def test_a_position_of_a_hundred_thousand_at_two_per_cent_a_day_risks_4653_in_a_hundred_days() -> None:
    book = a_book([[0.0004]], [100_000.0])
    assert risk(book, *AS_IT_IS) == pytest.approx(4652.695748)
    assert risk(book, 0, 100_000.0) == pytest.approx(2 * 4652.695748)
    assert risk(book, 0, -100_000.0) == 0.0


@pytest.mark.parametrize("scenarios", [100, 101, 199, 200, 250, 252, 400, 1000, 1024])
@pytest.mark.parametrize("confidence", [0.75, 0.88, 0.92, 0.95, 0.975, 0.99, 0.995, 0.999])
def test_historical_value_at_risk_is_numpys_inverted_cdf_of_the_losses(scenarios: int, confidence: float) -> None:
    book = a_market(scenarios, 8, "diagonal too", scenarios)
    member = position(book, scenarios, "mixed")
    pnl = book.weights @ book.scenarios + 2e4 * book.scenarios[member]
    # A share that is a whole number of scenarios is one for numpy too.
    share = round(confidence * scenarios, 9) / scenarios
    wanted = np.quantile(-pnl, share, method="inverted_cdf")
    assert wanted > 0.0
    z = float(stats.norm.ppf(confidence))
    assert risk(book, member, 2e4, HISTORICAL, z) == pytest.approx(wanted, rel=1e-12)


def of_losses(losses: Array, sigma: float = 1.0) -> Exposures:
    """A portfolio of one member that loses these in its scenarios."""
    return a_book([[sigma**2]], [1.0], -losses[None, :])


@settings(max_examples=200)
@given(
    st.lists(st.integers(-5, 30), min_size=100, max_size=260),
    st.sampled_from([0.6, 0.9, 0.95, 0.99, 0.999]),
    st.sampled_from(["as drawn", "rising", "falling"]),
)
def test_the_historical_loss_is_exceeded_by_no_more_than_the_tail_and_is_the_least_such(
    values: list[int], confidence: float, order: str
) -> None:
    losses = np.array(values, float)
    if order != "as drawn":
        losses = np.sort(losses) if order == "rising" else np.sort(losses)[::-1]
    got = risk(of_losses(losses), *AS_IT_IS, HISTORICAL, float(stats.norm.ppf(confidence)))
    needed = confidence * losses.size - 1e-6
    assert np.count_nonzero(losses <= got) >= needed
    if got > 0.0:
        assert got in losses
        assert np.count_nonzero(losses < got) < needed


def test_of_a_hundred_scenarios_the_second_largest_loss_is_the_one_at_99_per_cent() -> None:
    losses = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert risk(of_losses(losses), *AS_IT_IS, HISTORICAL) == 99.0


def test_of_250_scenarios_the_third_largest_loss_is_the_one_at_99_per_cent() -> None:
    losses = np.random.default_rng(0).permutation(np.arange(1.0, 251.0))
    assert risk(of_losses(losses), *AS_IT_IS, HISTORICAL) == 248.0


def expansion(skewness: float, excess_kurtosis: float) -> HermiteE:
    """Cornish and Fisher's polynomial in their own terms, Hermite polynomials of the normal quantile."""
    squared = skewness**2 / 36.0
    return HermiteE([0.0, 1.0 - squared, skewness / 6.0, excess_kurtosis / 24.0 - 2.0 * squared])


@settings(max_examples=300)
@given(
    st.integers(-192, 192).map(lambda k: k / 64),
    st.integers(-128, 640).map(lambda k: k / 64),
    st.floats(-4.0, 4.0),
)
def test_the_cornish_fisher_quantile_is_its_polynomial_where_that_rises_up_to_it_and_nan_elsewhere(
    skewness: float, excess_kurtosis: float, z: float
) -> None:
    polynomial = expansion(skewness, excess_kurtosis)
    slopes = polynomial.deriv()(np.linspace(-abs(z), abs(z), 4001))
    assume(abs(slopes.min()) > 1e-3)
    wanted = polynomial(z) if slopes.min() > 0.0 else math.nan
    assert cornish_fisher(z, skewness, excess_kurtosis) == pytest.approx(wanted, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("excess_kurtosis", [-0.4, 0.0, 0.5, 7.9])
def test_without_skewness_an_excess_kurtosis_up_to_8_is_in_the_domain(excess_kurtosis: float) -> None:
    assert math.isfinite(cornish_fisher(Z99, 0.0, excess_kurtosis))


@pytest.mark.parametrize(
    ("skewness", "excess_kurtosis"), [(0.0, -2.0), (0.0, 8.1), (1.5, 1.0), (3.0, 12.0), (7.0, 65.0)]
)
def test_outside_of_the_domain_the_expansion_is_nan(skewness: float, excess_kurtosis: float) -> None:
    assert math.isnan(cornish_fisher(Z99, skewness, excess_kurtosis))
    assert math.isnan(cornish_fisher(Z99, -skewness, excess_kurtosis))


def test_for_a_normal_shape_the_expansion_is_the_normal_quantile() -> None:
    assert cornish_fisher(Z99, 0.0, 0.0) == Z99


# Samples whose shape is well inside the domain, skewed both ways and not at all.
SHAPES: list[tuple[str, Callable[[np.random.Generator], Array]]] = [
    ("student", lambda rng: rng.standard_t(6.0, 400)),
    ("crashes", lambda rng: rng.laplace(size=400) - rng.exponential(1.0, 400)),
    ("jumps up", lambda rng: rng.laplace(size=400) + rng.exponential(1.0, 400)),
    ("laplace", lambda rng: rng.laplace(size=400)),
]


@pytest.mark.parametrize("shape", [draw for _, draw in SHAPES], ids=[name for name, _ in SHAPES])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_cornish_fisher_value_at_risk_has_the_skewness_and_kurtosis_of_the_pnl_with_the_order_in_it(
    shape: Callable[[np.random.Generator], Array], confidence: float
) -> None:
    rng = np.random.default_rng(11)
    returns = 0.01 * np.stack([shape(rng), rng.normal(size=400)])
    book = a_book(np.cov(returns), [900.0, 200.0], returns)
    pnl = np.array([1000.0, 200.0]) @ returns
    quantile = float(stats.norm.ppf(1.0 - confidence))
    lower = expansion(float(stats.skew(pnl)), float(stats.kurtosis(pnl)))(quantile)
    deviation = math.sqrt(np.array([1000.0, 200.0]) @ np.cov(returns) @ np.array([1000.0, 200.0]))
    got = risk(book, 0, 100.0, CORNISH_FISHER, -quantile)
    assert got == pytest.approx(-deviation * lower, rel=1e-9)
    assert got != pytest.approx(-deviation * quantile, rel=1e-3)


def test_crashes_risk_more_than_jumps_up_of_the_same_size() -> None:
    rng = np.random.default_rng(11)
    returns = 0.01 * (rng.laplace(size=400) - rng.exponential(1.0, 400))
    assert stats.skew(returns) < -0.1
    book = a_book([[1e-4]], [0.0], returns[None, :])
    long, short = risk(book, 0, 1e3, CORNISH_FISHER), risk(book, 0, -1e3, CORNISH_FISHER)
    assert long > short > 0.0


def test_cornish_fisher_value_at_risk_of_a_shape_outside_of_the_domain_is_nan() -> None:
    losses = np.zeros(200)
    losses[0] = 1.0
    assert stats.kurtosis(losses) > 8.0
    assert math.isnan(risk(of_losses(losses), *AS_IT_IS, CORNISH_FISHER))
    assert risk(of_losses(losses), *AS_IT_IS, PARAMETRIC) == Z99


@pytest.mark.parametrize("level", [0.0, 0.1, 123.456])
def test_losses_all_the_same_have_no_shape(level: float) -> None:
    assert math.isnan(risk(of_losses(np.full(150, level)), *AS_IT_IS, CORNISH_FISHER))


@pytest.mark.parametrize("method", [HISTORICAL, CORNISH_FISHER])
def test_scenarios_are_too_few_below_a_hundred(method: int) -> None:
    losses = np.random.default_rng(2).standard_t(5.0, 100)
    assert risk(of_losses(losses), *AS_IT_IS, method) > 0.0
    assert math.isnan(risk(of_losses(losses[:99]), *AS_IT_IS, method))
    assert math.isnan(risk(of_losses(losses[:0]), *AS_IT_IS, method))
    assert risk(of_losses(losses[:0]), *AS_IT_IS) == Z99


def test_a_portfolio_that_gains_in_every_scenario_has_a_value_at_risk_of_zero() -> None:
    assert risk(of_losses(-np.arange(1.0, 151.0)), *AS_IT_IS, HISTORICAL) == 0.0


def small_book() -> Exposures:
    rng = np.random.default_rng(8)
    returns = 0.01 * rng.laplace(size=(3, 200))
    return a_book(np.cov(returns), [100.0, -50.0, 80.0], returns)


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_number_a_value_at_risk_depends_on_makes_it_nan_if_it_is_none(method: int, value: float) -> None:
    assert math.isfinite(risk(small_book(), 1, 10.0, method))
    assert math.isnan(risk(small_book(), 1, value, method))
    assert math.isnan(risk(small_book(), 1, 10.0, method, z=value))
    places: list[tuple[str, int | tuple[int, int]]] = [("weights", 1), ("totals", VARIANCE)]
    if method != HISTORICAL:
        places += [("covariance", (1, 1)), ("sigma_w", 1)]
    if method != PARAMETRIC:
        places += [("scenario_pnl", 199), ("scenarios", (1, 0))]
    for name, place in places:
        book = small_book()
        getattr(book, name)[place] = value
        assert math.isnan(risk(book, 1, 10.0, method)), name


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_every_number_a_correlation_depends_on_makes_it_nan_if_it_is_none(value: float) -> None:
    assert math.isfinite(correlation(small_book(), 1, 10.0))
    assert math.isnan(correlation(small_book(), 1, value))
    for name, place in [("covariance", (1, 1)), ("weights", 1), ("sigma_w", 1), ("totals", VARIANCE)]:
        book = small_book()
        getattr(book, name)[place] = value
        assert math.isnan(correlation(book, 1, 10.0)), name


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("name", ["covariance", "weights"])
def test_a_number_that_is_none_in_the_matrix_or_the_weights_makes_all_nan_once_recomputed(
    name: str, value: float
) -> None:
    book = small_book()
    getattr(book, name)[2] = value
    recompute(book)
    for method in METHODS:
        assert math.isnan(risk(book, 0, 10.0, method))
        assert math.isnan(risk(book, *AS_IT_IS, method))
    assert math.isnan(correlation(book, 0, 10.0))


@pytest.mark.parametrize(("member", "delta"), [(0, math.nan), (0, math.inf), (0, -math.inf), (3, 1.0), (-1, 1.0)])
def test_a_change_that_is_none_makes_all_nan_until_the_weights_are_set_right(member: int, delta: float) -> None:
    book = small_book()
    change(book, member, delta)
    for k in range(4200):
        change(book, k % 3, 1.0)
    for method in METHODS:
        assert math.isnan(risk(book, *AS_IT_IS, method))
        assert math.isnan(risk(book, 1, 1.0, method))
    assert math.isnan(correlation(book, 1, 1.0))
    right = small_book()
    book.weights[:] = right.weights
    recompute(book)
    assert risk(book, 1, 1.0) == risk(right, 1, 1.0)


@pytest.mark.parametrize("member", [-2, 3, 2**62])
@pytest.mark.parametrize("method", METHODS)
def test_a_member_that_there_is_not_gives_nan(method: int, member: int) -> None:
    assert math.isnan(risk(small_book(), member, 0.0, method))
    assert math.isnan(risk(small_book(), member, 1.0, method))
    assert math.isnan(correlation(small_book(), member, 1.0))


@pytest.mark.parametrize("method", METHODS)
def test_an_order_of_no_member_and_a_confidence_of_half_or_less_give_nan(method: int) -> None:
    assert math.isfinite(risk(small_book(), *AS_IT_IS, method))
    assert math.isnan(risk(small_book(), -1, 1.0, method))
    assert math.isnan(correlation(small_book(), -1, 1.0))
    assert math.isnan(risk(small_book(), 1, 1.0, method, z=0.0))
    assert math.isnan(risk(small_book(), 1, 1.0, method, z=-Z99))


@pytest.mark.parametrize("method", [-1, 3])
def test_a_method_that_there_is_not_gives_nan(method: int) -> None:
    assert math.isnan(risk(small_book(), 1, 1.0, method))


def test_a_scratch_of_another_length_than_the_scenarios_gives_nan() -> None:
    book = small_book()
    book.scratch = np.zeros(199)
    assert math.isnan(risk(book, 1, 1.0, HISTORICAL))


def test_a_value_at_risk_beyond_the_doubles_is_nan() -> None:
    book = a_book([[1.0]], [1e150])
    assert risk(book, *AS_IT_IS) == pytest.approx(Z99 * 1e150)
    assert math.isnan(risk(book, 0, 1e200))


def test_a_perfect_hedge_has_no_value_at_risk() -> None:
    book = a_book(0.03 * np.outer([0.1, 0.3], [0.1, 0.3]), [3e5, 0.0])
    assert risk(book, *AS_IT_IS) > 1e4
    assert risk(book, 1, -1e5) == pytest.approx(0.0, abs=1e-7 * risk(book, *AS_IT_IS))


def test_a_matrix_that_is_no_covariance_gives_nan_not_zero() -> None:
    book = a_book([[1.0, 2.0], [2.0, 1.0]], [1.0, 0.0])
    assert math.isnan(risk(book, 1, -1.0))
    assert math.isnan(risk(a_book(np.diag([1.0, -1.0]), [1.0, 0.0]), 1, 0.1))
    assert math.isnan(correlation(book, 1, -1.0))  # it would be -2


TWO = np.array([[4e-4, 1.2e-4], [1.2e-4, 1e-4]])  # correlation 0.6


def test_an_order_that_adds_to_the_others_risk_is_correlated_with_them() -> None:
    assert correlation(a_book(TWO, [1000.0, 0.0]), 1, 5.0) == pytest.approx(0.6)
    assert correlation(a_book(TWO, [-1000.0, 0.0]), 1, -5.0) == pytest.approx(0.6)


def test_the_correlation_of_a_hedge_is_negative() -> None:
    assert correlation(a_book(TWO, [1000.0, 0.0]), 1, -5.0) == pytest.approx(-0.6)
    assert correlation(a_book(TWO, [-1000.0, 0.0]), 1, 5.0) == pytest.approx(-0.6)


@given(st.floats(-1e6, 1e6), orders, st.floats(1.0, 1e6))
def test_the_members_own_position_the_orders_size_and_the_others_scale_do_not_count(
    own: float, order: float, scale: float
) -> None:
    wanted = math.copysign(0.6, order)
    assert correlation(a_book(TWO, [scale, own]), 1, order) == pytest.approx(wanted, abs=1e-9)


def test_without_other_exposure_the_correlation_is_zero() -> None:
    assert correlation(a_book(TWO, [0.0, 0.0]), 1, 1.0) == 0.0
    assert correlation(a_book(TWO, [0.0, 1000.0]), 1, 1.0) == 0.0


def test_an_order_of_nothing_is_correlated_with_nothing() -> None:
    assert correlation(a_book(TWO, [1000.0, 0.0]), 1, 0.0) == 0.0


@given(seeds, st.integers(2, 60))
def test_a_member_in_step_with_all_others_is_correlated_by_exactly_one_at_most(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    loading = rng.uniform(0.01, 0.05, n)
    book = a_book(np.outer(loading, loading), rng.uniform(1.0, 1e4, n))
    assert 1.0 - 1e-9 <= correlation(book, 0, 1.0) <= 1.0
    assert -1.0 <= correlation(book, 0, -1.0) <= -1.0 + 1e-9


def test_a_member_without_variance_has_no_correlation() -> None:
    assert math.isnan(correlation(a_book([[4e-4, 0.0], [0.0, 0.0]], [1000.0, 0.0]), 1, 1.0))


def test_others_without_variance_have_no_correlation() -> None:
    assert math.isnan(correlation(a_book([[0.0, 0.0], [0.0, 1e-4]], [1000.0, 0.0]), 1, 1.0))


@given(st.lists(st.floats(0.01, 0.9), min_size=3, max_size=3), st.floats(1.0, 1e6), st.floats(-1e6, 1e6))
def test_others_that_hedge_each_other_perfectly_have_no_correlation(
    loadings: list[float], size: float, own: float
) -> None:
    loading = np.array(loadings)
    book = a_book(np.outer(loading, loading), [size / loading[0], -size / loading[1], own])
    assert math.isnan(correlation(book, 2, 1.0))


def test_a_portfolio_without_members_or_scenarios_has_no_risk_yet() -> None:
    book = Exposures(0, 0)
    recompute(book)
    assert risk(book, *AS_IT_IS) == 0.0
    assert math.isnan(risk(book, 0, 1.0))
