"""The server's rules over recorded ticks, against the server and against a slow reference."""

import math
from collections import deque
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.real_data import CAPTURES, ticks

from tickgate_server import intake
from tickgate_server.errors import FieldInvalid
from tickgate_server.records import Request
from tickgate_server.ticks import market
from tickgate_training.data import table, tick_rules
from tickgate_training.data.feeds import Feed
from tickgate_training.data.simulator import simulate
from tickgate_training.data.tick_rules import judge, verdicts
from tickgate_training.errors import ColumnInvalid, RowInvalid, TickRejected, TooFewRows

NAN = math.nan
Row = tuple[str, int, int, float, float, int, float, float, float, float]


def row(**changes: Any) -> Row:
    quiet = {"symbol": "A", "exchange_ts_ns": 10, "sequence": 0, "price": 9.0, "size": 1.0, "aggressor": 0}
    return tuple((quiet | dict.fromkeys(table.QUOTE_COLUMNS, NAN) | changes).values())  # type: ignore[return-value]


def quoted(bid: float = 9.0, ask: float = 10.0, bid_size: float = 1.0, ask_size: float = 1.0, **more: Any) -> Row:
    return row(bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size, **more)


def frame_of(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=table.SCHEMA, orient="row")


def feed(frame: pl.DataFrame, source: str = "file") -> Feed:
    return Feed(source, frame, np.arange(frame.height))


def slow_reference(frame: pl.DataFrame) -> list[str]:
    """The rules as the specification tells them, a row at a time."""
    recent: dict[str, deque[int]] = {}
    last: dict[str, int] = {}
    found = []
    for symbol, stamp, sequence, price, size, _, bid, ask, bid_size, ask_size in frame.iter_rows():
        held = recent.setdefault(symbol, deque(maxlen=1024))
        quote = (bid, ask, bid_size, ask_size)
        whole = all(map(math.isfinite, quote)) and min(bid, ask) > 0 and min(bid_size, ask_size) >= 0
        absent = all(map(math.isnan, quote))
        in_range = math.isfinite(price) and price > 0 and math.isfinite(size) and size >= 0 and stamp > 0
        if not (in_range and (whole or absent) and 1 <= len(symbol.encode()) <= 32):
            found.append("INVALID_VALUE")
        elif sequence in held:
            found.append("DUPLICATE")
        elif stamp < last.get(symbol, 0):
            found.append("OUT_OF_ORDER")
        elif whole and bid > ask:
            found.append("CROSSED_QUOTE")
        else:
            found.append("")
            last[symbol] = stamp
            if sequence:
                held.append(sequence)
    return found


def names(frame: pl.DataFrame) -> list[str]:
    reasons = tick_rules._REASONS
    return [reasons[verdict].value if verdict else "" for verdict in verdicts(frame).tolist()]


numbers = st.sampled_from([9.0, 10.0, 0.0, -1.0, NAN, math.inf])
rows = st.tuples(
    st.sampled_from(["A", "B", "é" * 16, "", "x" * 33]),
    st.integers(-1, 12),
    st.integers(0, 6),
    numbers,
    numbers,
    st.integers(-1, 1),
    st.sampled_from([NAN, 9.0, 10.0]),
    st.sampled_from([NAN, 9.0, 10.0, 11.0]),
    st.sampled_from([NAN, 1.0, -1.0]),
    st.sampled_from([NAN, 1.0]),
)
likely = st.builds(
    lambda symbol, stamp, sequence, crossed: quoted(
        symbol=symbol, exchange_ts_ns=stamp, sequence=sequence, bid=11.0 if crossed else 9.0
    ),
    st.sampled_from(["A", "B", "C"]),
    st.integers(1, 12),
    st.integers(0, 6),
    st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(st.one_of(rows, likely), min_size=1, max_size=30))
def test_the_verdicts_are_those_of_the_specification(drawn: list[Row]) -> None:
    frame = frame_of(*drawn)
    assert names(frame) == slow_reference(frame)


def server_takes_the_values_of(tick: Row) -> bool:
    symbol, stamp, sequence, price, size, _, bid, ask, bid_size, ask_size = tick
    absent = all(map(math.isnan, (bid, ask, bid_size, ask_size)))
    request = Request(
        symbol=symbol,
        exchange_ts_ns=stamp,
        sequence=sequence,
        kind=market.TRADE if absent else market.TRADE | market.QUOTE,
        price=price,
        size=size,
        bid=bid,
        ask=ask,
        bid_size=bid_size,
        ask_size=ask_size,
    )
    try:
        intake._check_symbol(symbol, "tick.symbol")
        intake._check_tick(request)
    except FieldInvalid:
        return False
    return True


@given(st.lists(st.one_of(rows, likely), min_size=1, max_size=30))
def test_a_value_is_invalid_here_where_the_servers_intake_refuses_it(drawn: list[Row]) -> None:
    refused = [verdict == tick_rules.INVALID for verdict in verdicts(frame_of(*drawn)).tolist()]
    assert refused == [not server_takes_the_values_of(tick) for tick in drawn]


def test_every_verdict_of_the_server_that_a_replay_can_give_has_a_reason_here() -> None:
    by_the_clock = {market.FROM_FUTURE, market.STALE}
    assert set(intake._REJECTED) - by_the_clock == set(tick_rules._REASONS) - {
        tick_rules.INVALID,
        market.ACCEPTED_AGAIN,
    }


