"""The tables of the decision log: their columns, and how each is encoded.

Times are UTC. A column that says nothing for its kind of request is NULL, never a zero that stands for nothing.
"""

from typing import Literal, NamedTuple, TypeAlias

import pyarrow as pa

from tickgate_server.risk.checks import CHECKS

SCHEMA_VERSION = 1
"""Of the columns below; in each file's metadata as `tickgate.schema_version`."""
TableName: TypeAlias = Literal["decisions", "events", "ticks"]
DECISIONS: TableName = "decisions"
EVENTS: TableName = "events"
TICKS: TableName = "ticks"
TABLES: tuple[TableName, ...] = (DECISIONS, EVENTS, TICKS)
ROW_GROUP_ROWS = 65_536
NO_MODEL = "__HIVE_DEFAULT_PARTITION__"
"""The folder of decisions without a model, by Hive's convention: read as NULL."""

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("ns")


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        name: Of the column.
        type: Arrow's.
        meaning: For docs/query.md.
        encoding: Parquet's; empty: a dictionary, where that pays.
    """

    name: str
    type: pa.DataType
    meaning: str
    encoding: str = ""


_DELTA, _SPLIT = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"

_OF_ALL = (
    Column("worker", _TEXT, "Folder of the worker's journal, `worker-0`; empty for a server of one process"),
    Column("journal_ns", _INT, "Which journal: when its first archived segment was made, ns since the epoch"),
    Column("sequence", _INT, "Of the record in that journal: with the two columns before it names the record", _DELTA),
    Column(
        "time",
        _TIME,
        "Wall clock that was read for it; where none was, of what was journaled before it; in replay mode the ticks'",
        _DELTA,
    ),
)

_DECISION_BEFORE_CHECKS = (
    *_OF_ALL,
    Column("clock_ns", _INT, "Wall clock that was read for it; NULL where none was", _DELTA),
    Column("symbol", _TEXT, "Asked about; NULL where the request could not be decoded"),
    Column("model_version", pa.int32(), "Version that decided; NULL where no model was found"),
    Column("model_sha256", _TEXT, "Hash of its graph"),
    Column("schema_id", _TEXT, "Of its features"),
    Column("model_asked", _TEXT, "The model as the request named it"),
    Column("request_id", _TEXT, "The caller's", "PLAIN"),
    Column("input", _TEXT, "What the request gave: `tick`, `features`, `symbol`; NULL: nothing that could be decoded"),
    Column("status", _TEXT, "gRPC status as journaled; the view has it as `journaled_status`, and corrects `status`"),
    Column("stage", _TEXT, "The last that the request entered: NONE, WAITING, FEATURES, INFERENCE, RISK, ENCODING"),
    Column("applied", _BOOL, "Whether its tick changed state"),
    Column("ready", _BOOL, "Whether the features were complete"),
    Column("scored", _BOOL, "Whether the model ran and gave a usable output"),
    Column("judged", _BOOL, "Whether the risk gate was reached"),
    Column("repeated", _BOOL, "Its request id was answered before: nothing was applied, scored or reserved"),
    Column("flags", pa.int32(), "Bits of `journal.layout.Flags`"),
    Column("action", _TEXT, "HOLD, BUY or SELL; NULL where the decision was not begun"),
    Column("reason", _TEXT, "Why: see docs/reasons.md; NULL: none"),
    Column("ticket", pa.int32(), "Of the STARTED event before it, where the model has a thread of its own"),
    Column("trades_in_window", pa.int32(), "Trades the windows held", _DELTA),
    Column("exchange_ts_ns", _INT, "Venue's time of the tick or the features", _DELTA),
    Column("tick_sequence", pa.uint64(), "The feed's number", _DELTA),
    Column("price", _FLOAT, "Of the trade"),
    Column("size", _FLOAT, "Of the trade"),
    Column("bid", _FLOAT, "Of the quote"),
    Column("ask", _FLOAT, "Of the quote"),
    Column("bid_size", _FLOAT, "Of the quote"),
    Column("ask_size", _FLOAT, "Of the quote"),
    Column("reference_price", _FLOAT, "That came with features"),
    Column("asked_budget_ns", _INT, "From the request and its deadline"),
    Column("budget_ns", _INT, "In force: the lesser of that and the model's"),
    Column("valid_for_us", _INT, "How long an approved signal may be executed"),
    Column("features_ts_ns", _INT, "Venue's time of what the features were last computed from", _DELTA),
    Column("waiting_ns", _INT, "Arrival to engine", _DELTA),
    Column("features_ns", _INT, "Time in features", _DELTA),
    Column("inference_ns", _INT, "Time in the model", _DELTA),
    Column("risk_ns", _INT, "Time in the risk gate", _DELTA),
    Column("total_ns", _INT, "Arrival to encoding; NULL unless it came so far", _DELTA),
    Column("order_size", _FLOAT, "Of the signal, unsigned; 0: none"),
    Column("limit_price", _FLOAT, "Of the signal; 0: none"),
    Column("target", _FLOAT, "Signed position that the model asks for"),
    Column("value", _FLOAT, "P(up) - P(down); NULL unless scored", _SPLIT),
    Column("confidence", _FLOAT, "Probability of the predicted direction; NULL unless scored", _SPLIT),
)
CHECK_COLUMNS = tuple(f"check_{check.reason.name.lower()}" for check in CHECKS)
"""A column a check, in the order of `risk.checks.CHECKS`: what was measured, for the limit see `tickgate explain`."""
_FEATURES = Column("features", pa.list_(pa.float32()), "The vector, in the order of the model's features", _SPLIT)

DECISION_COLUMNS = (
    *_DECISION_BEFORE_CHECKS,
    *(
        Column(name, _FLOAT, f"Measured for {check.reason.name}; NULL unless judged")
        for name, check in zip(CHECK_COLUMNS, CHECKS, strict=True)
    ),
    _FEATURES,
)
EVENT_COLUMNS = (
    *_OF_ALL,
    Column("clock_ns", _INT, "Wall clock that was read for it; NULL where none was", _DELTA),
    Column("control", _TEXT, "What it tells: a name of `journal.layout.ControlKind`"),
    Column("restated", _BOOL, "It says again what an earlier segment says already"),
    Column("payload", _TEXT, "As it was journaled, JSON; NaN and Infinity are literals", "PLAIN"),
)
TICK_COLUMNS = (
    *_OF_ALL,
    Column("place", pa.int32(), "In the record, from 0: the order in which its ticks were applied"),
    Column("symbol", _TEXT, "NULL where it has no row"),
    Column("outcome", _TEXT, "What became of it: a name of `journal.layout.TickOutcome`"),
    Column("reason", _TEXT, "Why it was rejected or held back; NULL: it was not"),
    Column("exchange_ts_ns", _INT, "Venue's time", _DELTA),
    Column("tick_sequence", pa.uint64(), "The feed's number", _DELTA),
    Column("price", _FLOAT, "Of the trade"),
    Column("size", _FLOAT, "Of the trade"),
    Column("bid", _FLOAT, "Of the quote"),
    Column("ask", _FLOAT, "Of the quote"),
    Column("bid_size", _FLOAT, "Of the quote"),
    Column("ask_size", _FLOAT, "Of the quote"),
)
COLUMNS: dict[TableName, tuple[Column, ...]] = {DECISIONS: DECISION_COLUMNS, EVENTS: EVENT_COLUMNS, TICKS: TICK_COLUMNS}

SORTED_BY: dict[TableName, tuple[str, ...]] = {
    DECISIONS: ("symbol", "time", "worker", "journal_ns", "sequence"),
    EVENTS: ("control", "time", "worker", "journal_ns", "sequence"),
    TICKS: ("symbol", "time", "worker", "journal_ns", "sequence", "place"),
}
"""Rows of a file are in this order, so that a query by symbol and hour reads few row groups."""


def schema_of(table: TableName) -> pa.Schema:
    """Arrow's schema of a table."""
    return pa.schema([(column.name, column.type) for column in COLUMNS[table]])


def encodings_of(table: TableName, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Columns with a dictionary, and the encodings of the others, by their paths in Parquet.

    Args:
        table: Which.
        names: Of the columns that are written; a check that this version does not know is a number as the others.
    """
    known = {column.name: column for column in COLUMNS[table]}
    dictionaries: list[str] = []
    others: dict[str, str] = {}
    for name in names:
        column = known.get(name)
        path = f"{name}.list.element" if column is not None and pa.types.is_list(column.type) else name
        if column is None or not column.encoding:
            dictionaries.append(path)
        else:
            others[path] = column.encoding
    return dictionaries, others
