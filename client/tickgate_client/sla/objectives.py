"""What is promised, when the promise counts as broken, and what follows.

An objective is "`target` of the calls are good". A call is good if it is answered OK within `limit_us`. The share that
may be bad, 1 - target, is the error budget; the burn rate is how many times faster than that it is spent:

    burn rate = (bad / calls) / (1 - target)

Source of the burn rate and of alerting on two windows at once: B. Beyer et al. (eds), The Site Reliability Workbook,
O'Reilly 2018, chapter 5, "Alerting on SLOs", sections 4 (burn rate) to 6 (multiwindow, multi-burn-rate alerts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

WINDOWS_S = (60, 300, 3600)
"""The sliding windows that are kept, in seconds."""


class Policy(IntEnum):
    """What a breach means, the later the stricter."""

    CONTINUE = 0
    """Callbacks only."""
    HOLD = 1
    """No order that adds risk: `SlaMonitor.before_order` refuses."""
    FLATTEN = 2
    """As HOLD, and the monitor calls `flatten`."""


class BreachCause(StrEnum):
    """Why an objective is in breach."""

    BUDGET_BURN = "BUDGET_BURN"
    """A burn rule is exceeded."""
    LATENCY_STALL = "LATENCY_STALL"
    """A call took longer than `stall_us`, or is outstanding for longer, or none was answered for so long."""
    SERVER_LOST = "SERVER_LOST"
    """A call ended UNAVAILABLE, or the desk said that the server is lost."""
    MONITOR_LATE = "MONITOR_LATE"
    """The monitor itself has not looked for too long: what it knows is too old."""


@dataclass(frozen=True, slots=True)
class BurnRule:
    """A breach while the burn rate is above `rate` over both windows.

    The long one says that it matters, the short one that it still goes on.

    Attributes:
        long_s: One of WINDOWS_S.
        short_s: One of WINDOWS_S, at most long_s.
        rate: In multiples of the error budget.
        least_bad: Bad calls that the short window must have: in a thin one a single call is no rate.
    """

    long_s: int
    short_s: int
    rate: float
    least_bad: int = 3

    def __post_init__(self) -> None:
        for name, span_s in (("long_s", self.long_s), ("short_s", self.short_s)):
            if span_s not in WINDOWS_S:
                raise ValueError(f"{name} is {span_s} s, must be one of {', '.join(map(str, WINDOWS_S))}")
        if self.short_s > self.long_s:
            raise ValueError(f"short_s is {self.short_s} s, must be at most long_s, {self.long_s} s")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"rate is {self.rate}, must be positive and finite")
        if self.least_bad < 1:
            raise ValueError(f"least_bad is {self.least_bad}, must be at least 1 call")


MISSED_IN_A_MINUTE = BurnRule(60, 60, 1.0)
"""The objective does not hold over the last minute."""

FAST_BURN = BurnRule(3600, 300, 14.4)
"""The workbook's first page: 2 % of a 30-day budget in an hour, 0.02 x 720 h / 1 h, with its 5-minute short window."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise about the round trip.

    Attributes:
        name: For people and metrics.
        limit_us: Longest round trip of a good call, in microseconds.
        target: Share of calls that must be good, below 1.
        stall_us: A single call outstanding for longer is a breach now, whatever the share; at least limit_us.
        policy: What a breach means.
        burn_rules: Each alone makes a breach.
        enter_looks: Looks in a row that must find a burn rule exceeded. A stall and a lost server need none.
        clean_s: How long everything must be well before a breach ends, in seconds.
        clean_calls: Good calls that there must be in that time: silence is not clean.
    """

    name: str
    limit_us: float
    target: float
    stall_us: float
    policy: Policy = Policy.HOLD
    burn_rules: tuple[BurnRule, ...] = (MISSED_IN_A_MINUTE, FAST_BURN)
    enter_looks: int = 3
    clean_s: float = 5.0
    clean_calls: int = 1

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an objective has an empty name")
        _check(self, "limit_us", ok=0 < self.limit_us < math.inf, expected="positive and finite")
        _check(self, "target", ok=0 < self.target < 1, expected="between 0 and 1, both excluded")
        _check(self, "stall_us", ok=self.limit_us <= self.stall_us < math.inf, expected="at least limit_us, and finite")
        _check(self, "clean_s", ok=0 < self.clean_s < math.inf, expected="positive and finite")
        _check(self, "enter_looks", ok=self.enter_looks >= 1, expected="at least 1 look")
        _check(self, "clean_calls", ok=self.clean_calls >= 1, expected="at least 1 call")
        for rule in self.burn_rules:
            # All calls bad is the highest rate there is: a rule above it could never be exceeded.
            if rule.rate * (1 - self.target) >= 1:
                raise ValueError(
                    f"objective {self.name!r}: a burn rate of {rule.rate:g} is out of reach,"
                    f" must be below {1 / (1 - self.target):g} for a target of {self.target:g}"
                )

    @property
    def limit_ns(self) -> int:
        """Longest round trip of a good call, in nanoseconds."""
        return int(self.limit_us * 1e3)

    @property
    def stall_ns(self) -> int:
        """Longest time that a call may be outstanding, in nanoseconds."""
        return int(self.stall_us * 1e3)

    @property
    def clean_ns(self) -> int:
        """How long everything must be well before a breach ends, in nanoseconds."""
        return int(self.clean_s * 1e9)

    def burn_rate(self, bad: int, calls: int) -> float:
        """How many times faster than allowed the budget is spent; NaN without calls."""
        return math.nan if calls == 0 else bad / calls / (1 - self.target)


def _check(objective: Objective, field: str, *, ok: bool, expected: str) -> None:
    if not ok:
        raise ValueError(f"objective {objective.name!r}: {field} is {getattr(objective, field)}, must be {expected}")
