"""May a model version be promoted? What was checked, against which limit, and who overrode it.

Training makes a verdict, a promotion reads it. It is judged where it is read: which checks there must be and which way
each compares stand in `CHECKS`, not in the document, and a document that calls passed what is not is refused. What is
missing or is no number (null) has not passed.
"""

import math
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator


class CheckName(StrEnum):
    """What is looked at; the published form of a figure is in its name."""

    DEFLATED_SHARPE_2014 = "deflated_sharpe_2014"
    DEFLATED_SHARPE_2025 = "deflated_sharpe_2025"
    BACKTEST_OVERFITTING = "backtest_overfitting"
    PARITY_DIFFERENCE = "parity_difference"
    PARITY_ROWS = "parity_rows"
    ROUND_TRIPS = "round_trips"
    TRACK_RECORD_2012 = "track_record_2012"
    SHARPE_AGAINST_ALWAYS_LONG = "sharpe_against_always_long"
    RANDOM_P_VALUE = "random_p_value"


class Rule(NamedTuple):
    """How a check compares, and whether promotion needs it.

    Attributes:
        at_least: The value must reach the limit; else it must not exceed it.
        required: Without it there is no promotion; else it is for a person to read.
        meaning: What value and limit are.
    """

    at_least: bool
    required: bool
    meaning: str


CHECKS: dict[CheckName, Rule] = {
    CheckName.DEFLATED_SHARPE_2014: Rule(
        at_least=True, required=True, meaning="deflated Sharpe ratio of Bailey and López de Prado, over all trials"
    ),
    CheckName.DEFLATED_SHARPE_2025: Rule(
        at_least=True, required=False, meaning="that of López de Prado, Lipton and Zoonekynd, with autocorrelation"
    ),
    CheckName.BACKTEST_OVERFITTING: Rule(
        at_least=False, required=True, meaning="probability of backtest overfitting over all trials"
    ),
    CheckName.PARITY_DIFFERENCE: Rule(
        at_least=False, required=True, meaning="largest difference between the graph's outputs and its source's"
    ),
    CheckName.PARITY_ROWS: Rule(
        at_least=True, required=True, meaning="rows compared, against the out-of-sample rows there are"
    ),
    CheckName.ROUND_TRIPS: Rule(at_least=True, required=True, meaning="round trips out of sample"),
    CheckName.TRACK_RECORD_2012: Rule(
        at_least=True, required=True, meaning="returns out of sample, against the minimum track record length"
    ),
    CheckName.SHARPE_AGAINST_ALWAYS_LONG: Rule(
        at_least=True, required=False, meaning="net Sharpe ratio, against that of always long"
    ),
    CheckName.RANDOM_P_VALUE: Rule(
        at_least=False, required=False, meaning="share of random timings of the same positions that earned as much"
    ),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Check(_Strict):
    """One figure against its limit.

    Attributes:
        name: Which.
        value: What was found; null where it is missing or no finite number.
        limit: What it was held against; null likewise.
        passed: Whether the value is on the right side of the limit; equal passes, null never does.
        why: What the figure is where it passed, what is wrong where it did not.
    """

    name: CheckName
    value: FiniteFloat | None
    limit: FiniteFloat | None
    passed: bool
    why: Annotated[str, StringConstraints(min_length=1)]

    @model_validator(mode="after")
    def _is_what_the_numbers_say(self) -> "Check":
        if self.passed != _holds(self.name, self.value, self.limit):
            raise ValueError(f"{self.name}: passed is {self.passed}, but value {self.value}, limit {self.limit}")
        return self


class Override(_Strict):
    """A person's decision to promote all the same."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    who: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PromotionVerdict(_Strict):
    """The checks of one version, and whether it passed.

    Attributes:
        format_version: Of this document.
        trials: Configurations that were tried on the data.
        checks: Each name at most once.
        passed: Every required check is there and passed; an override does not change it.
        override: Who promotes it all the same, and why.
    """

    format_version: Literal[1] = 1
    trials: int = Field(ge=1)
    checks: tuple[Check, ...]
    passed: bool
    override: Override | None = None

    @model_validator(mode="after")
    def _is_what_the_checks_say(self) -> "PromotionVerdict":
        names = [check.name for check in self.checks]
        if len(set(names)) < len(names):
            raise ValueError("checks has a name twice")
        holds = not failures(self.checks)
        if self.passed != holds:
            failing = ", ".join(failures(self.checks)) or "none"
            raise ValueError(f"passed is {self.passed}, but of the required checks these fail: {failing}")
        return self

    @property
    def promotable(self) -> bool:
        """Whether it may be promoted: it passed, or a person said so."""
        return self.passed or self.override is not None

    def overridden(self, who: str, reason: str) -> "PromotionVerdict":
        """The same verdict with an override; raises pydantic's ValidationError where either is blank."""
        return self.model_copy(update={"override": Override(reason=reason, who=who)})


def check(name: CheckName, value: float, limit: float, why: str = "") -> Check:
    """Hold a figure against its limit.

    Args:
        name: Which.
        value: What was found; what is not finite is written as null and does not pass.
        limit: What it is held against; likewise.
        why: What is wrong, where the caller knows more than that the value is on the wrong side.
    """
    found = value if math.isfinite(value) else None
    bar = limit if math.isfinite(limit) else None
    passed = _holds(name, found, bar)
    rule = CHECKS[name]
    if passed:
        why = rule.meaning
    elif not why:
        ask = "at least" if rule.at_least else "at most"
        why = f"{rule.meaning}: {value:.6g}, {ask} {limit:.6g} needed"
    return Check(name=name, value=found, limit=bar, passed=passed, why=why)


def failures(checks: tuple[Check, ...]) -> tuple[CheckName, ...]:
    """Names of the required checks that are missing or did not pass, in the order of `CHECKS`."""
    passed = {check.name for check in checks if check.passed}
    return tuple(name for name, rule in CHECKS.items() if rule.required and name not in passed)


def judge(checks: tuple[Check, ...], trials: int, override: Override | None = None) -> PromotionVerdict:
    """The verdict on these checks."""
    return PromotionVerdict(trials=trials, checks=checks, passed=not failures(checks), override=override)


def _holds(name: CheckName, value: float | None, limit: float | None) -> bool:
    if value is None or limit is None:
        return False
    return value >= limit if CHECKS[name].at_least else value <= limit
