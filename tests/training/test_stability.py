"""The population stability index, and what it is where nothing changed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_training.stability import deciles_of, null_quantile, psi_of


def slow_psi(train: np.ndarray, later: np.ndarray) -> float:
    """By its definition, value by value: bins that end at the train rows' distinct deciles, both ends counted below."""
    edges = sorted({float(np.quantile(train.astype(np.float64), k / 10)) for k in range(1, 10)})

    def shares(values: np.ndarray) -> list[float]:
        counts = [0.5] * (len(edges) + 1)
        for value in values.tolist():
            counts[sum(value > edge for edge in edges)] += 1
        return [count / sum(counts) for count in counts]

    pairs = zip(shares(later), shares(train), strict=True)
    return math.fsum((a - e) * math.log(a / e) for a, e in pairs)


def columns(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


numbers = st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=60)


@given(numbers, numbers)
def test_it_is_its_definition(train: list[float], later: list[float]) -> None:
    before, after = columns(train), columns(later)
    (found,) = psi_of(deciles_of(before), before, after)
    assert found == pytest.approx(slow_psi(before[:, 0], after[:, 0]), abs=1e-12)
    assert found >= 0.0


def test_the_same_rows_have_none_and_a_shift_has_much() -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 3)).astype(np.float32)
    np.testing.assert_array_equal(psi_of(deciles_of(rows), rows, rows), 0.0)
    shifted = rows + np.float32([0.0, 0.5, 3.0])
    nothing, some, much = psi_of(deciles_of(rows), rows, shifted)
    assert nothing == 0.0
    assert 0.2 < some < 1.0 < much


def test_by_hand() -> None:
    train, later = columns([float(k) for k in range(20)]), columns([0.0] * 10)  # two a bin; all in the first
    e, a = 2.5 / 25.0, np.array([10.5, *[0.5] * 9]) / 15.0
    assert psi_of(deciles_of(train), train, later)[0] == pytest.approx(((a - e) * np.log(a / e)).sum())


def test_of_no_later_rows_there_is_none() -> None:
    rows = columns([1.0, 2.0, 3.0])
    assert np.isnan(psi_of(deciles_of(rows), rows, rows[:0])).all()


def test_a_feature_that_never_varies_is_one_bin_until_it_moves() -> None:
    flat = columns([5.0] * 50)
    assert psi_of(deciles_of(flat), flat, flat)[0] == 0.0
    assert psi_of(deciles_of(flat), flat, flat + 1)[0] > 1.0


def test_where_nothing_changed_the_index_stays_below_its_null() -> None:
    random = np.random.default_rng(2)
    train = random.normal(size=(2000, 2)).astype(np.float32)
    bound = null_quantile(train, 100, 0.99, seed=3)
    drawn = [psi_of(deciles_of(train), train, random.normal(size=(100, 2)).astype(np.float32)) for _ in range(200)]
    beyond = (np.array(drawn) > bound).mean(axis=0)
    assert (beyond <= 0.04).all()  # one in a hundred, and what two hundred draws make of it


def test_its_null_allows_for_rows_that_hang_together() -> None:
    random = np.random.default_rng(4)
    steps = random.normal(size=4000)
    slow = np.array([0.0] * 4000)
    for k in range(1, 4000):
        slow[k] = 0.98 * slow[k - 1] + steps[k]
    rows = np.column_stack([slow, random.permutation(slow)]).astype(np.float32)
    together, apart = null_quantile(rows, 400, 0.99, seed=1)
    assert together > 2.0 * apart
    assert (null_quantile(rows, 400, 0.99, seed=1) == [together, apart]).all()
