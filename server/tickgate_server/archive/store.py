"""An archive from the writer's side: tables to files, a commit for each journal's turn, old days let go.

One process at a time. A file's name is `g<generation>-<worker>-<first>-<last>.parquet`, of the records in it, or
`g<generation>-merged-<k>.parquet`; what has a later generation than the manifest was written by a process that was
killed before its commit, and is removed at the next start. Files that the manifest knows nothing of otherwise are left
alone, and said.
"""

import contextlib
import datetime as dt
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from tickgate_server.archive.errors import ArchiveBusy, ArchiveInvalid, ArchiveMissing
from tickgate_server.archive.manifest import ArchivedFile, Manifest, read_manifest, sync_folder, write_manifest
from tickgate_server.archive.places import Position
from tickgate_server.archive.schema import (
    DECISIONS,
    NO_MODEL,
    ROW_GROUP_ROWS,
    SCHEMA_VERSION,
    SORTED_BY,
    TABLES,
    TableName,
    encodings_of,
)

LOCK_FILE = "lock"
INCOMING = ".incoming"  # end of the name of a file that is being written
_GENERATION = re.compile(r"^g(\d{10})-.*\.parquet$")
_ZSTD_LEVEL = 3
_EPOCH = dt.date(1970, 1, 1)

_LOG = structlog.get_logger()


