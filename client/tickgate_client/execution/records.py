"""Records of an outbox as bytes: framed, checksummed, and read back as far as they hold.

A record is its frame (magic, length of the body, CRC-32 of kind and body, kind) and a body of JSON. Files are only
appended to, so a process that dies leaves at most an end that does not hold: it is cut. A record that does not hold
with a good one behind it is damage, and refused.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

from tickgate_client.execution.errors import OutboxDamaged

_MAGIC = b"TgOb"
_FRAME = struct.Struct("<4sIIB")

BODY_BYTES = 64 << 20
"""Longest body: a length beyond it is none."""

FORMAT = 1
"""Of snapshots; the first record of a file is one."""


class Kind(IntEnum):
    """What a record says."""

    SNAPSHOT = 1
    """All that came before."""
    ORDER = 2
    """An approved order is about to be worked."""
    FILL = 3
    """A fill, to be reported."""
    STATE = 4
    """What became of an order, to be reported."""
    ACKNOWLEDGED = 5
    """The server has a report."""
    REFUSED = 6
    """The server will never take a report."""
    CORRECTION = 7
    """A person set a position."""


_KINDS = frozenset(Kind)


def encode(kind: Kind, body: dict[str, Any]) -> bytes:
    """One record."""
    data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return _FRAME.pack(_MAGIC, len(data), _checksum(kind, data), kind) + data


def decode(path: Path, data: bytes) -> tuple[list[tuple[Kind, dict[str, Any]]], int]:
    """The records of a file, and how many of its bytes they take; what is behind is an end that does not hold.

    Raises OutboxDamaged, with the offset, where a good record follows one that does not hold.
    """
    records: list[tuple[Kind, dict[str, Any]]] = []
    offset = 0
    while offset < len(data):
        found = _record_at(data, offset)
        if found is None:
            _require_torn(path, data, offset)
            break
        number, body, end = found
        if number not in _KINDS:
            raise OutboxDamaged(path, offset, found=f"a record of kind {number}, which a later version may know")
        records.append((Kind(number), json.loads(body)))
        offset = end
    return records, offset


def _record_at(data: bytes, offset: int) -> tuple[int, bytes, int] | None:
    if offset + _FRAME.size > len(data):
        return None
    magic, length, checksum, kind = _FRAME.unpack_from(data, offset)
    begin = offset + _FRAME.size
    body = data[begin : begin + length]
    if magic != _MAGIC or length > BODY_BYTES or len(body) < length or checksum != _checksum(kind, body):
        return None
    return kind, body, begin + length


def _require_torn(path: Path, data: bytes, offset: int) -> None:
    for later in _places_of_magic(data, offset + 1):
        if _record_at(data, later) is not None:
            raise OutboxDamaged(path, offset, found="bytes that do not hold, with good records behind them")


def _places_of_magic(data: bytes, start: int) -> Iterator[int]:
    place = data.find(_MAGIC, start)
    while place >= 0:
        yield place
        place = data.find(_MAGIC, place + 1)


def _checksum(kind: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(bytes((kind,))))
