from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate.v1 import market_pb2
from tickgate_client import BadTickFile, UnknownTickReader, read_csv, read_ticks, reader_names, write_csv
from tickgate_client.ticks import COLUMNS

HEADER = ",".join(COLUMNS)
GOOD = "BTCUSDT,1700000000000000000,17,37000.5,0.01,buy,37000.1,37000.9,1.5,2"

prices = st.floats(min_value=5e-324, max_value=1.7e308, allow_nan=False)
sizes = st.floats(min_value=0, max_value=1.7e308, allow_nan=False)
symbols = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32).filter(
    lambda text: len(text.encode()) <= 32
)
trades = st.builds(market_pb2.Trade, price=prices, size=sizes, aggressor=st.sampled_from([0, 1, 2]))
quotes = st.builds(market_pb2.Quote, bid=prices, ask=prices, bid_size=sizes, ask_size=sizes)


@st.composite
def tick_lists(draw: st.DrawFn) -> list[market_pb2.Tick]:
    ticks = []
    for trade, quote in draw(st.lists(st.tuples(st.none() | trades, st.none() | quotes), max_size=8)):
        if trade is None and quote is None:
            continue
        ticks.append(
            market_pb2.Tick(
                symbol=draw(symbols),
                exchange_ts_ns=draw(st.integers(1, 2**63 - 1)),
                sequence=draw(st.integers(0, 2**64 - 1)),
                trade=trade,
                quote=quote,
            )
        )
    return ticks


def bad(tmp_path: Path, *rows: str, header: str = HEADER) -> BadTickFile:
    path = tmp_path / "ticks.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(BadTickFile) as caught:
        list(read_csv(path))
    assert caught.value.path == path
    return caught.value


