"""Whether a compiled forest says what ONNX Runtime says: asked before it may answer in its place."""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.session import Session

ULP_LIMIT = 1
RANDOM_ROWS = 10_000
_SEED = 20240229
_INT32_MAX = 0x7FFFFFFF


def check_against(
    session: Session,
    forest: CompiledForest,
    golden: NDArray[np.float32],
    ranges: NDArray[np.float64],
    threshold: float,
    random_rows: int = RANDOM_ROWS,
) -> str | None:
    """Compare both on golden vectors and random rows; the first difference in words, None where there is none.

    They agree where the outputs are finite, within one unit in the last place of float32, and lead to one decision.

    Args:
        session: The graph in ONNX Runtime.
        forest: The same graph, compiled.
        golden: Golden vectors, float32 [n, width].
        ranges: Each feature's smallest and largest value in training, float64 [width, 2].
        threshold: On the confidence max(p, 1 - p).
        random_rows: How many to draw, always the same ones.
    """
    for vector in np.concatenate([golden, random_vectors(forest, ranges, random_rows)]):
        expected, found = session.score(vector), forest.score(vector)
        if not ulps_apart(found, expected) <= ULP_LIMIT:
            return f"gives {found!r}, ONNX Runtime {expected!r} for {vector.tolist()}"
        if _decision(found, threshold) != _decision(expected, threshold):
            return (
                f"gives {found!r}, ONNX Runtime {expected!r}, another decision at {threshold!r} for {vector.tolist()}"
            )
    return None


def random_vectors(forest: CompiledForest, ranges: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """Rows within and a tenth beyond the ranges; in every second one, features lie at splits or one float beside.

    Returns:
        float32 [count, width], finite.
    """
    rng = np.random.default_rng(_SEED)
    limit = np.finfo(np.float32).max
    low, high = ranges.T
    margin = 0.1 * (high - low)
    drawn = rng.uniform(0.0, 1.0, (count, forest.width)) * (high - low + 2.0 * margin) + (low - margin)
    rows: NDArray[np.float32] = np.clip(drawn, -limit, limit).astype(np.float32)
    # In such a row each feature lies at a split with probability 0.8.
    at_split = (rng.random((count, forest.width)) < 0.8) & (np.arange(count) % 2 == 1)[:, None]
    for feature, splits in enumerate(forest.thresholds()):
        chosen = np.flatnonzero(at_split[:, feature])
        if not splits.size:
            continue
        points = rng.choice(splits, chosen.size)
        towards = rng.choice(np.array([-limit, 0.0, limit], np.float32), chosen.size)
        rows[chosen, feature] = np.where(towards == 0.0, points, np.nextafter(points, towards))
    return rows


def ulps_apart(a: float, b: float) -> float:
    """Steps between neighbouring float32 values from a to b; infinite unless both are finite."""
    if not (np.isfinite(a) and np.isfinite(b)):
        return float("inf")
    ranks = []
    for value in (a, b):
        bits = int((np.float32(value) + np.float32(0.0)).view(np.int32))
        ranks.append(bits if bits >= 0 else -(bits & _INT32_MAX))
    return float(abs(ranks[0] - ranks[1]))


def _decision(p: float, threshold: float) -> int:
    """1 long, -1 short, 0 none."""
    if not max(p, 1.0 - p) >= threshold:
        return 0
    return 1 if p >= 0.5 else -1
