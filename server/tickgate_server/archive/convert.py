"""Records of a journal as Arrow tables, by whole columns: no loop over rows.

Fixed-size text becomes Arrow's by one mask over the bytes; numbers of enums become names by looking each distinct one
up once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tickgate_server.archive.schema import CHECK_COLUMNS, DECISIONS, EVENTS, TICKS, schema_of
from tickgate_server.journal.entries import STATUSES, Model
from tickgate_server.journal.layout import (
    CONTROL,
    DECISION,
    NO_ROW,
    PUBLISHED,
    RECORD_BYTES,
    ControlKind,
    Flags,
    RecordKind,
    TickOutcome,
)
from tickgate_server.journal.layout import TICKS as TICKS_RECORD
from tickgate_server.journal.segments import Rows
from tickgate_server.records import FEATURES, SYMBOL, TICK, Stage
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.ticks.market import QUOTE, TRADE

_INPUTS = {TICK: "tick", FEATURES: "features", SYMBOL: "symbol", 0: None}
_STATUSES = dict(enumerate(STATUSES))
_TAKEN = (TickOutcome.ACCEPTED, TickOutcome.CONFIRMED)
_DAY_NS = 86_400 * 1_000_000_000
_OF_TRADE, _OF_QUOTE = ("price", "size"), ("bid", "ask", "bid_size", "ask_size")
_DECIDED = ("ticket", "trades_in_window", "budget_ns", "valid_for_us", "order_size", "limit_price", "target")
_TIMED = ("waiting_ns", "features_ns", "inference_ns", "risk_ns")

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records are from.

    Attributes:
        worker: Name of the worker's folder; empty: the one process of a server.
        journal_ns: Which journal, see `schema`.
        models: By index.
        checks: Names of the checks, as the segment's header has them.
        symbols: By row, as far as SYMBOLS controls told them.
    """

    worker: str
    journal_ns: int
    models: Mapping[int, Model]
    checks: Sequence[str]
    symbols: Mapping[int, str]


def times_of(rows: Rows, before_ns: int) -> NDArray[np.int64]:
    """When each record was journaled, ns since the epoch, int64 [n].

    A record's own clock; where it read none, that of the last record before it that did. In replay mode nothing reads
    a clock: there a tick that was applied is the clock.

    Args:
        rows: In the order journaled.
        before_ns: The time of the record before the first.
    """
    clock = rows["clock_ns"].astype(np.int64)
    kind = rows["kind"]
    controls = kind == RecordKind.CONTROL
    if controls.any():
        clock[controls] = rows[controls].view(CONTROL)["clock_ns"]
    published = kind == RecordKind.TICKS
    if published.any():
        records = rows[published].view(TICKS_RECORD)
        ticks = records["ticks"]
        newest = np.where(np.isin(ticks["outcome"], _TAKEN), ticks["exchange_ts_ns"], 0).max(axis=1)
        clock[published] = np.where(records["clock_ns"] > 0, records["clock_ns"], newest)
    asked = (kind == RecordKind.DECISION) & (rows["input"] == TICK) & rows["applied"] & (clock == 0)
    clock[asked] = rows["exchange_ts_ns"][asked]
    known = np.where(clock > 0, np.arange(1, rows.size + 1), 0)
    last = np.maximum.accumulate(known)
    return np.where(last > 0, clock[last - 1], before_ns)


