"""Ticks by what became of them: those that were published, and those that came with a request."""

from enum import IntEnum

import numpy as np

from tickgate_server.journal.layout import TICKS, TICKS_WIDTH, Flags, RecordKind, TickOutcome
from tickgate_server.journal.segments import Rows
from tickgate_server.records import TICK
from tickgate_server.risk.reasons import Reason

_OUTCOMES = 256
_REASONS = 256
# About the request's id: its tick was not looked at.
_UNSEEN = [int(Reason.REQUEST_EXPIRED), int(Reason.REQUEST_ID_REUSED)]
_TICK_REASONS = [int(reason) for reason in Reason if reason.name.startswith("TICK_")]


class Source(IntEnum):
    """How a tick came in."""

    PREDICT = 0
    PUBLISHED = 1


class TickCounts:
    """Counts over every record that was added.

    Attributes:
        outcomes: int64 [sources, 256], by number of `TickOutcome`. Of a request's ticks, one that confirms a held back
            one counts as ACCEPTED.
        reasons: Of those rejected and held back, int64 [sources, 256], by number of `Reason`.
    """

    def __init__(self) -> None:
        self.outcomes = np.zeros((len(Source), _OUTCOMES), np.int64)
        self.reasons = np.zeros((len(Source), _REASONS), np.int64)

    def add_published(self, rows: Rows) -> None:
        """Add the records of `layout.TICKS` among polled rows."""
        published = rows["kind"] == RecordKind.TICKS
        if not published.any():
            return
        records = rows[published].view(TICKS)
        ticks = records["ticks"][np.arange(TICKS_WIDTH) < records["tick_count"][:, None]]
        self.outcomes[Source.PUBLISHED] += np.bincount(ticks["outcome"], minlength=_OUTCOMES)
        refused = np.isin(ticks["outcome"], (TickOutcome.REJECTED, TickOutcome.HELD_BACK))
        self._add_reasons(Source.PUBLISHED, ticks["reason"][refused])

    def add_decisions(self, decisions: Rows) -> None:
        """Add the ticks of records of `layout.DECISION`; an answer given again brought none."""
        flags = decisions["flags"]
        ticks = (decisions["input"] == TICK) & ((flags & Flags.REPEATED) == 0)
        applied = ticks & decisions["applied"]
        rest = np.flatnonzero(ticks & ~applied & (decisions["status"] == 0))
        own = self.outcomes[Source.PREDICT]
        own[TickOutcome.ACCEPTED] += np.count_nonzero(applied)
        if not rest.size:
            return
        reasons = decisions["reason"][rest]
        held_back = (flags[rest] & Flags.HELD_BACK) != 0
        rejected = ~held_back & np.isin(reasons, _TICK_REASONS)
        again = ~held_back & ~rejected & ~np.isin(reasons, _UNSEEN)
        own[TickOutcome.HELD_BACK] += np.count_nonzero(held_back)
        own[TickOutcome.REJECTED] += np.count_nonzero(rejected)
        own[TickOutcome.AGAIN] += np.count_nonzero(again)
        self._add_reasons(Source.PREDICT, reasons[held_back | rejected])

    def _add_reasons(self, source: Source, reasons: Rows) -> None:
        known = np.minimum(reasons.astype(np.int64), _REASONS - 1)
        self.reasons[source] += np.bincount(known, minlength=_REASONS)
