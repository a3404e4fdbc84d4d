"""May this version become production? The rules, in one place for the server, the command line and retraining.

Two sources are held against limits: training's verdict in the package (`models.verdict`), and what the version has
shown as a shadow (`models.shadow_record`). A rule that promotion needs and that did not pass refuses it, with the rule
and its figure; what is missing has not passed. Only a person's override, with a reason, goes past a refusal.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from tickgate_server.models.errors import ModelError
from tickgate_server.models.package import Manifest
from tickgate_server.models.shadow_record import ShadowRecord, ShadowRecordInvalid, read_shadow_record
from tickgate_server.models.verdict import CHECKS, CheckName

VERDICT = "verdict"
SHADOW_RECORD = "shadow_record"
SHADOW_DECISIONS = "shadow_decisions"
SHADOW_AGREEMENT = "shadow_agreement"
SHADOW_DIVERGENCE = "shadow_divergence"

_Share = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]


class PromotionLimits(BaseModel):
    """What a shadow must have shown before it may be promoted; training's limits are in its verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shadow_decisions: Annotated[int, Field(ge=0)] = 0
    """Least decisions that a version must have scored as the shadow of what is production; 0: it need not."""
    shadow_agreement: _Share = 0.0
    """Least share of them with production's direction."""
    shadow_divergence: Annotated[FiniteFloat, Field(ge=0.0, le=2.0)] = 2.0
    """Largest mean absolute difference between the two values, each in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One figure held against its limit.

    Attributes:
        name: Of the rule: a `CheckName`, or one of this module's.
        passed: The figure is on the right side; what is missing never is.
        required: Promotion needs it; else it is for a person to read.
        value: What was found; None: it is missing, or no finite number.
        limit: What it was held against; None likewise.
        why: What the figure is where it passed, what is wrong where it did not.
    """

    name: str
    passed: bool
    required: bool
    value: float | None
    limit: float | None
    why: str

    @property
    def figure(self) -> str:
        """Value and limit, for people."""
        found = "missing" if self.value is None else f"{self.value:.6g}"
        return found if self.limit is None else f"{found} against {self.limit:.6g}"


class PromotionRefused(ModelError):
    """A version did not pass the rules, and nobody overrode them.

    Attributes:
        name: Of the model.
        version: That was to be promoted.
        failures: Rules that promotion needs and that did not pass.
    """

    def __init__(self, name: str, version: int, failures: tuple[RuleResult, ...]) -> None:
        told = "; ".join(f"{one.name} {one.figure}: {one.why}" for one in failures)
        super().__init__(f"{name}:{version} is not promoted without an override: {told}")
        self.name = name
        self.version = version
        self.failures = failures


def judge(
    manifest: Manifest, shadow: ShadowRecord | ShadowRecordInvalid | None, limits: PromotionLimits
) -> tuple[RuleResult, ...]:
    """Hold a version against every rule.

    Args:
        manifest: Of its package.
        shadow: What it has shown as the shadow of what is production now; None: nothing; an error: it cannot be read,
            and counts as nothing.
        limits: That the shadow is held against.
    """
    return (*_verdict_results(manifest), *_shadow_results(shadow, limits))


def failures(results: Iterable[RuleResult]) -> tuple[RuleResult, ...]:
    """The rules that promotion needs and that did not pass."""
    return tuple(one for one in results if one.required and not one.passed)


def judge_promotion(
    manifest: Manifest,
    journal: Path | None,
    production: int | None,
    limits: PromotionLimits,
    override: str = "",
) -> tuple[RuleResult, ...]:
    """Judge a version with the shadow's record that there is, and refuse it where a rule does.

    Args:
        manifest: Of its package.
        journal: Folder of the server's journal, which the shadow's record is beside; None: it keeps none.
        production: The version that is production now; None: there is none.
        limits: That the shadow is held against.
        override: Why it is promoted although a rule refuses; empty: it is not.

    Raises:
        PromotionRefused: Names each rule and its figure.
    """
    shadow: ShadowRecord | ShadowRecordInvalid | None
    try:
        shadow = read_shadow_record(journal, manifest.name, manifest.version, production)
    except ShadowRecordInvalid as error:
        shadow = error
    results = judge(manifest, shadow, limits)
    refused = failures(results)
    if refused and not override.strip():
        raise PromotionRefused(manifest.name, manifest.version, refused)
    return results


def _verdict_results(manifest: Manifest) -> tuple[RuleResult, ...]:
    verdict = manifest.promotion
    if verdict is None:
        why = "the package has no verdict: nobody has looked whether its walk-forward may be luck"
        return (RuleResult(VERDICT, passed=False, required=True, value=None, limit=None, why=why),)
    # Who published it all the same has said why, and the manifest has it.
    waived = verdict.override is not None
    found = {check.name: check for check in verdict.checks}
    results = [
        RuleResult(
            check.name.value,
            check.passed,
            required=CHECKS[check.name].required and not waived,
            value=check.value,
            limit=check.limit,
            why=check.why,
        )
        for check in verdict.checks
    ]
    missing = [name for name, rule in CHECKS.items() if rule.required and name not in found]
    results += [_missing(name, required=not waived) for name in missing]
    if verdict.override is not None:
        why = f"overridden in training by {verdict.override.who}: {verdict.override.reason}"
        results.append(RuleResult(VERDICT, passed=True, required=False, value=None, limit=None, why=why))
    return tuple(results)


def _missing(name: CheckName, *, required: bool) -> RuleResult:
    why = f"the verdict lacks it: {CHECKS[name].meaning}"
    return RuleResult(name.value, passed=False, required=required, value=None, limit=None, why=why)


def _shadow_results(
    shadow: ShadowRecord | ShadowRecordInvalid | None, limits: PromotionLimits
) -> tuple[RuleResult, ...]:
    needed = limits.shadow_decisions > 0
    if not isinstance(shadow, ShadowRecord):
        found = str(shadow) if shadow is not None else "it has no record as the shadow of what is production now"
        asked = f"at least {limits.shadow_decisions:,} decisions needed" if needed else "and none is asked for"
        limit = float(limits.shadow_decisions) if needed else None
        why = f"{found}, {asked}"
        return (RuleResult(SHADOW_RECORD, passed=False, required=needed, value=None, limit=limit, why=why),)
    beside = f"as the shadow of {shadow.name}:{shadow.against}"
    agreement = f"share of them with production's direction {beside}"
    divergence = f"mean absolute difference of values {beside}, the largest is {shadow.max_abs_divergence:.6g}"
    held = (
        (SHADOW_DECISIONS, shadow.decisions, limits.shadow_decisions, True, f"decisions scored {beside}"),
        (SHADOW_AGREEMENT, shadow.agreement, limits.shadow_agreement, True, agreement),
        (SHADOW_DIVERGENCE, shadow.mean_abs_divergence, limits.shadow_divergence, False, divergence),
    )
    return tuple(
        RuleResult(
            name,
            passed=value >= limit if at_least else value <= limit,
            required=needed,
            value=float(value),
            limit=float(limit),
            why=f"{meaning}, {'at least' if at_least else 'at most'} {limit:.6g} needed",
        )
        for name, value, limit, at_least, meaning in held
    )
