"""One decision, and what there is to say of it: put together from the log, the limits then in force and the package."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.archive.query import DecisionLog
from tickgate_server.explaining.checks import CheckShown, checks_shown
from tickgate_server.explaining.errors import RequestAmbiguous, RequestUnknown
from tickgate_server.explaining.shapley import Attribution, attribute, leaves_of
from tickgate_server.models.errors import PackageError
from tickgate_server.models.forest_graph import read_graph
from tickgate_server.models.forest_tail import Op, run_tail
from tickgate_server.models.forest_trees import Unsupported
from tickgate_server.models.package import MODEL_FILE, FeatureStatistics, Manifest, read_manifest, sha256

_MARGIN_OPS = {Op.COPY, Op.ADD}  # before what makes log-odds a probability
_SIGMOIDS = {Op.SIGMOID32, Op.SIGMOID64, Op.LOGISTIC32}
_SAME = 1e-5  # the tolerance that a package's golden vectors are held to


@dataclass(frozen=True, slots=True)
class FeatureShown:
    """One feature of the vector.

    Attributes:
        name: The manifest's; `feature 3` where there is none.
        value: As it was scored.
        percentile: Of the training rows, 0 to 1; None: the training statistics are not at hand.
        outside: Below or above all training rows.
        contribution: To the forest's sum; None: no contributions.
    """

    name: str
    value: float
    percentile: float | None
    outside: bool
    contribution: float | None


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the contributions are of.

    Attributes:
        attribution: The sum taken apart.
        log_odds: The sum is one of log-odds; else it is what the trees add up to.
        agrees: The forest gives the recorded prediction again.
    """

    attribution: Attribution
    log_odds: bool
    agrees: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All there is to say of a decision.

    Attributes:
        decision: Its row of the log, by column.
        repeats: How often the same request id was answered again from memory.
        features: In the vector's order.
        checks: In the gate's order; empty: the gate was not reached.
        contributions: Of the features; None: `notes` say why.
        manifest: Of the version that decided; None: `notes` say why.
        notes: What is missing, and why.
    """

    decision: Mapping[str, Any]
    repeats: int
    features: tuple[FeatureShown, ...]
    checks: tuple[CheckShown, ...]
    contributions: Contributions | None
    manifest: Manifest | None
    notes: tuple[str, ...] = field(default=())


def explain(log: DecisionLog, repository: Path, request_id: str, sequence: int | None = None) -> Explanation:
    """Explain the decision of a request.

    Args:
        log: Where it is looked for.
        repository: Of the model packages.
        request_id: The caller's.
        sequence: Of its record, where several requests had the id.

    Raises:
        RequestUnknown: It is not in the log.
        RequestAmbiguous: Several are, and no sequence was given.
        ArchiveError: As `DecisionLog.query`.
        JournalError: As `DecisionLog.query`.
    """
    decision, repeats = find(log, request_id, sequence)
    notes: list[str] = []
    package = _package(repository, decision, notes)
    manifest = None if package is None else package[0]
    vector = np.array(decision["features"] if decision["features"] is not None else [], np.float32)
    contributions = None
    if package is None:
        pass
    elif not decision["scored"]:
        notes.append("no contributions: the model did not score")
    else:
        contributions = _contributions(*package, vector, decision, notes)
    checks = checks_shown(log, decision, manifest, notes)
    return Explanation(
        decision, repeats, _features(vector, manifest, contributions), checks, contributions, manifest, tuple(notes)
    )


def find(log: DecisionLog, request_id: str, sequence: int | None = None) -> tuple[dict[str, Any], int]:
    """The row of a request's decision, and how often it was repeated; raises as `explain`."""
    found = log.table(
        "SELECT * FROM decisions WHERE request_id = ? ORDER BY time, worker, journal_ns, sequence", request_id
    ).to_pylist()
    decided = [row for row in found if not row["repeated"]] or found
    chosen = [row for row in found if row["sequence"] == sequence] if sequence is not None else decided
    if not chosen or not request_id:
        raise RequestUnknown(request_id, sequence)
    if len(chosen) > 1:
        raise RequestAmbiguous(request_id, [row["sequence"] for row in chosen])
    return chosen[0], sum(row["repeated"] for row in found)


