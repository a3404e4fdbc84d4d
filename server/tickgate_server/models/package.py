"""Model packages on disk: `<repository>/<name>/<version>/` with `model.onnx` and `manifest.json`.

A package is written beside its place and renamed into it, so a half-copied one is never seen. Versions are positive
integers and never change once there. What has a dot before its name is not a version.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from tickgate_server.models.errors import ManifestInvalid, PackageFileMissing, VersionExists
from tickgate_server.models.verdict import PromotionVerdict
from tickgate_server.risk.regimes import RegimeName

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
GOLDEN_VECTORS_MINIMUM = 64
INPUT_NAME = "features"
OUTPUT_NAME = "probability_up"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
# The context of validation for a manifest that another process has checked, and hands over without its golden vectors.
CHECKED = "checked"

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FundamentalSchema(_Strict):
    """A fundamental behind the features of ticks, and how long after its as-of time a value counts."""

    name: str
    maximum_age_ns: int = Field(ge=0, le=2**63 - 1)


class FeatureSchema(_Strict):
    """The features that the model takes, in order.

    `session_gap_ns` is a parameter of the set: 0 means that no silence starts its windows anew. So are the
    `fundamentals` of a set that has them.
    """

    feature_set: str
    schema_id: str
    names: tuple[str, ...]
    dtype: Literal["float32"] = "float32"
    session_gap_ns: int = Field(ge=0)
    fundamentals: tuple[FundamentalSchema, ...] = ()


class Output(_Strict):
    """What the model's one output means.

    `probability_up` is the calibrated P(price higher after `horizon_trades` trades, given that it moves).
    """

    kind: Literal["probability_up"] = "probability_up"
    horizon_trades: int = Field(ge=1)


class FeatureStatistics(_Strict):
    """One feature over the training rows; `quantiles` are the inner edges of equally filled bins."""

    mean: FiniteFloat
    std: FiniteFloat
    min: FiniteFloat
    max: FiniteFloat
    quantiles: tuple[FiniteFloat, ...]


class Stability(_Strict):
    """What the stability index of each feature stayed below in training, over so many rows in a row."""

    rows: int = Field(ge=1)
    widest: dict[str, Annotated[FiniteFloat, Field(ge=0.0)]]


class Validation(_Strict):
    """Walk-forward results, net of costs; what each metric means: `tickgate_training.metrics`.

    A metric that is undefined is null, never a number that hides it.
    """

    trials: int = Field(ge=1)
    metrics: dict[str, FiniteFloat | int | None]


class Golden(_Strict):
    """Inputs and the outputs of the model that was converted, which the converted one must reproduce."""

    inputs: tuple[tuple[FiniteFloat, ...], ...]
    outputs: tuple[Probability, ...]


class Manifest(_Strict):
    """All that a server must know of a model beside its graph.

    `promotion`: whether the walk-forward's figures allow it to be promoted; None: nobody looked. `stability`: without
    it nobody can tell a drift of its features from a usual day.
    """

    format_version: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=NAME)]
    version: int = Field(ge=1)
    created: datetime
    model_sha256: Sha256
    features: FeatureSchema
    output: Output
    decision_threshold: Annotated[float, Field(ge=0.5, le=1.0)]
    feature_statistics: dict[str, FeatureStatistics]
    stability: Stability | None = None
    validation: Validation
    promotion: PromotionVerdict | None = None
    latency_budget_ms: Annotated[FiniteFloat, Field(gt=0.0)] = 50.0
    allowed_regimes: tuple[RegimeName, ...] = ("normal", "trending")
    golden: Golden
    data_fingerprint: str
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _agrees_with_itself(self, info: ValidationInfo) -> "Manifest":
        if info.context == CHECKED:
            return self
        width = len(self.features.names)
        if set(self.feature_statistics) != set(self.features.names):
            raise ValueError("feature_statistics must have one entry for each name in features.names")
        if self.stability is not None and set(self.stability.widest) != set(self.features.names):
            raise ValueError("stability.widest must have one entry for each name in features.names")
        if len(self.golden.inputs) < GOLDEN_VECTORS_MINIMUM:
            raise ValueError(
                f"golden.inputs has {len(self.golden.inputs)} rows, at least {GOLDEN_VECTORS_MINIMUM} needed"
            )
        if len(self.golden.outputs) != len(self.golden.inputs):
            raise ValueError(f"golden has {len(self.golden.inputs)} inputs and {len(self.golden.outputs)} outputs")
        if any(len(row) != width for row in self.golden.inputs):
            raise ValueError(f"each row of golden.inputs must have {width} values")
        return self


def is_name(name: str) -> bool:
    """Whether a model may have this name; no other is looked for on disk."""
    return re.fullmatch(NAME, name) is not None and not name.endswith("\n")


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of the package at `<repository>/<name>/<version>/`.

    Raises:
        PackageFileMissing: There is none, or it cannot be read.
        ManifestInvalid: It is not what `Manifest` describes, or names another model or version than its folder.
    """
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackageFileMissing(path, f"cannot be read ({error})") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()[:5])
        raise ManifestInvalid(path, found) from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise ManifestInvalid(
            path, f"is of {manifest.name}/{manifest.version}, its folder is {folder.parent.name}/{folder.name}"
        )
    return manifest


def versions(repository: Path, name: str) -> list[int]:
    """Versions of a model on disk, ascending, fit to serve or not; empty where there are none."""
    folder = repository / name
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"[1-9]\d{0,9}", path.name)
    )


def publish(repository: Path, manifest: Manifest, model: bytes) -> Path:
    """Write a package beside its place and rename it into it; returns its folder.

    Raises:
        ValueError: The manifest's hash is not that of `model`.
        VersionExists: That version is there already.
        OSError: The repository cannot be written; nothing is left behind.
    """
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise ValueError("manifest.model_sha256 is not the hash of the model's bytes")
    folder = repository / manifest.name / str(manifest.version)
    if folder.exists():
        raise VersionExists(folder)
    beside = folder.parent / f".incoming-{uuid.uuid4().hex}"
    beside.mkdir(parents=True)
    try:
        _write_durably(beside / MODEL_FILE, model)
        # One line a top-level key: diffable, and not a line for each number of the golden vectors.
        document = manifest.model_dump(mode="json")
        lines = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in document.items()
        )
        _write_durably(beside / MANIFEST_FILE, f"{{\n{lines}\n}}\n".encode())
        try:
            beside.rename(folder)  # fails where another publisher was first: its folder is not empty
        except OSError as error:
            if folder.exists():
                raise VersionExists(folder) from error
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