@given(st.lists(likely, min_size=1, max_size=20), st.lists(likely, max_size=10))
def test_appended_rows_change_no_verdict(drawn: list[Row], more: list[Row]) -> None:
    assert names(frame_of(*drawn, *more))[: len(drawn)] == names(frame_of(*drawn))


def test_a_sequence_may_come_again_after_as_many_as_the_server_remembers() -> None:
    ring = [row(sequence=k) for k in range(1, market.RECENT + 1)]
    assert names(frame_of(*ring, row(sequence=1)))[-1] == "DUPLICATE"
    assert names(frame_of(*ring, row(sequence=market.RECENT + 1), row(sequence=1)))[-1] == ""


def test_the_same_tick_twice_in_a_row_is_a_row_too_many() -> None:
    assert names(frame_of(row(sequence=5), row(sequence=5))) == ["", "DUPLICATE"]


def test_trades_that_share_a_stamp_and_have_no_number_are_all_taken() -> None:
    assert names(frame_of(row(), row(), row())) == ["", "", ""]


@pytest.mark.parametrize("name", CAPTURES)
def test_the_server_takes_every_trade_of_a_real_capture(name: str) -> None:
    assert not verdicts(ticks(name)).any()


@pytest.mark.parametrize(
    ("bad", "column", "reason"),
    [
        (row(price=NAN), "price", "INVALID_VALUE"),
        (row(price=0.0), "price", "INVALID_VALUE"),
        (row(size=-1.0), "size", "INVALID_VALUE"),
        (row(exchange_ts_ns=0), "exchange_ts_ns", "INVALID_VALUE"),
        (row(symbol="x" * 33), "symbol", "INVALID_VALUE"),
        (row(bid=9.0), "ask", "INVALID_VALUE"),
        (row(ask=9.0), "ask", "INVALID_VALUE"),
        (quoted(bid=0.0), "bid", "INVALID_VALUE"),
        (quoted(ask_size=-1.0), "ask_size", "INVALID_VALUE"),
        (quoted(bid=11.0), "bid", "CROSSED_QUOTE"),
        (row(exchange_ts_ns=9), "exchange_ts_ns", "OUT_OF_ORDER"),
        (row(sequence=7, price=8.0), "sequence", "DUPLICATE"),
    ],
)
def test_each_rule_is_refused_by_name_or_dropped_and_counted(bad: Row, column: str, reason: str) -> None:
    frame = frame_of(row(sequence=7), bad, row(sequence=8))
    with pytest.raises(TickRejected) as caught:
        judge([feed(frame)], "refuse")
    error = caught.value
    assert (error.source, error.symbol, error.column, error.row, error.reason) == ("file", bad[0], column, 1, reason)
    assert error.rule in str(error)
    left = judge([feed(frame)], "drop")
    assert left.frame["sequence"].to_list() == [7, 8]
    assert left.rejected == {(bad[0], reason): 1}


def test_a_locked_quote_is_taken() -> None:
    assert judge([feed(frame_of(quoted(bid=10.0)))], "refuse").frame.height == 1


def test_counts_are_by_symbol_and_reason() -> None:
    bad = [row(price=NAN), row(exchange_ts_ns=3), row(exchange_ts_ns=4), row(symbol="B", size=NAN)]
    left = judge([feed(frame_of(row(), row(symbol="B"), *bad))], "drop")
    assert left.rejected == {("A", "INVALID_VALUE"): 1, ("A", "OUT_OF_ORDER"): 2, ("B", "INVALID_VALUE"): 1}


def test_files_of_a_symbol_follow_each_other_and_a_bad_row_is_named_in_its_own() -> None:
    first, second = frame_of(row(), row(exchange_ts_ns=20)), frame_of(row(exchange_ts_ns=30), row(exchange_ts_ns=15))
    with pytest.raises(TickRejected, match=r"second: symbol 'A', column 'exchange_ts_ns', row 41: found 15"):
        judge([feed(first, "first"), Feed("second", second, np.array([40, 41]))], "refuse")
    with pytest.raises(TickRejected, match=r"first: symbol 'A', column 'exchange_ts_ns', row 0: found 10"):
        judge([feed(second.head(1), "second"), feed(first, "first")], "refuse")


def test_a_table_is_in_the_order_of_stamps_then_symbols_then_rows() -> None:
    frame = frame_of(
        row(symbol="B", sequence=1), row(symbol="B", sequence=2), row(exchange_ts_ns=11, sequence=4), row(sequence=0)
    ).with_columns(symbol=pl.Series(["B", "B", "A", "C"]))
    assert judge([feed(frame)], "refuse").frame.select("symbol", "sequence").rows() == [
        ("B", 1),
        ("B", 2),
        ("C", 0),
        ("A", 4),
    ]


def test_what_is_left_of_nothing_and_what_is_no_table_say_so() -> None:
    with pytest.raises(TooFewRows):
        judge([feed(frame_of(row(price=NAN)))], "drop")
    with pytest.raises(ColumnInvalid, match="'size': found none"):
        judge([feed(simulate(5, seed=1).drop("size"))], "drop")
    with pytest.raises(RowInvalid, match="null"):
        judge([feed(frame_of(row()).with_columns(price=pl.lit(None, pl.Float64)))], "drop")