def percentile(trained: FeatureStatistics, value: float) -> float:
    """Share of the training rows below a value, 0 to 1, between the manifest's quantiles by straight lines.

    The knots are minimum, quantiles and maximum; a value on which several of them coincide has the middle of their
    shares. NaN for NaN.
    """
    if math.isnan(value):
        return math.nan
    knots = np.array([trained.min, *trained.quantiles, trained.max])
    shares = np.linspace(0.0, 1.0, knots.size)
    left, right = np.searchsorted(knots, value, "left"), np.searchsorted(knots, value, "right")
    if right > left:
        return float(shares[left] + shares[right - 1]) / 2.0
    if left in (0, knots.size):
        return 0.0 if left == 0 else 1.0
    return float(np.interp(value, knots[left - 1 : left + 1], shares[left - 1 : left + 1]))


def _features(
    vector: NDArray[np.float32], manifest: Manifest | None, contributions: Contributions | None
) -> tuple[FeatureShown, ...]:
    shown: list[FeatureShown] = []
    names = manifest.features.names if manifest is not None and len(manifest.features.names) == vector.size else None
    for place, value in enumerate(vector.tolist()):
        name = names[place] if names is not None else f"feature {place}"
        trained = manifest.feature_statistics[name] if manifest is not None and names is not None else None
        added = None if contributions is None else float(contributions.attribution.contributions[place])
        shown.append(
            FeatureShown(
                name,
                value,
                None if trained is None else percentile(trained, value),
                trained is not None and not trained.min <= value <= trained.max,
                added,
            )
        )
    return tuple(shown)


def _package(repository: Path, decision: Mapping[str, Any], notes: list[str]) -> tuple[Manifest, bytes] | None:
    """The package of the version that decided, if it is there and the same."""
    name, version = decision["model"], decision["model_version"]
    if name is None:
        notes.append("no model was found for the request: no training distribution, no contributions")
        return None
    folder = repository / name / str(version)
    try:
        manifest = read_manifest(folder)
        model = (folder / MODEL_FILE).read_bytes()
        found = sha256(folder / MODEL_FILE)
    except (PackageError, OSError) as error:
        notes.append(f"the package of {name}:{version} is not at hand, so no training distribution: {error}")
        return None
    if found != decision["model_sha256"]:
        notes.append(f"{folder} is another model than decided (sha256 {found[:12]}…): nothing of it is shown")
        return None
    return manifest, model


def _contributions(
    manifest: Manifest, model: bytes, vector: NDArray[np.float32], decision: Mapping[str, Any], notes: list[str]
) -> Contributions | None:
    width = len(manifest.features.names)
    if vector.size != width or not np.isfinite(vector).all():
        notes.append(f"no contributions: expected {width} finite features, found {vector.size}")
        return None
    try:
        trees, tail = read_graph(model)
        leaves = leaves_of(trees, width)
    except Unsupported as error:
        notes.append(f"no contributions: they are of tree models, and this one {error}")
        return None
    found = attribute(leaves, vector, np.array(manifest.golden.inputs, np.float32))
    up = run_tail(tail.program, tail.registers, np.float32(found.margin))
    agrees = abs(2.0 * up - 1.0 - decision["value"]) <= 2.0 * _SAME
    if not agrees:
        notes.append(f"the forest gives {2.0 * up - 1.0:.6f} here, {decision['value']:.6f} was recorded")
    first = next((Op(int(row[0])) for row in tail.program if Op(int(row[0])) not in _MARGIN_OPS), None)
    negated = first is Op.NEG  # a classifier's other column
    return Contributions(found, log_odds=first in _SIGMOIDS or negated, agrees=agrees)
