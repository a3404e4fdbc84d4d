"""A dry run of limits: what a journal recorded, judged again under others, and what would have come out otherwise.

What happened stays as it happened: orders, fills, prices, and the reservations of the recorded approvals are applied as
they were. So each decision is judged in the book as it was, and a difference is the new limits' own, not what an
earlier difference led to. What the limits themselves remember is the new ones' own: the token buckets and the counts of
repeats remember what the new limits approve, and the desk is reduced where its recorded P&L passes one of the new loss
limits, until a person's recorded `resume`. A fill or an order that was booked over a limit reduces it where it did so
then and is over the new limits too, never where the new limits alone would have: they might not have approved it. What
a person, the kill file or a restart did to the trading state, and when risk data were fresh, is as recorded.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tickgate_server.desk import Desk
from tickgate_server.desk.pieces import take_piece
from tickgate_server.engine import Engine
from tickgate_server.journal.entries import ControlEntry, DecisionEntry, Entry
from tickgate_server.journal.layout import ControlKind, text
from tickgate_server.journal.segments import segment_numbers
from tickgate_server.records import Decision, Request
from tickgate_server.replay import Replayer, compared, environment_differences
from tickgate_server.risk import checks, gate, orders, portfolio
from tickgate_server.risk.book import BREACHED, NOW_NS, ORDER_ID, ORDER_ROW, PEAK, PNL, UNUSED
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import StateView

# Who sets the trading state where it is a limit, see `desk.Desk`.
_BY_A_LOSS = "loss limit"
_BY_A_LIMIT = (_BY_A_LOSS, "limit")
# By whom a restart says that it could not restore the book, see `desk_store`.
_BY_A_RESTART = "restart"
# Limits that the journal's own record of fresh risk data stands for.
NOT_TRIED = ("max_risk_data_age_s", "max_risk_data_as_of_age_s")
_CHECK_OF = {check.reason.name: index for index, check in enumerate(checks.CHECKS)}
_NOTIONAL = Reason.POSITION_ORDER_NOTIONAL.name
# What the gate decides; a difference in anything before is none of the limits'.
_OF_THE_GATE = "judged"
_SAME = 1e-9  # sizes and prices that differ by less, relatively, are equal
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision came to.

    Attributes:
        action: `HOLD`, `BUY` or `SELL`.
        size: In units; 0 for HOLD.
        reason: Name of the `Reason`.
        notional: Of an approved order, in the base currency; 0 for HOLD.
        limit_price: Of an approved order.
        valid_for_us: Of an approved order.
    """

    action: str
    size: float
    reason: str
    notional: float
    limit_price: float
    valid_for_us: int


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that comes out otherwise.

    Attributes:
        journal: Folder.
        sequence: Of its record.
        time_ns: Clock that was read for it, or the tick's time.
        request_id: The caller's.
        symbol: Asked about.
        then: As recorded.
        now: Under the new limits.
        value: Measured now by the check that fails, or where none does by the one that failed then; NaN without one.
        limit: Of that check, now.
    """

    journal: str
    sequence: int
    time_ns: int
    request_id: str
    symbol: str
    then: Outcome
    now: Outcome
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Trip:
    """The new limits would have reduced the desk where those in force did not, or the other way round.

    Attributes:
        journal: Folder.
        sequence: Of the record after which.
        time_ns: The clock then.
        reduced: By the new limits; False: by those in force, and not by the new ones.
        why: Which limit.
    """

    journal: str
    sequence: int
    time_ns: int
    reduced: bool
    why: str


@dataclass(slots=True)
class RiskChecked:
    """What would have changed.

    Attributes:
        decisions: Judged.
        changed: Of them, those with another action, size or reason.
        repriced: Approved then and now in the same size, at another limit price or validity.
        counts: Of all decisions by (recorded reason, reason under the new limits).
        approved_then: Orders approved as recorded, and
        approved_now: under the new limits.
        notional_then: Of the orders approved as recorded, in the base currency, and
        notional_now: under the new limits.
        changes: The first of the changed decisions, by time.
        trips: Where the desk would have been reduced by a limit and was not, or was and would not have been.
        limits: A line for each limit that is another one than was in force last.
        notes: What is to be known of all this.
    """

    decisions: int = 0
    changed: int = 0
    repriced: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    approved_then: int = 0
    approved_now: int = 0
    notional_then: float = 0.0
    notional_now: float = 0.0
    changes: list[Change] = field(default_factory=list)
    trips: list[Trip] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def journals_of(folder: Path) -> list[Path]:
    """The journals in a folder: its own, and those of a server's workers in `worker-0`, `worker-1` and so on."""
    workers = sorted(
        (found for found in folder.glob("worker-*") if found.name.removeprefix("worker-").isdecimal()),
        key=lambda found: int(found.name.removeprefix("worker-")),
    )
    own = [] if workers and not segment_numbers(folder) else [folder]
    return own + workers


