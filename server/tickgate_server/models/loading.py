"""From a package on disk to a model that may serve: checks in order, each naming what failed."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.schema import FeatureSet, FeatureSetUnknown, feature_set
from tickgate_server.models.errors import (
    GoldenMismatch,
    GraphInvalid,
    HashMismatch,
    LatencyOverBudget,
    ManifestInvalid,
    PackageError,
    PackageFileMissing,
    SchemaMismatch,
)
from tickgate_server.models.forest import CompiledForest, NotCompiled, compile_forest
from tickgate_server.models.forest_check import check_against
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest
from tickgate_server.models.remaining import RemainingTimes
from tickgate_server.models.session import Session

GOLDEN_TOLERANCE = 1e-5
# A model is warm after so many runs; a slow one has to make do with what half a second holds, and at least so few.
WARM_UP_RUNS = 200
WARM_UP_NS = 500_000_000
WARM_UP_RUNS_LEAST = 10


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A version that passed every check.

    Attributes:
        manifest: As published.
        features: What it takes; its schema id is the manifest's.
        scorer: What runs it: arrays and a kernel for a tree ensemble, ONNX Runtime for everything else.
        not_compiled: Why ONNX Runtime runs it; empty for a compiled forest.
        warm_up_us_p99: 99th percentile of the warm-up runs, in microseconds.
        inline: Fast enough to run on the thread that reads requests; else a session that has a thread of its own.
        remaining: What its stages take as it serves.
        name, version, schema_id, threshold, horizon_trades, latency_budget_ns: Of the manifest, for the hot path.
    """

    manifest: Manifest
    features: FeatureSet
    scorer: Session | CompiledForest
    not_compiled: str
    warm_up_us_p99: float
    name: str
    version: int
    schema_id: str
    threshold: float
    horizon_trades: int
    latency_budget_ns: int
    inline: bool = True
    remaining: RemainingTimes = field(default_factory=RemainingTimes)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        features: FeatureSet,
        scorer: Session | CompiledForest,
        *,
        not_compiled: str,
        warm_up_us_p99: float,
        inline: bool,
    ) -> "LoadedModel":
        """What passed its checks, with what of the manifest the hot path reads."""
        return cls(
            manifest=manifest,
            features=features,
            scorer=scorer,
            not_compiled=not_compiled,
            warm_up_us_p99=warm_up_us_p99,
            name=manifest.name,
            version=manifest.version,
            schema_id=features.schema_id,
            threshold=manifest.decision_threshold,
            horizon_trades=manifest.output.horizon_trades,
            latency_budget_ns=int(manifest.latency_budget_ms * 1e6),
            inline=inline,
        )

    @property
    def slow_session(self) -> Session | None:
        """What the model's own thread is to run, if it should have one."""
        return None if self.inline or isinstance(self.scorer, CompiledForest) else self.scorer


def load(
    folder: Path, *, inline_limit_us: float = math.inf, clock_ns: Callable[[], int] = perf_counter_ns
) -> LoadedModel:
    """Load the package at `<repository>/<name>/<version>/`.

    In this order: manifest complete, hash, schema id, graph opens with the declared shape, golden vectors reproduced,
    warm-up within the latency budget. A tree ensemble is compiled, and served so only where it equals ONNX Runtime
    and is within the inline limit: its kernel holds the interpreter while it runs, on whichever thread, so that only
    in ONNX Runtime does a huge one leave the others alone.

    Args:
        folder: As above.
        inline_limit_us: A model whose p99 at warm-up is above is not to run on the thread that reads requests.
        clock_ns: What warm-up runs are timed with; where others take the core meanwhile, the thread's own time.

    Raises:
        PackageError: The first check that failed, with the file and why.
    """
    manifest = read_manifest(folder)
    path = folder / MODEL_FILE
    model = read_model(path, manifest)
    features = _features(folder / MANIFEST_FILE, manifest)
    session = Session(path, model, features.width)
    golden = np.asarray(manifest.golden.inputs, np.float32)
    try:
        check_golden(path, session, golden, np.asarray(manifest.golden.outputs))
        scorer, not_compiled = _fastest(model, session, golden, manifest)
        warm_up_us_p99, runs = _warm_up_us_p99(scorer, golden, clock_ns)
        if warm_up_us_p99 > inline_limit_us and scorer is not session:
            not_compiled = f"compiled it took {warm_up_us_p99:.0f} us, over the inline limit of {inline_limit_us:g}"
            scorer = session
            warm_up_us_p99, runs = _warm_up_us_p99(scorer, golden, clock_ns)
    except PackageError:
        raise
    # What a graph's nodes raise as they run shares no base: see `Session`.
    except Exception as error:
        raise GraphInvalid(path, f"it fails as it runs ({error})") from error
    if warm_up_us_p99 > manifest.latency_budget_ms * 1e3:
        raise LatencyOverBudget(
            path,
            f"p99 of {runs} warm-up runs is {warm_up_us_p99:.0f} us, its latency_budget_ms is"
            f" {manifest.latency_budget_ms:g}",
        )
    return LoadedModel.of(
        manifest,
        features,
        scorer,
        not_compiled=not_compiled,
        warm_up_us_p99=warm_up_us_p99,
        inline=warm_up_us_p99 <= inline_limit_us,
    )


