"""Records as people and programs read them: decisions with models, controls put together, ticks with symbols."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.layout import CONTROL, ControlKind, Flags, RecordKind, TickOutcome, text
from tickgate_server.journal.segments import Rows
from tickgate_server.records import FEATURES, SYMBOL, TICK, Stage
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.ticks.market import QUOTE, TRADE

_INPUTS = {TICK: "tick", FEATURES: "features", SYMBOL: "symbol"}
# google.rpc.Code by number: the journal knows no gRPC.
STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


@dataclass(frozen=True, slots=True)
class Model:
    """What a MODEL record says.

    Attributes:
        index: That decisions name it by, in this segment.
        name: Of the model.
        version: Of the model.
        schema_id: Of its features.
        sha256: Of its file.
        engine: What runs it, `compiled_forest` or `onnxruntime`; empty where an older writer did not say.
    """

    index: int
    name: str
    version: int
    schema_id: str
    sha256: str
    engine: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class DecisionEntry:
    """What became of one request.

    Attributes:
        sequence: Of the record.
        row: All fields, of `layout.DECISION`.
        model: That was resolved; None: none was, or its record is lost.
        checks: Names of the checks, in the order of the values.
    """

    sequence: int
    row: np.void
    model: Model | None
    checks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything that counts for its input and stage, for JSON: non-finite numbers are strings, as in protobuf."""
        row = self.row
        given = int(row["input"])
        found: dict[str, Any] = {
            "sequence": self.sequence,
            "kind": RecordKind.DECISION.name,
            "clock_ns": int(row["clock_ns"]),
            "request_id": text(row, "request_id"),
            "status": _named(STATUSES, int(row["status"])),
            "stage": _member(Stage, int(row["stage"])),
            "input": _INPUTS.get(given, str(given)),
            "symbol": text(row, "symbol"),
            "model_asked": text(row, "model_asked"),
            "model": _model(self.model, int(row["model_index"])),
            "applied": bool(row["applied"]),
            "flags": _flags(int(row["flags"])),
            **_given(row, given),
            "asked_budget_ns": int(row["asked_budget_ns"]),
        }
        if row["stage"] == Stage.NONE:
            return found
        found |= {
            "ticket": int(row["ticket"]),
            "action": _member(Action, int(row["action"])),
            "reason": _member(Reason, int(row["reason"])) if row["reason"] else None,
            "size": _finite(row["order_size"]),
            "limit_price": _finite(row["limit_price"]),
            "valid_for_us": int(row["valid_for_us"]),
            "target": _finite(row["target"]),
            "scored": bool(row["scored"]),
            "value": _finite(row["value"]),
            "confidence": _finite(row["confidence"]),
            "judged": bool(row["judged"]),
            "checks": {
                _named(self.checks, k): _finite(value) for k, value in enumerate(row["checks"][: row["check_count"]])
            },
            "ready": bool(row["ready"]),
            "trades_in_window": int(row["trades_in_window"]),
            "features_ts_ns": int(row["features_ts_ns"]),
            "vector": [_finite(value) for value in row["vector"][: row["vector_width"]]],
            "budget_ns": int(row["budget_ns"]),
            "timing_ns": {
                name: int(row[f"{name}_ns"]) for name in ("waiting", "features", "inference", "risk", "total")
            },
        }
        return found


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """Any other input that changed state.

    Attributes:
        sequence: Of its first record.
        code: ControlKind.
        clock_ns: Wall clock that was read for it; 0 in replay mode.
        payload: As it was given.
        restated: It says again what an earlier segment says already.
    """

    sequence: int
    code: int
    clock_ns: int
    payload: Mapping[str, Any]
    restated: bool

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON: non-finite numbers are strings."""
        return {
            "sequence": self.sequence,
            "kind": RecordKind.CONTROL.name,
            "clock_ns": self.clock_ns,
            "control": _member(ControlKind, self.code),
            "restated": self.restated,
            "payload": _plain(self.payload),
        }


@dataclass(frozen=True, slots=True, eq=False)
class TicksEntry:
    """Ticks that were published, with what became of each.

    Attributes:
        sequence: Of the record.
        clock_ns: Wall clock that was read for all of them; 0 in replay mode.
        ticks: `layout.PUBLISHED` [n], in the order applied.
        symbols: Of each; empty where it had no row, or the record that names it is lost.
    """

    sequence: int
    clock_ns: int
    ticks: NDArray[np.void]
    symbols: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON: non-finite numbers are strings."""
        return {
            "sequence": self.sequence,
            "kind": RecordKind.TICKS.name,
            "clock_ns": self.clock_ns,
            "ticks": [
                {
                    "symbol": symbol or None,
                    "outcome": _member(TickOutcome, int(tick["outcome"])),
                    "reason": _member(Reason, int(tick["reason"])) if tick["reason"] else None,
                    "exchange_ts_ns": int(tick["exchange_ts_ns"]),
                    "tick_sequence": int(tick["tick_sequence"]),
                    **_sides(tick, int(tick["kind"])),
                }
                for symbol, tick in zip(self.symbols, self.ticks, strict=True)
            ],
        }


