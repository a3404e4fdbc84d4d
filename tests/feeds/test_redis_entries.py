"""What an entry of a Redis stream may hold, and what is said of one that holds no tick."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.feeds.market_server import ticks
from tests.feeds.test_columns import TICK, TICKS

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client import BadTickEntry
from tickgate_client.feeds.columns import columns_of
from tickgate_client.feeds.redis_entries import fields_of_tick, ticks_of_entry


def entry(**fields: str) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in fields.items()}


@given(TICK)
def test_a_tick_as_fields_is_that_tick(tick: market_pb2.Tick) -> None:
    assert ticks_of_entry(entry(**fields_of_tick(tick))) == [tick]


@given(TICKS.filter(bool))
@settings(max_examples=30)
def test_a_packed_batch_is_its_ticks(ticks: list[market_pb2.Tick]) -> None:
    packed = market_data_pb2.PublishBatchRequest(feed="ignored", ticks=columns_of(ticks)).SerializeToString()
    assert ticks_of_entry({b"batch": packed}) == ticks


def test_the_example_of_the_documentation_is_a_tick() -> None:
    (tick,) = ticks_of_entry(
        entry(symbol="BTCUSDT", exchange_ts_ns="1700000000000000000", sequence="17", price="37000.5", size="0.01")
    )
    assert tick == market_pb2.Tick(
        symbol="BTCUSDT",
        exchange_ts_ns=1_700_000_000_000_000_000,
        sequence=17,
        trade=market_pb2.Trade(price=37000.5, size=0.01),
    )


TRADE = {"symbol": "A", "exchange_ts_ns": "1", "price": "1", "size": "1"}
PACKED = market_data_pb2.PublishBatchRequest(ticks=columns_of(ticks(2)))
UNEVEN = market_data_pb2.PublishBatchRequest()
UNEVEN.CopyFrom(PACKED)
UNEVEN.ticks.price.append(1.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (entry(**(TRADE | {"price": "nan"})), "price: found 'nan', expected a finite number"),
        (entry(**(TRADE | {"price": "-1"})), "price: found '-1', expected a finite number above 0"),
        (entry(**(TRADE | {"symbol": "x" * 33})), "symbol: found 33 bytes, expected 1 to 32 bytes of UTF-8"),
        (entry(**(TRADE | {"size": ""})), "size: found nothing, expected a number beside price"),
        (entry(**(TRADE | {"venue": "x"})), "venue: found a field of that name, expected batch, or of symbol, "),
        (entry(symbol="A", exchange_ts_ns="1"), "entry: found neither trade nor quote"),
        (entry(price="1", size="1", symbol="A"), "exchange_ts_ns: found '', expected an integer from 1"),
        ({b"symbol": b"\xff"}, r"symbol: found b'\xff', expected UTF-8"),
        ({b"\xff": b"A"}, r"entry: found b'\xff', expected UTF-8"),
        ({b"batch": b"\x12\xff"}, "batch: found 2 bytes, expected those of a PublishBatchRequest"),
        ({b"batch": b""}, "batch: found 0 ticks, expected 1 to 65536"),
        ({b"batch": b"", b"symbol": b"A"}, "batch: found other fields beside it, expected nothing beside it"),
        ({b"batch": UNEVEN.SerializeToString()}, "batch, column price: found 3 entries, expected 2"),
    ],
)
def test_what_is_no_tick_is_named(fields: dict[bytes, bytes], said: str) -> None:
    with pytest.raises(BadTickEntry) as caught:
        ticks_of_entry(fields)
    assert str(caught.value).startswith(said)
