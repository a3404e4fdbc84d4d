"""What an archive consists of: one file that names all others, replaced as a whole.

Files are written first and counted by no one. The manifest that names them is written beside and renamed: with that,
rows of several files and the position in the journal change together. So a process that is killed at any point leaves
either all of a commit or none, and readers see no row twice while small files are merged.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tickgate_server.archive.errors import ArchiveInvalid, ArchiveMissing
from tickgate_server.archive.places import Position
from tickgate_server.archive.schema import TableName
from tickgate_server.models.documents import read_document

MANIFEST_FILE = "manifest.json"
_BESIDE = ".manifest.incoming"
_FILE_BYTES = 256 << 20  # more than half a million files

_Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchivedFile(_Strict):
    """One Parquet file.

    Attributes:
        path: In the archive's folder.
        table: Whose rows it has.
        date: UTC day of them all, `2026-11-23`.
        model: Of them all, for decisions; null: none was found.
        rows: In it.
        size_bytes: Of the file.
        level: How often its rows were merged.
    """

    path: str
    table: TableName
    date: str
    model: str | None
    rows: _Count
    size_bytes: _Count
    level: _Count = 0

    @property
    def partition(self) -> tuple[TableName, str, str | None]:
        """Files of one are merged."""
        return self.table, self.date, self.model


class Manifest(_Strict):
    """What an archive consists of.

    Attributes:
        generation: Counts the commits; in the name of each file is the one that it came with.
        positions: How far the journal of each worker is archived.
        files: That count.
        dropped: Files that do not count any more and may be there yet.
        committed_ns: Wall clock of the commit.
    """

    format_version: Literal[1] = 1
    generation: _Count = 0
    positions: dict[str, Position] = {}
    files: tuple[ArchivedFile, ...] = ()
    dropped: tuple[str, ...] = ()
    committed_ns: int = 0

    @property
    def newest(self) -> dict[TableName, str]:
        """The newest day of each table that has one."""
        found: dict[TableName, str] = {}
        for file in self.files:
            found[file.table] = max(found.get(file.table, ""), file.date)
        return found

    def rows_of(self, table: str) -> int:
        """Rows of a table."""
        return sum(file.rows for file in self.files if file.table == table)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an archive.

    Raises:
        ArchiveMissing: There is none.
        ArchiveInvalid: It is none that this version reads.
    """
    found = read_document(folder / MANIFEST_FILE, Manifest, _FILE_BYTES, ArchiveInvalid)
    if found is None:
        raise ArchiveMissing(folder)
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before, durably.

    Raises:
        OSError: It is not there; the one before is.
    """
    beside = folder / _BESIDE
    with beside.open("wb") as file:
        file.write(manifest.model_dump_json(indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    beside.rename(folder / MANIFEST_FILE)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
