"""Small files of a day merged into larger ones, sorted throughout, in bounded memory.

Each file is sorted by the table's keys, so what of it falls into a chunk of the merged order is one run of its rows:
the keys alone are sorted, and the rows are then read in step, a run of each file at a time.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from numpy.typing import NDArray

from tickgate_server.archive.manifest import ArchivedFile, Manifest
from tickgate_server.archive.schema import EVENTS, ROW_GROUP_ROWS, SORTED_BY, TableName
from tickgate_server.archive.store import ArchiveStore, ParquetFile, folder_of

FAN_IN = 16
"""So many files of one level in a partition are merged into one of the next."""
_MOST_FILES = 2 * FAN_IN  # read in step: 8,192 rows of each are held
_BATCH_ROWS = ROW_GROUP_ROWS // 8
_EVENT_ROWS = 4096  # a chunk of events: one may have megabytes

_LOG = structlog.get_logger()


def choose(manifest: Manifest, rows_a_file: int, *, newest_too: bool = False) -> list[ArchivedFile]:
    """Files of one partition that are to be merged; empty: none are.

    All small files of a day that is over are; of a table's newest day so many as `FAN_IN` of one level.

    Args:
        manifest: Of the archive.
        rows_a_file: A merged file has about so many at most; larger ones are left as they are.
        newest_too: The newest day is over as well.
    """
    partitions: dict[tuple[TableName, str, str | None], list[ArchivedFile]] = defaultdict(list)
    for file in manifest.files:
        if file.rows < rows_a_file:
            partitions[file.partition].append(file)
    newest = manifest.newest
    for (table, date, _), files in partitions.items():
        small = sorted(files, key=lambda file: (file.level, file.path))
        if date == newest[table] and not newest_too:
            level = next((k for k in {file.level for file in small} if _count(small, k) >= FAN_IN), None)
            small = [file for file in small if file.level == level]
        chosen = _within(small, rows_a_file)
        if len(chosen) > 1:
            return chosen
    return []


def merge(store: ArchiveStore, files: Sequence[ArchivedFile]) -> None:
    """Put one file in the place of several of a partition, all rows once; a killed merge changes nothing.

    Raises:
        OSError: Nothing has changed.
    """
    table, date, model = files[0].partition
    path = folder_of(table, date, model) / f"g{store.manifest.generation + 1:010d}-merged-{len(files)}.parquet"
    sources = [store.folder / file.path for file in files]
    schema = pa.unify_schemas([pq.read_schema(source).remove_metadata() for source in sources])
    with ParquetFile(store.folder / path, table, schema) as merged:
        for chunk in _in_order(sources, table, schema):
            merged.write(chunk)
    entry = merged.entry(path, date, model, level=max(file.level for file in files) + 1)
    if entry.rows != sum(file.rows for file in files):
        (store.folder / path).unlink()
        raise OSError(f"{path}: merged {entry.rows} rows of {sum(file.rows for file in files)}")
    store.commit([entry], files)
    _LOG.debug("archive merged", path=str(path), files=len(files), rows=entry.rows)


def _count(files: Sequence[ArchivedFile], level: int) -> int:
    return sum(file.level == level for file in files)


def _within(files: Sequence[ArchivedFile], rows: int) -> list[ArchivedFile]:
    """The first files that together have so many rows at most, two at least; not more than are read in step."""
    chosen: list[ArchivedFile] = []
    total = 0
    for file in files[:_MOST_FILES]:
        if total + file.rows > rows and len(chosen) > 1:
            break
        chosen.append(file)
        total += file.rows
    return chosen


def _in_order(sources: Sequence[Path], table: TableName, schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows of sorted files in the order of them all, a row group at a time."""
    order, source = _order(sources, SORTED_BY[table])
    size = _EVENT_ROWS if table == EVENTS else ROW_GROUP_ROWS
    runs = [_Run(path, schema) for path in sources]
    try:
        for begin in range(0, order.size, size):
            chosen = order[begin : begin + size]
            counts = np.bincount(source[chosen], minlength=len(runs))
            pieces = pa.concat_tables([run.read(int(count)) for run, count in zip(runs, counts, strict=True) if count])
            # Pieces lie one behind the other by source; a row's place among them is that of its number.
            place = np.empty(chosen.size, np.int64)
            place[np.argsort(chosen)] = np.arange(chosen.size)
            yield pieces.take(pa.array(place))
    finally:
        for run in runs:
            run.close()


def _order(sources: Sequence[Path], keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Numbers of all rows in order, counted through the sources, and the source of each number."""
    counts = [pq.read_metadata(path).num_rows for path in sources]
    columns = [_ranked(sources, name) for name in keys]
    return np.lexsort(columns[::-1]), np.repeat(np.arange(len(sources), dtype=np.int32), counts)


def _ranked(sources: Sequence[Path], name: str) -> NDArray[Any]:
    """A key of all rows as numbers that sort like it; texts by their place among the distinct ones, NULL last."""
    text = pa.types.is_string(pq.read_schema(sources[0]).field(name).type)
    pieces = [
        pq.read_table(path, columns=[name], read_dictionary=[name] if text else None, partitioning=None)[name]
        for path in sources
    ]
    if not text:
        kind = pa.int64() if pa.types.is_timestamp(pieces[0].type) else pieces[0].type
        return np.concatenate([piece.cast(kind).to_numpy() for piece in pieces])
    chunks = [chunk for piece in pieces for chunk in piece.chunks]
    known = sorted({value for chunk in chunks for value in chunk.dictionary.to_pylist()})  # as UTF-8's bytes sort
    place = {value: rank for rank, value in enumerate(known)}
    ranks = [
        np.array([*map(place.__getitem__, chunk.dictionary.to_pylist()), len(known)], np.int32) for chunk in chunks
    ]
    return np.concatenate(
        [rank[chunk.indices.fill_null(rank.size - 1).to_numpy()] for rank, chunk in zip(ranks, chunks, strict=True)]
    )


class _Run:
    """A file read from its beginning, so many rows at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pq.ParquetFile(path)
        self._batches = self._file.iter_batches(batch_size=_BATCH_ROWS)
        self._schema = schema
        self._left: pa.Table | None = None

    def read(self, count: int) -> pa.Table:
        pieces: list[pa.Table] = []
        while count:
            if self._left is None or not self._left.num_rows:
                self._left = self._filled(pa.Table.from_batches([next(self._batches)]))
            piece = self._left.slice(0, count)
            self._left = self._left.slice(piece.num_rows)
            count -= piece.num_rows
            pieces.append(piece)
        return pa.concat_tables(pieces)

    def _filled(self, rows: pa.Table) -> pa.Table:
        """With NULL in the columns that only other files have."""
        arrays = [
            rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
            for field in self._schema
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def close(self) -> None:
        self._file.close()
