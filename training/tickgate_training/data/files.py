"""Files of rows, as cells that have not been judged yet.

CSV in UTF-8, plain or compressed, comes as text cell by cell: what a cell means is decided where its column is known,
so that an error can name the cell instead of a type that was guessed. JSON, a list of objects, comes as text too.
Parquet comes in the types that it was written with. How a file is compressed is read off its first bytes, not off its
name; a .zip holds one file. A row's number counts the rows below the header, from 0; blank lines have one too and are
passed over.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features.fundamentals_json import JsonInvalid, rows_of
from tickgate_training.errors import CellInvalid, ColumnInvalid, SourceUnreadable

_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK", b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARQUET, _JSON = ".parquet", ".json"


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one file.

    Attributes:
        source: The file's name as errors say it.
        frame: Its columns; of CSV all are text, an empty cell null.
        rows: Each row's number in the file, int64 [n].
    """

    source: str
    frame: pl.DataFrame
    rows: NDArray[np.int64]

    def column(self, name: str) -> pl.Series:
        """A column as it is.

        Raises:
            ColumnInvalid: It is absent.
        """
        if name not in self.frame.columns:
            raise ColumnInvalid(
                name, f"none in {self.source} ({', '.join(self.frame.columns)})", "a column of this name"
            )
        return self.frame[name]

    def where(self, mask: pl.Series) -> "Cells":
        """The rows where `mask`, bool [n], is true."""
        return Cells(self.source, self.frame.filter(mask), self.rows[mask.to_numpy()])

    def require(self, name: str, holds: pl.Series, rule: str) -> None:
        """Refuse the first cell of a column where `holds`, bool [n], is not true.

        Raises:
            CellInvalid: There is one.
        """
        bad = ~holds.fill_null(value=False)
        if bad.any():
            at = int(bad.arg_true()[0])
            cell = self.frame[name][at]
            found = "an empty cell" if cell is None else repr(cell)
            raise CellInvalid(self.source, name, int(self.rows[at]), found, rule)


def read_cells(path: Path, header: Sequence[str] | None = None) -> Cells:
    """Read a Parquet or a JSON file (by its ending, `.parquet`, `.json`) or a CSV file (any other).

    Args:
        path: The file.
        header: Names of the columns of a CSV file that has no header; None: its first row is one.

    Raises:
        SourceUnreadable: The file is absent, empty, cut short, damaged, no text, or its rows differ in length.
        ColumnInvalid: The header names a column twice.
    """
    if path.suffix in {_PARQUET, _JSON}:
        cells = _read_parquet(path) if path.suffix == _PARQUET else _read_json(path)
    else:
        cells = with_header(read_rows(path), header)
    if cells.frame.height == 0:
        raise SourceUnreadable(str(path), "has no row below its header")
    return cells


def read_rows(path: Path) -> Cells:
    """Read a CSV file without looking for a header: columns `0`, `1`, ... of text; errors as in `read_cells`."""
    data = _unpacked(path)
    if not data.startswith(_ZSTD) and b"\0" in data:
        raise SourceUnreadable(str(path), "is no text: it has a zero byte")
    text = data.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")  # the first line says how many columns there are
    try:
        frame = pl.read_csv(text, has_header=False, infer_schema=False)
    except pl.exceptions.NoDataError as error:
        raise SourceUnreadable(str(path), "is empty") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        why = str(error).splitlines()[0]
        raise SourceUnreadable(str(path), f"cannot be read as comma-separated UTF-8 text ({why})") from error
    frame.columns = [str(k) for k in range(frame.width)]
    # A quoted empty cell is as empty as any other.
    frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return Cells(str(path), frame, np.arange(frame.height)).where(
        ~frame.select(pl.all_horizontal(pl.all().is_null()))["0"]
    )


def with_header(cells: Cells, header: Sequence[str] | None) -> Cells:
    """Give the columns of `read_rows` their names: those of `header`, or None: those in the first row."""
    if header is None:
        if cells.frame.height == 0:
            raise SourceUnreadable(cells.source, "is empty")
        header = ["" if name is None else name.strip() for name in cells.frame.row(0)]
        cells = Cells(cells.source, cells.frame.slice(1), cells.rows[1:] - 1 - cells.rows[0])
    if len(header) != cells.frame.width:
        raise SourceUnreadable(
            cells.source, f"has {cells.frame.width} columns, expected {len(header)}: {', '.join(header)}"
        )
    twice = next((name for k, name in enumerate(header) if name in header[:k]), None)
    if twice is not None:
        raise ColumnInvalid(twice, f"two of this name in {cells.source}", "one")
    return Cells(cells.source, cells.frame.rename(dict(zip(cells.frame.columns, header, strict=True))), cells.rows)


def _read_parquet(path: Path) -> Cells:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceUnreadable(str(path), f"cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    return Cells(str(path), frame, np.arange(frame.height))


def _read_json(path: Path) -> Cells:
    try:
        rows = rows_of(_unpacked(path))
    except JsonInvalid as error:
        raise SourceUnreadable(str(path), str(error)) from error
    names = list(rows[0]) if rows else []
    frame = pl.DataFrame({name: pl.Series(name, [row[name] for row in rows], pl.String) for name in names})
    return Cells(str(path), frame, np.arange(frame.height))


def _unpacked(path: Path) -> bytes:
    """A file's bytes, unpacked but for zstd, which polars unpacks itself."""
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            return gzip.decompress(data)
        if data.startswith(_ZIP):
            return _only_member(path, data)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        # The last two: a method of compression that Python does not know, and a password.
        raise SourceUnreadable(str(path), f"cannot be read ({error})") from error
    return data


def _only_member(path: Path, data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise SourceUnreadable(str(path), f"holds {len(members)} files, expected one")
        return archive.read(members[0])
