"""The table of fundamentals: slow values of each symbol with the time that each became known, in flat arrays.

It has each value's whole history, not the newest alone: what a tick may see is the newest value as of its own time, and
in a replay, or where a file announces a value ahead, that is not the last one. Its file is one `.npz` without pickles,
whatever the values were read from; the file's hash names it in the journal.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
ROWS_LIMIT = 4_194_304
"""Most values of a table, and most pairs of symbol and name: 100 MB."""
SYMBOL_BYTES = 32
NAME_BYTES = 48
FLOAT32_MAXIMUM = float(np.finfo(np.float32).max)
"""A vector is float32: a value beyond would be an infinity in it."""


class FundamentalsInvalid(Exception):
    """Fundamentals cannot be used; says which file, where in it, and what was expected.

    Attributes:
        path: The file, or what their source is called.
        why: What was expected, and what was found.
    """

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"{path}: no fundamentals: {why}")
        self.path = path
        self.why = why


class ValueTwice(Exception):
    """A symbol has two values of one name as of one time.

    Attributes:
        row: The second one's, among those that the table was made of.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}: a symbol has one value of a name at a time")
        self.row = row


@dataclass(frozen=True, slots=True, eq=False)
class FundamentalsTable:
    """Histories of s symbols and n names, one behind the other.

    Attributes:
        symbols: Sorted, each once; 1 to 32 bytes of UTF-8.
        names: Sorted, each once; 1 to 48 bytes of UTF-8.
        offsets: int64 [s * n + 1]: the history of symbol i and name k is from `offsets[i * n + k]` to before the next.
        as_of_ns: int64 [rows]: when each value became known, nanoseconds since the epoch; ascending in a history.
        values: float64 [rows]: finite in float32.
    """

    symbols: tuple[str, ...]
    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    as_of_ns: NDArray[np.int64]
    values: NDArray[np.float64]

    def history(self, symbol: str, name: str) -> slice:
        """Which rows are of that symbol and name; an empty slice where none is."""
        try:
            cell = self.symbols.index(symbol) * len(self.names) + self.names.index(name)
        except ValueError:
            return slice(0, 0)
        return slice(int(self.offsets[cell]), int(self.offsets[cell + 1]))


def build(
    symbols: Sequence[str], names: Sequence[str], as_of_ns: NDArray[np.int64], values: NDArray[np.float64]
) -> FundamentalsTable:
    """A table of rows in whatever order, each checked by itself before.

    Args:
        symbols: Of each row.
        names: Of each row.
        as_of_ns: int64 [rows], > 0.
        values: float64 [rows], finite in float32.

    Raises:
        ValueTwice: Two rows have the same symbol, name and time.
    """
    known_symbols, known_names = tuple(sorted(set(symbols))), tuple(sorted(set(names)))
    number_of_symbol = {symbol: number for number, symbol in enumerate(known_symbols)}
    number_of_name = {name: number for number, name in enumerate(known_names)}
    cells = np.fromiter((number_of_symbol[symbol] for symbol in symbols), np.int64, len(symbols)) * len(known_names)
    cells += np.fromiter((number_of_name[name] for name in names), np.int64, len(names))
    order = np.lexsort((as_of_ns, cells))  # stable: of two that are equal the later row comes second
    cells, stamps_ns = cells[order], as_of_ns[order]
    twice = np.flatnonzero((np.diff(cells) == 0) & (np.diff(stamps_ns) == 0))
    if twice.size:
        raise ValueTwice(int(order[twice + 1].min()))
    counts = np.bincount(cells, minlength=len(known_symbols) * len(known_names))
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))).astype(np.int64)
    return FundamentalsTable(
        known_symbols, known_names, offsets, np.ascontiguousarray(stamps_ns), np.ascontiguousarray(values[order])
    )


def pack(table: FundamentalsTable) -> bytes:
    """The table's file: the same table gives the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        format_version=np.int64(FORMAT_VERSION),
        symbols=np.array([symbol.encode() for symbol in table.symbols], f"S{SYMBOL_BYTES}"),
        names=np.array([name.encode() for name in table.names], f"S{NAME_BYTES}"),
        offsets=table.offsets,
        as_of_ns=table.as_of_ns,
        values=table.values,
    )
    return file.getvalue()


def parse(path: Path | str, content: bytes) -> FundamentalsTable:
    """Check the content of a table's file.

    Raises:
        FundamentalsInvalid: Names what was expected.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            version = int(file["format_version"])
            if version != FORMAT_VERSION:
                raise FundamentalsInvalid(path, f"expected format {FORMAT_VERSION}, found {version}")
            table = FundamentalsTable(
                tuple(symbol.decode() for symbol in file["symbols"].tolist()),
                tuple(name.decode() for name in file["names"].tolist()),
                np.ascontiguousarray(file["offsets"], np.int64),
                np.ascontiguousarray(file["as_of_ns"], np.int64),
                np.ascontiguousarray(file["values"], np.float64),
            )
    except (KeyError, ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise FundamentalsInvalid(path, f"cannot be read ({error})") from error
    _require_valid(path, table)
    return table


def sha256_of(content: bytes) -> str:
    """Hash of a table's file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _require_valid(path: Path | str, table: FundamentalsTable) -> None:
    """Every array as `FundamentalsTable` says: a kernel walks them without looking."""
    for what, found in (("symbols", table.symbols), ("names", table.names)):
        if list(found) != sorted(set(found)):
            raise FundamentalsInvalid(path, f"{what}: expected each once, sorted")
    cells, rows = len(table.symbols) * len(table.names), table.values.size
    if max(cells, rows) > ROWS_LIMIT:
        raise FundamentalsInvalid(path, f"expected at most {ROWS_LIMIT} values, found {max(cells, rows)}")
    offsets = table.offsets
    if offsets.shape != (cells + 1,) or offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise FundamentalsInvalid(path, f"offsets: expected {cells + 1} that ascend from 0 to {rows}")
    if table.as_of_ns.shape != (rows,) or table.values.shape != (rows,):
        raise FundamentalsInvalid(path, f"as_of_ns: expected {rows} stamps, a value each")
    begins = np.zeros(rows + 1, np.bool_)
    begins[offsets] = True
    if (table.as_of_ns <= 0).any() or not (begins[1:rows] | (np.diff(table.as_of_ns) > 0)).all():
        raise FundamentalsInvalid(path, "as_of_ns: expected stamps above 0 that ascend in each history")
    if not (np.abs(table.values) <= FLOAT32_MAXIMUM).all():
        raise FundamentalsInvalid(path, "values: expected finite numbers in float32")
