"""Rows of a query for people and for programs."""

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tickgate_server.archive.query import DecisionLog

_BATCH = 16_384


def write(log: DecisionLog, sql: str, form: str, output: Path | None, rows: int) -> None:
    """Write what a SELECT gives.

    Args:
        log: That is asked.
        sql: The SELECT.
        form: `table`, `csv` (with a header), `json` (an object a line, as `journal cat --json` writes numbers that are
            not finite), or `parquet`.
        output: File; None: standard output.
        rows: Most that a table shows.

    Raises:
        ArchiveError: As `DecisionLog.query`.
        OSError: It cannot be written.
    """
    if form == "table" and output is None:
        click.echo(log.query(sql, lambda relation: _shown(relation, rows)))
        return
    writers: dict[str, Callable[[pa.RecordBatchReader, BinaryIO], None]] = {
        "csv": _csv,
        "json": _json,
        "parquet": _parquet,
    }
    if form == "table":
        text = log.query(sql, lambda relation: _shown(relation, rows))
        (output or Path()).write_text(f"{text}\n")
        return
    with _opened(output) as file:
        log.query(sql, lambda relation: writers[form](relation.to_arrow_reader(_BATCH), file))


def _shown(relation: duckdb.DuckDBPyRelation, rows: int) -> str:
    """As DuckDB draws it: columns that do not fit are left out in the middle."""
    drawn = io.StringIO()
    with redirect_stdout(drawn):
        relation.show(max_width=shutil.get_terminal_size((160, 50)).columns, max_rows=rows)
    return drawn.getvalue().rstrip("\n")


def _csv(batches: pa.RecordBatchReader, file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(batches.schema.names)
    for batch in batches:
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        writer.writerows(zip(*columns, strict=True))
    text.detach()


def _json(batches: pa.RecordBatchReader, file: BinaryIO) -> None:
    for batch in batches:
        file.writelines(json.dumps(_plain(row), allow_nan=False).encode() + b"\n" for row in batch.to_pylist())


def _parquet(batches: pa.RecordBatchReader, file: BinaryIO) -> None:
    with pq.ParquetWriter(file, batches.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(_plain(value))
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0.0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: Any) -> str:
    """A time or a date; ISO 8601."""
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with output.open("wb") as file:
        yield file
