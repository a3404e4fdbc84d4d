"""QuestDB as a sink: line protocol over HTTP, into tables that keep each record once.

Tables are made with DEDUP UPSERT KEYS of time and the record's identity, so that rows which are sent again replace
themselves (https://questdb.com/docs/concept/deduplication). Lines are those of InfluxDB's protocol as QuestDB reads it
(https://questdb.com/docs/reference/api/ilp/overview), made by whole columns. A request is one transaction a table.
Vectors are left out: the files have them.
"""

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickgate_server.archive.schema import COLUMNS, DECISIONS, TICKS, Column, TableName
from tickgate_server.archive.sink import SinkRefused, SinkUnreachable

NAME = "questdb"
TIMEOUT_S = 30.0
CHUNK_ROWS = 2_000  # of a request: about a megabyte
_TABLE = "tickgate_{}"
# What there are few different ones of: QuestDB's SYMBOL, sent as tags.
_TAGS = {
    "worker", "model", "symbol", "status", "action", "reason", "stage", "input", "control", "outcome", "schema_id",
    "model_sha256",
}  # fmt: skip
_NO_WORKER = "one"  # a tag may not be empty
_LARGEST = np.iinfo(np.int64).max
_MODEL = Column("model", pa.string(), "Name of the model that decided")


class QuestDb:
    """A QuestDB that is reached by HTTP.

    Args:
        url: `http://host:9000`; user and password may be in it.
        timeout_s: For each request.
    """

    name = NAME

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def prepare(self) -> None:
        """Make the three tables, where they are not there."""
        for table in COLUMNS:
            self._ask("GET", "/exec", {"query": _create(table)})

    def write(self, table: TableName, rows: pa.Table) -> None:
        """As `sink.Sink`."""
        texts = lines(table, rows)
        for first in range(0, len(texts), CHUNK_ROWS):
            body = "".join(texts.slice(first, CHUNK_ROWS).to_pylist()).encode()
            self._ask("POST", "/write", {"precision": "n"}, body)

    def close(self) -> None:
        """As `sink.Sink`."""
        self._client.close()

    def _ask(self, method: str, path: str, parameters: dict[str, str], content: bytes | None = None) -> None:
        try:
            found = self._client.request(method, path, params=parameters, content=content)
        except httpx.HTTPError as error:
            raise SinkUnreachable(NAME, str(error) or type(error).__name__) from error
        if found.status_code >= 500 or found.status_code in (408, 429):
            raise SinkUnreachable(NAME, f"{found.status_code}: {found.text[:300]}")
        if found.status_code >= 400:
            raise SinkRefused(NAME, f"{found.status_code}: {found.text[:300]}")


def lines(table: TableName, rows: pa.Table) -> pa.Array:
    """Rows as lines, string [n], each with its end."""
    tags: list[object] = [_TABLE.format(table)]
    fields: list[object] = []
    for column in _columns(table):
        values = rows[column.name].combine_chunks()
        if column.name in _TAGS:
            tags.append(pc.binary_join_element_wise(f",{column.name}=", _tag(column.name, values), ""))
        elif column.name != "time":
            comma = "," if fields else ""  # the first is `journal_ns`, which is always there
            fields.append(pc.binary_join_element_wise(f"{comma}{column.name}=", _field(values), ""))
    stamps = rows["time"].combine_chunks().cast(pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(
        *tags, " ", *fields, " ", stamps, "\n", "", null_handling="replace", null_replacement=""
    )


def _tag(name: str, values: pa.Array) -> pa.Array:
    if name == "worker":
        values = pc.if_else(pc.equal(values, ""), _NO_WORKER, values)
    whole = pc.if_else(pc.equal(values, ""), None, values)
    printable = pc.replace_substring_regex(whole, r"[\x00-\x1f\x7f]", "?")
    return pc.replace_substring_regex(printable, r"([ ,=\\])", r"\\\1")


def _field(values: pa.Array) -> pa.Array:
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "t", "f")
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_finite(values), values, None).cast(pa.string())
    if pa.types.is_integer(values.type):
        if values.type == pa.uint64():
            values = pc.if_else(pc.less_equal(values, pa.scalar(_LARGEST, pa.uint64())), values, None)
        return pc.binary_join_element_wise(values.cast(pa.string()), "i", "")
    printable = pc.replace_substring_regex(values, r"[\x00-\x1f\x7f]", " ")
    return pc.binary_join_element_wise('"', pc.replace_substring_regex(printable, r'(["\\])', r"\\\1"), '"', "")


def _columns(table: TableName) -> list[Column]:
    found = [column for column in COLUMNS[table] if not pa.types.is_list(column.type)]
    return [_MODEL, *found] if table == DECISIONS else found


def _create(table: TableName) -> str:
    columns = ", ".join(f'"{column.name}" {_type(column)}' for column in _columns(table))
    keys = "time, worker, journal_ns, sequence" + (", place" if table == TICKS else "")
    return (
        f"CREATE TABLE IF NOT EXISTS {_TABLE.format(table)} ({columns}) TIMESTAMP(time) PARTITION BY DAY WAL"
        f" DEDUP UPSERT KEYS({keys})"
    )


def _type(column: Column) -> str:
    if column.name in _TAGS:
        return "SYMBOL"
    if pa.types.is_timestamp(column.type):
        return "TIMESTAMP_NS"
    if pa.types.is_boolean(column.type):
        return "BOOLEAN"
    if pa.types.is_floating(column.type):
        return "DOUBLE"
    return "LONG" if pa.types.is_integer(column.type) else "VARCHAR"
