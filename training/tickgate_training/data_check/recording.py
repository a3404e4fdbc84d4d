"""A recorded file as pieces of rows, in the file's order and in bounded memory; the formats stand beside it."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tickgate_training.data.rule_loop import NUMBERS
from tickgate_training.errors import SourceUnreadable

PIECE_ROWS = 32_768
LINE_BYTES = 16 * 1024 * 1024
"""Longest line that is read; the rest of a longer one is passed over, and the line is no row."""
_GZIP_MAGIC = b"\x1f\x8b"
_INT64_MAX, _UINT64_MAX = 2**63 - 1, 2**64 - 1


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no tick at all: it cannot be read, so no rule of the server's applies.

    Attributes:
        line: Its number in the file, from 1.
        why: What was found and what was expected.
    """

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that follow each other, not yet judged.

    Attributes:
        symbols: [n].
        lines: Number of each row's line, int64 [n], from 1.
        kinds: Bits TRADE and QUOTE of `ticks.market`, int64 [n]; 0: it has neither.
        stamps_ns: Venue times, int64 [n].
        sequences: The feed's numbers, uint64 [n]; 0: none.
        values: float64 [n, 6] in the order of `rule_loop.NUMBERS`; NaN where a row has no such part.
        arrivals_ns: When each was received, by the clock of who recorded it, int64 [n]; 0: not known.
        bad: Rows between these that are no ticks.
    """

    symbols: list[str]
    lines: NDArray[np.int64]
    kinds: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    sequences: NDArray[np.uint64]
    values: NDArray[np.float64]
    arrivals_ns: NDArray[np.int64]
    bad: list[BadRow]


class Recording(Protocol):
    """A file of one format.

    Attributes:
        source: The file, or what the format takes for one.
        passed_over: What was left out and why, by the words for it; complete once all pieces were read.
    """

    source: str
    passed_over: dict[str, int]

    def pieces(self) -> Iterator[Piece]:
        """The rows, in pieces of at most about `PIECE_ROWS`.

        Raises:
            SourceUnreadable: The file is absent, is of another format, or cannot be read to its end.
        """


@dataclass(slots=True)
class PieceBuilder:
    """Rows one by one to pieces."""

    _symbols: list[str] = field(default_factory=list)
    _whole: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _values: list[tuple[float, ...]] = field(default_factory=list)
    _bad: list[BadRow] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self._symbols) + len(self._bad) >= PIECE_ROWS

    def add(
        self,
        line: int,
        symbol: str,
        kind: int,
        stamp_ns: int,
        sequence: int,
        values: tuple[float, ...],
        arrival_ns: int,
    ) -> None:
        """Add a row; one whose whole numbers have no room in their types is a bad one."""
        if abs(stamp_ns) > _INT64_MAX:
            self.refuse(line, f"a stamp of {stamp_ns}; expected 64 bits of nanoseconds")
        elif not 0 <= sequence <= _UINT64_MAX:
            self.refuse(line, f"sequence {sequence}; expected 0 to {_UINT64_MAX}")
        else:
            self._symbols.append(symbol)
            self._whole.append((line, kind, stamp_ns, sequence, arrival_ns))
            self._values.append(values)

    def refuse(self, line: int, why: str) -> None:
        """Add a row that is no tick."""
        self._bad.append(BadRow(line, why))

    def take(self) -> Piece:
        """What was added since."""
        rows = len(self._symbols)
        whole = list(zip(*self._whole, strict=True)) or [()] * 5
        lines, kinds, stamps_ns, sequences, arrivals_ns = whole
        found = Piece(
            symbols=self._symbols,
            lines=np.array(lines, np.int64),
            kinds=np.array(kinds, np.int64),
            stamps_ns=np.array(stamps_ns, np.int64),
            sequences=np.array(sequences, np.uint64),
            values=np.array(self._values, np.float64).reshape(rows, len(NUMBERS)),
            arrivals_ns=np.array(arrivals_ns, np.int64),
            bad=self._bad,
        )
        self._symbols, self._whole, self._values, self._bad = [], [], [], []
        return found


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, plain or gzip; one over `LINE_BYTES` comes cut, without its end.

    Raises:
        SourceUnreadable: It is absent, or cannot be read or decompressed to its end.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            while line := file.readline(LINE_BYTES):
                rest = line
                while len(rest) == LINE_BYTES and not rest.endswith(b"\n"):
                    rest = file.readline(LINE_BYTES)
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise SourceUnreadable(str(path), f"cannot be read ({error})") from error
