"""What stands in the tables is what the journal's own reader says, record by record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.archiving import (
    NOON_NS,
    append,
    archive,
    archived,
    controls_in,
    decisions_in,
    entries_in,
    rows,
    unsent,
    writing,
)
from tests.ingest.ingesting import Clock, Publishing, Tick
from tests.journal.journal_samples import approved, tick
from tests.support.messages import START_NS
from tests.support.packages import publish_logistic

from tickgate_server.archive.convert import Origin, decisions_of, events_of, ticks_of, times_of
from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.archive.query import DecisionLog
from tickgate_server.archive.schema import DECISION_COLUMNS
from tickgate_server.journal.entries import DecisionEntry, Model, TicksEntry
from tickgate_server.journal.layout import DECISION, NO_ROW, TICKS, ControlKind, Flags, RecordKind, TickOutcome
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.registry import load_repository
from tickgate_server.records import FEATURES, SYMBOL, TICK, Request, Stage
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.ticks.market import QUOTE, TRADE

CHECK_NAMES = [check.reason.name for check in CHECKS]
MODELS = {0: Model(0, "m", 7, "schema", "ab" * 32)}
ORIGIN = Origin("worker-0", 5, MODELS, CHECK_NAMES, {3: "BTCUSDT"})
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def put(row: np.void, name: str, text: str, room: int) -> None:
    data = text.encode()[:room].decode(errors="ignore").encode()
    row[name], row[f"{name}_bytes"] = data, len(data)


@st.composite
def records(draw: st.DrawFn) -> np.void:
    """DECISION records of any kind."""
    row = np.zeros(1, DECISION)[0]
    row["sequence"], row["kind"] = draw(st.integers(1, 2**40)), RecordKind.DECISION
    row["input"], row["tick_kind"] = draw(st.sampled_from([0, TICK, FEATURES, SYMBOL])), draw(st.integers(0, 3))
    row["stage"], row["status"] = draw(st.sampled_from(list(Stage))), draw(st.sampled_from([0, 3, 4, 16, 99]))
    row["action"] = draw(st.sampled_from([0, *Action]))
    row["reason"] = draw(st.sampled_from([0, *Reason, 999]))
    row["flags"] = draw(st.sampled_from([0, Flags.REPEATED, Flags.SYMBOL_CUT | Flags.HELD_BACK]))
    for name in ("applied", "ready", "scored", "judged"):
        row[name] = draw(st.booleans())
    row["model_index"] = draw(st.sampled_from([-1, 0, 4]))
    for name in ("clock_ns", "exchange_ts_ns", "budget_ns", "features_ts_ns", "waiting_ns", "total_ns"):
        row[name] = draw(st.integers(0, 2**62))
    row["tick_sequence"] = draw(st.integers(0, 2**64 - 1))
    for name in ("price", "bid", "ask_size", "reference_price", "order_size", "value", "confidence"):
        row[name] = draw(FINITE)
    texts = st.text(st.characters(codec="utf-8"), max_size=12)
    put(row, "symbol", draw(texts), 32)
    put(row, "request_id", draw(texts), 36)
    put(row, "model_asked", draw(texts), 76)
    row["vector_width"] = width = draw(st.sampled_from([0, 10, 48]))
    row["vector"][:width] = np.arange(width) + draw(st.integers(0, 9))
    row["check_count"] = count = draw(st.sampled_from([0, len(CHECKS)]))
    row["checks"][:count] = np.arange(count)
    return row


def expected(row: np.void) -> dict[str, Any]:
    """One row of the table, from what the journal's reader says of the record."""
    model = MODELS.get(int(row["model_index"]))
    said = DecisionEntry(int(row["sequence"]), row, model, tuple(CHECK_NAMES)).as_dict()
    begun = row["stage"] != Stage.NONE
    trade, quote = said.get("trade", {}), said.get("quote", {})
    scored = bool(row["scored"])
    return {
        "sequence": said["sequence"],
        "symbol": said["symbol"] if row["input"] else None,
        "request_id": said["request_id"],
        "model_asked": said["model_asked"],
        "model": model and model.name,
        "model_version": model and model.version,
        "status": said["status"],
        "stage": said["stage"],
        "input": said["input"] if row["input"] else None,
        "action": said["action"] if begun and row["action"] else None,
        "reason": said["reason"] if begun else None,
        "exchange_ts_ns": said.get("exchange_ts_ns"),
        "tick_sequence": int(row["tick_sequence"]) or None,
        "price": trade.get("price"),
        "bid": quote.get("bid"),
        "ask_size": quote.get("ask_size"),
        "reference_price": said.get("reference_price"),
        "order_size": float(row["order_size"]) if begun else None,
        "value": float(row["value"]) if scored else None,
        "confidence": float(row["confidence"]) if scored else None,
        "waiting_ns": int(row["waiting_ns"]) if begun else None,
        "total_ns": int(row["total_ns"]) if row["stage"] == Stage.ENCODING else None,
        "repeated": "REPEATED" in said["flags"],
        "features": [float(value) for value in row["vector"][: row["vector_width"]]] or None,
    } | {
        f"check_{name.lower()}": float(row["checks"][k]) if row["judged"] and k < row["check_count"] else None
        for k, name in enumerate(CHECK_NAMES)
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(records(), min_size=1, max_size=6))
def test_every_column_of_a_decision_says_what_the_journals_reader_says(found: list[np.void]) -> None:
    batch = np.array(found, DECISION)
    table = decisions_of(batch, times_of(batch, NOON_NS), ORIGIN)
    table.validate(full=True)
    for row, made in zip(found, table.to_pylist(), strict=True):
        wanted = expected(row)
        assert {name: made[name] for name in wanted} == wanted
        assert made["worker"] == "worker-0"
        assert made["journal_ns"] == 5


