"""Every comparison that was made, one fixed-size record each, in files beside a shadow's record.

A file is a header and `capacity` slots, filled in order; the first sequence of file k is (k - 1) x capacity + 1. What
counts is what the record of the shadow (`models.shadow_record`) says is stored: the scorer appends first and commits by
renaming that file, so what a process that was killed had appended and not committed is cut, and written again.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from tickgate_server.journal.layout import SYMBOL_BYTES

SEGMENT_RECORDS = 65_536
MAGIC = b"TGSHADOW"
FORMAT_VERSION = 1
HEADER_BYTES = 64
_HEADER = struct.Struct("<8sIIQQ")  # magic, format version, bytes of a record, number, capacity; then their crc32
_CRC = struct.Struct("<I")
_NAME = re.compile(r"^comparisons-(\d{10})\.records$")

COMPARISON = np.dtype(
    [
        ("sequence", "<u8"),  # of the comparison, from 1
        ("checksum", "<u4"),  # crc32 of the record with this zero
        ("worker", "<u4"),  # whose journal it is
        ("journal_sequence", "<u8"),  # of the decision's record there
        ("clock_ns", "<i8"),  # wall clock that the decision read; 0 where the server's clock is the ticks' own
        ("version", "<u4"),  # that answered
        ("alias", "u1"),  # place in ALIASES: what it answered by
        ("signal", "u1"),  # risk.reasons.Action: its would-be signal
        ("shadow_signal", "u1"),  # the shadow's
        ("agreed", "?"),  # same direction
        ("value", "<f8"),  # as answered
        ("confidence", "<f8"),
        ("shadow_value", "<f8"),
        ("shadow_confidence", "<f8"),
        ("symbol", f"S{SYMBOL_BYTES}"),  # UTF-8
    ]
)
ALIASES = ("production", "canary")
Comparisons = NDArray[np.void]

_LOG = structlog.get_logger()


class StoreInvalid(Exception):
    """A file of comparisons is none.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class ComparisonStore:
    """Appends comparisons; one process at a time.

    Args:
        folder: Of one version; must exist.
        stored: How many count; what lies behind them is cut.
        retained: Most to keep, in whole files: the oldest go.
        capacity: Records of a file.

    Raises:
        StoreInvalid: The file to go on in is none.
        OSError: It cannot be read or cut.
    """

    def __init__(self, folder: Path, stored: int, *, retained: int, capacity: int = SEGMENT_RECORDS) -> None:
        self._folder = folder
        self._capacity = capacity
        self._files = max(retained // capacity, 1)
        self._stored = stored
        self._cut()

    @property
    def stored(self) -> int:
        """Comparisons appended, those that were there before among them."""
        return self._stored

    def append(self, comparisons: Comparisons) -> None:
        """Append records of COMPARISON; their `sequence` and `checksum` are set here.

        Raises:
            OSError: Not all of them could be written; appending the same again writes over what was.
        """
        comparisons["sequence"] = np.arange(self._stored + 1, self._stored + 1 + comparisons.size)
        seal(comparisons)
        done = 0
        while done < comparisons.size:
            number, slot = divmod(self._stored + done, self._capacity)
            count = min(comparisons.size - done, self._capacity - slot)
            self._write(number + 1, slot, comparisons[done : done + count])
            done += count
        self._stored += done

    def prune(self) -> None:
        """Let the oldest files go that are beyond what is retained.

        Raises:
            OSError: One cannot be removed.
        """
        newest = -(-self._stored // self._capacity)
        for number in numbers(self._folder):
            if number <= newest - self._files:
                path_of(self._folder, number).unlink(missing_ok=True)

    def _write(self, number: int, slot: int, rows: Comparisons) -> None:
        path = path_of(self._folder, number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if slot == 0 or not os.fstat(descriptor).st_size:  # the host died, and took the file with it
                _put(descriptor, _header(number, self._capacity), 0)
            _put(descriptor, rows.tobytes(), HEADER_BYTES + slot * COMPARISON.itemsize)
        finally:
            os.close(descriptor)

    def _cut(self) -> None:
        """Make the files hold what counts, and no more."""
        full, left = divmod(self._stored, self._capacity)
        there = numbers(self._folder)
        if left and full + 1 not in there:
            _LOG.error(
                "comparisons missing", path=str(path_of(self._folder, full + 1)), bytes=left * COMPARISON.itemsize
            )
        for number in there:
            path = path_of(self._folder, number)
            if number > full + 1 or (number == full + 1 and not left):
                path.unlink()
            elif number == full + 1:
                capacity = check_header(path)
                if capacity != self._capacity:
                    raise StoreInvalid(path, f"has room for {capacity} records, expected {self._capacity}")
                size = HEADER_BYTES + left * COMPARISON.itemsize
                found = path.stat().st_size
                if found < size:  # the host died: they were never on the disk
                    _LOG.error("comparisons missing", path=str(path), bytes=size - found)
                os.truncate(path, size)


def path_of(folder: Path, number: int) -> Path:
    """Where file `number` of comparisons lies."""
    return folder / f"comparisons-{number:010d}.records"


def numbers(folder: Path) -> list[int]:
    """Numbers of the files that are there, ascending."""
    names = (_NAME.match(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in names if match)


def seal(rows: Comparisons) -> None:
    """Set the checksum of each record."""
    rows["checksum"] = 0
    rows["checksum"] = [zlib.crc32(row.tobytes()) for row in rows]


def whole(rows: Comparisons) -> NDArray[np.bool_]:
    """Which records are what was written, bool [n]."""
    bare = rows.copy()
    bare["checksum"] = 0
    right = np.array([zlib.crc32(row.tobytes()) for row in bare], np.uint32)
    return np.asarray((rows["checksum"] == right) & (rows["sequence"] > 0))


def read_comparisons(folder: Path, stored: int) -> Iterator[Comparisons]:
    """The comparisons of one version that retention left, file by file, oldest first; damaged ones are left out.

    Args:
        folder: Where its record lies.
        stored: As the record says.

    Raises:
        StoreInvalid: A file is none.
        OSError: It cannot be read.
    """
    for number in numbers(folder):
        path = path_of(folder, number)
        check_header(path)
        data = path.read_bytes()[HEADER_BYTES:]
        rows = np.frombuffer(data[: len(data) // COMPARISON.itemsize * COMPARISON.itemsize], COMPARISON)
        good = whole(rows)
        yield rows[good & (rows["sequence"] <= stored)]


def check_header(path: Path) -> int:
    """Hold a file to its header; returns how many records it has room for.

    Raises:
        StoreInvalid: It is not what it should be.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise StoreInvalid(path, f"expected a header of {HEADER_BYTES} bytes, found {len(header)}")
    _, _, _, number, capacity = _HEADER.unpack_from(header)
    if header != _header(number, capacity) or path_of(path.parent, number) != path:
        raise StoreInvalid(path, "its header is not what was written")
    return int(capacity)


def _header(number: int, capacity: int) -> bytes:
    said = _HEADER.pack(MAGIC, FORMAT_VERSION, COMPARISON.itemsize, number, capacity)
    return (said + _CRC.pack(zlib.crc32(said))).ljust(HEADER_BYTES, b"\0")


def _put(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written