def check_limits(limits: Limits, journals: Sequence[Path], repository: Path, *, keep: int = 20) -> RiskChecked:
    """Judge what journals recorded under other limits.

    Args:
        limits: Of the whole desk; each journal is judged under the slice that its worker would hold.
        journals: Folders, one a worker.
        repository: Must hold the versions that decided, with the same hashes.
        keep: Most changed decisions to tell of one by one.

    Raises:
        ReplayRefused: A journal does not begin with a server's start, or a model or risk data are missing.
        PackageError: A model of the repository is not fit to serve.
        JournalError: Records are lost or damaged.
    """
    result = RiskChecked()
    for folder in journals:
        run = _DryRun(folder, repository, limits, keep, result)
        run.run()
        run.tell()
    result.changes.sort(key=lambda change: (change.time_ns, change.journal, change.sequence))
    del result.changes[keep:]
    result.trips.sort(key=lambda trip: (trip.time_ns, trip.journal))
    return result


class _DryRun(Replayer):
    """One journal under the new limits."""

    def __init__(self, folder: Path, repository: Path, limits: Limits, keep: int, result: RiskChecked) -> None:
        super().__init__(folder, repository)
        self.limits = limits
        self._journal = str(folder)
        self._new = limits
        self._keep = keep
        self._result = result
        self._recorded: Limits | None = None  # in force at this point of the journal, whole
        self._recorded_state = TradingState.ACTIVE
        self._before: StateView | None = None  # the desk's state when its server ended
        self._changes: list[Change] = []
        self._booked: list[int] = []  # rows of the last report
        self._environment: set[str] = set()
        self._limits_changed = 0
        self._otherwise = 0

    def tell(self) -> None:
        """Add to the result what is known once the journal has ended."""
        result, journal = self._result, self._journal
        result.changes += self._changes
        if self._recorded is not None:
            for line in self._recorded.differences(self._new):
                if line not in result.limits:
                    result.limits.append(line)
            untried = [name for name in NOT_TRIED if getattr(self._recorded, name) != getattr(self._new, name)]
            if untried:
                result.notes.append(
                    f"{journal}: {', '.join(untried)} cannot be tried: risk data are fresh and stale as recorded"
                )
            if self._new.version <= self._recorded.version and self._recorded.differences(self._new):
                result.notes.append(
                    f"{journal}: a server refuses these limits: version is {self._new.version}, expected more than"
                    f" {self._recorded.version}, which is in force"
                )
        if self._limits_changed:
            times = "once" if self._limits_changed == 1 else f"{self._limits_changed} times"
            result.notes.append(f"{journal}: the limits in force changed {times}; the new ones hold from the beginning")
        if self._environment:
            result.notes.append(
                f"{journal}: written with another environment ({', '.join(sorted(self._environment))}): what differs"
                " may be due to that"
            )
        if self._otherwise:
            result.notes.append(
                f"{journal}: {self._otherwise:,} decisions had other features or another prediction here, which no"
                " limit changes: what differs of them may be due to that"
            )

    # -- the journal ---------------------------------------------------------------------------------------------------

    def feed(self, entry: Entry) -> None:
        super().feed(entry)
        if self.engine is not None:
            self._enforce_loss(self.engine.desk, entry)

    def environment(self, written: Mapping[str, Any]) -> None:
        self._environment.update(environment_differences(written))

    def server_started(self) -> None:
        self._before = None if self.engine is None else self.engine.desk.state

    def stated_limits(self, entry: ControlEntry) -> None:
        said = {name: value for name, value in entry.payload.items() if name not in ("reason", "who")}
        found = Limits.model_validate(said)
        if self._recorded is not None and self._recorded.differences(found):
            self._limits_changed += 1
        self._recorded = found

    def warm_start(self, piece: Mapping[str, Any], desk: Desk) -> None:
        take_piece(desk, piece)
        account = piece.get("account")
        if account is None:
            return
        self._recorded_state = TradingState(account["state"])
        if self._before is not None and account["who"] != _BY_A_RESTART:  # it is known what the new limits made of it
            desk.apply_state(self._before)
        elif self._before is None and account["who"] in _BY_A_LIMIT:
            self._result.notes.append(
                f"{self._journal}: the desk was {self._recorded_state.name} by a limit when the journal began"
                f" ({account['reason']}), and is until a person's recorded resume"
            )

    def apply(self, entry: ControlEntry, desk: Desk) -> None:
        if entry.code != ControlKind.TRADING_STATE:
            super().apply(entry, desk)
            self._booked = list(_rows_booked(desk, entry)) or self._booked
            return
        self._recorded_state = TradingState(entry.payload["state"])
        if entry.payload["who"] not in _BY_A_LIMIT:
            super().apply(entry, desk)
        elif desk.state.state is TradingState.ACTIVE:
            over = desk.book.state[BREACHED] if entry.payload["who"] == _BY_A_LOSS else self._over(desk)
            if over:
                super().apply(entry, desk)
            else:
                self._result.trips.append(self._trip(desk, entry, entry.payload["reason"], reduced=False))

    # -- the new limits ------------------------------------------------------------------------------------------------

    def _enforce_loss(self, desk: Desk, entry: Entry) -> None:
        """Reduce the desk where a loss limit of the new ones is passed, when a server would have."""
        book = desk.book
        if not book.state[BREACHED]:
            return
        if desk.state.state is not TradingState.ACTIVE:
            book.state[BREACHED] = 0
            return
        pnl, peak = float(book.account[PNL]), float(book.account[PEAK])
        if self._recorded_state is TradingState.ACTIVE and self._passes_recorded(pnl, peak):
            return  # the server saw it too, at its next look: that is in the journal
        why = f"session P&L {pnl:.2f}, {peak - pnl:.2f} below its peak: over a loss limit"
        desk.put_state(TradingState.REDUCING, why, _BY_A_LOSS)
        self._result.trips.append(self._trip(desk, entry, why, reduced=True))

    def _passes_recorded(self, pnl: float, peak: float) -> bool:
        """Whether a loss limit of those in force then is passed."""
        if self._recorded is None or self.engine is None:
            return False
        found = self._recorded.slice_of(self.engine.settings.workers)
        pairs = ((-pnl, found.max_daily_loss), (peak - pnl, found.max_drawdown))
        return not all(limit == "off" or loss <= limit for loss, limit in pairs)

    def _over(self, desk: Desk) -> bool:
        """Whether what was booked last is over a limit of the new ones."""
        return any(gate.exposure_over_limit(desk.book.table, row) != gate.PASSED for row in self._booked)

    def _trip(self, desk: Desk, entry: Entry, why: str, *, reduced: bool) -> Trip:
        return Trip(self._journal, entry.sequence, int(desk.book.state[NOW_NS]), reduced, why)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def failed(self, entry: DecisionEntry, error: Exception) -> None:  # noqa: ARG002 - it is counted
        self._otherwise += 1

    def decided(
        self,
        entry: DecisionEntry,
        request: Request,  # noqa: ARG002 - the record says it too
        decision: Decision,
        engine: Engine,
    ) -> None:
        row = entry.row
        then, now = _recorded(entry), _outcome(decision)
        if now.action != Action.HOLD.name:
            portfolio.count_approval(engine.desk.book.table, decision.row, _signed(now))
        if then.action != Action.HOLD.name:
            _reserve(engine.desk, decision.row, _signed(then), then.valid_for_us, entry.sequence)
        self._otherwise += _scored_otherwise(row, decision)
        result = self._result
        result.decisions += 1
        result.counts[then.reason, now.reason] += 1
        result.approved_then += then.action != Action.HOLD.name
        result.approved_now += now.action != Action.HOLD.name
        result.notional_then += then.notional
        result.notional_now += now.notional
        if (then.action, then.reason) == (now.action, now.reason) and _equal(then.size, now.size):
            same = _equal(then.limit_price, now.limit_price) and then.valid_for_us == now.valid_for_us
            result.repriced += not same
            return
        result.changed += 1
        if len(self._changes) < self._keep:
            self._changes.append(self._change(entry, decision, then, now))

    def _change(self, entry: DecisionEntry, decision: Decision, then: Outcome, now: Outcome) -> Change:
        failing = _CHECK_OF.get(now.reason, _CHECK_OF.get(then.reason, -1)) if decision.judged else -1
        return Change(
            journal=self._journal,
            sequence=entry.sequence,
            time_ns=int(entry.row["clock_ns"]) or int(entry.row["exchange_ts_ns"]),
            request_id=text(entry.row, "request_id"),
            symbol=text(entry.row, "symbol"),
            then=then,
            now=now,
            value=decision.check_values[failing] if failing >= 0 else _NAN,
            limit=decision.check_limits[failing] if failing >= 0 else _NAN,
        )


