"""Columns of ticks: what they are made from, and that splitting them loses nothing and keeps order."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate.symbol_hash import worker_of
from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client import BadColumns, tick_columns
from tickgate_client.feeds.columns import check, columns_of, cut, split_columns, ticks_of

NUMBERS = st.floats(min_value=1e-9, max_value=1e9)
TRADES = st.builds(market_pb2.Trade, price=NUMBERS, size=NUMBERS)
QUOTES = st.builds(market_pb2.Quote, bid=NUMBERS, ask=NUMBERS, bid_size=NUMBERS, ask_size=NUMBERS)
SYMBOLS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
STAMPS = st.integers(1, 2**63 - 1)
SEQUENCES = st.integers(0, 2**64 - 1)
TICK = st.one_of(
    st.builds(market_pb2.Tick, symbol=SYMBOLS, exchange_ts_ns=STAMPS, sequence=SEQUENCES, trade=TRADES),
    st.builds(market_pb2.Tick, symbol=SYMBOLS, exchange_ts_ns=STAMPS, sequence=SEQUENCES, quote=QUOTES),
    st.builds(market_pb2.Tick, symbol=SYMBOLS, exchange_ts_ns=STAMPS, sequence=SEQUENCES, trade=TRADES, quote=QUOTES),
)
TICKS = st.lists(TICK, max_size=20)


@given(TICKS)
def test_ticks_become_columns_and_ticks_again(ticks: list[market_pb2.Tick]) -> None:
    assert ticks_of(columns_of(ticks)) == ticks


@given(TICKS, st.integers(1, 5))
def test_each_worker_gets_its_own_ticks_in_order_and_all_are_somewhere(
    ticks: list[market_pb2.Tick], workers: int
) -> None:
    parts = split_columns(columns_of(ticks), lambda symbol: worker_of(symbol, workers))
    for worker in range(workers):
        own = [tick for tick in ticks if worker_of(tick.symbol, workers) == worker]
        assert (ticks_of(parts[worker]) if worker in parts else []) == own


@given(TICKS, st.integers(1, 7))
def test_cut_to_size_the_parts_are_the_whole(ticks: list[market_pb2.Tick], rows: int) -> None:
    parts = [ticks_of(part) for part in cut(columns_of(ticks), rows)]
    assert [tick for part in parts for tick in part] == ticks
    assert all(len(part) <= rows for part in parts)


@pytest.mark.parametrize(
    "made",
    [
        array,
        lambda code, values: np.array(values, dtype={"I": "u4", "q": "i8", "Q": "u8", "d": "f8"}[code]),
        lambda _code, values: values,
        lambda code, values: memoryview(array(code, values)),
    ],
    ids=["array", "numpy", "list", "memoryview"],
)
def test_columns_are_made_from_any_array_of_their_type(made: Any) -> None:
    columns = tick_columns(
        ["A", "B"],
        symbol_index=made("I", [0, 1, 0]),
        exchange_ts_ns=made("q", [5, 6, 2**63 - 1]),
        sequence=made("Q", [1, 1, 2**64 - 1]),
        price=made("d", [0.1, 1e-300, 3.0]),
        size=made("d", [1.0, 2.0, 3.5]),
    )
    by_hand = market_data_pb2.TickColumns(
        symbols=["A", "B"],
        symbol_index=[0, 1, 0],
        exchange_ts_ns=[5, 6, 2**63 - 1],
        sequence=[1, 1, 2**64 - 1],
        price=[0.1, 1e-300, 3.0],
        size=[1.0, 2.0, 3.5],
    )
    assert columns == by_hand
    assert check(columns) == 3


WHOLE = {"symbol_index": [0, 0], "exchange_ts_ns": [1, 2], "price": [1.0, 2.0], "size": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"price": [1.0]}, "column price: found 1 entries, expected 2, as in exchange_ts_ns"),
        ({"size": []}, "column size: found 0 entries, expected 2"),
        ({"symbol_index": [0, 1]}, "column symbol_index: found 1, expected below 1 symbols"),
        ({"kind": [1, 4]}, "column kind: found 4, expected 1 a trade, 2 a quote, 3 both"),
        ({"kind": [1, 2]}, "column bid: found no entries, expected 2: `kind` says that ticks have it"),
        ({"sequence": [-1, 2]}, "column sequence: found .*, expected numbers of array type 'Q'"),
        ({"price": ["x", 1.0]}, "column price: found .*, expected numbers of array type 'd'"),
        ({"price": array("f", [1.0, 2.0])}, "found a buffer of 1 dimensions and format 'f', expected 1 dimension"),
        ({"price": np.ones((2, 1))}, "found a buffer of 2 dimensions and format 'd'"),
        ({"venue": [1, 1]}, "column venue: found a column of that name, expected one of symbol_index"),
    ],
)
def test_what_the_contract_rules_out_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadColumns, match=said):
        tick_columns(["A"], **(WHOLE | changed))


@pytest.mark.parametrize("symbol", ["", "x" * 33, "ä" * 17])
def test_a_symbol_has_1_to_32_bytes(symbol: str) -> None:
    with pytest.raises(BadColumns, match=r"column symbols\[0\]"):
        tick_columns([symbol], **WHOLE)
