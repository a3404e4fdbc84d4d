"""Fundamentals through Redis: pushed whole by one, read whole by every server.

A push writes each symbol's values, then the list of symbols. The list names the generation, a hash of all that is in
the table, and so does every symbol's value: what is read while another push is under way is of two generations, which
is refused, and read again. Values never expire in Redis: how old one may be says the feature set, by its as-of time.
Symbols of an earlier push that are not in the new one are removed after it.

Both values are fixed little-endian binary: a head of 48 bytes (magic, `TGFF` for a symbol's values and `TGFL` for the
list; version in 4, number of what follows in 8, SHA-256 of the table's file), the content, and a CRC-32 of all before.

| of | content |
|---|---|
| a symbol | its length and UTF-8; of each value its name's length and UTF-8, as-of time (int64, ns), value (float64) |
| the list | of each symbol its length and UTF-8 |

As a program it reads all of it, and writes the table's file to standard output (`features.fundamentals_feed`).
"""

import json
import os
import struct
import sys
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tickgate_server.features.fundamentals_feed import UNREACHABLE, Reader
from tickgate_server.features.fundamentals_file import REFUSED
from tickgate_server.features.fundamentals_table import (
    FLOAT32_MAXIMUM,
    NAME_BYTES,
    ROWS_LIMIT,
    SYMBOL_BYTES,
    FundamentalsInvalid,
    FundamentalsTable,
    ValueTwice,
    build,
    pack,
    sha256_of,
)
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.store.connection import KEYS_AT_ONCE, StoreConnection
from tickgate_server.store.errors import StoreError
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings

VERSION = 1
SYMBOL_MAGIC, LIST_MAGIC = b"TGFF", b"TGFL"
_HEAD = struct.Struct("<4sHxxIxxxx32s")
_ENTRY = struct.Struct("<qd")
_END = struct.Struct("<I")
_NICER = 10

Row = tuple[str, int, float]
"""Name, as-of time in nanoseconds, value."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list says.

    Attributes:
        generation: SHA-256 of the table's file.
        symbols: Those that have values.
    """

    generation: bytes
    symbols: tuple[str, ...]


def pack_list(listed: Listed) -> bytes:
    """The list's value."""
    content = b"".join(_short(symbol) for symbol in listed.symbols)
    return _whole(LIST_MAGIC, len(listed.symbols), listed.generation, content)


def unpack_list(value: bytes, where: str) -> Listed:
    """Check the list's value; raises `ValueRefused`."""
    count, generation, content = _open(value, where, LIST_MAGIC)
    cursor = _Cursor(content, where)
    symbols = tuple(cursor.text(SYMBOL_BYTES) for _ in range(count))
    cursor.require_end()
    return Listed(generation, symbols)


def pack_symbol(symbol: str, generation: bytes, rows: Sequence[Row]) -> bytes:
    """A symbol's value."""
    content = _short(symbol) + b"".join(_short(name) + _ENTRY.pack(as_of, value) for name, as_of, value in rows)
    return _whole(SYMBOL_MAGIC, len(rows), generation, content)


def unpack_symbol(value: bytes, where: str, symbol: str) -> tuple[bytes, list[Row]]:
    """Check a symbol's value; its generation, and its rows.

    Raises:
        ValueRefused: It is no such value, of another version or symbol, or changed since it was written.
    """
    count, generation, content = _open(value, where, SYMBOL_MAGIC)
    cursor = _Cursor(content, where)
    found = cursor.text(SYMBOL_BYTES)
    if found != symbol:
        raise ValueRefused(Refusal.SYMBOL, where, f"expected {symbol!r}, found {found!r}")
    rows = [cursor.row() for _ in range(count)]
    cursor.require_end()
    return generation, rows


