"""CSV in Databento's layout."""

import random
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tickgate_training.data.config import DatabentoData
from tickgate_training.data.loading import load, read
from tickgate_training.errors import CellInvalid, ColumnInvalid, DataError, SourceUnreadable, TickRejected

TRADES = (
    "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence,symbol\n"
)
PRETTY = TRADES + (
    "2023-09-29T12:00:00.527428009Z,2023-09-29T12:00:00.527194909Z,0,19,7051,T,N,0,16.950000000,5,130,206685,11853,GME\n"
    "2023-09-29T12:00:00.607430591Z,2023-09-29T12:00:00.604957350Z,0,19,7051,T,A,0,16.920000000,7,130,206685,11853,GME\n"
    "2023-09-29T12:00:00.707430591Z,2023-09-29T12:00:00.604957350Z,0,19,7051,T,B,0,16.930000000,1,130,206685,11854,GME\n"
)
PLAIN = TRADES + (
    "1695988800527428009,1695988800527194909,0,19,7051,T,N,0,16950000000,5,130,206685,11853,GME\n"
    "1695988800607430591,1695988800604957350,0,19,7051,T,A,0,16920000000,7,130,206685,11853,GME\n"
    "1695988800707430591,1695988800604957350,0,19,7051,T,B,0,16930000000,1,130,206685,11854,GME\n"
)
BOOK = "ts_event,action,side,price,size,sequence,bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,symbol\n"
NO_PRICE = str(2**63 - 1)
MBP1 = BOOK + (
    f"1695988800000000001,A,B,16900000000,5,1,16900000000,{NO_PRICE},5,0,ES\n"
    f"1695988800000000002,T,B,17000000000,1,2,16900000000,{NO_PRICE},5,0,ES\n"
    "1695988800000000003,A,A,17000000000,5,3,16900000000,17000000000,5,3,ES\n"
    f"1695988800000000004,C,N,{NO_PRICE},0,4,16900000000,17000000000,5,3,ES\n"
    "1695988800000000005,T,A,16900000000,2,5,16900000000,17000000000,5,3,ES\n"
)


def databento(folder: Path, text: str, **settings: object) -> DatabentoData:
    path = folder / "xnas.csv"
    path.write_text(text)
    return DatabentoData.model_validate({"paths": (path,), **settings})


def refused(config: DatabentoData, error: type[DataError], why: str) -> None:
    with pytest.raises(error, match=why) as caught:
        load(config)
    assert str(config.paths[0]) in str(caught.value)


@pytest.mark.parametrize("text", [PRETTY, PLAIN], ids=["pretty", "plain"])
def test_times_and_prices_are_the_same_pretty_or_plain(tmp_path: Path, text: str) -> None:
    assert load(databento(tmp_path, text)).drop("bid", "ask", "bid_size", "ask_size").rows() == [
        ("GME", 1695988800527194909, 0, 16.95, 5.0, 0),
        ("GME", 1695988800604957350, 0, 16.92, 7.0, -1),
        ("GME", 1695988800604957350, 0, 16.93, 1.0, 1),
    ]


def test_a_price_is_the_double_that_its_decimals_would_give(tmp_path: Path) -> None:
    units = [random.Random(5).randrange(1, 2**53) for _ in range(200)] + [16_900_000_000, 1, 10**9]
    rows = (f"{k},T,N,{u},1,S{k}\n" for k, u in enumerate(units, 1))  # a symbol each: these prices jump
    text = "ts_event,action,side,price,size,symbol\n" + "".join(rows)
    assert load(databento(tmp_path, text))["price"].to_list() == [float(Decimal(u).scaleb(-9)) for u in units]


def test_times_may_carry_another_offset(tmp_path: Path) -> None:
    text = PRETTY.replace("T12:00:00", " 08:00:00").replace("Z,", "-04:00,")
    assert load(databento(tmp_path, text))["exchange_ts_ns"][0] == 1695988800527194909


