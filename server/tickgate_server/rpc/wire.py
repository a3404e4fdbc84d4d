"""The contract's bytes, read and written by kernels: the plain case of `PredictRequest`, and `PredictResponse`.

Encoding: https://protobuf.dev/programming-guides/encoding/. The reader takes only what it is sure of, a request with
one tick, each field at most once, text in ASCII; everything else it leaves to protobuf, having changed nothing. The
writer works from the end of its buffer to the front, so that a message's length is known when it is written.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

DATA = types.Bytes(types.uint8, 1, "C")

# What `read_request` fills: spans in the message as start and length, then numbers.
SYMBOL_AT, SYMBOL_LENGTH, ID_AT, ID_LENGTH, MODEL_AT, MODEL_LENGTH, EXCHANGE_TS_NS, SEQUENCE, BUDGET_US, KIND = range(
    10
)
SPANS = 10
PRICE, SIZE, BID, ASK, BID_SIZE, ASK_SIZE = range(6)
NUMBERS = 6

_TRADE, _QUOTE = 1, 2
_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_LONGEST_VARINT = 10


@kernel(types.Tuple((types.uint64, types.int64))(DATA, types.int64, types.int64))
def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where the next byte is; -1 where it does not end in time."""
    value = np.uint64(0)
    for k in range(_LONGEST_VARINT):
        if at + k >= end:
            return value, -1
        byte = np.uint64(data[at + k])
        value |= (byte & np.uint64(0x7F)) << np.uint64(7 * k)
        if byte < np.uint64(0x80):
            # Ten bytes hold 70 bits: what is beyond 64 is left to protobuf.
            if k == _LONGEST_VARINT - 1 and byte > np.uint64(1):
                return value, -1
            return value, at + k + 1
    return value, -1


@kernel(types.Tuple((types.int64, types.uint64, types.int64, types.int64))(DATA, types.int64, types.int64, types.int64))
def read_field(data: bytes, at: int, end: int, seen: int) -> tuple[int, int, int, int]:
    """A field that begins with a number: its value, or the length of what follows.

    Args:
        data: The message.
        at: Where the field begins.
        end: Where the message ends.
        seen: A bit for each field that was read before.

    Returns:
        The tag, the number, where the next byte is, and `seen` with this field; -1 for the next byte where this is for
        protobuf to read: a field twice, a number that does not end, a length beyond the end.
    """
    tag = np.int64(data[at])
    bit = np.int64(1) << (tag >> 3)
    value, at = read_varint(data, at + 1, end)
    if seen & bit or (at >= 0 and tag & 7 == _LENGTH and value > np.uint64(end - at)):
        at = -1
    return tag, value, at, seen | bit


@kernel(types.boolean(DATA, types.int64, types.int64))
def is_ascii(data: bytes, at: int, length: int) -> bool:
    """Whether a span holds ASCII alone; other text is left to protobuf, which checks that it is UTF-8."""
    for k in range(at, at + length):
        if data[k] >= 0x80:
            return False
    return True


@kernel(types.boolean(DATA, types.int64, types.int64, types.uint64[::1], types.int64, types.int64))
def read_doubles(data: bytes, at: int, end: int, bits: NDArray[np.uint64], first: int, count: int) -> bool:
    """A message of doubles, fields 1 ... `count`, into `bits[first:]`; a trade's aggressor (field 3) is passed over."""
    seen = 0
    for k in range(count):
        bits[first + k] = 0
    while at < end:
        tag = data[at]
        field = tag >> 3
        at += 1
        if tag & 7 == _FIXED64 and 1 <= field <= count and at + 8 <= end and not seen & (1 << field):
            seen |= 1 << field
            value = np.uint64(0)
            for k in range(8):
                value |= np.uint64(data[at + k]) << np.uint64(8 * k)
            bits[first + field - 1] = value
            at += 8
        elif count == 2 and tag == 3 << 3 | _VARINT and not seen & (1 << field):
            seen |= 1 << field
            _, at = read_varint(data, at, end)
            if at < 0:
                return False
        else:
            return False
    return True


