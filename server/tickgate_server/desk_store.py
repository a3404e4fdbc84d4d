"""How the desk's book comes back: stated in pieces, kept in a checkpoint beside the journal, restored from both.

The journal is the truth: every change of the book is in it before it is acknowledged. A checkpoint, written by a thread
at each turn to a new segment, only spares reading from the beginning, and lets retention remove what is older. Where
neither reaches back far enough, the portfolio is unknown, and the desk reduces until a person says otherwise.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from tickgate_server.desk import Desk
from tickgate_server.desk.ledger import Ledger
from tickgate_server.desk.pieces import pieces, take_piece
from tickgate_server.errors import RequestError
from tickgate_server.journal.entries import ControlAssembler
from tickgate_server.journal.errors import JournalError, RecordsRemoved
from tickgate_server.journal.layout import (
    CONTROL,
    DECISION,
    RECORD_BYTES,
    TICKS,
    TICKS_WIDTH,
    ControlKind,
    Flags,
    RecordKind,
    TickOutcome,
    text,
)
from tickgate_server.journal.published import published_of
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows, last_sequence
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.records import FEATURES, TICK, Stage
from tickgate_server.risk import gate, portfolio, request_ids, valuation
from tickgate_server.risk.book import HELD, OPEN_ORDERS
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import ReportRefused
from tickgate_server.roster import Roster
from tickgate_server.ticks.market import TRADE

FILE_NAME = "portfolio.jsonl"
FORMAT_VERSION = 2
_FILLS_PIECE = 1000
_IDS_LOOKED_FOR = 2 * request_ids.KEPT  # records before a checkpoint that are read for request ids
_UNREAD = (ControlKind.CONTROL_BLOCK, ControlKind.LIMITS)  # the observer's and the settings' of today count
_LOG = structlog.get_logger()


class CheckpointInvalid(Exception):
    """A checkpoint cannot be used; says which file and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: no checkpoint of the portfolio: {why}")


class Checkpoints:
    """Writes a checkpoint of the desk at each turn to a new segment, one at a time, by a thread.

    Args:
        journal: Beside which they are written.
        desk: As the journal has it.
    """

    def __init__(self, journal: JournalWriter, desk: Desk) -> None:
        self._journal = journal
        self._desk = desk
        self._path = journal.folder / FILE_NAME
        for left in journal.folder.glob(f"{FILE_NAME}.*.unfinished"):  # of a process that was killed
            left.unlink(missing_ok=True)
        self._thread: Thread | None = None
        self._segment = journal.segments_begun
        self._take()

    def keep_up(self) -> None:
        """Take a checkpoint if the journal went on in another segment: what is older may then be removed."""
        at_work = self._thread is not None and self._thread.is_alive()
        if self._journal.segments_begun != self._segment and not at_work:
            self._segment = self._journal.segments_begun
            self._take()

    def close(self) -> None:
        """Write the last one."""
        self.settle()
        self._take()
        self.settle()

    def _take(self) -> None:
        """Copy the book as it is, all records so far applied, and have it written."""
        work = (self._journal.next_sequence - 1, list(pieces(self._desk)), self._desk.fills())
        self._thread = Thread(target=self._write, args=work, name="checkpoint", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait until the one that is being written is."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, sequence: int, found: list[dict[str, Any]], fills: dict[str, int]) -> None:
        items = list(fills.items())
        chunks = (items[at : at + _FILLS_PIECE] for at in range(0, len(items), _FILLS_PIECE))
        head = {"format_version": FORMAT_VERSION, "sequence": sequence}
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}.unfinished")
        digest = hashlib.sha256()
        try:
            with unfinished.open("wb") as file:
                for piece in (head, *found, *({"fills": chunk} for chunk in chunks)):
                    line = json.dumps(piece, separators=(",", ":")).encode() + b"\n"
                    digest.update(line)
                    file.write(line)
                file.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
            unfinished.rename(self._path)
        except OSError as error:
            _LOG.error("checkpoint not written", file=str(self._path), why=str(error))


