"""Many ticks as columns: made from arrays, split by worker, cut to size, and turned into ticks.

columns = tick_columns(["BTCUSDT"], symbol_index=index, exchange_ts_ns=stamps, sequence=numbers, price=p, size=s)

Packed fields of fixed width are, on the wire, the bytes of a little-endian array. So an array that has the column's
format already is copied as it is: no number of it becomes an object of Python's.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from types import MappingProxyType
from typing import Any

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client.errors import BadColumns

MAX_ROWS = 65_536
"""Ticks in one PublishBatchRequest; the contract's bound."""

ROWS_OF_A_MESSAGE = 32_768
"""Ticks that `cut` puts into a message: 2.4 MB with every column, below gRPC's usual 4 MiB."""

TRADE, QUOTE = 1, 2
"""Bits of `kind`."""

_MAX_SYMBOL_BYTES = 32

# Column, and the typecode of an array that has its bytes.
_FORMATS = MappingProxyType(
    {
        "symbol_index": "I",
        "kind": "I",
        "exchange_ts_ns": "q",
        "sequence": "Q",
        "price": "d",
        "size": "d",
        "bid": "d",
        "ask": "d",
        "bid_size": "d",
        "ask_size": "d",
    }
)
_OF_TRADES = ("price", "size")
_OF_QUOTES = ("bid", "ask", "bid_size", "ask_size")
# What array and memoryview call the same eight bytes on Linux.
_ALIKE = MappingProxyType({"l": "q", "L": "Q"})


def tick_columns(symbols: Sequence[str], **columns: Any) -> market_data_pb2.TickColumns:
    """Columns for `publish_batch`, copied.

    Args:
        symbols: Those that `symbol_index` counts, each 1 to 32 bytes of UTF-8.
        **columns: The other fields of TickColumns by name, each with one entry a tick: an array (`array`, numpy, any
            one-dimensional contiguous buffer) of the field's type is copied at once, other sequences number by number.
            `symbol_index` and `exchange_ts_ns` are needed; what no tick has is left out.

    Raises BadColumns, naming the column, for what the contract rules out; values are the server's to judge.
    """
    wire = bytearray()
    for name, values in columns.items():
        number = _number_of(name)
        data = _bytes_of(name, values)
        wire += _varint(number << 3 | 2) + _varint(len(data)) + data
    made = market_data_pb2.TickColumns.FromString(bytes(wire))
    made.symbols.extend(symbols)
    check(made)
    return made


def check(columns: market_data_pb2.TickColumns) -> int:
    """How many ticks columns have; raises BadColumns where they are not of one length, or symbols are missing."""
    rows = len(columns.exchange_ts_ns)
    for name in _FORMATS:
        found = len(getattr(columns, name))
        needed = name in {"symbol_index", "exchange_ts_ns"} or (name in _OF_TRADES and not columns.kind)
        if found != rows and (found or needed):
            raise BadColumns(name, found=f"{found} entries", expected=f"{rows}, as in exchange_ts_ns")
    for at, symbol in enumerate(columns.symbols):
        if not 1 <= len(symbol.encode()) <= _MAX_SYMBOL_BYTES:
            raise BadColumns(f"symbols[{at}]", found=repr(symbol), expected="1 to 32 bytes of UTF-8")
    highest = max(columns.symbol_index, default=-1)
    if highest >= len(columns.symbols):
        raise BadColumns("symbol_index", found=str(highest), expected=f"below {len(columns.symbols)} symbols")
    if columns.kind and not set(columns.kind) <= {1, 2, 3}:
        odd = next(kind for kind in columns.kind if not 1 <= kind <= 3)
        raise BadColumns("kind", found=str(odd), expected="1 a trade, 2 a quote, 3 both")
    for bit, names in ((TRADE, _OF_TRADES), (QUOTE, _OF_QUOTES)):
        absent = next((name for name in names if not getattr(columns, name)), None)
        if absent and any(kind & bit for kind in columns.kind):
            raise BadColumns(absent, found="no entries", expected=f"{rows}: `kind` says that ticks have it")
    return rows


def split_columns(
    columns: market_data_pb2.TickColumns, owner: Callable[[str], int]
) -> dict[int, market_data_pb2.TickColumns]:
    """Each worker's ticks, in their order.

    Args:
        columns: Such as `check` passes.
        owner: The worker of a symbol.
    """
    owner_of_symbol = [owner(symbol) for symbol in columns.symbols]
    owners = [owner_of_symbol[index] for index in columns.symbol_index]
    workers = set(owners)
    if len(workers) == 1:
        return {workers.pop(): columns}
    return {worker: _picked(columns, [it == worker for it in owners]) for worker in sorted(workers)}


