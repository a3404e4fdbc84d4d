"""SQL over the decision log: Parquet and what the journals hold beyond it, as one; read-only, and no row twice.

The manifest is read first; the journals from where it ends. What is archived meanwhile stays in the files that the
manifest named: where one of them is gone by then, for it was merged, all is read anew.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from tickgate_server.archive.errors import ArchiveError, ArchiveMissing, QueryFailed, QueryRefused
from tickgate_server.archive.manifest import Manifest, read_manifest
from tickgate_server.archive.places import Position, find_start
from tickgate_server.archive.schema import DECISIONS, TABLES, TableName, schema_of
from tickgate_server.archive.tables import JournalTables
from tickgate_server.archive.views import VIEWS
from tickgate_server.journal.errors import JournalMissing
from tickgate_server.journal.segments import segment_numbers

MEMORY_LIMIT_MB = 2048
_ATTEMPTS = 5
_PARTITION = {"date": "DATE", "model": "VARCHAR"}

_Found = TypeVar("_Found")


class _Gone(Exception):
    """A file or a segment went while it was read: what is in force is another manifest by now."""


class DecisionLog:
    """An archive and journals as views of an in-memory DuckDB, which reads nothing else and writes nothing.

    Attributes:
        lost: Records of the journals that could not be read.

    Args:
        archive: Its folder; None: journals alone.
        journals: Folders by worker, as the archiver was told them; empty: the archive alone.
        memory_limit_mb: Of DuckDB; beyond it sorts and joins go to a temporary folder.

    Raises:
        ArchiveMissing: There is none, and no journal either.
        ArchiveInvalid: It is none that this version reads.
        JournalMissing: A journal's folder is not there.
    """

    def __init__(
        self, archive: Path | None, journals: Mapping[str, Path], *, memory_limit_mb: int = MEMORY_LIMIT_MB
    ) -> None:
        self.lost = 0
        self._archive = archive
        self._journals = journals
        self._memory_limit_mb = memory_limit_mb

    def query(
        self, sql: str, found: Callable[[duckdb.DuckDBPyRelation], _Found], parameters: Sequence[object] = ()
    ) -> _Found:
        """Run one SELECT.

        Args:
            sql: It; the views are in `VIEWS`, their columns in docs/query.md.
            found: What is to be done with the relation, before the views go.
            parameters: For each `?` in it.

        Raises:
            QueryRefused: It is no SELECT, or more than one statement.
            QueryFailed: DuckDB's words.
            ArchiveError: As the constructor.
            JournalError: As the constructor.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self._opened() as connection:
                    _require_select(connection, sql)
                    return found(connection.sql(sql, params=list(parameters) or None))
            except duckdb.IOException as error:
                if attempt + 1 == _ATTEMPTS or not self._moved():
                    raise QueryFailed(str(error)) from error
            except duckdb.Error as error:
                raise QueryFailed(str(error)) from error
            except _Gone:
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise QueryFailed("the archive changed faster than it could be read")

    def table(self, sql: str, *parameters: object) -> pa.Table:
        """The rows of one SELECT; as `query`."""
        return self.query(sql, lambda relation: relation.to_arrow_table(), parameters)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        manifest = self._read_manifest()
        live = self._read_journals(manifest)
        with tempfile.TemporaryDirectory(prefix="tickgate-query-") as spill, duckdb.connect(":memory:") as connection:
            for table in TABLES:
                connection.register(f"_live_{table}", live[table])
            self._attach(connection, manifest)
            for name, view in VIEWS.items():
                connection.execute(f"CREATE VIEW {name} AS {view}")
            self._confine(connection, spill)
            yield connection

    def _read_manifest(self) -> Manifest:
        if self._archive is None:
            return Manifest()
        try:
            self._generation = (manifest := read_manifest(self._archive)).generation
        except ArchiveMissing:
            if not self._journals:
                raise
            return Manifest()  # the archiver has not begun
        return manifest

    def _moved(self) -> bool:
        """Whether another manifest is in force than was read last."""
        try:
            return self._archive is not None and read_manifest(self._archive).generation != self._generation
        except ArchiveError:
            return False

    def _read_journals(self, manifest: Manifest) -> dict[TableName, pa.Table]:
        """What the journals hold beyond the archive, by table."""
        pieces: dict[TableName, list[pa.Table]] = {table: [_empty(table)] for table in TABLES}
        self.lost = 0
        for worker, journal in self._journals.items():
            for table, rows in self._read_journal(journal, worker, manifest.positions.get(worker)).items():
                pieces[table].append(rows.set_column(0, "date", rows["date"].cast(pa.date32())))
        return {table: pa.concat_tables(found, promote_options="default") for table, found in pieces.items()}

    def _read_journal(self, journal: Path, worker: str, position: Position | None) -> Mapping[TableName, pa.Table]:
        start = find_start(journal, position)
        if start is None:
            return {}
        tables = JournalTables(journal, worker, start)
        try:
            tables.catch_up()
            if tables.position.lost > start.position.lost and self._moved():
                raise _Gone  # archived since, and let go by retention
            self.lost += tables.position.lost - start.position.lost
            return tables.waiting()
        finally:
            tables.close()

    def _attach(self, connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
        """Make `_archived_<table>` of the files that count."""
        for table in TABLES:
            paths = [str((self._archive or Path()) / file.path) for file in manifest.files if file.table == table]
            if not paths:
                connection.register(f"_archived_{table}", _empty(table))
                continue
            partition = _PARTITION if table == DECISIONS else {"date": "DATE"}
            types = ", ".join(f"'{name}': {kind}" for name, kind in partition.items())
            quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
            # The manifest's own file names, quoted: a view takes no parameters.
            connection.execute(
                f"CREATE VIEW _archived_{table} AS SELECT * FROM read_parquet([{quoted}], union_by_name = true,"  # noqa: S608
                f" hive_partitioning = true, hive_types_autocast = false, hive_types = {{{types}}})"
            )

    def _confine(self, connection: duckdb.DuckDBPyConnection, spill: str) -> None:
        """From here on nothing but the archive is read, nothing is written, and no setting changes."""
        quoted = str(self._archive).replace("'", "''")
        for setting in (
            f"memory_limit = '{self._memory_limit_mb}MB'",
            f"temp_directory = '{spill}'",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            f"allowed_directories = ['{quoted}']" if self._archive is not None else "allowed_directories = []",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")


def journals_by_worker(folders: list[Path]) -> dict[str, Path]:
    """Journals under the names that the archiver gives them.

    Args:
        folders: A server's one journal, those of all its workers, or the folder that these lie in.

    Raises:
        JournalMissing: A folder is not there.
    """
    if len(folders) == 1:
        workers = sorted(folders[0].glob("worker-*"))
        if not workers:
            return {"": folders[0]}
        own = {"": folders[0]} if segment_numbers(folders[0]) else {}  # of before it had workers
        return own | {folder.name: folder for folder in workers}
    for folder in folders:
        if not folder.is_dir():
            raise JournalMissing(folder)
    return {folder.name: folder for folder in folders}


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryRefused(f"{len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise QueryRefused(statements[0].type.name)


def _empty(table: TableName) -> pa.Table:
    """No rows, with the partition's columns as DuckDB has them."""
    partition = [("date", pa.date32()), *([("model", pa.string())] if table == DECISIONS else [])]
    return pa.schema([*(pa.field(*column) for column in partition), *schema_of(table)]).empty_table()
