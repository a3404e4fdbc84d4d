"""Schedules, against the published example of Almgren and Chriss (2000) and values worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_client.execution import AlmgrenChriss, Schedule, at_once, twap, vwap

# R. Almgren and N. Chriss, "Optimal execution of portfolio transactions", Journal of Risk 3 (2000), section 3's
# parameters: a million shares at 50 $, 5 days, 5 parts; 30 % annual volatility; half the spread of 1/8; one spread for
# 1 % of the daily volume of 5 million shares; and as much permanently for 10 % of it.
SHARES, DAYS, PARTS = 1e6, 5.0, 5


def model(risk_aversion: float) -> AlmgrenChriss:
    return AlmgrenChriss(
        volatility=0.95,
        permanent_impact=2.5e-7,
        temporary_impact=2.5e-6,
        fixed_cost=0.0625,
        risk_aversion=risk_aversion,
    )


def test_the_published_example_decays_at_the_published_rate() -> None:
    assert model(1e-6).kappa(1.0) == pytest.approx(0.61, abs=0.005)
    assert math.cosh(model(1e-6).kappa(1.0)) - 1.0 == pytest.approx(0.5 * 1e-6 * 0.95**2 / 2.375e-6, rel=1e-12)


@pytest.mark.parametrize(
    ("risk_aversion", "cost", "variance", "half_life"),
    # Millions, and days: the tables that the DRIP library prints for these parameters (its AlmgrenChriss report).
    [(1e-9, 0.6625, 1.0812, 51.30), (4e-9, 0.6625, 1.0758, 25.65), (9e-9, 0.6626, 1.0669, 17.10)],
)
def test_another_implementation_gives_the_same_cost_variance_and_half_life(
    risk_aversion: float, cost: float, variance: float, half_life: float
) -> None:
    found = model(risk_aversion)
    held = found.holdings(SHARES, DAYS, PARTS)
    assert found.expected_cost(held, DAYS) / 1e6 == pytest.approx(cost, abs=6e-5)
    assert found.variance(held, DAYS) / 1e12 == pytest.approx(variance, abs=6e-5)
    assert 1.0 / found.kappa(1.0) == pytest.approx(half_life, abs=6e-3)


def test_without_risk_aversion_it_is_twap_and_costs_what_the_paper_says_of_constant_trading() -> None:
    found = model(0.0)
    held = found.holdings(SHARES, DAYS, PARTS)
    assert held == pytest.approx([1e6, 8e5, 6e5, 4e5, 2e5, 0.0])
    # gamma X^2 / 2 + epsilon X + (eta - gamma tau / 2) X^2 / T, and sigma^2 X^2 T (1 - 1/N) (1 - 1/(2N)) / 3.
    assert found.expected_cost(held, DAYS) == pytest.approx(0.125e6 + 0.0625e6 + 2.375e-6 * 1e12 / 5)
    assert found.variance(held, DAYS) == pytest.approx(0.95**2 * 1e12 * 5 / 3 * 0.8 * 0.9)


@given(st.floats(1e-8, 1e-4), st.integers(2, 40))
def test_cost_and_variance_of_a_trajectory_are_the_closed_forms_of_the_paper(risk_aversion: float, parts: int) -> None:
    found = model(risk_aversion)
    held = found.holdings(SHARES, DAYS, parts)
    tau = DAYS / parts
    kappa = found.kappa(tau)
    whole, part = kappa * DAYS, kappa * tau
    eta_tilde = 2.5e-6 - 2.5e-7 * tau / 2
    cost = (
        0.5 * 2.5e-7 * SHARES**2
        + 0.0625 * SHARES
        + eta_tilde
        * SHARES**2
        * math.tanh(part / 2)
        * (tau * math.sinh(2 * whole) + 2 * DAYS * math.sinh(part))
        / (2 * tau**2 * math.sinh(whole) ** 2)
    )
    variance = (
        0.5
        * 0.95**2
        * SHARES**2
        * (tau * math.sinh(whole) * math.cosh(kappa * (DAYS - tau)) - DAYS * math.sinh(part))
        / (math.sinh(whole) ** 2 * math.sinh(part))
    )
    assert found.expected_cost(held, DAYS) == pytest.approx(cost, rel=1e-6)
    assert found.variance(held, DAYS) == pytest.approx(variance, rel=1e-6)


@given(st.floats(1e-7, 1e-4), st.integers(0, 3), st.floats(-0.02, 0.02))
def test_no_trajectory_beside_it_is_better(risk_aversion: float, at: int, moved: float) -> None:
    found = model(risk_aversion)
    held = found.holdings(SHARES, DAYS, PARTS)
    other = list(held)
    other[at + 1] += moved * SHARES

    def utility(path: list[float]) -> float:
        return found.expected_cost(path, DAYS) + risk_aversion * found.variance(path, DAYS)

    assert utility(other) >= utility(held) * (1.0 - 1e-12)


def test_an_urgent_order_does_not_overflow_and_is_traded_at_once() -> None:
    held = model(1e6).holdings(SHARES, DAYS, PARTS)
    assert held == [1e6, pytest.approx(0.0, abs=1.0), *[pytest.approx(0.0, abs=1e-3)] * 4]


def test_parts_too_long_for_the_permanent_impact_are_refused() -> None:
    with pytest.raises(ValueError, match=r"temporary_impact is 2.5e-06, must be above permanent_impact x tau / 2"):
        model(1e-6).holdings(SHARES, 200.0, 5)


def test_twap_is_equal_parts_at_equal_times() -> None:
    found = twap(1.0, 1_000, 4, lot=0.01)
    assert [(one.at_ns, one.size) for one in found.slices] == [(0, 0.25), (250, 0.25), (500, 0.25), (750, 0.25)]


def test_what_does_not_divide_goes_where_the_running_sum_passes_the_next_lot() -> None:
    found = twap(5.0, 30, 3, lot=1.0)
    assert found.cumulative == (1.0, 3.0, 5.0)
    assert [one.at_ns for one in twap(1.0, 40, 4, lot=1.0).slices] == [30]


def test_vwap_follows_the_profile_and_leaves_empty_parts_out() -> None:
    found = vwap(10.0, 40, [1.0, 0.0, 3.0, 1.0], lot=1.0)
    assert [(one.at_ns, one.size) for one in found.slices] == [(0, 2.0), (20, 6.0), (30, 2.0)]


def test_almgren_chriss_trades_more_early() -> None:
    found = model(1e-6).schedule(SHARES, DAYS, 5_000, PARTS, lot=1.0)
    sizes = [one.size for one in found.slices]
    assert sizes == sorted(sizes, reverse=True)
    assert [one.at_ns for one in found.slices] == [0, 1_000, 2_000, 3_000, 4_000]
    assert found.cumulative[-1] == SHARES


SCHEDULES = st.builds(
    vwap,
    st.floats(1e-3, 1e6),
    st.integers(0, 10**12),
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12).filter(lambda profile: sum(profile) > 0.0),
    lot=st.sampled_from([1e-8, 1e-3, 1.0]),
)


@given(SCHEDULES)
def test_what_is_due_grows_to_exactly_the_size(found: Schedule) -> None:
    last = found.slices[-1].at_ns
    dues = [found.due(one.at_ns) for one in found.slices]
    assert dues == sorted(dues) == list(found.cumulative)
    assert found.due(last) == found.due(10**18) == found.cumulative[-1]
    assert found.due(-1) == 0.0
    assert math.fsum(one.size for one in found.slices) == pytest.approx(found.cumulative[-1], rel=1e-9)


def test_the_next_slice_is_told_and_none_after_the_last() -> None:
    found = twap(2.0, 100, 2)
    assert (found.next_ns(-1), found.next_ns(0), found.next_ns(50)) == (0, 50, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: at_once(0.0),
        lambda: at_once(math.nan),
        lambda: twap(1.0, 100, 0),
        lambda: twap(1.0, -1, 2),
        lambda: twap(1.0, 100, 2, lot=0.0),
        lambda: vwap(1.0, 100, [0.0, 0.0]),
        lambda: vwap(1.0, 100, [1.0, -1.0]),
        lambda: vwap(1.0, 100, [math.nan]),
        lambda: model(-1.0),
        lambda: model(math.nan),
    ],
)
def test_what_is_no_schedule_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()  # type: ignore[operator]
