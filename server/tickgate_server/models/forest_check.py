"""Whether a compiled forest says what ONNX Runtime says: asked before it may answer in its place."""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.session import Session

ULP_LIMIT = 1
RANDOM_ROWS = 10_000
# So many rows ONNX Runtime is given one by one too, as in service.
_ONE_BY_ONE = 200
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
    rows = np.concatenate([golden, random_vectors(forest, ranges, random_rows)])
    expected, found = _of_session(session, rows), forest.score_all(rows)
    apart = ~(ulps_apart(found, expected) <= ULP_LIMIT)
    differ = np.flatnonzero(apart | (_decisions(found, threshold) != _decisions(expected, threshold)))
    if not differ.size:
        return None
    row = int(differ[0])
    both = f"gives {float(found[row])!r}, ONNX Runtime {float(expected[row])!r}"
    if not apart[row]:
        both += f", another decision at {threshold!r}"
    return f"{both} for {rows[row].tolist()}"


def _of_session(session: Session, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime gives for each row; all at once, where that is what it gives one by one."""
    together = session.score_all(rows)
    tried = min(len(rows), _ONE_BY_ONE)
    alone = np.array([session.score(row) for row in rows[:tried]], np.float32)
    if np.array_equal(alone, together[:tried], equal_nan=True):
        return together
    return np.array([*alone, *(session.score(row) for row in rows[tried:])], np.float32)


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


def ulps_apart(a: NDArray[np.float32] | float, b: NDArray[np.float32] | float) -> NDArray[np.float64]:
    """Steps between neighbouring float32 values from a to b, element by element; infinite unless both are finite."""
    ranks = []
    for values in (a, b):
        bits = (np.asarray(values, np.float32) + np.float32(0.0)).view(np.int32).astype(np.int64)
        ranks.append(np.where(bits >= 0, bits, -(bits & _INT32_MAX)))
    return np.where(np.isfinite(a) & np.isfinite(b), np.abs(ranks[0] - ranks[1]), np.inf)


def _decisions(p: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """1 long, -1 short, 0 none."""
    wide = p.astype(np.float64)
    acts = np.maximum(wide, 1.0 - wide) >= threshold
    return np.where(acts, np.where(wide >= 0.5, 1, -1), 0)
