import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.costs import Costs
from tickgate_training.errors import ArgumentInvalid

sizes = st.floats(0.0, 1e6)


def test_costs_are_half_spread_fee_and_the_square_root_of_the_share_of_volume() -> None:
    costs = Costs(fee=0.001, impact=0.8)
    found = costs.fractions(
        np.array([4.0, 0.0]), np.array([0.002, 0.003]), np.array([0.05, 0.05]), np.array([16.0, 0.0])
    )
    np.testing.assert_allclose(found, [0.003 + 0.8 * 0.05 * 0.5, 0.004])


@given(sizes, st.floats(0.0, 0.01), st.floats(0.0, 0.1), st.floats(0.1, 1e6), st.floats(0.0, 0.01), st.floats(0.0, 3.0))
def test_they_agree_with_the_formula_row_by_row(
    size: float, half_spread: float, volatility: float, volume: float, fee: float, impact: float
) -> None:
    found = Costs(fee, impact).fractions(*(np.array([x]) for x in (size, half_spread, volatility, volume)))
    assert found[0] == pytest.approx(half_spread + fee + impact * volatility * math.sqrt(size / volume), rel=1e-12)


def test_four_times_the_size_has_twice_the_impact() -> None:
    same = np.full(2, 0.1)
    found = Costs(0.0, 1.0).fractions(np.array([1.0, 4.0]), np.zeros(2), same, np.full(2, 100.0))
    assert found[1] == pytest.approx(2 * found[0])


def test_impact_against_no_volume_is_infinite() -> None:
    found = Costs(0.0, 1.0).fractions(np.ones(1), np.zeros(1), np.full(1, 0.1), np.zeros(1))
    assert np.isposinf(found).all()


@pytest.mark.parametrize(("volatility", "volume"), [(math.nan, 10.0), (0.0, 0.0)])
def test_impact_of_what_is_not_known_is_nan(volatility: float, volume: float) -> None:
    found = Costs(0.0, 1.0).fractions(np.ones(1), np.zeros(1), np.full(1, volatility), np.full(1, volume))
    assert np.isnan(found).all()


def test_a_volume_that_is_not_known_counts_as_none() -> None:
    found = Costs(0.0, 1.0).fractions(np.ones(1), np.zeros(1), np.full(1, 0.1), np.full(1, np.nan))
    assert np.isposinf(found).all()


def test_without_impact_an_unknown_volatility_costs_nothing_extra() -> None:
    found = Costs(0.001).fractions(np.ones(1), np.full(1, 0.002), np.full(1, np.nan), np.zeros(1))
    np.testing.assert_allclose(found, [0.003])


@pytest.mark.parametrize(
    ("fee", "impact", "named"),
    [(math.nan, 0.0, "fee"), (math.inf, 0.0, "fee"), (0.0, -0.1, "impact"), (0.0, math.nan, "impact")],
)
def test_parameters_that_cannot_be_are_refused_by_name(fee: float, impact: float, named: str) -> None:
    with pytest.raises(ArgumentInvalid, match=named) as refused:
        Costs(fee, impact)
    assert refused.value.argument == named