def cut(columns: market_data_pb2.TickColumns, rows: int = ROWS_OF_A_MESSAGE) -> Iterator[market_data_pb2.TickColumns]:
    """The ticks in their order, in messages of at most so many."""
    total = len(columns.exchange_ts_ns)
    if total <= rows:
        yield columns
        return
    for begin in range(0, total, rows):
        part = market_data_pb2.TickColumns(symbols=columns.symbols)
        for name in _FORMATS:
            getattr(part, name).extend(getattr(columns, name)[begin : begin + rows])
        yield part


def ticks_of(columns: market_data_pb2.TickColumns) -> list[market_pb2.Tick]:
    """The ticks that columns hold, one message each; raises BadColumns as `check`."""
    rows = check(columns)
    # Each column is copied out once: an entry of a repeated field costs a call.
    symbols, index = list(columns.symbols), list(columns.symbol_index)
    stamps, sequences = list(columns.exchange_ts_ns), list(columns.sequence) or [0] * rows
    kinds = list(columns.kind) or [TRADE] * rows
    trade = [list(getattr(columns, name)) for name in _OF_TRADES]
    quote = [list(getattr(columns, name)) for name in _OF_QUOTES]
    return [
        market_pb2.Tick(
            symbol=symbols[index[at]],
            exchange_ts_ns=stamps[at],
            sequence=sequences[at],
            trade=_trade(trade, at) if kinds[at] & TRADE else None,
            quote=_quote(quote, at) if kinds[at] & QUOTE else None,
        )
        for at in range(rows)
    ]


def columns_of(ticks: Iterable[market_pb2.Tick]) -> market_data_pb2.TickColumns:
    """The columns of ticks; aggressors are left behind, for columns have none."""
    index: dict[str, int] = {}
    values: dict[str, list[Any]] = {name: [] for name in _FORMATS}
    for tick in ticks:
        values["symbol_index"].append(index.setdefault(tick.symbol, len(index)))
        values["kind"].append(TRADE * tick.HasField("trade") | QUOTE * tick.HasField("quote"))
        values["exchange_ts_ns"].append(tick.exchange_ts_ns)
        values["sequence"].append(tick.sequence)
        for name in _OF_TRADES:
            values[name].append(getattr(tick.trade, name))
        for name in _OF_QUOTES:
            values[name].append(getattr(tick.quote, name))
    return tick_columns(list(index), **values)


def _picked(columns: market_data_pb2.TickColumns, chosen: Sequence[bool]) -> market_data_pb2.TickColumns:
    """The rows that are chosen, with the symbols that they have."""
    index: dict[int, int] = {}
    part = market_data_pb2.TickColumns()
    part.symbol_index.extend(index.setdefault(of, len(index)) for of in compress(columns.symbol_index, chosen))
    part.symbols.extend(columns.symbols[of] for of in index)
    for name in _FORMATS:
        if name != "symbol_index":
            getattr(part, name).extend(compress(getattr(columns, name), chosen))
    return part


def _trade(columns: Sequence[Sequence[float]], at: int) -> market_pb2.Trade:
    price, size = columns
    return market_pb2.Trade(price=price[at], size=size[at])


def _quote(columns: Sequence[Sequence[float]], at: int) -> market_pb2.Quote:
    bid, ask, bid_size, ask_size = columns
    return market_pb2.Quote(bid=bid[at], ask=ask[at], bid_size=bid_size[at], ask_size=ask_size[at])


def _number_of(name: str) -> int:
    if name not in _FORMATS:
        raise BadColumns(name, found="a column of that name", expected=f"one of {', '.join(_FORMATS)}")
    return market_data_pb2.TickColumns.DESCRIPTOR.fields_by_name[name].number


def _bytes_of(name: str, values: Any) -> bytes:
    """The column's bytes, little-endian."""
    typecode = _FORMATS[name]
    try:
        view = memoryview(values)
    except TypeError:
        try:
            numbers = array(typecode, values)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadColumns(name, found=str(error), expected=f"numbers of array type {typecode!r}") from error
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()
    if view.ndim != 1 or _ALIKE.get(view.format, view.format) != typecode or sys.byteorder == "big":
        found = f"a buffer of {view.ndim} dimensions and format {view.format!r}"
        raise BadColumns(name, found=found, expected=f"1 dimension of {typecode!r}, little-endian")
    return view.tobytes()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