@kernel(types.boolean(DATA, types.int64, types.int64, types.int64[::1], types.uint64[::1]))
def read_tick(data: bytes, at: int, end: int, spans: NDArray[np.int64], bits: NDArray[np.uint64]) -> bool:
    """A `Tick` into `spans` and `bits`; False: leave it to protobuf."""
    seen = 0
    while at < end:
        tag, value, at, seen = read_field(data, at, end, seen)
        if at < 0:
            return False
        if tag == 2 << 3 | _VARINT:
            spans[EXCHANGE_TS_NS] = np.int64(value)
            continue
        if tag == 3 << 3 | _VARINT:
            spans[SEQUENCE] = np.int64(value)
            continue
        if tag & 7 != _LENGTH:
            return False
        field = tag >> 3
        length = np.int64(value)
        if field == 1:
            spans[SYMBOL_AT] = at
            spans[SYMBOL_LENGTH] = length
        elif field == 4:
            spans[KIND] |= _TRADE
            if not read_doubles(data, at, at + length, bits, PRICE, 2):
                return False
        elif field == 5:
            spans[KIND] |= _QUOTE
            if not read_doubles(data, at, at + length, bits, BID, 4):
                return False
        else:
            return False
        at += length
    return True


@kernel(types.boolean(DATA, types.int64[::1], types.uint64[::1]))
def read_request(data: bytes, spans: NDArray[np.int64], bits: NDArray[np.uint64]) -> bool:
    """A `PredictRequest` with a tick into `spans`, int64 [SPANS], and `bits`, the tick's doubles as uint64 [NUMBERS].

    Returns:
        False where this is for protobuf to read: another input, a field twice or unknown, text that is not ASCII.
    """
    for k in range(SPANS):
        spans[k] = 0
    end = len(data)
    at = 0
    seen = 0
    while at < end:
        tag, value, at, seen = read_field(data, at, end, seen)
        if at < 0:
            return False
        if tag == 3 << 3 | _VARINT:
            spans[BUDGET_US] = np.int64(value)
            continue
        if tag & 7 != _LENGTH:
            return False
        field = tag >> 3
        length = np.int64(value)
        if field == 1:
            spans[ID_AT] = at
            spans[ID_LENGTH] = length
        elif field == 2:
            spans[MODEL_AT] = at
            spans[MODEL_LENGTH] = length
        elif field == 4:
            if not read_tick(data, at, at + length, spans, bits):
                return False
        else:
            return False
        at += length
    return (
        spans[KIND] != 0
        and is_ascii(data, spans[SYMBOL_AT], spans[SYMBOL_LENGTH])
        and is_ascii(data, spans[ID_AT], spans[ID_LENGTH])
        and is_ascii(data, spans[MODEL_AT], spans[MODEL_LENGTH])
    )


@kernel(types.int64(types.uint8[::1], types.int64, types.int64, types.uint64))
def put_varint(out: NDArray[np.uint8], at: int, tag: int, value: int) -> int:
    """A number before `at`; nothing for 0, which is proto3's default. Returns where it begins. `tag` 0: no tag."""
    if tag != 0 and value == 0:
        return at
    length = 1
    rest = value >> np.uint64(7)
    while rest != 0:
        length += 1
        rest >>= np.uint64(7)
    at -= length
    for k in range(length):
        more = 0x80 if k < length - 1 else 0
        out[at + k] = np.uint8((value & np.uint64(0x7F)) | np.uint64(more))
        value >>= np.uint64(7)
    if tag != 0:
        at -= 1
        out[at] = tag
    return at


@kernel(types.int64(types.uint8[::1], types.int64, types.int64, types.float64))
def put_double(out: NDArray[np.uint8], at: int, tag: int, value: float) -> int:
    """A double before `at`; nothing for +0."""
    bits = np.float64(value).view(np.uint64)
    if bits == 0:
        return at
    at -= 8
    for k in range(8):
        out[at + k] = np.uint8((bits >> np.uint64(8 * k)) & np.uint64(0xFF))
    at -= 1
    out[at] = tag
    return at


@kernel(types.int64(types.uint8[::1], types.int64, types.int64, types.int64))
def put_length(out: NDArray[np.uint8], at: int, tag: int, end: int) -> int:
    """Length and tag of the message that lies between `at` and `end`."""
    at = put_varint(out, at, 0, np.uint64(end - at))
    at -= 1
    out[at] = tag
    return at


@kernel(types.int64(types.uint8[::1], types.int64, types.int64, DATA, types.int64, types.int64))
def put_text(out: NDArray[np.uint8], at: int, tag: int, data: bytes, start: int, length: int) -> int:
    """A span of the request as a text field; nothing for an empty one."""
    if length == 0:
        return at
    end = at
    at -= length
    for k in range(length):
        out[at + k] = data[start + k]
    return put_length(out, at, tag, end)