def _reserve(desk: Desk, row: int, signed_size: float, valid_for_us: int, order_id: int) -> None:
    """Reserve what was approved then, whatever the new limits say; they do not count it."""
    table = desk.book.table
    expires_ns = int(desk.book.state[NOW_NS]) + valid_for_us * 1000
    slot = orders.open_order(table, row, signed_size, expires_ns, order_id)
    if slot >= 0:
        desk.took_slot(slot, order_id)


def _rows_booked(desk: Desk, entry: ControlEntry) -> Iterator[int]:
    """Rows whose exposure a report, or a person's word, has changed."""
    said = entry.payload
    if entry.code == ControlKind.POSITIONS:
        yield from (desk.row_of(position["symbol"]) for position in said["positions"])
    elif entry.code == ControlKind.FILL or (entry.code == ControlKind.ORDER and not said["order_id"]):
        yield desk.row_of(said["symbol"])
    elif entry.code == ControlKind.ORDER:
        facts = desk.book.order_facts[: int(desk.book.state[UNUSED])]
        yield from facts[facts[:, ORDER_ID] == said["order_id"], ORDER_ROW].tolist()


def _recorded(entry: DecisionEntry) -> Outcome:
    row = entry.row
    action = Action(int(row["action"]))
    notional = 0.0
    if action is not Action.HOLD and _NOTIONAL in entry.checks:
        notional = float(row["checks"][entry.checks.index(_NOTIONAL)])
    return Outcome(
        action=action.name,
        size=float(row["order_size"]),
        reason=_reason(int(row["reason"])),
        notional=notional,
        limit_price=float(row["limit_price"]),
        valid_for_us=int(row["valid_for_us"]),
    )


def _outcome(decision: Decision) -> Outcome:
    held = decision.action == Action.HOLD
    return Outcome(
        action=Action(decision.action).name,
        size=decision.size,
        reason=_reason(decision.reason),
        notional=0.0 if held else decision.check_values[checks.ORDER_NOTIONAL],
        limit_price=decision.limit_price,
        valid_for_us=decision.valid_for_us,
    )


def _reason(number: int) -> str:
    """Its name; the number as text where a newer writer knew more."""
    try:
        return Reason(number).name
    except ValueError:
        return str(number)


def _signed(outcome: Outcome) -> float:
    return outcome.size if outcome.action == Action.BUY.name else -outcome.size


def _scored_otherwise(row: np.void, decision: Decision) -> bool:
    """Whether anything before the gate came out otherwise."""
    for name, recorded, here in compared(row, decision):
        if recorded != here:
            return True
        if name == _OF_THE_GATE:
            break
    return False


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME)
