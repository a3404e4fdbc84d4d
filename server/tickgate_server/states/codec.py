"""Vectors and states as bytes: fixed, little-endian, with a magic, a version, their length and a checksum.

Both begin with the same head and end with a CRC-32 (ISO-HDLC, as zlib has it) of all before it, which finds every
change of up to four bytes in a row. A reader says what it expects; anything else is refused, with the reason.

| part | bytes | content |
|---|---|---|
| head | 8 | magic `TGFV` or `TGFS`, version, flags, number of feature sets (a vector's: 1) |
| | 4 | length of the whole value |
| | 33 | symbol: its length, then UTF-8 and zeros |
| vector | 65 | schema id: its length, then ASCII and zeros |
| | 32 | sequence, venue's time in ns, wall clock of the writing in ns, price of the trade |
| | 2 + 4 n | n, then float32 [n] |
| state | 17 | hash of the kernels' sources: its length, then ASCII and zeros |
| | 24 | record in the journal, ticks, wall clock of the writing in ns |
| | 8 x (13 + 4 + 6 + 1027) | the row of `ticks.market.MarketState`: quotes_trades, volatilities, stamps, sequences |
| | | of each feature set: schema id as above, ready, columns of carried, of marks, of the vector; count; then prices, |
| | | sizes, stamps_ns, carried, marks (8 bytes each) and the vector (4 bytes each) |
| end | 4 | checksum |
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server import kernels
from tickgate_server.features.micro10 import RING
from tickgate_server.features.store import FeatureStore
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.states.state import SymbolState, Windows
from tickgate_server.ticks import volatility
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.market import RECENT, RECENT_AT, STAMPS, VALUES

VERSION = 1
VECTOR_MAGIC, STATE_MAGIC = b"TGFV", b"TGFS"
SCHEMA_BYTES = 64
COUNTED = 1
"""Flag of a vector: its feed gave no sequence; it is the number of the symbol's ticks since its state began."""

_HEAD = struct.Struct(f"<4sBBHIB{SYMBOL_BYTES}s")
_VECTOR = struct.Struct(f"<B{SCHEMA_BYTES}sQqqdH")
_STATE = struct.Struct("<B16sQQq")
_WINDOWS = struct.Struct(f"<B{SCHEMA_BYTES}s?HHHq")
_END = struct.Struct("<I")
_SMALLEST = _HEAD.size + _END.size
_MARKET = (VALUES, volatility.COLUMNS, STAMPS, RECENT_AT + RECENT)

Buffer = bytes | memoryview


class StoredVector(NamedTuple):
    """A symbol's vector as it is kept.

    Attributes:
        symbol: Whose.
        schema_id: Of its features.
        sequence: Of the trade that it was computed at.
        counted: Whether the feed had none: see `COUNTED`.
        exchange_ts_ns: Venue time of that trade.
        written_ns: Wall clock.
        price: Of that trade.
        values: float32 [width], all finite.
    """

    symbol: str
    schema_id: str
    sequence: int
    counted: bool
    exchange_ts_ns: int
    written_ns: int
    price: float
    values: NDArray[np.float32]


def kernels_hash() -> str:
    """The hash of the kernels' sources here: states that others computed are not gone on with."""
    return kernels.CACHE_FOLDER.name


def pack_vector(found: StoredVector) -> bytes:
    """A vector's value.

    Raises:
        ValueError: Symbol or schema id are too long.
    """
    values = np.ascontiguousarray(found.values, "<f4")
    body = _VECTOR.pack(
        *_short(found.schema_id, SCHEMA_BYTES),
        found.sequence,
        found.exchange_ts_ns,
        found.written_ns,
        found.price,
        values.size,
    )
    flags = COUNTED if found.counted else 0
    return _whole(VECTOR_MAGIC, flags, 1, found.symbol, [body, values.tobytes()])


