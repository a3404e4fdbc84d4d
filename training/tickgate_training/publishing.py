"""From a fitted model to a package in the repository: graph, manifest, and the checks before anything is written."""

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.errors import VersionExists
from tickgate_server.models.package import (
    GOLDEN_VECTORS_MINIMUM,
    FeatureSchema,
    FeatureStatistics,
    FundamentalSchema,
    Golden,
    Manifest,
    Output,
    Stability,
    Validation,
    publish,
    versions,
)
from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import TooFewRows
from tickgate_training.export import check_parity, export
from tickgate_training.folds import Fitted
from tickgate_training.metrics import Metrics
from tickgate_training.samples import Samples
from tickgate_training.stability import widest_of_stretches

GOLDEN_ROWS = 128
# A stability index over fewer rows says little, and from fewer stretches nobody knows how large it usually is.
STABILITY_ROWS_LEAST = 100
STABILITY_STRETCHES = 5
DECILES = tuple(k / 10 for k in range(1, 10))
_ATTEMPTS = 10
_LIBRARIES = (
    "tickgate",
    "lightgbm",
    "numba",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "scikit-learn",
    "skl2onnx",
)


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        folder: `<repository>/<name>/<version>`.
        manifest: As it stands there.
        parity_difference: Largest absolute difference between graph and source over all rows that are ready.
        parity_rows: How many those are.
    """

    folder: Path
    manifest: Manifest
    parity_difference: float
    parity_rows: int


def publish_model(
    fitted: Fitted,
    samples: Samples,
    config: TrainingConfig,
    metrics: dict[str, float | int],
    trials: int,
    verdict: PromotionVerdict | None = None,
) -> Published:
    """Export, check on every row, and publish under the next free version.

    Args:
        fitted: The model with calibration and threshold.
        samples: All rows; those that are ready are compared, and some become golden vectors.
        config: Of the run.
        metrics: Walk-forward results; NaN is written as null.
        trials: Configurations that were tried on these data.
        verdict: On the walk-forward; goes into the package.

    Raises:
        ParityBroken: The graph is not the model; nothing is written.
        TooFewRows: Too few rows are ready for golden vectors; nothing is written.
        OSError: The repository cannot be written; nothing is left behind.
    """
    ready = samples.features[samples.ready]
    if len(ready) < GOLDEN_VECTORS_MINIMUM:
        raise TooFewRows("golden vectors", len(ready), GOLDEN_VECTORS_MINIMUM)
    graph = export(fitted.model, fitted.calibration, fitted.primary)
    difference = check_parity(graph, fitted.probabilities, ready, fitted.choice.threshold)
    package = config.package
    for _ in range(_ATTEMPTS):
        number = max(versions(package.repository, package.name), default=0) + 1
        manifest = _manifest(fitted, samples, config, metrics, trials, verdict, graph, number)
        try:
            return Published(publish(package.repository, manifest, graph), manifest, difference, len(ready))
        except VersionExists as error:  # another publisher took the number in between
            taken = error
    raise taken


def _manifest(
    fitted: Fitted,
    samples: Samples,
    config: TrainingConfig,
    metrics: dict[str, float | int],
    trials: int,
    verdict: PromotionVerdict | None,
    graph: bytes,
    number: int,
) -> Manifest:
    schema = samples.feature_set
    described = np.sort(fitted.described_rows)
    statistics = feature_statistics(schema.features, samples.features[described])
    return Manifest(
        name=config.package.name,
        version=number,
        created=datetime.now(UTC),
        model_sha256=hashlib.sha256(graph).hexdigest(),
        features=FeatureSchema(
            feature_set=schema.name,
            schema_id=schema.schema_id,
            names=schema.features,
            session_gap_ns=schema.session_gap_ns,
            fundamentals=tuple(
                FundamentalSchema(name=found.name, maximum_age_ns=found.maximum_age_ns) for found in schema.fundamentals
            ),
        ),
        output=Output(horizon_trades=config.label.horizon_trades),
        decision_threshold=fitted.choice.threshold,
        feature_statistics=statistics,
        stability=stability_of(statistics, samples.features[described], samples.stamps_ns[described]),
        validation=Validation(
            trials=trials, metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()}
        ),
        promotion=verdict,
        latency_budget_ms=config.package.latency_budget_ms,
        allowed_regimes=config.package.allowed_regimes,
        golden=_golden(fitted, samples.features[samples.ready]),
        data_fingerprint=samples.fingerprint,
        libraries={"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
    )


def feature_statistics(names: tuple[str, ...], features: NDArray[np.float32]) -> dict[str, FeatureStatistics]:
    """Each feature over the rows fitted on: float32 [n, width], finite.

    `std` is the population's; `quantiles` are the nine inner deciles (linear interpolation), which coincide where a
    tenth of the rows share a value.
    """
    values = features.astype(np.float64)
    return {
        name: FeatureStatistics(
            mean=float(column.mean()),
            std=float(column.std()),
            min=float(column.min()),
            max=float(column.max()),
            quantiles=tuple(np.quantile(column, DECILES).tolist()),
        )
        for name, column in zip(names, values.T, strict=True)
    }


def stability_of(
    statistics: Mapping[str, FeatureStatistics], features: NDArray[np.float32], stamps_ns: NDArray[np.int64]
) -> Stability | None:
    """What each feature's stability index stayed below, over as many rows as an hour of training usually has.

    Args:
        statistics: Of these rows, in the order of the columns.
        features: Rows fitted on in the order of time, float32 [n, width], finite.
        stamps_ns: Their venue times, int64 [n].

    Returns:
        None: there are too few rows to tell.
    """
    _, in_an_hour = np.unique(stamps_ns // 3_600_000_000_000, return_counts=True)
    rows = min(max(int(np.median(in_an_hour)), STABILITY_ROWS_LEAST), len(features) // STABILITY_STRETCHES)
    if rows < STABILITY_ROWS_LEAST:
        return None
    widest = {
        name: widest_of_stretches(trained, column, rows)
        for (name, trained), column in zip(statistics.items(), features.T, strict=True)
    }
    return Stability(rows=rows, widest=widest)


def _golden(fitted: Fitted, ready: NDArray[np.float32]) -> Golden:
    """Rows spread evenly over the ready ones, with the source model's outputs: not the graph's."""
    chosen = ready[np.linspace(0, len(ready) - 1, min(GOLDEN_ROWS, len(ready))).astype(np.int64)]
    return Golden(
        inputs=tuple(map(tuple, chosen.astype(np.float64).tolist())),
        outputs=tuple(fitted.probabilities(chosen).tolist()),
    )


def walk_forward_metrics(
    gross: Metrics, net: Metrics, accuracy: float, majority_accuracy: float
) -> dict[str, float | int]:
    """Flat names for the manifest: each metric with `net_` or `gross_` before it, what is the same for both once."""
    both = {"round_trips", "turnover", "exposure", "mean_leverage", "periods", "periods_per_year"}
    found: dict[str, float | int] = {"accuracy": accuracy, "majority_accuracy": majority_accuracy}
    for name in Metrics.__dataclass_fields__:
        if name in both:
            found[name] = getattr(net, name)
        elif name != "undefined":
            found[f"net_{name}"] = getattr(net, name)
            found[f"gross_{name}"] = getattr(gross, name)
    return found
