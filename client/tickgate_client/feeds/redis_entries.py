"""What an entry of a Redis stream holds: one tick as texts, or many as the bytes of a PublishBatchRequest.

One tick: fields named as the columns of the canonical file (`tickgate_client.ticks`), with the same rules; those of
what the tick has not are left out or empty.

    XADD ticks MAXLEN ~ 1000000 * symbol BTCUSDT exchange_ts_ns 1700000000000000000 sequence 17 price 37000.5 size 0.01

Many: one field, `batch`; the message's `feed` is not read.

    XADD ticks MAXLEN ~ 100000 * batch <bytes>
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client.errors import BadColumns, BadTickEntry
from tickgate_client.feeds.columns import MAX_ROWS, ticks_of
from tickgate_client.ticks import COLUMNS, TickFields, fields_of

PACKED = "batch"

_COLUMN_OF = {name.encode(): name for name in COLUMNS}
_EMPTY = dict.fromkeys(COLUMNS, "")


def ticks_of_entry(fields: Mapping[bytes, bytes]) -> list[market_pb2.Tick]:
    """The ticks of an entry, in order, at least one; raises BadTickEntry."""
    packed = fields.get(PACKED.encode())
    if packed is not None:
        if len(fields) > 1:
            raise BadTickEntry(PACKED, found="other fields beside it", expected="nothing beside it")
        return _unpacked(packed)
    texts = _EMPTY.copy()
    for name, value in fields.items():
        column = _COLUMN_OF.get(name)
        if column is None:
            expected = f"{PACKED}, or of {', '.join(COLUMNS)}"
            raise BadTickEntry(_text(name, ""), found="a field of that name", expected=expected)
        texts[column] = _text(value, column)
    return [TickFields(texts, _bad).tick()]


def fields_of_tick(tick: market_pb2.Tick) -> dict[str, str]:
    """The fields of an entry with one tick; empty ones are left out."""
    return {name: text for name, text in zip(COLUMNS, fields_of(tick), strict=True) if text}


def _unpacked(packed: bytes) -> list[market_pb2.Tick]:
    try:
        ticks = ticks_of(market_data_pb2.PublishBatchRequest.FromString(packed).ticks)
    except DecodeError as error:
        raise BadTickEntry(PACKED, found=f"{len(packed)} bytes", expected="those of a PublishBatchRequest") from error
    except BadColumns as error:
        raise BadTickEntry(f"{PACKED}, column {error.column}", found=error.found, expected=error.expected) from error
    if not 1 <= len(ticks) <= MAX_ROWS:
        raise BadTickEntry(PACKED, found=f"{len(ticks)} ticks", expected=f"1 to {MAX_ROWS}")
    return ticks


def _text(data: bytes, field: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadTickEntry(field, found=repr(data[:40]), expected="UTF-8") from error


def _bad(column: str, found: str, expected: str) -> BadTickEntry:
    return BadTickEntry(column, found=found, expected=expected)