def begin_journaled(journal: JournalWriter, desk: Desk, roster: Roster, engine_settings: Mapping[str, Any]) -> None:
    """Bring the desk back, and tell the journal all that decisions depend on from here, with windows that are empty.

    What the journal tells goes into a ledger of its own first: the desk begins with what that states, as a replay does.

    Args:
        journal: Nothing was appended to it yet.
        desk: Empty, with its models.
        roster: Of these.
        engine_settings: What a replay builds its engine with.
    """
    registry = roster.registry
    restored = desk.twin()
    restore(restored, journal.folder)
    desk.take_memory(restored)
    universe = desk.symbols.universe
    instruments = [instrument.model_dump(mode="json") for instrument in universe.instruments.values()]
    settings = {
        "engine": dict(engine_settings),
        "default_model": registry.default,
        "closed": universe.closed,
        "instruments": instruments,
        "calendars": {calendar.name: calendar.sha256 for calendar in universe.calendars},
    }
    journal.append_control(ControlKind.SETTINGS, settings)
    journal.append_control(ControlKind.LIMITS, desk.whole.model_dump(mode="json"))
    for model in registry.models:
        desk.heed(model.name, model.version, journal.add_model(model))
    for refused in registry.refused:
        journal.add_refused(refused.name, refused.version, type(refused.error).__name__)
    roster.tell_start()
    for piece in pieces(restored):
        journal.append_control(ControlKind.WARM_START, piece)
        take_piece(desk, piece)


def restore(ledger: Ledger, folder: Path) -> None:
    """Bring the book back as the journal in a folder has it, before anything is appended to it.

    What cannot be brought back is left out, and the desk is REDUCING, with the reason; so is one that comes back with
    more than its limits allow.
    """
    restoring = _Restoring(ledger)
    reached = 0
    try:
        reached = restoring.read_checkpoint(folder / FILE_NAME)
    except FileNotFoundError:
        pass
    except (OSError, CheckpointInvalid) as error:
        _LOG.error("checkpoint refused", why=str(error))
    try:
        last = last_sequence(folder)
        if reached > last:
            restoring.unknown(f"the checkpoint has record {reached}, and the journal ends with {last}")
        reached = restoring.read_journal(folder, reached)
    except JournalError as error:
        restoring.unknown(f"the journal cannot be read: {error}")
    valuation.sum_account(ledger.book.table)
    held, open_orders = np.flatnonzero(ledger.book.facts[:, HELD]), int(ledger.book.state[OPEN_ORDERS])
    if held.size:
        _LOG.info("portfolio restored", positions=int(held.size), open_orders=open_orders, through=reached)
    for row in held.tolist():
        over = gate.exposure_over_limit(ledger.book.table, row)
        if over >= 0:
            restoring.unknown(f"{ledger.names[row]} passes the limit of {CHECKS[over].reason.name}")
            break
    if restoring.why and ledger.state.state is TradingState.ACTIVE:
        ledger.put_state(TradingState.REDUCING, f"portfolio unknown: {restoring.why}"[:200], "restart")