Entry: TypeAlias = DecisionEntry | ControlEntry | TicksEntry


def ticks_entry(row: np.void, symbols: Mapping[int, str]) -> TicksEntry:
    """One record of `layout.TICKS`, its rows named."""
    ticks = row["ticks"][: row["tick_count"]]
    named = tuple(symbols.get(number, "") for number in ticks["row"].tolist())
    return TicksEntry(int(row["sequence"]), int(row["clock_ns"]), ticks, named)


class ControlAssembler:
    """Puts controls together from their records, which come in order. Later parts without the first are ignored."""

    def __init__(self) -> None:
        self._first: np.void | None = None
        self._pieces: list[bytes] = []

    def feed(self, row: np.void) -> ControlEntry | None:
        """Take one record of `layout.CONTROL`; the control where it was the last of it."""
        part = int(row["part"])
        if part == 0:
            self._first = row
            self._pieces.clear()
        elif self._first is None or part != len(self._pieces):
            self._first = None
            return None
        self._pieces.append(row["payload"].tobytes()[: row["payload_bytes"]])
        if part + 1 < row["parts"]:
            return None
        first, self._first = self._first, None
        return ControlEntry(
            sequence=int(first["sequence"]),
            code=int(first["code"]),
            clock_ns=int(first["clock_ns"]),
            payload=json.loads(b"".join(self._pieces)),
            restated=bool(first["flags"] & Flags.RESTATED),
        )


class RowNames:
    """Symbols by row, as a segment's SYMBOLS records say."""

    def __init__(self) -> None:
        self.symbols: dict[int, str] = {}
        self._assembler = ControlAssembler()

    def learn(self, rows: Rows) -> None:
        """Take in records of one segment, in order."""
        if not (rows["kind"] == RecordKind.CONTROL).any():
            return
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & (controls["code"] == ControlKind.SYMBOLS)
        for record in controls[wanted]:
            entry = self._assembler.feed(record)
            if entry is not None:
                self.symbols.update(zip(entry.payload["rows"], entry.payload["symbols"], strict=True))


def stated_models(rows: Rows) -> list[Model]:
    """Models that the MODEL records among rows of `layout.DECISION` state."""
    if not (rows["kind"] == RecordKind.CONTROL).any():
        return []
    controls = rows.view(CONTROL)
    stated = (controls["kind"] == RecordKind.CONTROL) & (controls["code"] == ControlKind.MODEL)
    return [
        Model(**json.loads(row["payload"].tobytes()[: row["payload_bytes"]]))
        for row in controls[stated]
        if row["parts"] == 1
    ]


def _given(row: np.void, given: int) -> dict[str, Any]:
    if given == FEATURES:
        return {"exchange_ts_ns": int(row["exchange_ts_ns"]), "reference_price": _finite(row["reference_price"])}
    if given != TICK:
        return {}
    found: dict[str, Any] = {"exchange_ts_ns": int(row["exchange_ts_ns"]), "tick_sequence": int(row["tick_sequence"])}
    return found | _sides(row, int(row["tick_kind"]))


def _sides(row: np.void, kind: int) -> dict[str, Any]:
    """The trade and the quote of a tick."""
    found: dict[str, Any] = {}
    if kind & TRADE:
        found["trade"] = {name: _finite(row[name]) for name in ("price", "size")}
    if kind & QUOTE:
        found["quote"] = {name: _finite(row[name]) for name in ("bid", "ask", "bid_size", "ask_size")}
    return found


def _model(model: Model | None, index: int) -> dict[str, Any] | None:
    if model is not None:
        return {"name": model.name, "version": model.version, "sha256": model.sha256}
    return None if index < 0 else {"index": index}


def _flags(flags: int) -> list[str]:
    return [flag.name or "" for flag in Flags if flags & flag]


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _member(
    numbers: type[Stage] | type[Action] | type[Reason] | type[ControlKind] | type[TickOutcome], number: int
) -> str:
    """Its name; the number as text where a newer writer knew more."""
    try:
        return numbers(number).name
    except ValueError:
        return str(number)


def _finite(value: Any) -> float | str:
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0.0 else "-Infinity")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
