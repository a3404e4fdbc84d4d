"""What is appended is read back, every field of it."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.journal_samples import VECTOR, append, approved, model, tick

from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.errors import ControlTooLarge, JournalClosed, ModelTableFull
from tickgate_server.journal.layout import DECISION, PAYLOAD_BYTES, ControlKind, Flags, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request, Stage
from tickgate_server.ticks.market import QUOTE, TRADE

_I64 = st.integers(-(2**63), 2**63 - 1)
_FLOAT = st.floats()
_QUOTE_TRADE = {TRADE: ("price", "size"), QUOTE: ("bid", "ask", "bid_size", "ask_size")}


def fits(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=limit).filter(lambda value: len(value.encode()) <= limit)


_REQUESTS = st.builds(
    Request,
    model=fits(76),
    budget_ns=_I64,
    input=st.sampled_from([0, TICK, FEATURES, SYMBOL]),
    symbol=fits(32),
    exchange_ts_ns=_I64,
    sequence=st.integers(0, 2**64 - 1),
    kind=st.integers(0, 3),
    values=st.lists(st.floats(width=32), max_size=32),
    **dict.fromkeys(["price", "size", "bid", "ask", "bid_size", "ask_size", "reference_price"], _FLOAT),
)
_DECISIONS = st.builds(
    Decision,
    action=st.integers(0, 255),
    reason=st.integers(0, 2**16 - 1),
    scored=st.booleans(),
    judged=st.booleans(),
    ready=st.booleans(),
    check_values=st.lists(_FLOAT, max_size=24),
    trades_in_window=st.integers(0, 2**32 - 1),
    **dict.fromkeys(["size", "limit_price", "target", "value", "confidence"], _FLOAT),
    **dict.fromkeys(
        [
            "valid_for_us",
            "features_ts_ns",
            "waiting_ns",
            "features_ns",
            "inference_ns",
            "risk_ns",
            "total_ns",
            "budget_ns",
        ],
        _I64,
    ),
)


@pytest.fixture(scope="module")
def shared() -> Any:
    with tempfile.TemporaryDirectory() as folder, JournalWriter(Path(folder), segment_records=4096) as writer:
        yield writer


def same(found: Any, expected: float) -> bool:
    return np.float64(found).tobytes() == np.float64(expected).tobytes() or (
        math.isnan(float(found)) and math.isnan(expected)
    )


@settings(max_examples=200, deadline=None)
@given(
    request=_REQUESTS,
    decision=_DECISIONS,
    request_id=fits(36),
    status=st.integers(0, 16),
    stage=st.sampled_from(list(Stage)),
    applied=st.booleans(),
    clock_ns=_I64,
    vector=st.none() | st.lists(st.floats(width=32), max_size=32),
)
def test_every_field_comes_back_as_it_was(
    shared: JournalWriter,
    request: Request,
    decision: Decision,
    request_id: str,
    status: int,
    stage: Stage,
    applied: bool,  # noqa: FBT001 - hypothesis passes names
    clock_ns: int,
    vector: list[float] | None,
) -> None:
    values = None if vector is None else np.array(vector, np.float32)
    sequence = shared.append_decision(
        request,
        decision,
        request_id=request_id,
        status=status,
        stage=stage,
        applied=applied,
        clock_ns=clock_ns,
        vector=values,
    )
    with JournalReader(shared.folder, sequence) as reader:
        row = reader.poll()[0]
    assert (row["sequence"], row["flags"], row["input"]) == (sequence, 0, request.input)
    assert (row["status"], row["stage"], row["applied"], row["clock_ns"]) == (status, stage, applied, clock_ns)
    assert text(row, "symbol") == (request.symbol if request.input else "")
    assert (text(row, "request_id"), text(row, "model_asked")) == (request_id, request.model)
    assert row["asked_budget_ns"] == request.budget_ns
    given_ = request.input
    assert row["exchange_ts_ns"] == (request.exchange_ts_ns if given_ in {TICK, FEATURES} else 0)
    assert int(row["tick_sequence"]) == (request.sequence if given_ == TICK else 0)
    for kind, names in _QUOTE_TRADE.items():
        for name in names:
            assert same(row[name], getattr(request, name) if given_ == TICK and request.kind & kind else 0.0)
    assert same(row["reference_price"], request.reference_price if given_ == FEATURES else 0.0)
    begun = decision if stage else Decision(action=0)
    for name in ("action", "reason", "scored", "judged", "ready", "trades_in_window", "valid_for_us", "features_ts_ns"):
        assert row[name] == getattr(begun, name)
    for name in ("waiting_ns", "features_ns", "inference_ns", "risk_ns", "budget_ns"):
        assert row[name] == getattr(begun, name)
    assert row["total_ns"] == (decision.total_ns if stage == Stage.ENCODING else 0)
    for name, field in (("size", "order_size"), ("limit_price",) * 2, ("target",) * 2, ("value",) * 2):
        assert same(row[field], getattr(begun, name))
    assert same(row["confidence"], begun.confidence)
    checks = begun.check_values if begun.judged else []
    assert row["check_count"] == len(checks)
    assert all(same(*pair) for pair in zip(row["checks"], [*checks, *[0.0] * (24 - len(checks))], strict=True))
    expected = values if values is not None else np.array(request.values if given_ == FEATURES else [], np.float32)
    assert row["vector_width"] == expected.size
    np.testing.assert_array_equal(row["vector"][: expected.size], expected)
    assert not row["vector"][expected.size :].any()


def test_what_does_not_fit_is_cut_and_the_record_says_so(tmp_path: Path) -> None:
    request = tick(
        input=FEATURES,
        symbol="é" * 20,
        model="m" * 100,
        values=[1.0] * 2000,
        exchange_ts_ns=2**70,
        reference_price=10**400,
    )
    decision = approved(check_values=[1.0] * 30)
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        writer.append_decision(request, decision, request_id="i" * 37, status=3)
        writer.append_decision(tick(symbol="\ud800", sequence=-1), approved())
        writer.append_decision(tick(), approved())
        long, odd, plain = reader.poll()
    assert text(long, "symbol") == "é" * 16
    assert (text(long, "model_asked"), text(long, "request_id")) == ("m" * 76, "i" * 36)
    assert (long["vector_width"], long["check_count"], long["status"]) == (48, 24, 3)
    assert (long["exchange_ts_ns"], long["reference_price"]) == (2**63 - 1, math.inf)
    assert Flags(int(long["flags"])) == (
        Flags.SYMBOL_CUT
        | Flags.MODEL_ASKED_CUT
        | Flags.REQUEST_ID_CUT
        | Flags.VECTOR_CUT
        | Flags.CHECKS_CUT
        | Flags.NUMBER_CLAMPED
    )
    assert (text(odd, "symbol"), odd["tick_sequence"]) == ("?", 0)
    assert Flags(int(odd["flags"])) == Flags.TEXT_REPLACED | Flags.NUMBER_CLAMPED
    assert plain["flags"] == 0
    assert request.symbol == "é" * 20


def test_a_symbol_that_ends_in_nul_characters_keeps_them(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        writer.append_decision(tick(symbol="A\0\0"), approved())
        assert text(reader.poll()[0], "symbol") == "A\0\0"


def test_what_is_no_number_is_refused_and_leaves_no_record(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        with pytest.raises(TypeError):
            writer.append_decision(tick(price=None), approved())
        append(writer)
        assert reader.poll()["sequence"].tolist() == [1]


def test_nothing_of_the_request_before_is_left_in_a_record(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        append(writer)
        writer.append_decision(tick(input=0), approved(), status=3, stage=Stage.NONE)
        row = reader.poll()[1]
    blank = {name: row[name] for name in DECISION.names or () if np.any(row[name])}
    assert set(blank) == {
        "sequence",
        "checksum",
        "kind",
        "status",
        "model_index",
        "asked_budget_ns",
        "value",
        "confidence",
    }


@settings(max_examples=30, deadline=None)
@given(
    payload=st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=5),
        ),
        max_size=30,
    ),
    kind=st.sampled_from([kind for kind in ControlKind if kind not in {ControlKind.MODEL, ControlKind.SYMBOLS}]),
)
def test_a_control_comes_back_as_it_was(shared: JournalWriter, payload: dict[str, Any], kind: ControlKind) -> None:
    sequence = shared.append_control(kind, payload, clock_ns=7)
    with JournalReader(shared.folder, sequence) as reader:
        (entry,) = list(reader)
    assert isinstance(entry, ControlEntry)
    assert (entry.sequence, entry.code, entry.clock_ns, entry.payload) == (sequence, kind, 7, payload)


def test_a_control_may_span_records_and_begins_a_segment_where_the_rest_is_too_short(tmp_path: Path) -> None:
    payload = {"text": "x" * (5 * PAYLOAD_BYTES)}
    with JournalWriter(tmp_path, segment_records=8) as writer, JournalReader(tmp_path) as reader:
        append(writer, 5)
        first = writer.append_control(ControlKind.LIMITS, payload)
        append(writer, 4)
        assert (first, writer.next_sequence) == (6, 16)
        entries = list(reader)
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5, 6, 12, 13, 14, 15]
    control = entries[5]
    assert isinstance(control, ControlEntry)
    assert control.payload == payload


def test_a_control_larger_than_a_segment_is_refused(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8) as writer:
        with pytest.raises(ControlTooLarge, match=r"expected at most 5,824 bytes of JSON, found 5,839"):
            writer.append_control(ControlKind.LIMITS, {"text": "x" * (8 * PAYLOAD_BYTES + 4)})
        assert writer.next_sequence == 1


def test_decisions_name_their_model_in_every_segment(tmp_path: Path) -> None:
    first, second = model("first", 1), model("second", 7)
    with JournalWriter(tmp_path, segment_records=8, retained_segments=2) as writer:
        assert (writer.add_model(first), writer.add_model(first)) == (0, 0)
        for _ in range(20):
            writer.append_decision(tick(), approved(model=first))
            writer.append_decision(tick(), approved(model=second))  # given its index at its first decision
        writer.settle()
        with JournalReader(tmp_path) as reader:
            entries = list(reader)
        assert entries[0].sequence > 8
        names = [entry.model.name for entry in entries if isinstance(entry, DecisionEntry) and entry.model]
        assert set(names) == {"first", "second"}
        assert len(names) == sum(isinstance(entry, DecisionEntry) for entry in entries)
        writer.remove_model(first)
        append(writer, 8)
        with JournalReader(tmp_path, writer.next_sequence - 1) as reader:
            reader.poll()
            assert [known.name for known in reader.models.values()] == ["second"]


def test_more_models_than_half_a_segment_are_refused(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=4) as writer:
        writer.add_model(model("a"))
        writer.add_model(model("b"))
        with pytest.raises(ModelTableFull, match="at most 2 models"):
            writer.add_model(model("c"))


def test_a_version_that_comes_back_has_the_index_it_had_and_another_hash_gets_its_own(tmp_path: Path) -> None:
    first = model("first", 1)
    with JournalWriter(tmp_path, segment_records=8) as writer:
        assert writer.add_model(first) == 0
        for _ in range(20):  # endless swaps state no more than two versions at a time
            writer.unload_model(first)
            writer.remove_model(first)
            first = model("first", 1)
            assert writer.add_model(first) == 0
        assert writer.add_model(model("second", 1)) == 1
        other = model("first", 1)
        other.manifest.model_sha256 = "f" * 64
        assert writer.add_model(other) == 2


def test_aliases_are_restated_as_they_were_told_last(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=16) as writer:
        for version in (1, 2):
            writer.point_alias("m", "production", version)
            writer.point_alias("m", "canary", 3, 12.5)
        for number in range(5):  # an eighth of a segment is two: these are told once
            writer.point_alias(f"m{number}", "production", 1)
        append(writer, 40)
        writer.settle()
        with JournalReader(tmp_path) as reader:
            told = [entry for entry in reader if isinstance(entry, ControlEntry)]
    assert [entry.payload["version"] for entry in told if not entry.restated] == [1, 3, 2, 3, 1, 1, 1, 1, 1]
    restated = {(e.payload["name"], e.payload["alias"]): e.payload for e in told if e.restated}
    assert restated.keys() == {("m", "production"), ("m", "canary")}
    assert (restated["m", "production"]["version"], restated["m", "canary"]["share_percent"]) == (2, 12.5)


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(JournalClosed):
        append(writer)
    with pytest.raises(JournalClosed):
        writer.append_control(ControlKind.TICK, {})


def test_a_dict_of_each_entry_is_strict_json(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        writer.append_decision(tick(), approved(value=math.nan), vector=VECTOR, request_id="r-1")
        writer.append_control(ControlKind.LIMITS, {"max_order_size": math.inf, "list": [math.nan, -math.inf]})
        decision, control = (json.loads(json.dumps(entry.as_dict(), allow_nan=False)) for entry in reader)
    assert (decision["status"], decision["reason"], decision["value"]) == ("OK", "APPROVED", "NaN")
    assert decision["checks"]["CONFIDENCE_BELOW_THRESHOLD"] == 0.65
    assert decision["checks"]["POSITION_NOTIONAL"] == 152.0
    assert len(decision["checks"]) == 21
    assert decision["trade"] == {"price": 101.5, "size": 2.0}
    assert control["payload"] == {"max_order_size": "Infinity", "list": ["NaN", "-Infinity"]}


def test_the_segment_says_what_it_was_written_with(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        append(writer)
        reader.poll()
        said = reader.environment
    assert {"tickgate", "numpy", "numba", "llvmlite", "onnxruntime", "python"} == set(said["versions"])
    assert said["cpu"]
    assert len(said["kernels"]) == 16