class ArchiveStore:
    """Writes an archive.

    Attributes:
        manifest: As committed last.

    Args:
        folder: Made if need be.

    Raises:
        ArchiveBusy: Another process writes to it.
        ArchiveInvalid: What is there is no archive of this version; or there are files and no manifest.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self.manifest = self._begin()
            self._clean()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let the folder go."""
        os.close(self._lock)

    def append(self, worker: str, tables: Mapping[TableName, pa.Table], position: Position) -> None:
        """Commit what was read of a worker's journal, and how far that reaches: both or nothing.

        Args:
            worker: Whose.
            tables: From `tables.JournalTables.take`.
            position: That of it.

        Raises:
            OSError: Nothing was committed; the same may be tried again.
        """
        generation = self.manifest.generation + 1
        new: list[ArchivedFile] = []
        for table, rows in tables.items():
            for date, model, unsorted in _partitions(table, rows):
                part = unsorted.take(pc.sort_indices(unsorted, [(name, "ascending") for name in SORTED_BY[table]]))
                sequences = part["sequence"].to_numpy()
                name = f"g{generation:010d}-{worker or 'one'}-{sequences.min()}-{sequences.max()}.parquet"
                path = folder_of(table, date, model) / name
                with ParquetFile(self.folder / path, table, part.schema) as file:
                    file.write(part)
                new.append(file.entry(path, date, model))
        self.commit(new, (), {worker: position})

    def commit(
        self, new: Sequence[ArchivedFile], gone: Sequence[ArchivedFile], positions: Mapping[str, Position] | None = None
    ) -> None:
        """Have files count, and others not any more, which are then removed; see `manifest`.

        Raises:
            OSError: Nothing has changed.
        """
        before = self.manifest
        for folder in {self.folder / above for file in new for above in Path(file.path).parents}:
            sync_folder(folder)
        away = {file.path for file in gone}
        after = before.model_copy(
            update={
                "generation": before.generation + 1,
                "positions": {**before.positions, **(positions or {})},
                "files": (*(file for file in before.files if file.path not in away), *new),
                "dropped": tuple(sorted(away)),
                "committed_ns": time.time_ns(),
            }
        )
        write_manifest(self.folder, after)
        self.manifest = after
        self._remove(away)

    def retain(self, days: int) -> int:
        """Let days go that are more than so many before their table's newest; returns how many rows went.

        Raises:
            OSError: Nothing has changed.
        """
        oldest = {
            table: (dt.date.fromisoformat(newest) - dt.timedelta(days=days)).isoformat()
            for table, newest in self.manifest.newest.items()
        }
        gone = [file for file in self.manifest.files if file.date < oldest[file.table]]
        if gone:
            self.commit((), gone)
            _LOG.info(
                "archive let go", before=max(oldest.values()), files=len(gone), rows=sum(file.rows for file in gone)
            )
        return sum(file.rows for file in gone)

    def _begin(self) -> Manifest:
        try:
            return read_manifest(self.folder)
        except ArchiveMissing:
            there = next((path for table in TABLES for path in (self.folder / table).rglob("*.parquet")), None)
            if there is not None:
                raise ArchiveInvalid(
                    self.folder, f"expected a manifest.json, found none and {there}: what counts is not known"
                ) from None
        write_manifest(self.folder, Manifest())  # before any file: without one, files are never taken for left-overs
        return Manifest()

    def _clean(self) -> None:
        """Remove what a process that was killed left."""
        manifest = self.manifest
        self._remove(manifest.dropped)
        known = {file.path for file in manifest.files}
        strange = 0
        for path in (path for table in TABLES for path in (self.folder / table).rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_dir() or name in known:
                continue
            if path.name.endswith(INCOMING) or _generation(path.name) > manifest.generation:
                path.unlink(missing_ok=True)
                _LOG.info("archive left-over removed", path=name)
            else:
                strange += 1
        if strange:
            _LOG.warning("archive has files that its manifest does not name", folder=str(self.folder), files=strange)
        missing = [name for name in known if not (self.folder / name).is_file()]
        if missing:
            _LOG.error("archive files missing", files=len(missing), first=min(missing))

    def _remove(self, names: Sequence[str] | set[str]) -> None:
        for name in names:
            path = self.folder / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are in it yet
                for above in Path(name).parents[:-2]:  # not the table's
                    (self.folder / above).rmdir()


class ParquetFile:
    """A file of a table being written, row group by row group; named and on the disk when it ends without an error.

    Args:
        path: Where it will be.
        table: Whose rows it has.
        schema: Of them, with the partition's columns, which are left out of the file.
    """

    def __init__(self, path: Path, table: TableName, schema: pa.Schema) -> None:
        self._path = path
        self._beside = path.with_name(path.name + INCOMING)
        self._table = table
        names = [name for name in schema.names if name not in ("date", "model")]
        self._names = names
        dictionaries, encodings = encodings_of(table, names)
        stated = {"tickgate.schema_version": str(SCHEMA_VERSION), "tickgate.table": table}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = 0
        self._writer = pq.ParquetWriter(
            self._beside,
            pa.schema([schema.field(name) for name in names], metadata=stated),
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=dictionaries,
            column_encoding=encodings,
            write_page_index=True,
            bloom_filter_options={"request_id": {"ndv": ROW_GROUP_ROWS, "fpp": 0.01}} if table == DECISIONS else None,
            store_schema=False,
            version="2.6",
        )
        self._writer.add_key_value_metadata(stated)

    def write(self, rows: pa.Table) -> None:
        """Append rows, which come in the table's order."""
        self._writer.write_table(rows.select(self._names), row_group_size=ROW_GROUP_ROWS)
        self._rows += rows.num_rows

    def entry(self, path: Path, date: str, model: str | None, level: int = 0) -> ArchivedFile:
        """What the manifest is to say of it, once it has its name."""
        return ArchivedFile(
            path=str(path),
            table=self._table,
            date=date,
            model=model,
            rows=self._rows,
            size_bytes=self._path.stat().st_size,
            level=level,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is not None:
            self._beside.unlink(missing_ok=True)
            return
        descriptor = os.open(self._beside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._beside.rename(self._path)


def folder_of(table: str, date: str, model: str | None) -> Path:
    """Where files of a partition lie, in the archive's folder."""
    day = Path(table) / f"date={date}"
    return day / f"model={model or NO_MODEL}" if table == DECISIONS else day


def _partitions(table: str, rows: pa.Table) -> Iterator[tuple[str, str | None, pa.Table]]:
    """The rows of each day, and for decisions of each model."""
    for day in np.unique(rows["date"].to_numpy()).tolist():
        date = (_EPOCH + dt.timedelta(days=day)).isoformat()
        of_day = rows.filter(pc.equal(rows["date"], day))
        if table != DECISIONS:
            yield date, None, of_day
            continue
        for model in pc.unique(of_day["model"]).to_pylist():
            named = of_day["model"]
            yield date, model, of_day.filter(pc.is_null(named) if model is None else pc.equal(named, model))


def _generation(name: str) -> int:
    """Of a file's name; 0 for one that is none of an archive's."""
    found = _GENERATION.match(name)
    return int(found[1]) if found else 0


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ArchiveBusy(folder) from None
    return descriptor