def unpack_vector(value: Buffer, where: str, *, symbol: str, schema_id: str) -> StoredVector:
    """The vector of a value.

    Args:
        value: As it was stored.
        where: Its key, for errors.
        symbol: Whose it is to be.
        schema_id: What it is to be of.

    Raises:
        ValueRefused: It is not that.
    """
    flags, _, body = _open(value, where, VECTOR_MAGIC, symbol)
    if len(body) < _VECTOR.size:
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {_VECTOR.size} bytes at least, found {len(body)}")
    length, schema, sequence, exchange_ts_ns, written_ns, price, width = _VECTOR.unpack_from(body)
    _require_schema(where, _text(schema, length), schema_id)
    values = np.frombuffer(body, "<f4", offset=_VECTOR.size) if not (len(body) - _VECTOR.size) % 4 else None
    if values is None or values.size != width or not np.isfinite(values).all():
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {width} finite values")
    return StoredVector(symbol, schema_id, sequence, bool(flags & COUNTED), exchange_ts_ns, written_ns, price, values)


def pack_state(found: SymbolState, written_ns: int) -> bytes:
    """A state's value, of the kernels that are here.

    Raises:
        ValueError: The symbol or a schema id is too long.
    """
    parts = [_STATE.pack(*_short(kernels_hash(), 16), found.journal_sequence, found.ticks, written_ns)]
    parts += [found.quotes_trades.tobytes(), found.volatilities.tobytes()]
    parts += [found.stamps.tobytes(), found.sequences.tobytes()]
    for one in found.windows:
        schema = _short(one.schema_id, SCHEMA_BYTES)
        parts.append(_WINDOWS.pack(*schema, one.ready, one.carried.size, one.marks.size, one.vector.size, one.count))
        arrays = (one.prices, one.sizes, one.stamps_ns, one.carried, one.marks, one.vector)
        parts += [array.tobytes() for array in arrays]
    return _whole(STATE_MAGIC, 0, len(found.windows), found.symbol, parts)


def unpack_state(
    value: Buffer, where: str, *, symbol: str | None = None, stores: Mapping[str, FeatureStore] | None = None
) -> SymbolState:
    """The state of a value; its arrays are views of it.

    Args:
        value: As it was stored.
        where: Its key, or its file, for errors.
        symbol: Whose it is to be; None: anybody's.
        stores: By schema id, feature sets that are kept: windows of these must have their sizes.

    Raises:
        ValueRefused: It is not that, or other kernels computed it.
    """
    _, sets, body = _open(value, where, STATE_MAGIC, symbol)
    if len(body) < _STATE.size + 8 * sum(_MARKET):
        raise ValueRefused(Refusal.GARBAGE, where, f"expected a market row, found {len(body)} bytes")
    length, hashed, journal_sequence, ticks, _ = _STATE.unpack_from(body)
    if _text(hashed, length) != kernels_hash():
        raise ValueRefused(Refusal.KERNELS, where, f"expected {kernels_hash()}, found {_text(hashed, length)}")
    at = _STATE.size
    row: list[Any] = []
    for count, dtype in zip(_MARKET, ("<f8", "<f8", "<i8", "<u8"), strict=True):
        row.append(np.frombuffer(body, dtype, count, at))
        at += 8 * count
    windows: list[Windows] = []
    for _ in range(sets):
        one, at = _read_windows(body, at, where)
        windows.append(one)
    if at != len(body):
        raise ValueRefused(Refusal.GARBAGE, where, f"expected its end at byte {at}, found {len(body)}")
    for one in windows:
        store = None if stores is None else stores.get(one.schema_id)
        if store is not None:
            _require_sizes(where, one, store)
    quotes_trades, volatilities, stamps, sequences = row
    return SymbolState(
        _symbol(value), journal_sequence, ticks, quotes_trades, volatilities, stamps, sequences, tuple(windows)
    )


def state_bytes(value: Buffer, where: str) -> int:
    """Length of the state that a buffer begins with.

    Raises:
        ValueRefused: None begins there, or it goes beyond the buffer's end.
    """
    return _length(value, where, STATE_MAGIC)


