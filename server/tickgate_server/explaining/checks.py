"""What the gate measured for a decision, against the limits that were in force."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from tickgate_server.archive.query import DecisionLog
from tickgate_server.archive.schema import CHECK_COLUMNS
from tickgate_server.desk.terms import write_limits, write_row
from tickgate_server.models.package import Manifest
from tickgate_server.risk.book import Book
from tickgate_server.risk.checks import CHECKS, CONFIDENCE, ORDER_SIZE, POSITION_NOTIONAL
from tickgate_server.risk.gate import OUT_VALUES, passes
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action
from tickgate_server.ticks.instruments import Instrument
from tickgate_server.ticks.market import VALUES
from tickgate_server.ticks.symbols import TERMS


@dataclass(frozen=True, slots=True)
class CheckShown:
    """One check.

    Attributes:
        name: Of the reason that it gives.
        value: Measured; NaN where it was not known; None: not by this version of the gate.
        limit: In force; None: not known.
        at_least: The value must reach the limit; else it must not exceed it.
        outcome: `passes`, `fails`, `off`, `waived` (a reducing order does not face it), or `?` without a limit.
        decisive: It gave the reason.
    """

    name: str
    value: float | None
    limit: float | None
    at_least: bool
    outcome: str
    decisive: bool


def checks_shown(
    log: DecisionLog, decision: Mapping[str, Any], manifest: Manifest | None, notes: list[str]
) -> tuple[CheckShown, ...]:
    """The checks of a decision; empty where the gate was not reached.

    Args:
        log: That has the limits.
        decision: Its row.
        manifest: Of the version that decided, for its decision threshold.
        notes: What is not known is added to them.
    """
    if not decision["judged"]:
        return ()
    limits = _limits_of(log, decision, notes)
    bounds, off = (None, None) if limits is None else _bounds(limits, decision["symbol"] or "-")
    if bounds is not None:
        if manifest is not None:
            bounds[CONFIDENCE] = max(bounds[CONFIDENCE], manifest.decision_threshold)
        else:
            notes.append("the limit of the confidence is the policy's: the model's own threshold is not at hand")
    approved = decision["action"] in (Action.BUY.name, Action.SELL.name)
    shown: list[CheckShown] = []
    for place, (check, column) in enumerate(zip(CHECKS, CHECK_COLUMNS, strict=True)):
        value = decision[column]
        limit = None if bounds is None else bounds[place]
        outcome = "?"
        if limit is not None and value is not None and off is not None:
            outcome = "passes" if passes(value, limit, check.at_least) else "fails"
            if off[place]:
                outcome = "off"
            elif outcome == "fails" and approved and not check.always:
                outcome = "waived"
        decisive = decision["reason"] == check.reason.name
        shown.append(CheckShown(check.reason.name, value, limit, check.at_least, outcome, decisive))
    return tuple(shown)


def _limits_of(log: DecisionLog, decision: Mapping[str, Any], notes: list[str]) -> Limits | None:
    """The limits in force when it was decided, its worker's slice of them."""
    found = log.table(
        "SELECT control, arg_max(payload, sequence) AS payload FROM events WHERE control IN ('LIMITS', 'SETTINGS')"
        " AND worker = ? AND journal_ns = ? AND sequence < ? GROUP BY control",
        *(decision[name] for name in ("worker", "journal_ns", "sequence")),
    ).to_pylist()
    told = {row["control"]: json.loads(row["payload"]) for row in found}
    if "LIMITS" not in told:
        notes.append("the limits in force are not known: the log begins after they were set")
        return None
    said = {name: value for name, value in told["LIMITS"].items() if name not in ("reason", "who")}
    try:
        limits = Limits.model_validate(said)
    except ValidationError as error:
        notes.append(f"the limits in force are of another version of tickgate: {error.errors()[0]['msg']}")
        return None
    return limits.slice_of(int(told.get("SETTINGS", {}).get("workers", 1)))


def _bounds(limits: Limits, symbol: str) -> tuple[list[float], list[bool]]:
    """Limit of each check for a symbol, and whether it is off: as the desk writes them for the gate."""
    book = Book(1, np.zeros((1, VALUES)), np.zeros((1, TERMS)), checks=len(CHECKS), out=OUT_VALUES)
    write_limits(book, limits)
    write_row(book, 0, Instrument(symbol=symbol), limits)
    bounds = book.bounds.tolist()
    bounds[ORDER_SIZE : POSITION_NOTIONAL + 1] = book.row_limits[0].tolist()
    return bounds, [bool(off) for off in book.off]