@settings(max_examples=200, deadline=None)
@given(ticks=tick_lists(), name=st.sampled_from(["ticks.csv", "ticks.csv.gz"]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[market_pb2.Tick], name: str
) -> None:
    path = tmp_path_factory.mktemp("ticks") / name
    assert write_csv(path, ticks) == len(ticks)
    assert list(read_csv(path)) == ticks


def test_a_row_means_what_its_columns_say(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n\nETHUSDT,5,,,,,1,2,0,3\n")
    both, quote = read_csv(path)
    assert both == market_pb2.Tick(
        symbol="BTCUSDT",
        exchange_ts_ns=1_700_000_000_000_000_000,
        sequence=17,
        trade=market_pb2.Trade(price=37000.5, size=0.01, aggressor=market_pb2.AGGRESSOR_SIDE_BUY),
        quote=market_pb2.Quote(bid=37000.1, ask=37000.9, bid_size=1.5, ask_size=2),
    )
    assert quote == market_pb2.Tick(
        symbol="ETHUSDT", exchange_ts_ns=5, quote=market_pb2.Quote(bid=1, ask=2, bid_size=0, ask_size=3)
    )


def test_a_spreadsheets_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8-sig")
    assert [tick.symbol for tick in read_csv(path)] == ["BTCUSDT"]


def test_equal_ticks_are_equal_bytes_when_zipped(tmp_path: Path) -> None:
    tick = market_pb2.Tick(symbol="S", exchange_ts_ns=1, trade=market_pb2.Trade(price=1, size=1))
    for name in ("a.csv.gz", "b.csv.gz"):
        write_csv(tmp_path / name, [tick] * 100)
    packed = (tmp_path / "a.csv.gz").read_bytes()
    assert packed == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress(packed).decode().splitlines() == [HEADER] + ["S,1,0,1.0,1.0,,,,,"] * 100


@pytest.mark.parametrize(
    ("row", "column", "found", "expected"),
    [
        (",1,0,1,1,,,,,", "symbol", "0 bytes", "1 to 32 bytes"),
        ("é" * 17 + ",1,0,1,1,,,,,", "symbol", "34 bytes", "1 to 32 bytes"),
        ("S,0,0,1,1,,,,,", "exchange_ts_ns", "'0'", "an integer from 1"),
        ("S,9223372036854775808,0,1,1,,,,,", "exchange_ts_ns", "'9223372036854775808'", "to 9223372036854775807"),
        ("S,1.5,0,1,1,,,,,", "exchange_ts_ns", "'1.5'", "an integer"),
        ("S,1_0,0,1,1,,,,,", "exchange_ts_ns", "'1_0'", "an integer"),
        ("S,1,-1,1,1,,,,,", "sequence", "'-1'", "an integer from 0"),
        ("S,1,18446744073709551616,1,1,,,,,", "sequence", "'18446744073709551616'", "to 18446744073709551615"),
        ("S,1,0,0,1,,,,,", "price", "'0'", "above 0"),
        ("S,1,0,nan,1,,,,,", "price", "'nan'", "a finite number"),
        ("S,1,0,1_0,1,,,,,", "price", "'1_0'", "a finite number"),
        ("S,1,0,1,inf,,,,,", "size", "'inf'", "a finite number"),
        ("S,1,0,1,-0.1,,,,,", "size", "'-0.1'", "0 or above"),
        ("S,1,0,1,,,,,,", "size", "nothing", "a number beside price"),
        ("S,1,0,,1,,,,,", "price", "nothing", "a number beside size"),
        ("S,1,0,1,1,BUY,,,,", "aggressor", "'BUY'", "'buy', 'sell' or nothing"),
        ("S,1,0,,,buy,1,2,1,1", "aggressor", "'buy'", "nothing where there is no trade"),
        ("S,1,0,,,,1,2,,1", "bid_size", "nothing", "a number beside bid, ask, ask_size"),
        ("S,1,0,,,,-1,2,1,1", "bid", "'-1'", "above 0"),
        ("S,1,0,,,,1,x,1,1", "ask", "'x'", "a finite number"),
        ("S,1,0,,,,1,2,1,-1", "ask_size", "'-1'", "0 or above"),
        ("S,1,0,,,,,,,", "", "neither trade nor quote", "a trade, a quote or both"),
        ("S,1,0,1,1", "", "5 fields", "10 fields"),
        ("S,1,0,1,1,,,,,,", "", "11 fields", "10 fields"),
        ('"S"x,1,0,1,1,,,,,', "", "a malformed row", "comma-separated values"),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(
    tmp_path: Path, row: str, column: str, found: str, expected: str
) -> None:
    error = bad(tmp_path, GOOD, row)
    assert (error.line, error.column) == (3, column)
    assert found in error.found
    assert expected in error.expected
    for part in (str(error.path), "line 3", error.found, error.expected):
        assert part in str(error)


def test_rows_before_the_bad_one_are_given(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"{HEADER}\n{GOOD}\nS,1\n")
    ticks = read_csv(path)
    assert next(ticks).symbol == "BTCUSDT"
    with pytest.raises(BadTickFile):
        next(ticks)


def test_lines_are_counted_over_rows_that_span_several(tmp_path: Path) -> None:
    error = bad(tmp_path, '"A\nB",1,0,1,1,,,,,', "", '"C\nD",0,0,1,1,,,,,')
    assert (error.line, error.column) == (5, "exchange_ts_ns")


def test_another_header_is_refused(tmp_path: Path) -> None:
    error = bad(tmp_path, GOOD, header="symbol,price")
    assert error.line == 1
    assert error.found == "'symbol,price'"
    assert HEADER in error.expected


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ticks.csv").write_text("")
    with pytest.raises(BadTickFile, match="an empty file"):
        list(read_csv(tmp_path / "ticks.csv"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ticks.csv").write_bytes(f"{HEADER}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(BadTickFile, match="not UTF-8"):
        list(read_csv(tmp_path / "ticks.csv"))


@pytest.mark.parametrize("damage", [lambda packed: packed[:-12], lambda _: b"no gzip at all"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "ticks.csv.gz"
    path.write_bytes(damage(gzip.compress(f"{HEADER}\n{GOOD}\n".encode())))
    with pytest.raises(BadTickFile, match="damaged gzip data"):
        list(read_csv(path))


def test_a_missing_file_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_csv(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    "tick",
    [
        market_pb2.Tick(symbol="S", exchange_ts_ns=1),
        market_pb2.Tick(symbol="S", exchange_ts_ns=1, trade=market_pb2.Trade(price=math.nan, size=1)),
        market_pb2.Tick(symbol="S", exchange_ts_ns=1, trade=market_pb2.Trade(price=1, size=1, aggressor=9)),
        market_pb2.Tick(symbol="", exchange_ts_ns=1, trade=market_pb2.Trade(price=1, size=1)),
    ],
)
def test_a_tick_that_could_not_be_read_is_not_written(tmp_path: Path, tick: market_pb2.Tick) -> None:
    good = market_pb2.Tick(symbol="S", exchange_ts_ns=1, trade=market_pb2.Trade(price=1, size=1))
    with pytest.raises(BadTickFile, match="line 3"):
        write_csv(tmp_path / "ticks.csv", [good, tick])
    assert list(read_csv(tmp_path / "ticks.csv")) == [good]


def test_readers_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n")
    assert [tick.symbol for tick in read_ticks("csv", path)] == ["BTCUSDT"]
    assert "csv" in reader_names()


def test_an_unknown_reader_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownTickReader, match=r"no tick reader 'pcap'; there are: .*\bcsv\b"):
        read_ticks("pcap", tmp_path / "x")
