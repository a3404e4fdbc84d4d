"""Impact of the paper venue, against training's costs and against values worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_client.execution.impact import impact_fraction, largest_within, next_fraction
from tickgate_training.costs import Costs

SIZES = st.floats(0.0, 1e9)
VOLATILITIES = st.one_of(st.floats(0.0, 1.0), st.just(math.nan))
# Below it a size over a volume is no number any more, of which numpy warns.
VOLUMES = st.one_of(st.just(0.0), st.floats(1e-9, 1e9))
YS = st.one_of(st.just(0.0), st.floats(0.01, 3.0))


@given(SIZES, VOLATILITIES, VOLUMES, YS)
def test_client_and_training_have_one_square_root_law(size: float, volatility: float, volume: float, y: float) -> None:
    theirs = Costs(fee=0.0, impact=y).fractions(*(np.array([x]) for x in (size, 0.0, volatility, volume)))[0]
    np.testing.assert_array_equal(impact_fraction(size, volatility, volume, y), theirs)


def test_a_quarter_of_the_volume_costs_half_the_volatility() -> None:
    assert impact_fraction(25.0, 0.02, 100.0, 1.0) == pytest.approx(0.01)


def test_against_no_volume_it_is_infinite_and_without_a_volatility_unknown() -> None:
    assert impact_fraction(1.0, 0.02, 0.0, 1.0) == math.inf
    assert math.isnan(impact_fraction(1.0, math.nan, 100.0, 1.0))
    assert math.isnan(impact_fraction(1.0, 0.0, 0.0, 1.0))
    assert impact_fraction(1.0, math.nan, 0.0, 0.0) == 0.0


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8))
def test_an_order_filled_in_pieces_pays_what_the_law_says_of_the_whole(parts: list[float]) -> None:
    paid, before = 0.0, 0.0
    for part in parts:
        paid += part * next_fraction(before, part, 0.02, 100.0, 1.0)
        before += part
    assert paid == pytest.approx(before * impact_fraction(before, 0.02, 100.0, 1.0), rel=1e-9)


@given(st.floats(0.0, 0.02), st.floats(0.0, 50.0), st.floats(0.1, 100.0))
def test_the_largest_size_within_a_limit_is_within_it_and_a_little_more_is_not(
    fraction: float, before: float, most: float
) -> None:
    size = largest_within(fraction, before, most, 0.02, 100.0, 1.0)
    assert 0.0 <= size <= most
    if size > 0.0:
        assert next_fraction(before, size, 0.02, 100.0, 1.0) <= fraction
    if size < most:
        more = size + most * 1e-6
        assert next_fraction(before, more, 0.02, 100.0, 1.0) > fraction


def test_nothing_fits_where_the_impact_is_unknown() -> None:
    assert largest_within(0.5, 0.0, 1.0, math.nan, 100.0, 1.0) == 0.0
    assert largest_within(math.nan, 0.0, 1.0, 0.02, 100.0, 1.0) == 0.0
