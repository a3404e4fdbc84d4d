"""What differs between two versions: what their manifests say, and what they answer to the same vectors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.package import Manifest

RANDOM_ROWS = 10_000
_SEED = 20_260_101  # the same vectors each time, for the same two versions


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that both manifests say; of a metric that one lacks, None."""

    name: str
    first: str | float | None
    second: str | float | None

    @property
    def differs(self) -> bool:
        """Whether they say different things."""
        return self.first != self.second


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """What two versions answer to the same vectors.

    Attributes:
        vectors: Which ones.
        rows: How many.
        mean_abs: Mean of abs(P(up) of the second - P(up) of the first).
        max_abs: The largest.
        same_direction: Share of the rows where both are on the same side of 0.5.
        same_signal: Share where both are on the same side of their own decision threshold, or both below it.
        not_finite: Rows that either gave no finite number for; they are in none of the figures above.
    """

    vectors: str
    rows: int
    mean_abs: float
    max_abs: float
    same_direction: float
    same_signal: float
    not_finite: int


class FeaturesDiffer(ValueError):
    """Two versions take different features, so no vector is one for both.

    Attributes:
        first, second: Their schema ids.
    """

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"expected two versions with the same features, got schema ids {first} and {second}")
        self.first = first
        self.second = second


def facts(first: Manifest, second: Manifest) -> list[Fact]:
    """What the manifests say that is worth a comparison, metrics last."""
    one, two = ({**_told(manifest), **manifest.validation.metrics} for manifest in (first, second))
    return [Fact(name, one.get(name), two.get(name)) for name in dict.fromkeys([*one, *two])]


def outputs(first: LoadedModel, second: LoadedModel) -> list[OutputDifference]:
    """Ask both versions about the golden vectors of both, and about random ones within their training ranges.

    Random: 10,000 rows, each feature uniform between the least minimum and the greatest maximum of the two, the same
    rows each time.

    Raises:
        FeaturesDiffer: They take different features.
    """
    if first.schema_id != second.schema_id:
        raise FeaturesDiffer(first.schema_id, second.schema_id)
    golden = [np.asarray(model.manifest.golden.inputs, np.float32) for model in (first, second)]
    return [
        difference(f"golden vectors of {first.version}", first, second, golden[0]),
        difference(f"golden vectors of {second.version}", first, second, golden[1]),
        difference("random vectors", first, second, _random(first.manifest, second.manifest)),
    ]


def difference(vectors: str, first: LoadedModel, second: LoadedModel, rows: NDArray[np.float32]) -> OutputDifference:
    """Ask both versions about the same rows, float32 [n, width]."""
    answers = np.array([[model.scorer.score(row) for row in rows] for model in (first, second)])
    finite = np.isfinite(answers).all(axis=0)
    one, two = answers[:, finite]
    off = np.abs(two - one)
    signals = [_signal(found, model.threshold) for found, model in ((one, first), (two, second))]
    some = off.size > 0
    return OutputDifference(
        vectors=vectors,
        rows=len(rows),
        mean_abs=float(off.mean()) if some else np.nan,
        max_abs=float(off.max()) if some else np.nan,
        same_direction=float(((one > 0.5) == (two > 0.5)).mean()) if some else np.nan,
        same_signal=float((signals[0] == signals[1]).mean()) if some else np.nan,
        not_finite=int((~finite).sum()),
    )


def _signal(up: NDArray[np.float64], threshold: float) -> NDArray[np.int8]:
    """1 or -1 where the probability of the direction reaches the threshold, else 0."""
    direction = np.where(up > 0.5, 1, -1)
    return np.where(np.maximum(up, 1.0 - up) >= threshold, direction, 0).astype(np.int8)


def _random(first: Manifest, second: Manifest) -> NDArray[np.float32]:
    statistics = [[one.feature_statistics[name] for name in first.features.names] for one in (first, second)]
    low = np.min([[feature.min for feature in of_one] for of_one in statistics], axis=0)
    high = np.max([[feature.max for feature in of_one] for of_one in statistics], axis=0)
    rng = np.random.default_rng(_SEED)
    return rng.uniform(low, high, (RANDOM_ROWS, low.size)).astype(np.float32)


def _told(manifest: Manifest) -> dict[str, str | float | None]:
    verdict = manifest.promotion
    return {
        "created": manifest.created.isoformat(timespec="seconds"),
        "model_sha256": manifest.model_sha256[:16],
        "feature_set": manifest.features.feature_set,
        "schema_id": manifest.features.schema_id,
        "horizon_trades": manifest.output.horizon_trades,
        "decision_threshold": manifest.decision_threshold,
        "latency_budget_ms": manifest.latency_budget_ms,
        "allowed_regimes": ", ".join(manifest.allowed_regimes),
        "data_fingerprint": manifest.data_fingerprint,
        "trials": manifest.validation.trials,
        "verdict": None if verdict is None else "passed" if verdict.passed else "not passed",
        **{check.name.value: check.value for check in (() if verdict is None else verdict.checks)},
    }