class _Restoring:
    """A ledger on its way back, and why it is not all there; empty: it is."""

    def __init__(self, ledger: Ledger) -> None:
        self.why = ""
        self._ledger = ledger
        self._assembler = ControlAssembler()
        self._clock_ns = 0

    def unknown(self, why: str) -> None:
        _LOG.error("portfolio unknown", why=why)
        self.why = self.why or why

    def _attempt(self, what: str, change: Callable[[], object]) -> None:
        """Make a change that a symbol may stand in the way of, which the instrument file lacks by now, say."""
        try:
            change()
        except (RequestError, ReportRefused) as error:
            self.unknown(f"{what}: {error}")

    def read_checkpoint(self, path: Path) -> int:
        lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) < 2:
            raise CheckpointInvalid(path, "it is not whole")
        try:
            said = json.loads(lines[-1])
            if said != {"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}:
                raise CheckpointInvalid(path, "its hash is another one")
            head, *found = (json.loads(line) for line in lines[:-1])
        except ValueError as error:
            raise CheckpointInvalid(path, str(error)) from error
        if head.get("format_version") != FORMAT_VERSION:
            raise CheckpointInvalid(path, f"expected format {FORMAT_VERSION}, found {head.get('format_version')}")
        for piece in found:
            for name, said in piece.items():  # a row or an order at a time: one may fail, the others must not
                for part in [[one] for one in said] if name in {"rows", "orders"} else [said]:
                    self._attempt("checkpoint", partial(take_piece, self._ledger, {name: part}))
        return int(head["sequence"])

    def read_journal(self, folder: Path, reached: int) -> int:
        """Apply the records behind `reached`; the last one's sequence."""
        # The checkpoint has no request ids: they are read from the records before it, as far as these go back.
        with JournalReader(folder, max(reached + 1 - _IDS_LOOKED_FOR, 1)) as reader:
            while True:
                try:
                    rows = reader.poll(16_384)
                except RecordsRemoved:
                    continue  # with the oldest there is; whether any is missed is seen below
                if not rows.size:
                    break
                first = int(rows["sequence"][0])
                if first > reached + 1:
                    self.unknown(f"records {reached + 1} to {first - 1} are gone")
                unsent = _unsent(rows)
                for sequence in unsent:
                    self._ledger.ids.forget(sequence)
                clocks_ns = self._clocks_ns(rows)
                sent, new = ~np.isin(rows["sequence"], unsent), rows["sequence"] > reached
                _keep_answers(self._ledger, rows[sent], clocks_ns[sent])
                self._apply_rows(rows[new], clocks_ns[new], reader.symbols)
                reached = max(reached, int(rows["sequence"][-1]))
        return reached

    def _clocks_ns(self, rows: Rows) -> NDArray[np.int64]:
        """The book's time after each decision or published tick: the latest clock or tick of all, whatever became."""
        read = (rows["kind"] == RecordKind.DECISION) & (rows["stage"] != Stage.NONE)
        read &= rows["flags"] & Flags.REPEATED == 0
        own = np.where(rows["clock_ns"] > 0, rows["clock_ns"], rows["exchange_ts_ns"] * rows["applied"])
        own = np.where(read, own, 0)
        published = rows["kind"] == RecordKind.TICKS
        if published.any():
            own[published] = _times_ns(rows[published])
        found: NDArray[np.int64] = np.maximum.accumulate(np.maximum(own, self._clock_ns))
        self._clock_ns = int(found[-1])
        return found

    def _apply_rows(self, rows: Rows, clocks_ns: NDArray[np.int64], symbols: Mapping[int, str]) -> None:
        # Most records of a market's day change nothing of the book: those are found by column, not one by one.
        control = rows["kind"] == RecordKind.CONTROL
        decided = (rows["kind"] == RecordKind.DECISION) & (rows["stage"] != Stage.NONE)
        approved = _answered(rows) & ((rows["action"] == Action.BUY) | (rows["action"] == Action.SELL))
        # The tick of a decision with a ticket was applied before, with its STARTED record.
        priced = decided & rows["applied"] & (rows["tick_kind"] & TRADE != 0) & (rows["ticket"] == 0)
        published = rows["kind"] == RecordKind.TICKS
        passed: int | np.intp = 0  # published ticks before it were applied
        for index in np.flatnonzero(control | approved | priced):
            self._apply_published(rows[passed:index][published[passed:index]], symbols)
            passed = index
            if control[index]:
                entry = self._assembler.feed(rows[index : index + 1].view(CONTROL)[0])
                if entry is not None and entry.code not in _UNREAD:
                    change = partial(self._ledger.apply, entry.code, entry.payload, entry.sequence, entry.clock_ns)
                    self._attempt(f"record {entry.sequence}", change)
                continue
            row = rows[index]
            change = partial(
                self._ledger.restore_decision,
                symbol=text(row, "symbol"),
                clock_ns=int(clocks_ns[index]),
                price=float(row["price"]) if priced[index] else None,
                signed_size=_signed(row) if approved[index] else 0.0,
                valid_for_us=int(row["valid_for_us"]),
                sequence=int(row["sequence"]),
            )
            self._attempt(f"record {int(row['sequence'])}", change)
        self._apply_published(rows[passed:][published[passed:]], symbols)
        if rows.size:
            portfolio.advance(self._ledger.book.table, int(clocks_ns[-1]))

    def _apply_published(self, rows: Rows, symbols: Mapping[int, str]) -> None:
        """Let the trades of published ticks pass."""
        if not rows.size:
            return
        trades = published_of(rows, symbols).applied().trades()
        table = self._ledger.book.table
        portfolio.pass_trades(table, trades.numbered(self._row), trades.times_ns(), trades.ticks["price"].copy())

    def _row(self, symbol: bytes) -> int:
        """A symbol's row; -1 for one that is traded here no more."""
        try:
            return self._ledger.row_of(symbol.decode())
        except (RequestError, ReportRefused):
            return -1


def _times_ns(rows: Rows) -> NDArray[np.int64]:
    """The latest that each record of published ticks tells of time: its clock, or in replay mode what was accepted."""
    records = rows.view(TICKS)
    ticks = records["ticks"]
    accepted = (ticks["outcome"] == TickOutcome.ACCEPTED) | (ticks["outcome"] == TickOutcome.CONFIRMED)
    accepted &= np.arange(TICKS_WIDTH) < records["tick_count"][:, None]
    found: NDArray[np.int64] = np.where(
        records["clock_ns"] > 0, records["clock_ns"], (ticks["exchange_ts_ns"] * accepted).max(axis=1)
    )
    return found


def _unsent(rows: Rows) -> list[int]:
    """Sequences of answers that did not leave, as far as UNSENT records among these say."""
    assembler = ControlAssembler()
    controls = rows[rows["kind"] == RecordKind.CONTROL].view(CONTROL)
    entries = [assembler.feed(row) for row in controls[controls["code"] == ControlKind.UNSENT]]
    return [sequence for entry in entries if entry is not None for sequence in entry.payload["sequences"]]


def _keep_answers(ledger: Ledger, rows: Rows, clocks_ns: NDArray[np.int64]) -> None:
    """Remember the request ids among some records, with what they were answered, and when."""
    chosen = _answered(rows) & (rows["request_id_bytes"] > 0)
    rows, now_ns = rows[chosen], clocks_ns[chosen]
    if not rows.size:
        return
    data = rows.tobytes()
    places = np.arange(rows.size) * RECORD_BYTES
    tick, features = rows["input"] == TICK, rows["input"] == FEATURES
    asked = np.zeros((rows.size, request_ids.ASKED), np.int64)
    asked[:, request_ids.GIVEN] = rows["input"]
    asked[:, request_ids.KIND] = np.where(tick, rows["tick_kind"], 0)
    asked[:, request_ids.EXCHANGE_TS_NS] = np.where(tick | features, rows["exchange_ts_ns"], 0)
    asked[:, request_ids.TICK_SEQUENCE] = np.where(tick, rows["tick_sequence"], np.uint64(0)).view(np.int64)
    reference = np.where(features, rows["reference_price"], 0.0)
    asked[:, request_ids.REFERENCE_BITS] = reference.view(np.int64)
    asked[:, request_ids.WIDTH] = np.where(features, rows["vector_width"], 0)
    for name, at, length in (
        ("symbol", request_ids.SYMBOL_AT, request_ids.SYMBOL_LENGTH),
        ("model_asked", request_ids.MODEL_AT, request_ids.MODEL_LENGTH),
        ("request_id", request_ids.ID_AT, request_ids.ID_LENGTH),
    ):
        asked[:, at] = places + DECISION.fields[name][1]  # type: ignore[index]  # it has fields
        asked[:, length] = rows[f"{name}_bytes"]
    # A part of the tick that is not there is zero in its record.
    numbers = np.stack([rows[name] for name in ("price", "size", "bid", "ask", "bid_size", "ask_size")], axis=1)
    numbers[~tick] = 0.0
    valid_us = np.where(rows["valid_for_us"] > 0, rows["valid_for_us"], ledger.limits.valid_for_us)
    facts = np.zeros((rows.size, request_ids.FACTS), np.int64)
    facts[:, request_ids.SEQUENCE] = rows["sequence"]
    facts[:, request_ids.EXPIRES_NS] = now_ns + valid_us * 1000
    facts[:, request_ids.CLOCK_NS] = now_ns
    facts[:, request_ids.MODEL] = -1  # the one that is asked: another version may be loaded under its index
    for name, column in (
        ("action", request_ids.ACTION),
        ("reason", request_ids.REASON),
        ("valid_for_us", request_ids.VALID_FOR_US),
        ("scored", request_ids.SCORED),
    ):
        facts[:, column] = rows[name]
    names = ("order_size", "limit_price", "target", "value", "confidence")
    values = np.stack([*(rows[name] for name in names), np.zeros(rows.size)], axis=1)
    vectors = np.ascontiguousarray(rows["vector"])
    request_ids.keep_records(ledger.ids.table, data, asked, numbers.view(np.uint64), vectors, facts, values)


def _answered(rows: Rows) -> NDArray[np.bool_]:
    """Which records are decisions that were answered, for the first time."""
    found: NDArray[np.bool_] = (
        (rows["kind"] == RecordKind.DECISION)
        & (rows["stage"] != Stage.NONE)
        & (rows["status"] == 0)
        & (rows["flags"] & Flags.REPEATED == 0)
    )
    return found


def _signed(row: Any) -> float:
    return float(row["order_size"] if row["action"] == Action.BUY else -row["order_size"])