def decisions_of(rows: Rows, times_ns: NDArray[np.int64], origin: Origin) -> pa.Table:
    """The DECISION records among rows, with the columns `date` (days since the epoch) and `model` before the others."""
    chosen = rows["kind"] == RecordKind.DECISION
    rows, times_ns = rows[chosen], times_ns[chosen]
    begun = rows["stage"] != Stage.NONE
    given = rows["input"]
    flags = rows["flags"]
    named_input = given != 0
    columns: dict[str, Any] = _of_all(rows, times_ns, origin) | _of_model(rows, origin)
    columns |= {
        "clock_ns": _numbers(rows["clock_ns"], rows["clock_ns"] != 0),
        "symbol": _text(rows, DECISION, "symbol", named_input),
        "model_asked": _text(rows, DECISION, "model_asked"),
        "request_id": _text(rows, DECISION, "request_id"),
        "input": _named(given, _INPUTS),
        "status": _named(rows["status"], _STATUSES),
        "stage": _named(rows["stage"], _names(Stage)),
        "repeated": pa.array((flags & Flags.REPEATED) != 0),
        "flags": _numbers(flags),
        "action": _named(np.where(begun, rows["action"], 0), _names(Action) | {0: None}),
        "reason": _named(np.where(begun, rows["reason"], 0), _names(Reason) | {0: None}),
        "exchange_ts_ns": _numbers(rows["exchange_ts_ns"], (given == TICK) | (given == FEATURES)),
        "tick_sequence": _numbers(rows["tick_sequence"], rows["tick_sequence"] != 0),
        "reference_price": _numbers(rows["reference_price"], given == FEATURES),
        "asked_budget_ns": _numbers(rows["asked_budget_ns"], rows["asked_budget_ns"] != 0),
        "features_ts_ns": _numbers(rows["features_ts_ns"], rows["features_ts_ns"] != 0),
        "total_ns": _numbers(rows["total_ns"], rows["stage"] == Stage.ENCODING),
        "value": _numbers(rows["value"], rows["scored"]),
        "confidence": _numbers(rows["confidence"], rows["scored"]),
        "features": _vectors(rows),
    }
    columns |= {name: pa.array(rows[name]) for name in ("applied", "ready", "scored", "judged")}
    columns |= {name: _numbers(rows[name], begun) for name in (*_DECIDED, *_TIMED)}
    columns["ticket"] = _numbers(rows["ticket"], rows["ticket"] != 0)
    columns |= _given(rows, rows["tick_kind"], given == TICK)
    schema = schema_of(DECISIONS)
    for place, check in enumerate(origin.checks):
        name = f"check_{check.lower()}"
        columns[name] = _numbers(rows["checks"][:, place], rows["judged"] & (rows["check_count"] > place))
        if name not in CHECK_COLUMNS:  # a writer that knew another
            schema = schema.insert(schema.get_field_index("features"), pa.field(name, pa.float64()))
    return _table(schema, columns, rows.size, times_ns, _of_partition(rows, origin))


def events_of(rows: Rows, times_ns: NDArray[np.int64], origin: Origin) -> pa.Table:
    """The controls among rows: their JSON put together of the records of each; as `decisions_of`.

    The rows must hold all records of each control, in order; parts without a first one are left out.
    """
    chosen = rows["kind"] == RecordKind.CONTROL
    controls, times_ns = rows[chosen].view(CONTROL), times_ns[chosen]
    first = controls["part"] == 0
    if not first.all():
        led = np.maximum.accumulate(np.where(first, np.arange(controls.size), -1))
        follows = (led >= 0) & (controls["part"] == np.arange(controls.size) - led)
        controls, times_ns, first = controls[follows], times_ns[follows], first[follows]
    heads = controls[first]
    texts = _masked(_bytes_of(controls, CONTROL, "payload"), controls["payload_bytes"])
    lengths = controls["payload_bytes"].astype(np.int64)
    if heads.size:
        lengths = np.add.reduceat(lengths, np.flatnonzero(first))
    columns: dict[str, Any] = _of_all(heads, times_ns[first], origin) | {
        "clock_ns": _numbers(heads["clock_ns"], heads["clock_ns"] != 0),
        "control": _named(heads["code"], _names(ControlKind)),
        "restated": pa.array((heads["flags"] & Flags.RESTATED) != 0),
        "payload": _strings(texts, lengths),
    }
    return _table(schema_of(EVENTS), columns, heads.size, times_ns[first], None)


def ticks_of(rows: Rows, times_ns: NDArray[np.int64], origin: Origin) -> pa.Table:
    """The published ticks of the TICKS records among rows; as `decisions_of`."""
    chosen = rows["kind"] == RecordKind.TICKS
    records = rows[chosen].view(TICKS_RECORD)
    width = records["ticks"].shape[1]
    used = np.arange(width) < records["tick_count"][:, None]
    record, place = np.nonzero(used)
    ticks = np.ascontiguousarray(records["ticks"])[used].astype(PUBLISHED, copy=False)
    times_ns = times_ns[chosen][record]
    symbols = dict(origin.symbols) | {NO_ROW: None}
    columns: dict[str, Any] = _of_all(records[record], times_ns, origin) | {
        "place": _numbers(place),
        "symbol": _named(ticks["row"], symbols, default=None),
        "outcome": _named(ticks["outcome"], _names(TickOutcome)),
        "reason": _named(ticks["reason"], _names(Reason) | {0: None}),
        "exchange_ts_ns": _numbers(ticks["exchange_ts_ns"]),
        "tick_sequence": _numbers(ticks["tick_sequence"], ticks["tick_sequence"] != 0),
    }
    columns |= _given(ticks, ticks["kind"], np.ones(ticks.size, np.bool_))
    return _table(schema_of(TICKS), columns, ticks.size, times_ns, None)


def _of_all(rows: Rows, times_ns: NDArray[np.int64], origin: Origin) -> dict[str, Any]:
    return {
        "worker": _repeated(origin.worker, rows.size),
        "journal_ns": pa.array(np.full(rows.size, origin.journal_ns, np.int64)),
        "sequence": _numbers(rows["sequence"]),
        "time": pa.array(times_ns).view(pa.timestamp("ns")),
    }


