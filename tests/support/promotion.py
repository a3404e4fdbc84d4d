"""What a promotion looks at, made by hand: verdicts of training, and what a version has shown as a shadow."""

from bisect import bisect_left
from pathlib import Path

from tickgate_server.models.shadow_record import (
    DIFFERENCE_BOUNDS,
    Comparison,
    Divergence,
    ShadowRecord,
    Signals,
    shadow_folder,
    write_record,
)
from tickgate_server.models.verdict import CHECKS, PromotionVerdict, check, judge


def verdict(**values: float) -> PromotionVerdict:
    """One that passes, but for the figures that are given by the check's name; each limit is 1."""
    return judge(tuple(check(name, values.get(name.value, 1.0), 1.0) for name in CHECKS), trials=3)


def shown(
    journal: Path,
    name: str,
    version: int,
    *,
    against: int = 1,
    decisions: int = 100,
    agreed: int = 90,
    difference: float = 0.1,
) -> None:
    """Have a version's record as the shadow of another say this, each value being as far off as the others."""
    off = Divergence(
        mean=difference,
        max=difference,
        sum=difference * decisions,
        counts=tuple(
            decisions if place == bisect_left(DIFFERENCE_BOUNDS, difference) else 0
            for place in range(len(DIFFERENCE_BOUNDS))
        ),
    )
    side = Comparison(
        alias="production",
        version=against,
        decisions=decisions,
        agreed=agreed,
        agreement_share=agreed / decisions,
        same_signals=agreed,
        signals=Signals(hold=decisions),
        shadow_signals=Signals(hold=decisions),
        value=off,
        confidence=off,
        first_clock_ns=1,
        last_clock_ns=2,
    )
    write_record(shadow_folder(journal), ShadowRecord(name=name, version=version, comparisons=(side,)))
