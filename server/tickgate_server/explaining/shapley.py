"""What each feature added to a forest's sum: exact interventional TreeSHAP.

Of S. M. Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature
Machine Intelligence 2 (2020), 56-67, the interventional ("independent") form: the Shapley values of the game
v(S) = mean over the background rows z of f(x on S, z elsewhere). It needs rows to compare with and nothing else; the
path-dependent form needs how many training rows came through each node, which ONNX does not carry.

For one x and one z a leaf is reached by exactly those S that hold all features A which only x leads there by, and none
of the features B which only z does; a feature by which neither does makes it unreachable. In that game each of A has
the value (|A| - 1)! |B|! / (|A| + |B|)! times the leaf, each of B minus |A|! (|B| - 1)! / (|A| + |B|)! times it
(the same paper's supplement; Shapley's formula for a unanimity game with opponents).
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.forest_trees import Trees, refuse

NODES_LIMIT = 1_000_000
_CHUNK_CELLS = 4_000_000  # of background rows x leaves x features on a path, at once


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Every leaf as the box of its path: it is reached if low < x[feature] <= high holds for each of its features.

    Attributes:
        feature: int64 [leaves, depth]; what is beyond a path's own features is 0 with a box that holds everything.
        low, high: float32 [leaves, depth].
        value: float64 [leaves]: what it adds.
        width: Number of features.
    """

    feature: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    value: NDArray[np.float64]
    width: int

    def holds(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each condition of each leaf holds for rows float32 [n, width]: bool [n, leaves, depth]."""
        values = rows[:, self.feature]
        return np.asarray((values > self.low) & (values <= self.high))


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """The sum of a forest's trees for one vector, taken apart.

    Attributes:
        margin: The sum for the vector.
        base: The mean sum over the background.
        contributions: float64 [width]; they add up to margin - base.
        background: Rows compared with.
    """

    margin: float
    base: float
    contributions: NDArray[np.float64]
    background: int


def leaves_of(trees: Trees, width: int) -> Leaves:
    """The leaves of an ensemble.

    Args:
        trees: As `forest_graph.read_graph` gives them.
        width: Number of features.

    Raises:
        Unsupported: More than `NODES_LIMIT` nodes, or a node that is not there.
    """
    if trees.node.size > NODES_LIMIT:
        refuse(f"{trees.node.size:,} nodes, at most {NODES_LIMIT:,} are taken apart")
    ids = list(zip(trees.tree.tolist(), trees.node.tolist(), strict=True))
    place = {found: at for at, found in enumerate(ids)}
    weights = dict(
        zip(
            zip(trees.weight_tree.tolist(), trees.weight_node.tolist(), strict=True), trees.weight.tolist(), strict=True
        )
    )
    leaf, feature, threshold = trees.leaf.tolist(), trees.feature.tolist(), trees.threshold.tolist()
    yes, no = trees.yes.tolist(), trees.no.tolist()
    roots = np.flatnonzero(np.r_[True, trees.tree[1:] != trees.tree[:-1]]).tolist()
    paths: list[dict[int, tuple[float, float]]] = []
    values: list[float] = []
    left: list[tuple[int, dict[int, tuple[float, float]]]] = [(root, {}) for root in roots]
    everything = (-np.inf, np.inf)
    while left:
        at, path = left.pop()
        if leaf[at]:
            paths.append(path)
            values.append(weights[ids[at]])
            continue
        low, high = path.get(feature[at], everything)
        tree = ids[at][0]
        try:
            down = place[tree, yes[at]], place[tree, no[at]]
        except KeyError:
            refuse("its trees name a node that is not there")
        left.append((down[0], path | {feature[at]: (low, min(high, threshold[at]))}))
        left.append((down[1], path | {feature[at]: (max(low, threshold[at]), high)}))
    depth = max(1, *map(len, paths))
    shape = (len(paths), depth)
    found = Leaves(
        np.zeros(shape, np.int64),
        np.full(shape, -np.inf, np.float32),
        np.full(shape, np.inf, np.float32),
        np.array(values, np.float64),
        width,
    )
    for row, path in enumerate(paths):
        for column, (of, (low, high)) in enumerate(path.items()):
            found.feature[row, column], found.low[row, column], found.high[row, column] = of, low, high
    return found


def attribute(leaves: Leaves, vector: NDArray[np.float32], background: NDArray[np.float32]) -> Attribution:
    """Take the forest's sum for one vector apart; exact but for the rounding of float64.

    Args:
        leaves: Of the forest.
        vector: float32 [width], finite.
        background: float32 [n, width], finite, n >= 1.

    Raises:
        ValueError: Another number of features, or no background.
    """
    if vector.shape != (leaves.width,) or background.ndim != 2 or background.shape[1:] != vector.shape:
        raise ValueError(f"expected a vector and rows of {leaves.width} features")
    if not len(background):
        raise ValueError("expected at least one row of background")
    here = leaves.holds(vector[None])[0]
    count, depth = leaves.feature.shape
    with_x, with_z = _weights(depth)
    shares = np.zeros((count, depth))
    base = 0.0
    step = max(1, _CHUNK_CELLS // (count * depth))
    for first in range(0, len(background), step):
        there = leaves.holds(background[first : first + step])
        only_x, only_z = here & ~there, ~here & there
        reachable = (here | there).all(axis=2)
        a, b = only_x.sum(axis=2), only_z.sum(axis=2)
        value = np.where(reachable, leaves.value, 0.0)
        shares += np.einsum("nl,nld->ld", value * with_x[a, b], only_x)
        shares -= np.einsum("nl,nld->ld", value * with_z[a, b], only_z)
        base += float(there.all(axis=2).sum(axis=0) @ leaves.value)
    contributions = np.bincount(leaves.feature.reshape(-1), shares.reshape(-1), minlength=leaves.width)
    rows = len(background)
    return Attribution(float(leaves.value[here.all(axis=1)].sum()), base / rows, contributions / rows, rows)


def _weights(depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By |A| and |B|: (|A| - 1)! |B|! / (|A| + |B|)! and |A|! (|B| - 1)! / (|A| + |B|)!; 0 without any."""
    of_x, of_z = np.zeros((depth + 1, depth + 1)), np.zeros((depth + 1, depth + 1))
    for a in range(depth + 1):
        for b in range(depth + 1):
            if a:
                of_x[a, b] = 1.0 / (a * comb(a + b, a))
            if b:
                of_z[a, b] = 1.0 / (b * comb(a + b, b))
    return of_x, of_z
