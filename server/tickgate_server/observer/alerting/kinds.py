"""Which alerts there are: severity, what is said, and what to do first. docs/runbooks.md has a section for each."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class AlertKind:
    """One kind of alert.

    Attributes:
        name: Its `alertname`.
        severity: `critical` wakes somebody up, `warning` waits for the morning.
        summary: In one line.
        first_step: What to do first.
    """

    name: str
    severity: Severity
    summary: str
    first_step: str

    @property
    def anchor(self) -> str:
        """Of its section among the runbooks."""
        return self.name.lower()


HALTED = AlertKind(
    "TickgateHalted",
    "critical",
    "Trading is halted: every order is refused.",
    "See who halted it and why: tickgate risk show.",
)
REDUCING = AlertKind(
    "TickgateReducing",
    "critical",
    "Only orders that reduce positions pass.",
    "See who reduced it and why: tickgate risk show.",
)
LOSS_LIMIT = AlertKind(
    "TickgateLossLimit",
    "critical",
    "A loss limit was passed: only orders that reduce positions pass.",
    "Look at P&L and positions before anything else; only a person sets the state back.",
)
VAR_LIMIT = AlertKind(
    "TickgateVarLimit",
    "warning",
    "Orders are refused because value at risk would pass its limit.",
    "Compare tickgate_portfolio_value_at_risk with the limit: is the portfolio what it should be?",
)
RISK_DATA_STALE = AlertKind(
    "TickgateRiskDataStale",
    "critical",
    "Covariance and regimes are too old: only orders that reduce positions pass.",
    "See whether trades come in, and the observer's log for why risk data were not written.",
)
MODEL_DEGRADED = AlertKind(
    "TickgateModelDegraded",
    "critical",
    "A model version no longer is what its manifest promises: its orders are refused.",
    "Point the alias back to a version that is fit, if there is one.",
)
MODEL_SLOW = AlertKind(
    "TickgateModelSlow",
    "warning",
    "p99 of a model's total latency over five minutes is over its budget.",
    "See which stage it is: tickgate_stage_latency_seconds.",
)
FEATURE_DRIFT = AlertKind(
    "TickgateFeatureDrift",
    "warning",
    "A feature that a model is given is not as it was in training.",
    "See whether the feed changed, then whether the market did: tickgate_feature_stability_index.",
)
OBSERVER_LAG = AlertKind(
    "TickgateObserverLag",
    "warning",
    "The observer is behind the journal: what it hands back to the gate grows old.",
    "See whether a core is left for it, and its log.",
)
JOURNAL_UNREADABLE = AlertKind(
    "TickgateJournalUnreadable",
    "critical",
    "The journal cannot be read.",
    "See the observer's log for the segment and what is wrong with it; tickgate journal verify.",
)
JOURNAL_SPACE = AlertKind(
    "TickgateJournalSpace",
    "critical",
    "There is hardly room for another segment: without one every request is refused.",
    "Free space on the journal's file system, or lower journal.retained_segments and restart.",
)
STORE_DOWN = AlertKind(
    "TickgateStoreDown",
    "warning",
    "Redis does not answer, or the store's process is gone. Answers are not touched by it.",
    "See whether Redis is up and takes the store's user; a restart of the server begins cold until then.",
)
RECORDS_LOST = AlertKind(
    "TickgateRecordsLost",
    "warning",
    "Records were removed or damaged before the observer had read them.",
    "See the observer's log for which; raise journal.retained_segments if it was too slow.",
)

KINDS = (
    HALTED,
    REDUCING,
    LOSS_LIMIT,
    VAR_LIMIT,
    RISK_DATA_STALE,
    MODEL_DEGRADED,
    MODEL_SLOW,
    FEATURE_DRIFT,
    OBSERVER_LAG,
    JOURNAL_UNREADABLE,
    JOURNAL_SPACE,
    RECORDS_LOST,
    STORE_DOWN,
)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now.

    Attributes:
        kind: What.
        where: Labels that tell it from others of its kind: worker, model, version.
        description: In words, with numbers.
        since_ns: Wall clock since when, where it is known; 0: since it is seen.
    """

    kind: AlertKind
    where: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    since_ns: int = 0

    @property
    def labels(self) -> dict[str, str]:
        """What it is told from all others by; labels without a value are none."""
        where = {name: value for name, value in self.where.items() if value}
        return {"alertname": self.kind.name, "severity": self.kind.severity, "service": "tickgate", **where}

    @property
    def fingerprint(self) -> str:
        """Of its labels: the same alert has the same one, in every process and at every time; 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.labels, sort_keys=True).encode()).hexdigest()[:16]
