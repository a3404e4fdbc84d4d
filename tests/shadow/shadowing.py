"""A repository with a shadow that differs in a known way, and what is expected of it, computed the slow way."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.support.packages import publish_logistic

from tickgate_server.journal.entries import DecisionEntry
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.aliases import change_alias
from tickgate_server.models.shadow_record import ShadowRecord, Signals, read_record, record_path
from tickgate_server.shadow.store import Comparisons, read_comparisons

PATIENCE_S = 60.0
# Version 2 answers, version 1 is the shadow: it sees every rise the other way, and is surer.
PRODUCTION = {"version": 2, "weight": 400.0, "bias": 0.0, "decision_threshold": 0.5}
SHADOW = {"version": 1, "weight": -400.0, "bias": 0.8, "decision_threshold": 0.7}
BUDGET = {"latency_budget_ms": 60_000.0}


def publish_both(repository: Path) -> Path:
    """`tiny` with both versions, and no aliases yet."""
    publish_logistic(repository, **PRODUCTION, **BUDGET)
    publish_logistic(repository, **SHADOW, **BUDGET)
    return repository


def set_shadow(repository: Path, version: int | None, expected: int | None = None, name: str = "tiny") -> None:
    change_alias(repository / name, "shadow", version, expected=expected, reason="a test", who="test")


def probability(vector: NDArray[np.float32], model: dict[str, float]) -> float:
    """P(up) of a model above for one vector, in double."""
    return 1.0 / (1.0 + np.exp(-(float(vector[0]) * model["weight"] + model["bias"])))


def decisions_in(journal: Path) -> list[DecisionEntry]:
    with JournalReader(journal) as reader:
        return [entry for entry in reader if isinstance(entry, DecisionEntry)]


@dataclass
class Expected:
    """What comparing one decision after the other gives."""

    decisions: int = 0
    agreed: int = 0
    same_signals: int = 0
    signals: Signals = field(default_factory=Signals)
    shadow_signals: Signals = field(default_factory=Signals)
    differences: tuple[float, ...] = ()
    confidence_differences: tuple[float, ...] = ()


def expected_of(
    entries: Iterable[DecisionEntry], shadow: dict[str, float] = SHADOW, answering: dict[str, float] = PRODUCTION
) -> Expected:
    """Over decisions of the version that answers, from the vectors that the journal has."""
    found = Expected()
    for entry in entries:
        row = entry.row
        if row["status"] or not row["ready"] or entry.model is None or entry.model.version != answering["version"]:
            continue
        up = probability(row["vector"], shadow)
        value, confidence = 2.0 * up - 1.0, max(up, 1.0 - up)
        signal = _signal(row["value"], row["confidence"], answering["decision_threshold"])
        shadow_signal = _signal(value, confidence, shadow["decision_threshold"])
        found.decisions += 1
        found.agreed += (row["value"] > 0.0) == (value > 0.0)
        found.same_signals += signal == shadow_signal
        found.signals += Signals(**{signal: 1})
        found.shadow_signals += Signals(**{shadow_signal: 1})
        found.differences += (abs(value - row["value"]),)
        found.confidence_differences += (abs(confidence - row["confidence"]),)
    return found


def _signal(value: float, confidence: float, threshold: float) -> str:
    if confidence < threshold or value == 0.0:
        return "hold"
    return "buy" if value > 0.0 else "sell"


def wait_until(holds: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)  # a test that spins would take the core that the scorer is to have


def record_of(folder: Path, version: int = 1, name: str = "tiny") -> ShadowRecord:
    found = read_record(folder, name, version)
    return ShadowRecord(name=name, version=version) if found is None else found


def wait_for_compared(folder: Path, decisions: int, version: int = 1, name: str = "tiny") -> ShadowRecord:
    """The record, once so many decisions are in it."""
    wait_until(
        lambda: record_of(folder, version, name).decisions >= decisions,
        f"expected {decisions} compared, found {record_of(folder, version, name)}",
    )
    return record_of(folder, version, name)


def comparisons_of(folder: Path, version: int = 1, name: str = "tiny") -> Comparisons:
    """All that are kept of a version."""
    home = record_path(folder, name, version).parent
    return np.concatenate([*read_comparisons(home, record_of(folder, version, name).stored)])