def test_all_columns_that_the_schema_names_are_there_and_no_others() -> None:
    table = decisions_of(np.zeros(0, DECISION), np.zeros(0, np.int64), ORIGIN)
    assert table.column_names == ["date", "model", *(column.name for column in DECISION_COLUMNS)]


def test_a_check_that_this_version_does_not_know_has_a_column_of_its_own() -> None:
    row = np.zeros(1, DECISION)
    row["kind"], row["judged"], row["check_count"], row["checks"][0, :2] = RecordKind.DECISION, True, 2, (3.0, 4.0)
    origin = Origin("", 1, {}, ["TOMORROWS_LIMIT", "VAR_PORTFOLIO"], {})
    found = decisions_of(row, np.ones(1, np.int64), origin).to_pylist()[0]
    assert found["check_tomorrows_limit"] == 3.0
    assert found["check_var_portfolio"] == 4.0
    assert found["check_loss_daily"] is None


def test_a_record_without_a_clock_has_the_time_of_the_one_before_and_replay_has_the_ticks() -> None:
    batch = np.zeros(6, DECISION)
    batch["kind"] = RecordKind.DECISION
    batch["input"] = TICK
    batch["clock_ns"] = [0, 100, 0, 0, 50, 0]
    batch["exchange_ts_ns"] = [7, 8, 9, 300, 11, 12]
    batch["applied"] = [False, True, False, True, True, False]
    assert times_of(batch, 40).tolist() == [40, 100, 100, 300, 50, 50]


