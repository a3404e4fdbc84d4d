"""Comparisons added up, side by side, to what a shadow's record says."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.shadow_record import (
    DIFFERENCE_BOUNDS,
    Comparison,
    Divergence,
    Missed,
    ShadowRecord,
    SideAlias,
    Signals,
)
from tickgate_server.risk.reasons import Action
from tickgate_server.shadow.store import ALIASES, Comparisons

_BOUNDS = np.array(DIFFERENCE_BOUNDS)


class Tally:
    """Adds to what a record says already.

    Attributes:
        comparisons: One for each side, as a record has them.
        missed: As a record has it.
    """

    def __init__(self, record: ShadowRecord) -> None:
        self._sides = {(side.alias, side.version): side for side in record.comparisons}
        self.missed: Counter[Missed] = Counter(record.missed)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Sorted by alias and version."""
        return tuple(self._sides[key] for key in sorted(self._sides))

    def add(self, found: Comparisons) -> None:
        """Add records of `store.COMPARISON`, in the order of their journal."""
        for alias, version in np.unique(found[["alias", "version"]]).tolist():
            rows = found[(found["alias"] == alias) & (found["version"] == version)]
            name: SideAlias = "canary" if ALIASES[alias] == "canary" else "production"
            side = _side(name, version, rows)
            before = self._sides.get((name, version))
            self._sides[name, version] = side if before is None else _together(before, side)


def _side(alias: SideAlias, version: int, rows: Comparisons) -> Comparison:
    agreed = int(rows["agreed"].sum())
    return Comparison(
        alias=alias,
        version=version,
        decisions=rows.size,
        agreed=agreed,
        agreement_share=agreed / rows.size,
        same_signals=int((rows["signal"] == rows["shadow_signal"]).sum()),
        signals=_signals(rows["signal"]),
        shadow_signals=_signals(rows["shadow_signal"]),
        value=_divergence(np.abs(rows["shadow_value"] - rows["value"])),
        confidence=_divergence(np.abs(rows["shadow_confidence"] - rows["confidence"])),
        first_clock_ns=int(rows["clock_ns"].min()),
        last_clock_ns=int(rows["clock_ns"].max()),
    )


def _signals(actions: NDArray[np.uint8]) -> Signals:
    counts = {action: int((actions == action).sum()) for action in (Action.BUY, Action.SELL, Action.HOLD)}
    return Signals(buy=counts[Action.BUY], sell=counts[Action.SELL], hold=counts[Action.HOLD])


def _divergence(differences: NDArray[np.float64]) -> Divergence:
    total = float(differences.sum())
    counts = np.bincount(np.searchsorted(_BOUNDS, differences), minlength=_BOUNDS.size)
    return Divergence(
        mean=total / differences.size, max=float(differences.max()), sum=total, counts=tuple(counts.tolist())
    )


def _together(one: Comparison, other: Comparison) -> Comparison:
    decisions, agreed = one.decisions + other.decisions, one.agreed + other.agreed
    return Comparison(
        alias=one.alias,
        version=one.version,
        decisions=decisions,
        agreed=agreed,
        agreement_share=agreed / decisions,
        same_signals=one.same_signals + other.same_signals,
        signals=one.signals + other.signals,
        shadow_signals=one.shadow_signals + other.shadow_signals,
        value=_added(one.value, other.value),
        confidence=_added(one.confidence, other.confidence),
        first_clock_ns=min(one.first_clock_ns, other.first_clock_ns),
        last_clock_ns=max(one.last_clock_ns, other.last_clock_ns),
    )


def _added(one: Divergence, other: Divergence) -> Divergence:
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    total = one.sum + other.sum
    return Divergence(mean=total / sum(counts), max=max(one.max, other.max), sum=total, counts=counts)
