"""Segment files: their names, their headers, and records read from them.

Readers use pread, not a mapping: a file cut short under a mapping would kill the process with SIGBUS, and the bytes
whose checksum was verified are then the very bytes that are handed on.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.checksum import checksum, count_whole
from tickgate_server.journal.errors import JournalMissing, SegmentInvalid
from tickgate_server.journal.layout import (
    CONTROL,
    DECISION,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SEGMENT,
    RecordKind,
)

LOCK_FILE = "lock"
UNFINISHED = ".unfinished"  # end of the name of a segment that is being prepared
_NAME = re.compile(r"^segment-(\d{10})\.journal$")
_ALL_64 = 0xFFFF_FFFF_FFFF_FFFF
_FIRST_AT = int(SEGMENT.fields["first_sequence"][1]) if SEGMENT.fields else 0
_CHECKSUM_AT = int(SEGMENT.fields["checksum"][1]) if SEGMENT.fields else 0

Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself.

    Attributes:
        path: The file.
        number: Of the segment, from 1.
        capacity: Slots.
        created_ns: Wall clock when it was prepared.
        first_sequence: Sequence of its first slot; 0: prepared, not in use yet.
        environment: Versions, CPU and kernels it was written with, and the names of the checks.
    """

    path: Path
    number: int
    capacity: int
    created_ns: int
    first_sequence: int
    environment: Mapping[str, Any]


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` lies."""
    return folder / f"segment-{number:010d}.journal"


def segment_numbers(folder: Path) -> list[int]:
    """Numbers of the segments that are there, ascending.

    Raises:
        JournalMissing: There is no such folder.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        raise JournalMissing(folder) from None
    return sorted(int(match[1]) for match in map(_NAME.match, names) if match)


def segment_bytes(capacity: int) -> int:
    """Size of a segment's file."""
    return HEADER_BYTES + capacity * RECORD_BYTES


def slot_offset(slot: int) -> int:
    """Where a slot begins in its file."""
    return HEADER_BYTES + slot * RECORD_BYTES


def encode_header(number: int, capacity: int, created_ns: int, environment: Mapping[str, Any]) -> bytes:
    """The header page of a segment that is not in use yet.

    Raises:
        ValueError: The environment does not fit.
    """
    text = json.dumps(environment, separators=(",", ":")).encode()
    room = SEGMENT["environment"].itemsize
    if len(text) > room:
        raise ValueError(f"environment: expected at most {room} bytes of JSON, found {len(text)}")
    page = np.zeros((), SEGMENT)
    page["magic"] = MAGIC
    page["format_version"] = FORMAT_VERSION
    page["record_size"] = RECORD_BYTES
    page["number"] = number
    page["capacity"] = capacity
    page["created_ns"] = created_ns
    page["environment_bytes"] = len(text)
    page["environment"] = np.void(text.ljust(room, b"\0"))
    page["checksum"] = zlib.crc32(page.tobytes())
    return page.tobytes()


def first_sequence_words(first_sequence: int) -> tuple[int, int, int]:
    """What puts a prepared segment to use: index in 64-bit words of the header, the sequence, its inverse behind it."""
    return _FIRST_AT // 8, first_sequence, first_sequence ^ _ALL_64


def in_use(descriptor: int) -> bool:
    """Whether an open segment has been put to use; a quick look, which leaves a file too short to `read_header`."""
    word = os.pread(descriptor, 8, _FIRST_AT)
    return len(word) < 8 or any(word)


def read_header(path: Path, descriptor: int) -> Header:
    """Read and check the header page of an open segment.

    Raises:
        SegmentInvalid: Names what is not as it should be.
    """
    page = os.pread(descriptor, HEADER_BYTES, 0)
    if len(page) < HEADER_BYTES:
        raise SegmentInvalid(path, len(page), "the end of the file", f"a header of {HEADER_BYTES} bytes")
    head = np.frombuffer(page, SEGMENT)[0]
    expected: tuple[tuple[str, object], ...] = (
        ("magic", MAGIC),
        ("format_version", FORMAT_VERSION),
        ("record_size", RECORD_BYTES),
    )
    for name, value in expected:
        if head[name] != value:
            raise _invalid(path, name, repr(head[name].item()), repr(value))
    unopened = bytearray(page)
    unopened[_FIRST_AT : _FIRST_AT + 16] = bytes(16)
    unopened[_CHECKSUM_AT : _CHECKSUM_AT + 4] = bytes(4)
    right = zlib.crc32(unopened)
    if head["checksum"] != right:
        raise _invalid(path, "checksum", f"checksum {int(head['checksum']):#010x}", f"{right:#010x}")
    first = int(head["first_sequence"])
    inverted = int(head["first_sequence_inverted"])
    if first and inverted != first ^ _ALL_64:
        raise _invalid(path, "first_sequence", f"first sequence {first}", f"{inverted ^ _ALL_64} by its inverse")
    number = int(head["number"])
    if segment_path(path.parent, number).name != path.name:
        raise _invalid(path, "number", f"number {number}", "that of the file's name")
    length = int(head["environment_bytes"])
    return Header(
        path=path,
        number=number,
        capacity=int(head["capacity"]),
        created_ns=int(head["created_ns"]),
        first_sequence=first,
        environment=MappingProxyType(json.loads(head["environment"].tobytes()[:length])),
    )


def _invalid(path: Path, field: str, found: str, expected: str) -> SegmentInvalid:
    offset = int(SEGMENT.fields[field][1]) if SEGMENT.fields else 0
    return SegmentInvalid(path, offset, found, expected)


def read_slots(descriptor: int, slot: int, count: int) -> Rows:
    """Up to `count` slots from `slot` on, whatever they hold; fewer where the file ends.

    Returns:
        DECISION [n], in memory of its own.
    """
    rows = np.empty(count, DECISION)
    got = os.preadv(descriptor, [rows.view(np.uint8).data], slot_offset(slot))
    return rows[: got // RECORD_BYTES]


def whole(rows: Rows, first_sequence: int) -> int:
    """How many leading rows are the records `first_sequence`, `first_sequence` + 1, ... with right checksums."""
    return int(count_whole(rows.view(np.uint64), first_sequence))


def next_whole(rows: Rows, first_sequence: int) -> int:
    """Index of the first row that is whole by itself and begins something; the number of rows where none does.

    A later part of a control record proves nothing: parts become visible from the last to the first.
    """
    sequences = rows["sequence"].tolist()
    for index, sequence in enumerate(sequences):
        if sequence == first_sequence + index and whole(rows[index : index + 1], sequence):
            row = rows[index]
            if row["kind"] != RecordKind.CONTROL or rows[index : index + 1].view(CONTROL)[0]["part"] == 0:
                return index
    return len(sequences)


def describe_slot(row: np.void, expected: int) -> tuple[str, str]:
    """What is wrong with a slot that should hold record `expected`: found, expected."""
    sequence = int(row["sequence"])
    if sequence == 0:
        return ("bytes without a sequence" if any(row.tobytes()) else "an empty slot"), f"record {expected}"
    if sequence != expected:
        return f"record {sequence}", f"record {expected}"
    right = int(checksum(np.frombuffer(row.tobytes(), np.uint64).copy(), 0, expected))
    return f"record {expected} with checksum {int(row['checksum']):#018x}", f"{right:#018x}"


def last_sequence(folder: Path) -> int:
    """Sequence of the newest record in a journal; 0 where there is none.

    Slots are filled in order, so a binary search over the newest segment in use finds it in a few reads.

    Raises:
        JournalMissing: There is no such folder.
        SegmentInvalid: The newest segment's header is not what it should be.
    """
    for number in reversed(segment_numbers(folder)):
        path = segment_path(folder, number)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # retention was faster
            continue
        try:
            if not in_use(descriptor):
                continue
            header = read_header(path, descriptor)
            low, high = 0, header.capacity
            while low < high:
                middle = (low + high) // 2
                row = read_slots(descriptor, middle, 1)
                if row.size and row["sequence"][0]:
                    low = middle + 1
                else:
                    high = middle
            return header.first_sequence + low - 1
        finally:
            os.close(descriptor)
    return 0