def push(connection: StoreConnection, keys: Keys, table: FundamentalsTable) -> int:
    """Write a table, and remove symbols that it has not any more; how many these are.

    Raises:
        StoreError: Redis failed; what was there before is whole, or refused until this is done again.
    """
    generation = bytes.fromhex(sha256_of(pack(table)))
    listed = Listed(generation, table.symbols)
    before = _listed_before(connection, keys)
    for first in range(0, len(table.symbols), KEYS_AT_ONCE):
        numbers = range(first, min(first + KEYS_AT_ONCE, len(table.symbols)))
        values = {
            keys.fundamentals(table.symbols[number]): pack_symbol(
                table.symbols[number], generation, _rows(table, number)
            )
            for number in numbers
        }
        connection.run(partial(_set_all, values))
    connection.run(lambda client: client.set(keys.all_fundamentals(), pack_list(listed)))
    gone = sorted(set(before) - set(table.symbols))
    for first in range(0, len(gone), KEYS_AT_ONCE):
        unnamed = [keys.fundamentals(symbol) for symbol in gone[first : first + KEYS_AT_ONCE]]
        connection.run(partial(_delete_all, unnamed))
    return len(gone)


def pull(connection: StoreConnection, keys: Keys) -> FundamentalsTable:
    """Read the table that was pushed last.

    Raises:
        FundamentalsInvalid: There is none, a value is refused, or another push is under way.
        StoreError: Redis failed.
    """
    where = keys.all_fundamentals()
    value = connection.get(where)
    if value is None:
        raise FundamentalsInvalid(connection.where, f"nothing at {where}: none were pushed")
    symbols: list[str] = []
    rows: list[Row] = []
    try:
        listed = unpack_list(value, where)
        names = [keys.fundamentals(symbol) for symbol in listed.symbols]
        for symbol, key, found in zip(listed.symbols, names, connection.get_many(names), strict=True):
            if found is None:
                raise FundamentalsInvalid(connection.where, f"nothing at {key}, which the list names")
            generation, own = unpack_symbol(found, key, symbol)
            if generation != listed.generation:
                raise FundamentalsInvalid(connection.where, f"{key} is of another push than the list")
            symbols += [symbol] * len(own)
            rows += own
        as_of_ns, values = (np.array([row[k] for row in rows]) for k in (1, 2))
        table = build(symbols, [row[0] for row in rows], as_of_ns.astype(np.int64), values.astype(np.float64))
    except (ValueRefused, ValueTwice) as error:
        raise FundamentalsInvalid(connection.where, str(error)) from error
    if max(len(table.symbols) * len(table.names), len(rows)) > ROWS_LIMIT:
        raise FundamentalsInvalid(connection.where, f"expected at most {ROWS_LIMIT} values")
    return table


