"""Published ticks out of their messages' bytes, without a Python loop over them.

Encoding: https://protobuf.dev/programming-guides/encoding/. Kernels find where things are; a batch's columns are then
views of the message. What they are not sure of (a field twice, one that is not packed, one that is unknown) protobuf
reads, to the same result, a value at a time.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numba import types
from numpy.typing import NDArray

from tickgate.v1 import market_data_pb2 as pb
from tickgate.v1 import market_pb2
from tickgate_server.errors import FieldInvalid
from tickgate_server.ingest.columns import MESSAGE_TICKS, NUMBER_NAMES, Columns
from tickgate_server.kernels import kernel
from tickgate_server.rpc.wire import (
    DATA,
    EXCHANGE_TS_NS,
    KIND,
    NUMBERS,
    SEQUENCE,
    SPANS,
    SYMBOL_AT,
    SYMBOL_LENGTH,
    read_tick,
    read_varint,
)
from tickgate_server.ticks.market import QUOTE, TRADE

STREAM_TICKS = 1024
SYMBOLS = 65_536

_FEED, _TICKS = 1, 2
_LENGTH = 2
_FIELDS = 12  # of TickColumns, 0 stands for the feed
_NAMES = ("symbol_index", "kind", "exchange_ts_ns", "sequence", *NUMBER_NAMES)
_DTYPES = ("<u4", "<u4", "<i8", "<u8", *("<f8",) * NUMBERS)
_FIRST_COLUMN = 2
_NO_SPANS = np.zeros((0, 2), np.int64)


class Read(NamedTuple):
    """Ticks of one message.

    Attributes:
        feed: Its name.
        data: Holds the symbols.
        spans: Where each symbol begins in it and its length, int64 [n, 2].
        columns: The ticks.
    """

    feed: str
    data: bytes
    spans: NDArray[np.int64]
    columns: Columns


@kernel(types.int64(DATA, types.int64[:, ::1], types.int64[:, ::1]))
def read_columns(data: bytes, spans: NDArray[np.int64], symbols: NDArray[np.int64]) -> int:
    """Where the fields of a `PublishBatchRequest` are.

    Args:
        data: The message.
        spans: int64 [_FIELDS, 2]: begin and length of each column by its number, 0 for the feed.
        symbols: int64 [n, 2]: the same of each symbol.

    Returns:
        How many symbols there are; -1: leave it to protobuf.
    """
    spans[:] = 0
    count, outer, end = 0, 0, len(data)
    at = 0
    while at < end:
        tag = np.int64(data[at])
        field = tag >> 3
        length, at = read_varint(data, at + 1, end)
        if tag & 7 != _LENGTH or at < 0 or length > np.uint64(end - at) or outer & (1 << field):
            return -1
        outer |= 1 << field
        if field == _FEED:
            spans[0, 0], spans[0, 1] = at, np.int64(length)
            at += np.int64(length)
            continue
        if field != _TICKS:
            return -1
        stop = at + np.int64(length)
        seen = 0
        while at < stop:
            tag = np.int64(data[at])
            field = tag >> 3
            length, at = read_varint(data, at + 1, stop)
            if tag & 7 != _LENGTH or at < 0 or length > np.uint64(stop - at) or not 0 < field < _FIELDS:
                return -1
            if field == 1:
                if count == symbols.shape[0]:
                    return -1
                symbols[count, 0], symbols[count, 1] = at, np.int64(length)
                count += 1
            elif seen & (1 << field):
                return -1
            else:
                seen |= 1 << field
                spans[field, 0], spans[field, 1] = at, np.int64(length)
            at += np.int64(length)
    return count


@kernel(
    types.int64(
        DATA,
        types.int64[::1],
        types.uint64[::1],
        types.int64[::1],
        types.int64[:, ::1],
        types.int64[:, ::1],
        types.uint64[:, ::1],
    )
)
def read_ticks(
    data: bytes,
    spans: NDArray[np.int64],
    bits: NDArray[np.uint64],
    feed: NDArray[np.int64],
    symbols: NDArray[np.int64],
    integers: NDArray[np.int64],
    numbers: NDArray[np.uint64],
) -> int:
    """The ticks of a `PublishTicksRequest`.

    Args:
        data: The message.
        spans: int64 [SPANS], to work with.
        bits: uint64 [NUMBERS], to work with.
        feed: int64 [2]: where the feed's name begins, its length.
        symbols: int64 [n, 2]: the same of each tick's symbol.
        integers: int64 [n, 3]: kind, exchange_ts_ns and sequence.
        numbers: uint64 [n, NUMBERS]: the doubles' bits.

    Returns:
        How many ticks there are; -1: leave it to protobuf.
    """
    feed[:] = 0
    count, at, end = 0, 0, len(data)
    seen = False
    while at < end:
        tag = np.int64(data[at])
        length, at = read_varint(data, at + 1, end)
        if tag & 7 != _LENGTH or at < 0 or length > np.uint64(end - at):
            return -1
        stop = at + np.int64(length)
        if tag >> 3 == _FEED:
            if seen:
                return -1
            seen = True
            feed[0], feed[1] = at, np.int64(length)
        elif tag >> 3 == _TICKS and count < symbols.shape[0]:
            spans[:] = 0
            bits[:] = 0
            if not read_tick(data, at, stop, spans, bits):
                return -1
            symbols[count, 0], symbols[count, 1] = spans[SYMBOL_AT], spans[SYMBOL_LENGTH]
            integers[count, 0] = spans[KIND]
            integers[count, 1] = spans[EXCHANGE_TS_NS]
            integers[count, 2] = spans[SEQUENCE]
            for k in range(NUMBERS):
                numbers[count, k] = bits[k]
            count += 1
        else:
            return -1
        at = stop
    return count


class TickReader:
    """Reads messages; one thread."""

    def __init__(self) -> None:
        self._column_spans = np.zeros((_FIELDS, 2), np.int64)
        self._symbols = np.zeros((SYMBOLS, 2), np.int64)
        self._spans = np.zeros(SPANS, np.int64)
        self._bits = np.zeros(NUMBERS, np.uint64)
        self._feed = np.zeros(2, np.int64)
        self._integers = np.zeros((STREAM_TICKS, 3), np.int64)
        self._numbers = np.zeros((STREAM_TICKS, NUMBERS), np.uint64)
        self._counting = np.arange(STREAM_TICKS)

    def batch(self, data: bytes) -> Read:
        """The ticks of a `PublishBatchRequest`; its columns are views of it.

        Raises:
            FieldInvalid: Names the column, and the entry.
            DecodeError: It is no message.
        """
        count = read_columns(data, self._column_spans, self._symbols)
        feed = None if count < 0 else _text(data, *self._column_spans[0].tolist())
        if feed is None:
            return self._batch_by_protobuf(data)
        columns = []
        for number, (name, dtype) in enumerate(zip(_NAMES, _DTYPES, strict=True), _FIRST_COLUMN):
            at, length = self._column_spans[number].tolist()
            width = np.dtype(dtype).itemsize
            if length % width:
                raise FieldInvalid(f"ticks.{name}", f"{width} bytes an entry", f"{length} bytes")
            columns.append(np.frombuffer(data, dtype, length // width, at) if length else None)
        return Read(feed, data, self._symbols[:count].copy(), _checked(columns, count))

    def _batch_by_protobuf(self, data: bytes) -> Read:
        message = pb.PublishBatchRequest.FromString(data)
        ticks = message.ticks
        if len(ticks.symbols) > SYMBOLS:
            raise FieldInvalid("ticks.symbols", f"at most {SYMBOLS:,}", len(ticks.symbols))
        columns = [
            np.array(getattr(ticks, name), dtype) if len(getattr(ticks, name)) else None
            for name, dtype in zip(_NAMES, _DTYPES, strict=True)
        ]
        names, spans = _joined(ticks.symbols)
        return Read(message.feed, names, spans, _checked(columns, len(ticks.symbols)))

    def ticks(self, data: bytes) -> Read:
        """The ticks of a `PublishTicksRequest`.

        Raises:
            FieldInvalid: There are too many.
            DecodeError: It is no message.
        """
        count = read_ticks(
            data, self._spans, self._bits, self._feed, self._symbols[:STREAM_TICKS], self._integers, self._numbers
        )
        feed = None if count < 0 else _text(data, *self._feed.tolist())
        if feed is None:
            return self._ticks_by_protobuf(data)
        integers, numbers = self._integers[:count].T.copy(), self._numbers[:count].view(np.float64).T.copy()
        columns = Columns(self._counting[:count], integers[0], integers[1], integers[2].view(np.uint64), tuple(numbers))
        return Read(feed, data, self._symbols[:count].copy(), columns)

    def _ticks_by_protobuf(self, data: bytes) -> Read:
        message = pb.PublishTicksRequest.FromString(data)
        count = len(message.ticks)
        if count > STREAM_TICKS:
            raise FieldInvalid("ticks", f"at most {STREAM_TICKS:,}", count)
        names, spans = _joined([tick.symbol for tick in message.ticks])
        numbers = np.array([_numbers(tick) for tick in message.ticks]).reshape(count, NUMBERS).T.copy()
        columns = Columns(
            self._counting[:count],
            np.array([_kind(tick) for tick in message.ticks], np.int64),
            np.array([tick.exchange_ts_ns for tick in message.ticks], np.int64),
            np.array([tick.sequence for tick in message.ticks], np.uint64),
            tuple(numbers),
        )
        return Read(message.feed, names, spans, columns)


def _checked(columns: list[NDArray[np.generic] | None], symbols: int) -> Columns:
    """A batch's columns, which fit each other.

    Raises:
        FieldInvalid: They do not.
    """
    index = np.zeros(0, np.uint32) if columns[0] is None else columns[0]
    count = index.size
    if count > MESSAGE_TICKS:
        raise FieldInvalid("ticks", f"at most {MESSAGE_TICKS:,}", count)
    for name, column in zip(_NAMES, columns, strict=True):
        if column is not None and column.size != count:
            raise FieldInvalid(f"ticks.{name}", f"{count} entries, as ticks.symbol_index has", f"{column.size} entries")
    _, kind, stamps, sequences, *numbers = columns
    _below("symbol_index", index, symbols, f"the number of a symbol, below {symbols}")
    if kind is not None:
        _below("kind", kind, (TRADE | QUOTE) + 1, "1 (a trade), 2 (a quote) or 3 (both)")
    return Columns(index, kind, stamps, sequences, tuple(numbers))


def _below(name: str, column: NDArray[np.generic], bound: int, expected: str) -> None:
    wrong = column >= bound
    if wrong.any():
        at = int(np.argmax(wrong))
        raise FieldInvalid(f"ticks.{name}[{at}]", expected, int(column[at]))


def _text(data: bytes, at: int, length: int) -> str | None:
    """Some text of a message; None where it is none, which protobuf says better."""
    try:
        return data[at : at + length].decode()
    except UnicodeDecodeError:
        return None


def _joined(symbols: Iterable[str]) -> tuple[bytes, NDArray[np.int64]]:
    names = [symbol.encode() for symbol in symbols]
    if not names:
        return b"", _NO_SPANS
    lengths = np.array([len(name) for name in names], np.int64)
    return b"".join(names), np.stack((np.cumsum(lengths) - lengths, lengths), axis=1)


def _kind(tick: market_pb2.Tick) -> int:
    return (TRADE if tick.HasField("trade") else 0) | (QUOTE if tick.HasField("quote") else 0)


def _numbers(tick: market_pb2.Tick) -> tuple[float, ...]:
    trade, quote = tick.trade, tick.quote
    return trade.price, trade.size, quote.bid, quote.ask, quote.bid_size, quote.ask_size


__all__ = ["DecodeError", "Read", "TickReader"]