def test_of_the_book_only_trades_are_taken_with_the_quote_in_their_row(tmp_path: Path) -> None:
    frame = load(databento(tmp_path, MBP1))
    assert frame["exchange_ts_ns"].to_list() == [1695988800000000002, 1695988800000000005]
    assert frame.select(pl.col("bid", "ask", "bid_size", "ask_size").is_nan()).row(0) == (True,) * 4  # one side only
    assert frame.select("bid", "ask", "bid_size", "ask_size").row(1) == (16.9, 17.0, 5.0, 3.0)


def test_an_empty_price_is_no_price(tmp_path: Path) -> None:
    text = BOOK + "1695988800000000002,T,B,17.000000000,1,2,,17.000000000,0,3,ES\n"
    assert load(databento(tmp_path, text))["bid"].is_nan().all()
    refused(databento(tmp_path, text.replace(",B,17.000000000", ",B,")), TickRejected, "INVALID_VALUE")
    refused(databento(tmp_path, MBP1.replace("T,B,17000000000", f"T,B,{NO_PRICE}")), TickRejected, "row 1: found nan")


def test_message_numbers_are_sequences_only_where_that_is_said(tmp_path: Path) -> None:
    assert set(load(databento(tmp_path, PLAIN))["sequence"]) == {0}
    config = databento(tmp_path, PLAIN, venue_sequences=True)
    refused(config, TickRejected, r"symbol 'GME', column 'sequence', row 1: found 11853, .*DUPLICATE")
    left = read(config.model_copy(update={"rules": "drop"}))
    assert (left.frame["sequence"].to_list(), left.rejected) == ([11853, 11854], {("GME", "DUPLICATE"): 1})


def test_several_symbols_share_a_file(tmp_path: Path) -> None:
    text = PLAIN.replace("16920000000,7,130,206685,11853,GME", "16920000000,7,130,206685,11853,AMC")
    assert load(databento(tmp_path, text))["symbol"].to_list() == ["GME", "AMC", "GME"]


def test_a_file_without_symbols_takes_the_configured_one(tmp_path: Path) -> None:
    text = "\n".join(line.rpartition(",")[0] for line in PLAIN.splitlines())
    refused(databento(tmp_path, text), ColumnInvalid, "'symbol': found none")
    assert set(load(databento(tmp_path, text, symbol="GME"))["symbol"]) == {"GME"}


def test_a_quote_that_is_half_there_is_refused(tmp_path: Path) -> None:
    refused(databento(tmp_path, MBP1.replace(",ask_sz_00", ",x")), ColumnInvalid, "'ask_sz_00': found none")
    crossed = MBP1.replace("T,A,16900000000,2,5,16900000000", "T,A,16900000000,2,5,17100000000")
    refused(databento(tmp_path, crossed), TickRejected, r"column 'bid', row 4: found 17.1, .*CROSSED_QUOTE")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (",T,A,", ",X,A,", "column 'action', row 1: found 'X'"),
        (",T,A,", ",T,S,", "column 'side', row 1: found 'S', but a side is one of 'B', 'A', 'N'"),
        (",T,A,", ",T,,", "column 'side', row 1: found an empty cell"),
        ("16920000000", "16.92", "row 0: found '16950000000', but prices are decimals with a point"),
        ("16920000000", "1e3", "row 1: found '1e3', but a price is a whole number of 1e-9"),
        (",7,130", ",many,130", "column 'size', row 1: found 'many'"),
        ("604957350,0,19,7051,T,A", "18446744073709551615,0,19,7051,T,A", "column 'ts_event', row 1"),
        (",1695988800604957350,0,19,7051,T,A", ",2023-09-29T12:00:00,0,19,7051,T,A", "column 'ts_event', row 0"),
        ("GME\n1695988800707", "\n1695988800707", "column 'symbol', row 1: found an empty cell"),
    ],
)
def test_a_cell_that_is_not_what_its_column_holds_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert old in PLAIN
    refused(databento(tmp_path, PLAIN.replace(old, new, 1)), CellInvalid, why)


def test_a_file_without_a_trade_says_so(tmp_path: Path) -> None:
    refused(databento(tmp_path, PLAIN.replace(",T,", ",A,")), SourceUnreadable, "has no trade")