class RedisSource:
    """What was pushed into a Redis; read by a process of its own whenever the list's generation changed.

    Attributes:
        path: Which Redis.

    Args:
        settings: Of the store.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._connection = StoreConnection(settings)
        self._keys = Keys(settings.prefix)
        self.path = f"fundamentals of {self._connection.where}"
        self._reader = Reader(self.path)

    def state(self) -> Hashable:
        """The generation; raises ConnectionError where Redis does not tell."""
        key = self._keys.all_fundamentals()
        try:
            head = self._connection.run(lambda client: client.getrange(key, 0, _HEAD.size - 1))
        except StoreError as error:
            raise ConnectionError(str(error)) from error
        return bytes(head)

    def read(self) -> bytes:
        """See `features.fundamentals_feed.FundamentalsSource.read`."""
        given = json.dumps(self._settings.with_secrets()).encode()
        return self._reader.run([sys.executable, "-m", __name__], given)

    def close(self) -> None:
        """See `features.fundamentals_feed.FundamentalsSource.close`."""
        self._reader.close()


class _Cursor:
    """What is read of a content, one after the other; never beyond its end."""

    def __init__(self, content: memoryview, where: str) -> None:
        self._content = content
        self._where = where
        self._at = 0

    def text(self, limit: int) -> str:
        length = self._bytes(1)[0]
        try:
            found = str(self._bytes(length), "utf-8")
        except UnicodeDecodeError as error:
            raise ValueRefused(Refusal.GARBAGE, self._where, "a name that is no UTF-8") from error
        if not 0 < length <= limit:
            raise ValueRefused(Refusal.GARBAGE, self._where, f"expected a name of 1 to {limit} bytes, found {length}")
        return found

    def row(self) -> Row:
        name = self.text(NAME_BYTES)
        as_of_ns, value = _ENTRY.unpack(self._bytes(_ENTRY.size))
        if as_of_ns <= 0 or not abs(value) <= FLOAT32_MAXIMUM:
            raise ValueRefused(Refusal.GARBAGE, self._where, f"{name}: found {value} as of {as_of_ns}")
        return name, as_of_ns, value

    def require_end(self) -> None:
        if self._at != len(self._content):
            raise ValueRefused(Refusal.GARBAGE, self._where, f"{len(self._content) - self._at} bytes too many")

    def _bytes(self, length: int) -> memoryview:
        found = self._content[self._at : self._at + length]
        if len(found) != length:
            raise ValueRefused(Refusal.TRUNCATED, self._where, "it ends before what it says")
        self._at += length
        return found


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _whole(magic: bytes, count: int, generation: bytes, content: bytes) -> bytes:
    value = _HEAD.pack(magic, VERSION, count, generation) + content
    return value + _END.pack(zlib.crc32(value))


def _open(value: bytes, where: str, magic: bytes) -> tuple[int, bytes, memoryview]:
    if len(value) < _HEAD.size + _END.size:
        raise ValueRefused(Refusal.TRUNCATED, where, f"found {len(value)} bytes")
    found, version, count, generation = _HEAD.unpack_from(value)
    if found != magic:
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {magic!r} at its begin, found {found!r}")
    if version != VERSION:
        raise ValueRefused(Refusal.VERSION, where, f"expected version {VERSION}, found {version}")
    content = memoryview(value)[: -_END.size]
    if _END.unpack_from(value, len(content))[0] != zlib.crc32(content):
        raise ValueRefused(Refusal.CHECKSUM, where, "its checksum is another one")
    return count, generation, content[_HEAD.size :]


def _rows(table: FundamentalsTable, number: int) -> list[Row]:
    """The values of the symbol of that number."""
    first = number * len(table.names)
    found: list[Row] = []
    for name, begin, end in zip(table.names, table.offsets[first:], table.offsets[first + 1 :], strict=False):
        stamps_ns, values = table.as_of_ns[begin:end].tolist(), table.values[begin:end].tolist()
        found += zip([name] * len(values), stamps_ns, values, strict=True)
    return found


def _listed_before(connection: StoreConnection, keys: Keys) -> tuple[str, ...]:
    """Symbols of the push before; none where there is none, or its list is garbage."""
    where = keys.all_fundamentals()
    value = connection.get(where)
    try:
        return () if value is None else unpack_list(value, where).symbols
    except ValueRefused:
        return ()  # overwritten now


def _set_all(values: dict[str, bytes], client: Any) -> None:
    pipeline = client.pipeline(transaction=False)
    for key, value in values.items():
        pipeline.set(key, value)
    pipeline.execute()


def _delete_all(keys: list[str], client: Any) -> None:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.delete(key)
    pipeline.execute()


def main() -> int:
    """Read what was pushed and write the table's file to standard output; settings come on standard input."""
    os.nice(_NICER)
    settings = StoreSettings.model_validate_json(sys.stdin.buffer.read())
    connection = StoreConnection(settings)
    try:
        sys.stdout.buffer.write(pack(pull(connection, Keys(settings.prefix))))
    except FundamentalsInvalid as error:
        sys.stderr.write(error.why)
        return REFUSED
    except StoreError as error:
        sys.stderr.write(str(error))
        return UNREACHABLE
    finally:
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