def _read_windows(body: Buffer, at: int, where: str) -> tuple[Windows, int]:
    if len(body) - at < _WINDOWS.size:
        raise ValueRefused(Refusal.GARBAGE, where, "expected windows of a feature set")
    length, schema, ready, carried, marks, width, count = _WINDOWS.unpack_from(body, at)
    at += _WINDOWS.size
    sizes = (RING, RING, RING, carried, marks, width)
    dtypes = ("<f8", "<f8", "<i8", "<f8", "<i8", "<f4")
    if len(body) - at < sum(n * int(dtype[2]) for n, dtype in zip(sizes, dtypes, strict=True)) or count < 0:
        raise ValueRefused(Refusal.GARBAGE, where, "expected windows of a feature set, whole")
    arrays: list[Any] = []
    for n, dtype in zip(sizes, dtypes, strict=True):
        arrays.append(np.frombuffer(body, dtype, n, at))
        at += n * int(dtype[2])
    return Windows(_text(schema, length), ready, count, *arrays), at


def _require_schema(where: str, found: str, expected: str) -> None:
    if found != expected:
        raise ValueRefused(Refusal.SCHEMA, where, f"expected {expected}, found {found}")


def _require_sizes(where: str, one: Windows, store: FeatureStore) -> None:
    found = (one.carried.size, one.marks.size, one.vector.size)
    expected = (store.carried.shape[1], store.marks.shape[1], store.feature_set.of_ticks.width)
    if found != expected:
        raise ValueRefused(Refusal.SCHEMA, where, f"{one.schema_id}: expected windows of {expected}, found {found}")


def _short(text: str, limit: int) -> tuple[int, bytes]:
    data = text.encode()
    if len(data) > limit:
        raise ValueError(f"expected at most {limit} bytes, got {text!r}")
    return len(data), data


def _text(data: bytes, length: int) -> str:
    return data[:length].decode(errors="replace")


def _whole(magic: bytes, flags: int, sets: int, symbol: str, parts: list[bytes]) -> bytes:
    length = _SMALLEST + sum(map(len, parts))
    content = b"".join([_HEAD.pack(magic, VERSION, flags, sets, length, *_short(symbol, SYMBOL_BYTES)), *parts])
    return content + _END.pack(zlib.crc32(content))


def _length(value: Buffer, where: str, magic: bytes) -> int:
    if len(value) < _SMALLEST:
        raise ValueRefused(Refusal.TRUNCATED, where, f"expected {_SMALLEST} bytes at least, found {len(value)}")
    found, version, _, _, length, _, _ = _HEAD.unpack_from(value)
    if found != magic:
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {magic!r} at its begin, found {found!r}")
    if version != VERSION:
        raise ValueRefused(Refusal.VERSION, where, f"expected version {VERSION}, found {version}")
    if length > len(value):
        raise ValueRefused(Refusal.TRUNCATED, where, f"expected {length} bytes, found {len(value)}")
    if length < _SMALLEST:
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {_SMALLEST} bytes at least, it says {length}")
    return int(length)


def _open(value: Buffer, where: str, magic: bytes, symbol: str | None) -> tuple[int, int, memoryview]:
    """Flags, number of feature sets, and what is between head and end."""
    length = _length(value, where, magic)
    if length != len(value):
        raise ValueRefused(Refusal.GARBAGE, where, f"expected {length} bytes, found {len(value)}")
    content = memoryview(value)
    (checksum,) = _END.unpack_from(content, length - _END.size)
    if zlib.crc32(content[: -_END.size]) != checksum:
        raise ValueRefused(Refusal.CHECKSUM, where, "its checksum is another one")
    if symbol is not None and _symbol(value) != symbol:
        raise ValueRefused(Refusal.SYMBOL, where, f"expected {symbol!r}, found {_symbol(value)!r}")
    _, _, flags, sets, _, _, _ = _HEAD.unpack_from(content)
    return flags, sets, content[_HEAD.size : -_END.size]


def _symbol(value: Buffer) -> str:
    *_, length, data = _HEAD.unpack_from(value)
    return _text(data, length)