def test_a_control_over_several_records_and_batches_is_one_event_with_its_text_whole(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        append(writer, 2)
        for length in (0, 5, 727, 728, 729, 5000, 100_000):
            writer.append_control(ControlKind.LIMITS, {"text": "é" * length, "number": float("inf")}, clock_ns=NOON_NS)
            append(writer, 1)
    archive(tmp_path / "log", tmp_path / "journal")
    wanted = [(entry.sequence, entry.payload) for entry in controls_in(tmp_path / "journal")]
    found = archived(tmp_path / "log", "sequence, payload", "events")
    assert [(sequence, json.loads(payload)) for sequence, payload in found] == wanted


def test_parts_of_a_control_whose_first_record_is_missing_are_no_event(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        writer.append_control(ControlKind.LIMITS, {"text": "x" * 2000})
        writer.append_control(ControlKind.TIME, {})
    with JournalReader(tmp_path / "journal") as reader:
        there = reader.poll()[1:]
    assert events_of(there, np.ones(there.size, np.int64), ORIGIN)["control"].to_pylist() == ["TIME"]


def test_published_ticks_are_rows_with_their_symbol_in_the_order_applied() -> None:
    record = np.zeros(2, TICKS)
    record["kind"], record["clock_ns"], record["sequence"] = RecordKind.TICKS, [500, 0], [8, 9]
    record["tick_count"] = [2, 1]
    ticks = record["ticks"]
    ticks["row"][:, :2] = [[3, NO_ROW], [3, 0]]
    ticks["kind"][:, :2] = [[TRADE, QUOTE], [TRADE | QUOTE, 0]]
    ticks["outcome"][:, :2] = [[TickOutcome.ACCEPTED, TickOutcome.REJECTED], [TickOutcome.CONFIRMED, 0]]
    ticks["reason"][0, 1] = Reason.TICK_CROSSED_QUOTE
    ticks["price"][:, 0], ticks["bid"][:, :2] = [1.5, 2.5], [[9.0, 3.0], [4.0, 9.0]]
    ticks["exchange_ts_ns"][:, :2] = [[11, 2**60], [700, 0]]
    batch = record.view(DECISION)
    table = ticks_of(batch, times_of(batch, 1), ORIGIN)
    found = table.to_pylist()
    names = ("sequence", "place", "symbol", "outcome", "reason", "price", "bid")
    assert [tuple(row[name] for name in names) for row in found] == [
        (8, 0, "BTCUSDT", "ACCEPTED", None, 1.5, None),
        (8, 1, None, "REJECTED", "TICK_CROSSED_QUOTE", None, 3.0),
        (9, 0, "BTCUSDT", "CONFIRMED", None, 2.5, 4.0),
    ]
    assert table["time"].cast(pa.int64()).to_pylist() == [500, 500, 700]


def test_ticks_that_were_published_are_rows_as_the_reader_tells_them_also_where_archiving_stopped_between(
    tmp_path: Path,
) -> None:
    publish_logistic(tmp_path / "models")
    side = Publishing(load_repository(tmp_path / "models"), Clock(START_NS), tmp_path / "journal")
    ticks = [  # from the 12th second on they are from the future
        Tick("AB"[k % 2], START_NS + k * 10**8, k + 1, (100.0 + k % 3 / 100, 1.0), (99.0, 101.0, 1.0 + k, 2.0))
        for k in range(120)
    ]
    for first in range(0, 120, 25):  # the symbols are told at the segment's begin, which the second archiver has passed
        side.counts(ticks[first : first + 25])
        archive(tmp_path / "log", tmp_path / "journal")
    side.close()
    archive(tmp_path / "log", tmp_path / "journal")
    entries = [entry for entry in entries_in(tmp_path / "journal") if isinstance(entry, TicksEntry)]
    told = [(entry.sequence, place, tick) for entry in entries for place, tick in enumerate(entry.as_dict()["ticks"])]
    columns = "sequence, place, symbol, outcome, reason, exchange_ts_ns, price, bid_size"
    found = rows(DecisionLog(tmp_path / "log", {}), f"SELECT {columns} FROM ticks ORDER BY sequence, place")
    assert found == [
        (
            sequence,
            place,
            *(tick[name] for name in ("symbol", "outcome", "reason", "exchange_ts_ns")),
            tick.get("trade", {}).get("price"),
            tick.get("quote", {}).get("bid_size"),
        )
        for sequence, place, tick in told
    ]
    assert len(found) == 120
    assert {row[3] for row in found} == {"ACCEPTED", "REJECTED"}
    assert {row[2] for row in found} == {tick.symbol for tick in ticks}


def test_requests_that_were_refused_are_rows_too_under_no_model(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        append(writer, 3)
        writer.append_decision(Request(model="gibberish"), approved(), status=3, stage=0, request_id="bad")
        writer.append_decision(tick(9, symbol="S1"), approved(), status=4, stage=int(Stage.FEATURES), request_id="late")
        writer.append_decision(tick(9, symbol="S1"), approved(), request_id="again", flags=int(Flags.REPEATED))
    archive(tmp_path / "log", tmp_path / "journal")
    found = archived(tmp_path / "log", "request_id, model, status, stage, repeated, action")
    assert found[3:] == [
        ("bad", None, "INVALID_ARGUMENT", "NONE", False, None),
        ("late", None, "DEADLINE_EXCEEDED", "FEATURES", False, "BUY"),
        ("again", None, "OK", "ENCODING", True, "BUY"),
    ]
    assert len(found) == len(decisions_in(tmp_path / "journal"))


@pytest.mark.parametrize("between", [0, 1500])
def test_an_answer_that_did_not_leave_has_the_status_it_left_with(tmp_path: Path, between: int) -> None:
    with writing(tmp_path / "journal", segment_records=1024) as writer:
        first, second, *_ = append(writer, 3)
        append(writer, between, clock_ns=NOON_NS + 1)  # the correction is in another segment and another file
        unsent(writer, [first, second], 4)
        (third,) = append(writer, 1, clock_ns=NOON_NS + 2)
        unsent(writer, [third], 14)
    archive(tmp_path / "log", tmp_path / "journal", ArchiverSettings(flush_s=0.0, flush_rows=1024, merge=False))
    log = DecisionLog(tmp_path / "log", {"": tmp_path / "journal"})
    found = rows(log, "SELECT sequence, status, journaled_status FROM decisions WHERE status <> 'OK' ORDER BY sequence")
    assert found == [
        (first, "DEADLINE_EXCEEDED", "OK"),
        (second, "DEADLINE_EXCEEDED", "OK"),
        (third, "UNAVAILABLE", "OK"),
    ]
    assert rows(log, "SELECT count(*) FROM decisions") == [(4 + between,)]