def _of_model(rows: Rows, origin: Origin) -> dict[str, Any]:
    index, models = rows["model_index"], origin.models
    known = np.unique(index)
    versions: dict[int, int] = {int(k): models[int(k)].version for k in known if int(k) in models}
    place = np.searchsorted(known, index)
    version = np.array([versions.get(int(k), 0) for k in known], np.int64)[place]
    return {
        "model_version": _numbers(version, version > 0),
        "model_sha256": _named(index, {k: model.sha256 for k, model in models.items()}, default=None),
        "schema_id": _named(index, {k: model.schema_id for k, model in models.items()}, default=None),
    }


def _of_partition(rows: Rows, origin: Origin) -> pa.Array:
    return _named(rows["model_index"], {k: model.name for k, model in origin.models.items()}, default=None)


def _given(rows: Rows, kind: NDArray[np.uint8], given: Mask) -> dict[str, Any]:
    trade, quote = given & ((kind & TRADE) != 0), given & ((kind & QUOTE) != 0)
    found = {name: _numbers(rows[name], trade) for name in _OF_TRADE}
    return found | {name: _numbers(rows[name], quote) for name in _OF_QUOTE}


def _table(
    schema: pa.Schema, columns: Mapping[str, Any], count: int, times_ns: NDArray[np.int64], model: pa.Array | None
) -> pa.Table:
    """Columns in the schema's order and types; a check that the segment did not have is NULL."""
    arrays = [pa.array((times_ns // _DAY_NS).astype(np.int32))]
    fields = [pa.field("date", pa.int32())]
    if model is not None:
        arrays.append(model)
        fields.append(pa.field("model", pa.string()))
    for field in schema:
        found = columns.get(field.name)
        arrays.append(pa.nulls(count, field.type) if found is None else found.cast(field.type))
        fields.append(field)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _numbers(values: NDArray[Any], there: Mask | None = None) -> pa.Array:
    """A column of numbers; NULL where there is none."""
    values = np.ascontiguousarray(values)
    return pa.array(values) if there is None else pa.array(values, mask=~there)


def _names(numbers: type[IntEnum]) -> dict[int, str | None]:
    return {int(member): member.name for member in numbers}


def _named(numbers: NDArray[Any], names: Mapping[int, str | None], default: str | None = "") -> pa.Array:
    """Names of numbers; what has none is the number as text, where a newer writer knew more, or `default` if None."""
    known, place = np.unique(numbers, return_inverse=True)
    found = [names.get(int(k), None if default is None else str(int(k))) for k in known]
    return pa.array(found, pa.string()).take(pa.array(place.reshape(-1)))


def _repeated(value: str, count: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(count, np.int64)))


def _bytes_of(rows: Rows, layout: np.dtype[np.void], name: str) -> NDArray[np.uint8]:
    """A field of fixed size as it lies there, uint8 [n, bytes]: numpy's texts drop NULs at their end."""
    if layout.fields is None:
        raise TypeError(f"{layout}: expected a record")
    field, at = layout.fields[name][:2]
    whole = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, RECORD_BYTES)
    return whole[:, at : at + field.itemsize]


def _text(rows: Rows, layout: np.dtype[np.void], name: str, there: Mask | None = None) -> pa.Array:
    lengths = rows[f"{name}_bytes"].astype(np.int64)
    if there is not None:
        lengths = np.where(there, lengths, 0)
    return _strings(_masked(_bytes_of(rows, layout, name), lengths), lengths, there)


def _masked(matrix: NDArray[np.uint8], lengths: NDArray[Any]) -> NDArray[np.uint8]:
    """The leading bytes in use of each row, one row behind the other."""
    return np.asarray(matrix[np.arange(matrix.shape[1]) < np.asarray(lengths)[:, None]])


def _strings(texts: NDArray[np.uint8], lengths: NDArray[np.int64], there: Mask | None = None) -> pa.Array:
    offsets = np.zeros(lengths.size + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    validity = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little").tobytes())
    return pa.StringArray.from_buffers(
        lengths.size, pa.py_buffer(offsets.tobytes()), pa.py_buffer(texts.tobytes()), validity
    )


def _vectors(rows: Rows) -> pa.Array:
    """The vectors as wide as each is; NULL where there is none."""
    width = rows["vector_width"].astype(np.int64)
    values = np.ascontiguousarray(rows["vector"])
    used = values[np.arange(values.shape[1]) < width[:, None]]
    offsets = np.zeros(rows.size + 1, np.int32)
    np.cumsum(width, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(used, pa.float32()), mask=pa.array(width == 0))
