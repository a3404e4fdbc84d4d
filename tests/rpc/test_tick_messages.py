"""Messages of published ticks are read by kernels to what protobuf reads, whatever the bytes."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tickgate.v1 import market_data_pb2 as pb
from tickgate_server.errors import FieldInvalid
from tickgate_server.ingest.columns import NUMBER_NAMES
from tickgate_server.rpc.tick_messages import Read, TickReader

COLUMNS = ("symbol_index", "kind", "exchange_ts_ns", "sequence", *NUMBER_NAMES)
symbols = st.lists(st.text(max_size=12) | st.sampled_from(["A", "é", "x" * 40]), min_size=1, max_size=5)
doubles = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 100.0])


@st.composite
def batches(draw: st.DrawFn) -> pb.PublishBatchRequest:
    names = draw(symbols)
    count = draw(st.integers(0, 6))
    ticks = pb.TickColumns(symbols=names)
    ticks.symbol_index.extend(draw(st.lists(st.integers(0, len(names) - 1), min_size=count, max_size=count)))
    kinds: dict[str, Any] = {
        "kind": st.integers(0, 3),
        "exchange_ts_ns": st.integers(-(2**63), 2**63 - 1),
        "sequence": st.integers(0, 2**64 - 1),
        **dict.fromkeys(NUMBER_NAMES, doubles),
    }
    for name, values in kinds.items():
        if draw(st.booleans()):
            getattr(ticks, name).extend(draw(st.lists(values, min_size=count, max_size=count)))
    return pb.PublishBatchRequest(feed=draw(st.sampled_from(["", "venue", "Börse"])), ticks=ticks)


def told(read: Read) -> Any:
    """All that a message says, comparable."""
    columns = read.columns
    every = (columns.index, columns.kind, columns.exchange_ts_ns, columns.sequence, *columns.numbers)
    names = [read.data[at : at + length] for at, length in read.spans.tolist()]
    return read.feed, names, [None if column is None or not column.size else column.tolist() for column in every]


@given(batches())
def test_a_batch_is_read_as_protobuf_reads_it(message: pb.PublishBatchRequest) -> None:
    reader, data = TickReader(), message.SerializeToString()
    feed, names, columns = told(reader.batch(data))
    assert (feed, names) == (message.feed, [name.encode() for name in message.ticks.symbols])
    assert columns == [list(getattr(message.ticks, name)) or None for name in COLUMNS]
    assert told(reader._batch_by_protobuf(data)) == (feed, names, columns)


@given(batches(), batches())
def test_what_comes_in_pieces_is_read_as_well(first: pb.PublishBatchRequest, second: pb.PublishBatchRequest) -> None:
    """Messages joined are merged, by the encoding's rules: columns follow each other."""
    data = first.SerializeToString() + second.SerializeToString()
    merged = pb.PublishBatchRequest.FromString(data)
    sizes = {len(getattr(merged.ticks, name)) for name in COLUMNS} - {0, len(merged.ticks.symbol_index)}
    if sizes:
        with pytest.raises(FieldInvalid):
            TickReader().batch(data)
        return
    feed, names, columns = told(TickReader().batch(data))
    assert (feed, names) == (merged.feed, [name.encode() for name in merged.ticks.symbols])
    assert columns == [list(getattr(merged.ticks, name)) or None for name in COLUMNS]


def test_a_batchs_columns_are_views_of_it() -> None:
    ticks = pb.TickColumns(symbols=["A"], symbol_index=[0, 0], exchange_ts_ns=[1, 2], price=[3.0, 4.0])
    data = pb.PublishBatchRequest(ticks=ticks).SerializeToString()
    columns = TickReader().batch(data).columns
    assert columns.numbers[0] is not None
    assert np.shares_memory(columns.numbers[0], np.frombuffer(data, np.uint8))


@st.composite
def streamed(draw: st.DrawFn) -> pb.PublishTicksRequest:
    message = pb.PublishTicksRequest(feed=draw(st.sampled_from(["", "venue", "Börse"])))
    for name in draw(st.lists(st.text(max_size=12), max_size=5)):
        one = message.ticks.add(symbol=name, exchange_ts_ns=draw(st.integers(-(2**63), 2**63 - 1)))
        one.sequence = draw(st.integers(0, 2**64 - 1))
        if draw(st.booleans()):
            one.trade.price, one.trade.size = draw(doubles), draw(doubles)
            one.trade.aggressor = draw(st.sampled_from([0, 1, 2]))
        if draw(st.booleans()):
            one.quote.bid, one.quote.ask = draw(doubles), draw(doubles)
            one.quote.bid_size, one.quote.ask_size = draw(doubles), draw(doubles)
    return message


@given(streamed())
def test_a_streams_message_is_read_as_protobuf_reads_it(message: pb.PublishTicksRequest) -> None:
    reader, data = TickReader(), message.SerializeToString()
    feed, names, columns = told(reader.ticks(data))
    assert (feed, names) == (message.feed, [one.symbol.encode() for one in message.ticks])
    assert columns == told(reader._ticks_by_protobuf(data))[2]
    kinds = [one.HasField("trade") + 2 * one.HasField("quote") for one in message.ticks]
    assert columns[1] == (kinds or None)
    assert columns[4] == ([one.trade.price for one in message.ticks] or None)


def is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=60), batches())
def test_bytes_at_random_are_refused_or_read_as_protobuf_does(data: bytes, message: pb.PublishBatchRequest) -> None:
    """A symbol that is no UTF-8 is found out where it is looked up."""
    spoilt = bytearray(message.SerializeToString())
    spoilt[len(spoilt) // 2 : len(spoilt) // 2 + 1] = data[:2]
    for given_bytes in (data, bytes(spoilt)):
        try:
            found = told(TickReader().batch(given_bytes))
        except (DecodeError, FieldInvalid):
            continue
        if all(map(is_text, found[1])):
            expected = pb.PublishBatchRequest.FromString(given_bytes)
            assert found[0] == expected.feed
            assert found[1] == [name.encode() for name in expected.ticks.symbols]


def test_a_stream_message_of_too_many_ticks_is_refused() -> None:
    message = pb.PublishTicksRequest()
    for _ in range(1025):
        message.ticks.add(symbol="A")
    with pytest.raises(FieldInvalid, match="ticks: expected at most 1,024, got 1025"):
        TickReader().ticks(message.SerializeToString())


def test_a_batch_of_too_many_ticks_is_refused() -> None:
    ticks = pb.TickColumns(symbols=["A"], symbol_index=[0] * 65_537)
    with pytest.raises(FieldInvalid, match="ticks: expected at most 65,536, got 65537"):
        TickReader().batch(pb.PublishBatchRequest(ticks=ticks).SerializeToString())
