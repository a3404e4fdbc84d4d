"""Contributions of features against Shapley's definition, coalition by coalition."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.forests import Forest, grown

from tickgate_server.explaining.shapley import Leaves, attribute, leaves_of
from tickgate_server.models.forest_trees import Trees, Unsupported


def trees_of(forest: Forest) -> Trees:
    leaves = np.flatnonzero(forest.leaf)
    return Trees(
        forest.tree,
        forest.node,
        forest.leaf,
        forest.feature,
        forest.threshold,
        forest.yes,
        forest.no,
        forest.tree[leaves],
        forest.node[leaves],
        forest.weight[leaves],
    )


def slow_sum(forest: Forest, vector: NDArray[np.float32]) -> float:
    """Tree by tree in double."""
    place = {ids: at for at, ids in enumerate(zip(forest.tree.tolist(), forest.node.tolist(), strict=True))}
    total = 0.0
    for tree in dict.fromkeys(forest.tree.tolist()):
        at = int(np.flatnonzero(forest.tree == tree)[0])
        while not forest.leaf[at]:
            down = forest.yes if vector[forest.feature[at]] <= forest.threshold[at] else forest.no
            at = place[tree, int(down[at])]
        total += float(forest.weight[at])
    return total


def by_definition(forest: Forest, x: NDArray[np.float32], background: NDArray[np.float32]) -> NDArray[np.float64]:
    """phi_i = sum over coalitions S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))."""
    width = x.size

    def worth(coalition: tuple[int, ...]) -> float:
        rows = background.copy()
        rows[:, list(coalition)] = x[list(coalition)]
        return float(np.mean([slow_sum(forest, row) for row in rows]))

    worths = {s: worth(s) for size in range(width + 1) for s in combinations(range(width), size)}
    found = np.zeros(width)
    for i in range(width):
        for s, without in worths.items():
            if i not in s:
                share = factorial(len(s)) * factorial(width - len(s) - 1) / factorial(width)
                found[i] += share * (worths[tuple(sorted((*s, i)))] - without)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))
def test_contributions_are_the_shapley_values_and_add_up_to_margin_less_base(
    seed: int, trees: int, depth: int, width: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    forest = grown(rng, trees, depth, width, points=3)  # few thresholds: values lie on them, and paths ask again
    pool = np.r_[forest.threshold, rng.normal(size=4).astype(np.float32)]
    x, background = rng.choice(pool, width), rng.choice(pool, (rows, width))
    found = attribute(leaves_of(trees_of(forest), width), x, background)
    np.testing.assert_allclose(found.contributions, by_definition(forest, x, background), atol=1e-12)
    assert found.contributions.sum() == pytest.approx(found.margin - found.base, abs=1e-12)
    assert found.margin == pytest.approx(slow_sum(forest, x), abs=1e-12)
    assert found.base == pytest.approx(np.mean([slow_sum(forest, row) for row in background]), abs=1e-12)


def test_by_hand_two_features_that_only_count_together() -> None:
    # 1 where both are above 0, else 0: against (0, 0), each of (1, 1) has half of it.
    both = Leaves(
        feature=np.array([[0, 0], [0, 1], [0, 1]]),
        low=np.array([[-np.inf, -np.inf], [0, -np.inf], [0, 0]], np.float32),
        high=np.array([[0, np.inf], [np.inf, 0], [np.inf, np.inf]], np.float32),
        value=np.array([0.0, 0.0, 1.0]),
        width=2,
    )
    found = attribute(both, np.ones(2, np.float32), np.zeros((1, 2), np.float32))
    assert found.contributions.tolist() == [0.5, 0.5]
    # Against (0, 1) the second makes no difference.
    found = attribute(both, np.ones(2, np.float32), np.array([[0, 1]], np.float32))
    assert found.contributions.tolist() == [1.0, 0.0]


def test_chunks_of_the_background_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    forest = grown(rng, 5, 4, 6)
    leaves = leaves_of(trees_of(forest), 6)
    x, background = rng.normal(size=6).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    whole = attribute(leaves, x, background)
    monkeypatch.setattr("tickgate_server.explaining.shapley._CHUNK_CELLS", 1)
    np.testing.assert_allclose(attribute(leaves, x, background).contributions, whole.contributions, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5), (0, 6), (6,)])
def test_rows_of_another_width_and_no_rows_are_refused(shape: tuple[int, ...]) -> None:
    leaves = leaves_of(trees_of(grown(np.random.default_rng(1), 2, 2, 6)), 6)
    with pytest.raises(ValueError, match="expected"):
        attribute(leaves, np.zeros(6, np.float32), np.zeros(shape, np.float32))


def test_a_forest_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickgate_server.explaining.shapley.NODES_LIMIT", 3)
    with pytest.raises(Unsupported, match="at most 3"):
        leaves_of(trees_of(grown(np.random.default_rng(1), 4, 3, 2)), 2)