def read_model(path: Path, manifest: Manifest) -> bytes:
    """A model's bytes, once: what was hashed is what is opened.

    Raises:
        PackageFileMissing: They cannot be read.
        HashMismatch: They are not those that the manifest was made for.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        raise PackageFileMissing(path, f"cannot be read ({error})") from error
    found = hashlib.sha256(model).hexdigest()
    if found != manifest.model_sha256:
        raise HashMismatch(path, f"sha256 is {found}, the manifest says {manifest.model_sha256}")
    return model


def _features(path: Path, manifest: Manifest) -> FeatureSet:
    said = manifest.features
    try:
        here = feature_set(said.feature_set, said.session_gap_ns)
    except FeatureSetUnknown as error:
        raise SchemaMismatch(path, str(error)) from error
    if here.schema_id != said.schema_id:
        raise SchemaMismatch(path, f"schema id is {said.schema_id}, this server computes {here.schema_id}")
    if here.features != said.names:
        raise ManifestInvalid(path, f"features.names are {said.names}, those of its schema id are {here.features}")
    return here


def check_golden(path: Path, session: Session, inputs: NDArray[np.float32], outputs: NDArray[np.float64]) -> None:
    """Hold a session to golden vectors: within 1e-5, which keeps it on their side of a threshold further off than that.

    Args:
        path: The model's file, for messages.
        session: What is checked.
        inputs: float32 [n, width].
        outputs: P(up) of the source model, float64 [n].

    Raises:
        GoldenMismatch: Names the first row at fault.
    """
    for row, (vector, expected) in enumerate(zip(inputs, outputs, strict=True)):
        got = session.score(vector)
        if not abs(got - expected) <= GOLDEN_TOLERANCE:
            raise GoldenMismatch(path, f"golden vector {row} gives {got!r}, expected {expected!r} within 1e-5")


def _fastest(
    model: bytes, session: Session, golden: NDArray[np.float32], manifest: Manifest
) -> tuple[Session | CompiledForest, str]:
    """What is to run a checked model, and why it is ONNX Runtime where it is."""
    forest = compile_forest(model, session.width)
    if isinstance(forest, NotCompiled):
        return session, forest.reason
    statistics = (manifest.feature_statistics[name] for name in manifest.features.names)
    ranges = np.array([[feature.min, feature.max] for feature in statistics])
    difference = check_against(session, forest, golden, ranges, manifest.decision_threshold)
    return (forest, "") if difference is None else (session, difference)


def _warm_up_us_p99(
    scorer: Session | CompiledForest, inputs: NDArray[np.float32], clock_ns: Callable[[], int]
) -> tuple[float, int]:
    """The percentile, and of how many runs."""
    took_ns: list[int] = []
    until_ns = perf_counter_ns() + WARM_UP_NS
    for run in range(WARM_UP_RUNS):
        vector = inputs[run % len(inputs)]
        if perf_counter_ns() > until_ns and run >= WARM_UP_RUNS_LEAST:
            break
        start_ns = clock_ns()
        scorer.score(vector)
        took_ns.append(clock_ns() - start_ns)
    return float(np.percentile(took_ns, 99)) / 1e3, len(took_ns)
